"""Answers that flip from before to after, and how many of them guessing explains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from forgetlab.errors import ForgetlabError
from forgetlab.metrics.arrays import Numbers, as_array
from forgetlab.metrics.evidence import Array, Averaged
from forgetlab.metrics.uncertainty import NORMAL


class Interval(NamedTuple):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Flips:
    """Answers to the same questions before and after, and what is left of the flips when guessing is subtracted.

    both, lost, gained, neither: items right before and after, 1 → 0, 0 → 1, wrong both times.
    lost_by_guessing, gained_by_guessing: how many of them guessing alone is expected to flip, at most.
    net_lost, net_gained: shares of all items that were known and are not, and the reverse.
    knew, knows: shares of the items known before and after, (p − g) / (1 − g).
    """

    both: int
    lost: int
    gained: int
    neither: int
    lost_by_guessing: float
    gained_by_guessing: float
    net_lost: Interval
    net_gained: Interval
    knew: float
    knows: float


def flips(before: Numbers, after: Numbers, guess: Numbers | float | None = None) -> Flips:
    """How many answers turned wrong and right, and how many of them guessing does not explain.

    before, after: (n,) 1 for a right answer, 0 for a wrong one (or nan, of a model that diverged), on the same items.
    guess: how probable a right guess is, for all items or each; None: nobody guesses right. Raises ForgetlabError for
    other values.

    Assumed: an item is known (answered right) or guessed right with probability g, before and after independently.
    With U the share unknown both times and L the share lost, P(0→0) = U (1 − g)² and P(1→0) = L (1 − g) + U g (1 − g),
    so that guessing flips P(0→0) · g / (1 − g), and L = P(1→0) / (1 − g) − P(0→0) · g / (1 − g)²: without bias, item by
    item, however knowledge before and after go together. Flips with guessing subtracted: Harmon et al. 2025
    (arXiv 2510.17776), from the two accuracies and the number of options. These give the product of the two shares of
    wrong answers in the place of P(0→0), which is too small where hard items stay hard. A model that repeats its
    guesses flips fewer than this: then L is too small, never too large.
    Intervals: `evidence.Averaged` of the items' terms. Estimate and ends are not cut at 0, below which no true share
    lies: so a mean over test sets is without bias, and fewer flips than guessing explains are seen to be so. nan where
    a guess is always right.

    >>> found = flips([1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 1, 0, 0, 0], guess=0.25)
    >>> found.lost, found.gained, found.lost_by_guessing, round(found.net_lost.value, 3)
    (2, 1, 1.0, 0.167)
    """
    old, new = _answers(before, after)
    g = np.broadcast_to(as_array(0.0 if guess is None else guess, "guess"), old.shape)
    if not ((g >= 0) & (g <= 1)).all():
        raise ForgetlabError(f"guess lies between {g.min():g} and {g.max():g}; expected probabilities from 0 to 1")
    lost, gained, neither = old * (1 - new), new * (1 - old), (1 - old) * (1 - new)
    with np.errstate(divide="ignore", invalid="ignore"):
        by_guessing = float(np.nansum(neither * g / (1 - g)))
        known = [float(((right - g) / (1 - g)).mean()) for right in (old, new)]
    return Flips(
        both=int((old * new).sum()),
        lost=int(lost.sum()),
        gained=int(gained.sum()),
        neither=int(neither.sum()),
        lost_by_guessing=min(float(lost.sum()), by_guessing),
        gained_by_guessing=min(float(gained.sum()), by_guessing),
        net_lost=Interval(*(float(end) for end in net(lost, neither, g))),
        net_gained=Interval(*(float(end) for end in net(gained, neither, g))),
        knew=known[0],
        knows=known[1],
    )


def net(flipped: Array, neither: Array, guess: Array) -> tuple[Any, Any, Any]:
    """The share that guessing does not explain and its ends, of (..., n) flips one way and items wrong both times."""
    with np.errstate(divide="ignore", invalid="ignore"):
        gone, guessed = 1 / (1 - guess), guess / np.square(1 - guess)
        items = flipped * gone - neither * guessed
        value = items.mean(-1)
        unseen = gone.mean(-1), guessed.mean(-1)
        test = Averaged(value, items - value[..., None], max(items.shape[-1] - 1.0, 1.0), *unseen)
        return value, test.end(NORMAL), test.end(-NORMAL)


def _answers(before: Numbers, after: Numbers) -> tuple[Array, Array]:
    old, new = (np.nan_to_num(as_array(part, name, 1)) for part, name in ((before, "before"), (after, "after")))
    if old.shape != new.shape or not len(old):
        raise ForgetlabError(f"{len(old)} answers before, {len(new)} after; expected the same items, at least one")
    if not np.isin(np.stack([old, new]), (0, 1)).all():
        raise ForgetlabError("answers hold other values than 0 and 1; expected 1 for a right one, 0 for a wrong one")
    return old, new
