"""What is kept of an old skill and learned of a new one, as shares, and which runs no other one beats.

Shares are taken in points of a score, or, on the scale "ratio" (perplexities), in nats: ln s in the place of s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from forgetlab.errors import one_of

__all__ = ["best", "higher_is_better", "kept", "learned", "pareto", "scale", "share"]

Scale = Literal["points", "ratio"]
Facts = Mapping[str, Any]  # of a task: its metric will do, and what else `schema.TaskFacts` has

SCALES = ("points", "ratio")
# Of records that name a metric and say no more of it; a task says it itself (`scale`, `higher_is_better`).
PERPLEXITIES = ("perplexity", "word_perplexity", "byte_perplexity")
LOWER_IS_BETTER = (*PERPLEXITIES, "bits_per_byte", "brier_score", "ter")


def kept(
    before: float,
    after: float,
    guess: float | None = None,
    *,
    scale: str = "points",
    higher_is_better: bool = True,
    error: float = 0.0,
) -> float | None:
    """Share of what was known above a guesser that is still there: (after − guess) / (before − guess) in [0, 1].

    before, after: scores. guess: that of one who knows only the frequencies. scale: "points", or "ratio", which takes
    ln of all three. error: half the 95 % interval of `before`, in points or nats. Returns None where there is nothing
    to lose: `before` lies within its error of the guesser, or below it; 0 for an `after` that is not finite.
    Where no guesser is known (None), the plain ratio: after / before, or before / after where lower is better.
    Source: kappa's (observed − chance) / (1 − chance), Cohen 1960, with `before` in the place of 1.

    >>> kept(1.0, 0.75, 0.5), kept(1.0, 0.5, 0.5), kept(0.52, 0.5, 0.5, error=0.04)
    (0.5, 0.0, None)
    >>> round(kept(2.0, 8.0, 32.0, scale="ratio", higher_is_better=False), 3)  # ln (32 / 8) / ln (32 / 2)
    0.5
    """
    if guess is None:
        if not (math.isfinite(before) and before > 0):
            return None
        return share(0.0, after, before) if higher_is_better else share(0.0, before, after)
    known = float(on(scale, before) - on(scale, guess))
    if not (known if higher_is_better else -known) > error:  # so for nan
        return None
    return share(guess, after, before, scale)


def learned(before: float, after: float, best: float = 1.0, *, scale: str = "points") -> float:
    """Share of what there was to learn: (after − before) / (best − before) in [0, 1]; 0 where nothing was left.

    before, after: scores of the new task. best: the best that can be reached, 1 for a score up to 1, the floor of a
    perplexity (1 where it is not known). scale: "points", or "ratio" for shares in nats. 0 for `after` nan or inf.

    >>> learned(0.5, 0.9), learned(16.0, 4.0, scale="ratio")
    (0.8, 0.5)
    """
    return share(before, after, best, scale)


def share(start: Any, reached: Any, end: Any, scale: str = "points") -> Any:
    """How far `reached` is on the way from start to end: (reached − start) / (end − start), clipped to [0, 1].

    Numbers or arrays. 0 where there is no way, and for what is not finite.
    """
    s, r, e = (on(scale, value) for value in (start, reached, end))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.clip(np.where(np.isfinite(r), (r - s) / (e - s), 0.0), 0.0, 1.0)
    found = np.where(np.isfinite(found), found, 0.0)
    return float(found) if found.ndim == 0 else found


def on(scale: str, value: Any) -> Any:
    """A score on its scale: itself in points, its logarithm in nats."""
    one_of("scale", scale, SCALES)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(value) if scale == "ratio" else np.asarray(value, dtype=float)


def worse(task: Facts, reference: float, score: float) -> float:
    """How much worse a score is than another, on its scale: in points or nats; below 0 where it is better."""
    gain = float(on(scale(task), score) - on(scale(task), reference))
    return -gain if higher_is_better(task) else gain


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """The numbers of the points that no other one beats (higher is better in both), from left to right.

    One point beats another where it is better in one thing and not worse in the other: equal ones do not.

    >>> pareto([(0.5, 0.5), (0.2, 0.9), (0.4, 0.4)])
    [1, 0]
    """
    best, front = -math.inf, list[int]()
    for i in sorted(range(len(points)), key=lambda i: (-points[i][0], -points[i][1], -i)):
        if points[i][1] > best or (front and points[i] == points[front[-1]]):
            best = points[i][1]
            front.append(i)
    return front[::-1]


def scale(task: Facts) -> str:
    """As the task says, or by its metric's name: "ratio" for a perplexity, whose changes are factors, else "points"."""
    return str(task.get("scale") or ("ratio" if _metric(task) in PERPLEXITIES else "points"))


def higher_is_better(task: Facts) -> bool:
    """Whether more of the task's metric is better: as the task says, or by its metric's name."""
    return bool(task.get("higher_is_better", _metric(task) not in LOWER_IS_BETTER))


def best(task: Facts) -> float:
    """The best score that can be reached: 1, of a perplexity its floor (1 where it is not known), 0 of other losses."""
    if scale(task) == "ratio":
        return task.get("floor") or 1.0
    return 1.0 if higher_is_better(task) else 0.0


def _metric(task: Facts) -> str:
    return str(task["metric"]).partition(",")[0]
