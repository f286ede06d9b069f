"""How sure a score is: its test items resampled, before and after in pairs, and seeds beside them.

A tally is a row of counts for each test item; the score of a test set is a function of the sums of its rows:
accuracy = right / one, perplexity = exp(nll / tokens), F1 = 2 · hits / (predicted + gold).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forgetlab.errors import ForgetlabError
from forgetlab.metrics.arrays import Numbers, as_array

Score = Callable[[Tensor], Tensor]  # (..., K) sums → (...) scores

DRAWS = 1000
AT_ONCE = 2**22  # weights of items that are held at once
NORMAL = 1.959964  # 97.5 % of a normal distribution lies below
# the same of Student's t with 1, 2, … degrees of freedom
STUDENT = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)


def resampled(items: Numbers, draws: int = DRAWS, seed: int = 0) -> Tensor:
    """Sums over test sets drawn from the items with replacement (bootstrap; Efron 1979).

    items: (..., N, K), N test items; all leading ones are resampled alike, so that what is scored on the same items
    stays in pairs. Returns (..., draws, K) float64. Raises ForgetlabError for no items.

    >>> resampled([[1.0, 1.0]] * 5, draws=2).tolist()
    [[5.0, 5.0], [5.0, 5.0]]
    """
    rows = _rows(items)
    n, random = rows.shape[-2], np.random.default_rng(seed)
    sums = []
    for start in range(0, draws, step := max(1, AT_ONCE // n)):
        weights = random.multinomial(n, np.full(n, 1 / n), size=min(step, draws - start))  # how often each is drawn
        sums.append(torch.from_numpy(weights).double() @ rows)
    return torch.cat(sums, dim=-2)


def interval(items: Numbers, score: Score) -> tuple[float, float]:
    """The 95 % interval of a score for the choice of its test items: percentiles of the bootstrap.

    items: (N, K) tally. score: of its sums. The percentiles are set for t and n − 1, without which the interval is
    too narrow on few items (Hesterberg 2015, section 5.3). For right and wrong answers use `wilson`.

    >>> low, high = interval([[n, 1.0] for n in (1.0, 2.0, 3.0)] * 50, lambda sums: sums[..., 0] / sums[..., 1])
    >>> round(low, 2), round(high, 2)
    (1.87, 2.14)
    """
    found, n = score(resampled(items)), _rows(items).shape[-2]
    tail = statistics.NormalDist().cdf(-student(n - 1) * math.sqrt(n / (n - 1))) if n > 1 else 0.0
    low, high = np.quantile(found.numpy(), (tail, 1 - tail))
    return float(low), float(high)


def standard_error(items: Numbers, score: Score) -> float:
    """The standard error of a score for the choice of its test items: √Σ_i (∇s(Σ x) · (x_i − x̄))².

    items: (N, K) tally x. The infinitesimal jackknife (Jaeckel 1972): about the bootstrap's deviation, without draws.

    >>> round(standard_error([[1.0, 1.0]] * 80 + [[0.0, 1.0]] * 20, lambda sums: sums[..., 0] / sums[..., 1]), 3)
    0.04
    """
    rows = _rows(items)
    sums = rows.sum(0).requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(score(sums), sums)
    return float(((rows - rows.mean(0)) @ slope).square().sum().sqrt())


def wilson(right: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a share of right answers, which has a width at 0 and 1 too. Source: Wilson 1927.

    >>> tuple(round(end, 3) for end in wilson(50, 50))
    (0.929, 1.0)
    """
    low, high = share_ends(np.asarray(right / n), n)
    return float(low), float(high)


def share_ends(p: NDArray[np.float64], n: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`wilson` of many shares p of n items each."""
    z2 = NORMAL**2
    centre, half = p + z2 / (2 * n), NORMAL * np.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return (centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)


def mcnemar(before: Numbers, after: Numbers) -> float:
    """Exact p-value that as many answers turned wrong as right by chance alone (McNemar 1947, two-sided binomial).

    before, after: (n,) 1 for a right answer, 0 for a wrong one, on the same items. 1 where no answer changed.

    >>> mcnemar([1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0])
    0.03125
    """
    old, new = as_array(before, "before", 1), as_array(after, "after", 1)
    if old.shape != new.shape:
        raise ForgetlabError(f"{len(old)} answers before, {len(new)} after; expected the same items")
    lost, won = int(((old == 1) & (new == 0)).sum()), int(((old == 0) & (new == 1)).sum())
    flips = lost + won
    tail = sum(math.comb(flips, k) for k in range(min(lost, won) + 1))
    return min(1.0, 2 * tail / 2**flips)


@dataclass(frozen=True)
class Difference:
    """A mean difference with its 95 % interval, and in a word what that says."""

    mean: float
    low: float
    high: float

    @property
    def word(self) -> str:
        """helps, harms, or "cannot be told" where the interval holds 0."""
        return "helps" if self.low > 0 else "harms" if self.high < 0 else "cannot be told"


def difference(over_seeds: Sequence[float], item_error: float = 0.0) -> Difference:
    """The mean of paired differences with the interval that both the seeds and the test items leave.

    over_seeds: one for each seed, on the same items. item_error: the standard error of their mean that comes from
    the choice of the items. Half the width is √((t · s / √S)² + (1.96 · item_error)²), with Student's t at S − 1
    degrees of freedom. With one seed it is that of the items alone; where these are unknown too, it is endless.

    >>> difference([0.049, 0.070, 0.056]).word
    'helps'
    """
    mean, n = statistics.fmean(over_seeds), len(over_seeds)
    seeds = student(n - 1) * statistics.stdev(over_seeds) / math.sqrt(n) if n > 1 else 0.0
    half = math.hypot(seeds, NORMAL * item_error)
    if n == 1 and not item_error:
        half = math.inf
    return Difference(mean, mean - half, mean + half)


def student(freedom: int) -> float:
    """97.5 % of Student's t lies below this. freedom: degrees of freedom, 1 or more; to 0.003."""
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    z = NORMAL  # Cornish–Fisher: Abramowitz & Stegun 26.7.5
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def _rows(items: Numbers) -> Tensor:
    rows = as_array(items, "items")
    if rows.ndim < 2 or not rows.shape[-2]:
        raise ForgetlabError(f"items have shape {rows.shape}; expected (..., N, K) with one test item or more")
    return torch.from_numpy(rows)
