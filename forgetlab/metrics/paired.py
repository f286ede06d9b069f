"""One model before and after, on the same test items: what was lost, how sure that is, and what it allows to say.

loss: how much worse a score is, in points, or on the scale "ratio" (perplexities) in nats, ln after / before: 0.1 is a
factor of 1.1. Above 0 is worse, whichever way the score itself points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from forgetlab.errors import ForgetlabError
from forgetlab.metrics.arrays import Numbers, as_array
from forgetlab.metrics.evidence import Z95, Array, Averaged, Flipped, normal
from forgetlab.metrics.guessing import Flips, Interval, flips
from forgetlab.metrics.retention import on
from forgetlab.metrics.tally import score_of_sums
from forgetlab.metrics.uncertainty import NORMAL

__all__ = ["Change", "Flips", "Interval", "Verdict", "change", "flips", "gate", "holm", "verdict"]

Verdict = Literal["fine", "lost", "not enough evidence"]
Score = Callable[[Tensor], Tensor]  # (..., K) sums → (...) scores

LEVEL = 0.05
# What one item more or less is worth to a score of which it is one in n, times n
WORTH = {"accuracy": 1.0, "f1": 1.0, "matthews": 2.0}


@dataclass(frozen=True)
class Change:
    """A score before and after on the same items.

    loss: how much worse. low, high: its two-sided 95 % interval. smallest: the smallest true loss that this test
    would have called lost (allowed 0, one-sided 5 %) in four of five repetitions; inf where none could be.
    test: the test of a supposed loss that they come from.
    """

    before: float
    after: float
    loss: float
    low: float
    high: float
    smallest: float
    test: Flipped | Averaged

    def p_lost(self, allowed: float = 0.0) -> float:
        """One-sided p-value of a true loss of `allowed` or less: small where more was lost."""
        return float(normal(-self.test.z(allowed)))

    def p_fine(self, allowed: float) -> float:
        """One-sided p-value of a true loss above `allowed`: small where less was lost."""
        return float(normal(self.test.z(allowed)))


def change(
    before: Numbers,
    after: Numbers,
    metric: str | Score,
    *,
    scale: str = "points",
    higher_is_better: bool = True,
) -> Change:
    """How much worse a score is on the same items, with an interval, and the smallest loss they could have shown.

    before, after: (N, K) tallies of the same N items. metric: a name of `metrics.tally.OF_SUMS`, or a function of
    (..., K) sums. scale: "points", or "ratio" for a loss in nats. Raises ForgetlabError for no items or other shapes.

    Right and wrong answers: `evidence.Flipped`, a score interval of paired shares. All else: `evidence.Averaged`, the
    items' jackknife with Student's t and a correction for skewness; perplexities by passage, weighted by tokens, with
    fewer degrees of freedom the less even these are. Scores with a largest value get two items more, one lost and one
    gained (as Bonett & Price 2012 do for paired shares), so that an interval has a width where nothing changed.
    One passage: an interval without end. A score that is not finite after: an endless loss.

    >>> found = change([[1, 1]] * 20, [[0, 1]] * 7 + [[1, 1]] * 13, "accuracy")
    >>> found.loss, round(found.low, 2), round(found.high, 2), round(found.smallest, 2)
    (0.35, 0.12, 0.58, 0.2)
    """
    old, new = (torch.from_numpy(as_array(items, "items", 2)) for items in (before, after))
    if old.shape != new.shape or not len(old):
        raise ForgetlabError(
            f"tallies have shapes {tuple(old.shape)} before and {tuple(new.shape)} after; "
            "expected the same items, at least one"
        )
    score: Score = metric if callable(metric) else lambda sums: score_of_sums(metric, sums)
    first, last = (float(score(items.sum(0))) for items in (old, new))
    sign = -1.0 if higher_is_better else 1.0
    loss = sign * float(on(scale, last) - on(scale, first)) + 0.0  # never −0
    if not math.isfinite(loss):
        test: Flipped | Averaged = Averaged(math.inf, 0.0, 1.0, 0.0)
        return Change(first, last, math.inf, math.inf, math.inf, math.inf, test)
    if metric in ("accuracy", "reward") and (flipped := _flipped(old, new, sign)):
        test = flipped
    else:
        name = metric if isinstance(metric, str) else ""
        many = averaged(old, new, score, scale, sign, _worth(old, new, name))
        test = Averaged(*(float(part) for part in astuple(many)))
    return Change(first, last, loss, float(test.end(NORMAL)), float(test.end(-NORMAL)), test.smallest(), test)


def averaged(before: Tensor, after: Tensor, score: Score, scale: str, sign: float, worth: float) -> Averaged:
    """The test of a loss from (..., N, K) tallies, by leaving out one item after the other.

    worth: what one item more or less is worth, for the two items that are added; 0: none are.
    """
    n = before.shape[-2]
    sums = [items.sum(-2, keepdim=True) for items in (before, after)]

    def loss(old: Tensor, new: Tensor) -> Array:
        return sign * np.asarray(on(scale, score(new).numpy()) - on(scale, score(old).numpy()))

    whole = loss(*sums)
    if n == 1:
        return Averaged(whole[..., 0], np.full(whole.shape[:-1], np.inf), 1.0, 0.0, worth or math.inf)
    left = loss(sums[0] - before, sums[1] - after)
    shares = n * whole - (n - 1) * left  # jackknife: of each item, which is one in n
    freedom = np.asarray(n - 1.0)
    if before.shape[-1] == 2:  # Σ a / Σ w: passages of unequal weight are fewer than they are
        w2 = np.square(before[..., 1].numpy())
        freedom = np.maximum(np.square(w2.sum(-1)) / np.square(w2).sum(-1) - 1, 1.0)
    moved = shares - shares.mean(-1, keepdims=True)
    squares, cubes = np.square(moved).sum(-1), (moved**3).sum(-1)
    if worth:
        value = n / (n + 2) * whole[..., 0]
        squares = squares + 2 * worth**2 + n * np.square(whole[..., 0] - value) + 2 * np.square(value)
        error, freedom = np.sqrt(squares) / (n + 2), freedom + 2
    else:
        value, error = whole[..., 0], np.sqrt(squares / (n * (n - 1)))
    skew = cubes / np.where(squares > 0, squares, 1.0) ** 1.5
    return Averaged(value, error, freedom, skew, worth or math.inf)


def verdict(found: Change, allowed: float) -> Verdict:
    """Whether more was lost than is allowed, by one task's items.

    allowed: the largest loss that is fine, in points or, on the scale "ratio", nats (1.1 times: ln 1.1).
    lost: the one-sided 95 % lower end of the loss lies above it; fine: the upper end does not. Of a task that loses
    just what is allowed, about 5 % of test sets say either.

    >>> same = [[1, 1]] * 200
    >>> verdict(change(same, same, "accuracy"), 0.02), verdict(change(same[:50], same[:50], "accuracy"), 0.02)
    ('fine', 'not enough evidence')
    """
    z = found.test.z(allowed)
    return "lost" if z > Z95 else "fine" if z <= -Z95 else "not enough evidence"


def gate(found: Sequence[Change], allowed: Sequence[float]) -> Verdict:
    """The verdict on several tasks at once.

    lost: at least one has lost more than is allowed, by Holm at 5 % over all of them; fine: each task is fine alone.
    So false alarms, "lost" where no task lost more than allowed, and misses, "fine" where one did, are about 5 % or
    fewer for the whole gate, however many tasks there are and however they go together. No tasks: fine.
    Source: Holm 1979; fine is an intersection–union test (Berger 1982), which needs no correction.

    >>> same = change([[1, 1]] * 200, [[1, 1]] * 200, "accuracy")
    >>> worse = change([[1, 1]] * 200, [[0, 1]] * 20 + [[1, 1]] * 180, "accuracy")
    >>> gate([same, same], [0.02, 0.02]), gate([same, worse], [0.02, 0.02])
    ('fine', 'lost')
    """
    pairs = list(zip(found, allowed, strict=True))
    if any(p < LEVEL for p in holm([one.p_lost(limit) for one, limit in pairs])):
        return "lost"
    return "fine" if all(verdict(one, limit) == "fine" for one, limit in pairs) else "not enough evidence"


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number: below 5 %, and no more than one set in twenty has a false one among them.

    Source: Holm 1979: the i-th smallest of m times m − i + 1, and no smaller than those before it.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order, largest, found = sorted(range(len(p_values)), key=lambda i: p_values[i]), 0.0, [0.0] * len(p_values)
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        found[i] = largest
    return found


def _flipped(before: Tensor, after: Tensor, sign: float) -> Flipped | None:
    """Of items that are right or wrong; None for all others."""
    both = torch.stack([before, after])
    if both.shape[-1] != 2 or not (both[..., 1] == 1).all() or not ((both[..., 0] == 0) | (both[..., 0] == 1)).all():
        return None
    moved = sign * (after[:, 0] - before[:, 0])
    return Flipped(int((moved > 0).sum()), int((moved < 0).sum()), len(before))


def _worth(before: Tensor, after: Tensor, metric: str) -> float:
    if metric == "reward":  # of no known range: the one that was seen
        both = torch.stack([before, after])[..., 0]
        return float(both.max() - both.min())
    return WORTH.get(metric, 0.0)
