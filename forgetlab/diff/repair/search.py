"""Which point between two models loses least of the old within a budget of the new score: from their looks alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from forgetlab.diff.repair.found import ROUNDING, Look, budget, in_words
from forgetlab.metrics.retention import scale, worse
from forgetlab.metrics.schema import TaskFacts
from forgetlab.plots.style import number as written

STEP = 0.2  # of the way of one layer


def look(
    alpha: float,
    layers: dict[str, float],
    facts: Sequence[TaskFacts],
    known: Sequence[float | None],
    scores: Sequence[float],
    before: Sequence[float],
    after: Sequence[float],
) -> Look:
    """A point from its scores and those of the two ends, the new task's first."""
    losses = [worse(fact, start, score) for fact, start, score in zip(facts, before, scores, strict=True)]
    lost = [loss / one for loss, one in zip(losses[1:], known[1:], strict=True) if one is not None]
    return {
        "alpha": alpha,
        "layers": layers,
        "new": worse(facts[0], after[0], scores[0]),
        "old": statistics.fmean(lost) if lost else 0.0,  # mean of (before − score) / (before − guess)
        "scores": {fact["name"]: score for fact, score in zip(facts, scores, strict=True)},
    }


def hopeless(looks: Sequence[Look], within: float, new: TaskFacts) -> str:
    """Why there is nothing to repair, in words; "" where there is. looks: by α, from BEFORE to AFTER."""
    first, last, name = looks[0], looks[-1], new["name"]
    if not (math.isfinite(last["new"]) and math.isfinite(last["old"])):
        told = ", ".join(f"{task} {score:g}" for task, score in last["scores"].items())
        return f"AFTER's scores are no finite numbers: {told}"
    if first["new"] <= within + ROUNDING:
        was, now = (written(one["scores"][name], scale(new)) for one in (first, last))
        return (
            f"on {name} BEFORE, with AFTER's head, is within {budget(within, new)} of AFTER ({was} and {now}): nothing "
            "of this fine-tune is worth its price, or a smaller budget is needed"
        )
    return "AFTER has lost nothing of the old on these texts" if last["old"] <= 0 else ""


def best_of(looks: Sequence[Look], within: float) -> Look:
    """What loses least of the old within the budget; of equal ones the better new score counts, then the smaller α.

    >>> looks = [{"alpha": a, "layers": {}, "old": a, "new": 0.4 * (1 - a), "scores": {}} for a in (0.0, 0.9, 1.0)]
    >>> best_of(looks, within=0.05)["alpha"]
    0.9
    """
    fit = [one for one in looks if one["new"] <= within + ROUNDING and math.isfinite(one["old"])]
    return min(fit, key=lambda one: (one["old"], one["new"], one["alpha"]))


def layer_by_layer(
    at: Callable[[float, dict[str, float]], Look], start: Look, layers: Sequence[str], within: float
) -> list[Look]:
    """Looks at a fifth less and more of the way of each layer in turn, from the best so far (coordinate search)."""
    tried, best = list[Look](), start
    for layer in layers:
        for step in (-STEP, STEP):
            here = best["layers"].get(layer, best["alpha"])
            if (share := min(1.0, max(0.0, here + step))) == here:
                continue
            tried.append(at(best["alpha"], {**best["layers"], layer: share}))
            if best_of([best, tried[-1]], within) is tried[-1]:
                best = tried[-1]
                break
    return tried


def too_dear(looks: Sequence[Look], within: float, new: TaskFacts) -> str:
    """That no look below AFTER is within the budget, and with which one the cheapest would be."""
    last = next(one for one in looks if one["alpha"] == 1 and not one["layers"])
    less = [one for one in looks if one["old"] < last["old"] and one["alpha"] > 0]
    reason = f"no α below 1 that loses less of the old keeps {new['name']} within {budget(within, new)} of AFTER"
    if cheapest := min(less, key=lambda one: one["new"], default=None):
        reason += f"; {in_words(cheapest)} would with a budget of {budget(cheapest['new'], new)}"
    return reason
