"""One model before and after, on the same test items: what was lost, how sure that is, and what it allows to say.

loss: how much worse a score is, in points, or on the scale "ratio" (perplexities) in nats, ln after / before: 0.1 is a
factor of 1.1. Above 0 is worse, whichever way the score itself points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from forgetlab.errors import ForgetlabError
from forgetlab.metrics.arrays import Numbers, as_array
from forgetlab.metrics.evidence import SMALL, Z95, Array, Averaged, Flipped, normal
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
    groups: Numbers | None = None,
) -> Change:
    """How much worse a score is on the same items, with an interval, and the smallest loss they could have shown.

    before, after: (N, K) tallies of the same N items. metric: a name of `metrics.tally.OF_SUMS`, or a function of
    (..., K) sums. scale: "points", or "ratio" for a loss in nats. groups: (N,) whole numbers; items of one group, as
    several answers to one prompt, count as one. Raises ForgetlabError for no items or other shapes.

    Right and wrong answers: `evidence.Flipped`, a score interval of paired shares. All else: `evidence.Averaged`, a
    score interval by the items' jackknife, and Student's; perplexities by passage, weighted by tokens, with fewer
    degrees of freedom the less even these are. Of scores with a largest value items count that may be lost and were
    not seen, so that an interval has a width where nothing changed.
    One passage: an interval without end. A score that is not finite after: an endless loss; before: an unknown one.

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
    if groups is not None:
        old, new = (_summed(items, as_array(groups, "groups", 1)) for items in (old, new))
    if old.shape[1] == 2 and bool((own := old[:, 1] > 0).any()):
        old, new = old[own], new[own]  # a text without a scored token says nothing
    score: Score = metric if callable(metric) else lambda sums: score_of_sums(metric, sums)
    first, last = (float(score(items.sum(0))) for items in (old, new))
    sign = -1.0 if higher_is_better else 1.0
    loss = sign * float(on(scale, last) - on(scale, first)) + 0.0  # never −0
    test: Flipped | Averaged
    if not math.isfinite(float(on(scale, first))):
        return Change(first, last, math.nan, -math.inf, math.inf, math.inf, Averaged(0.0, np.zeros(1), 1.0))
    if not math.isfinite(loss):
        return Change(first, last, math.inf, math.inf, math.inf, math.inf, Averaged(math.inf, np.zeros(2), 1.0))
    if metric in ("accuracy", "reward") and (flipped := _flipped(old, new, sign)):
        test, smallest = flipped, flipped.smallest()
    else:
        name = metric if isinstance(metric, str) else ""
        test = shared(old, new, score, scale, sign, _worth(old, new, name))
        smallest = test.smallest()
    return Change(first, last, loss, float(test.end(NORMAL)), float(test.end(-NORMAL)), smallest, test)


def shared(
    before: Tensor, after: Tensor, score: Score, scale: str = "points", sign: float = -1.0, worth: float = 0.0
) -> Averaged:
    """The loss of (..., N, K) tallies, shared out among their items by leaving out one after the other.

    sign: 1 where a lower score is better. worth: what one item more or less is worth, where nothing changed; 0: of a
    score without a largest value.
    Items of unequal weight w, h = w / Σw: leaving a heavy one out says too much by 1 / (1 − h), where 1 / √(1 − h)
    gives the variance without bias (HC2 and HC3: MacKinnon & White 1985); they count as 1 / Σh² (Kish 1965).
    """
    n = before.shape[-2]
    sums = [items.sum(-2, keepdim=True) for items in (before, after)]

    def loss(old: Tensor, new: Tensor) -> Array:
        return sign * np.asarray(on(scale, score(new).numpy()) - on(scale, score(old).numpy()))

    whole = loss(*sums)
    of = (n - 1) * (whole - loss(sums[0] - before, sums[1] - after)) if n > 1 else np.zeros_like(whole)
    weights = before[..., 1].numpy() if before.shape[-1] == 2 else np.ones(of.shape)
    h = weights / weights.sum(-1, keepdims=True)
    of = of * np.sqrt((1 - h) * n / max(n - 1, 1))
    of = of - of.mean(-1, keepdims=True)
    freedom = np.maximum(1 / np.square(h).sum(-1) - 1, 1.0)
    if not worth:
        return Averaged(whole[..., 0], of, freedom)
    sizes = np.abs(whole + of)
    total = sizes.sum(-1)
    unseen = np.where(total > 0, np.square(sizes).sum(-1) / np.maximum(total, SMALL), worth)
    return Averaged(whole[..., 0], of, freedom, unseen, unseen, worth)


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
    fewer for the whole gate, however many tasks there are and however they go together. Measured at the boundary: false
    alarms 2 to 6 %, misses 3 to 6 %; of perplexities of 50 passages of which a few lose very much, misses up to 10 %
    (docs/diff-statistics.md). No tasks: fine.
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


def _summed(items: Tensor, groups: Array) -> Tensor:
    if len(groups) != len(items):
        raise ForgetlabError(f"{len(groups)} groups of {len(items)} items; expected one for each item")
    own = torch.from_numpy(np.unique(groups, return_inverse=True)[1])
    return items.new_zeros(int(own.max()) + 1, items.shape[1]).index_add_(0, own, items)


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
