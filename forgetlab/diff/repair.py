"""A fine-tune in part undone: θ = θ_before + α (θ_after − θ_before), the α chosen within a budget of the new score.

Other ways between the two models (weights by Fisher information, an α for each layer, only the largest changes, changes
dropped at random) were held against plain α and are not offered: benchmarks/repairs.py has them and their numbers.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from forgetlab.diff.repair_found import ROUNDING, Look, RepairFound, Unseen, budget, worse
from forgetlab.diff.repair_saved import save_repaired
from forgetlab.diff.repair_shown import repair_html, repair_lines
from forgetlab.errors import ForgetlabError, listed, number, whole
from forgetlab.experiments.saving import hashes
from forgetlab.metrics.paired import change
from forgetlab.metrics.retention import higher_is_better, scale
from forgetlab.metrics.schema import TaskFacts
from forgetlab.metrics.tally import OF_SUMS, Tally
from forgetlab.metrics.uncertainty import NORMAL, standard_error
from forgetlab.models.model import Model
from forgetlab.plots.style import number as written
from forgetlab.remedies.interpolation import mixed
from forgetlab.tasks import Task
from forgetlab.tasks.base import facts_of

__all__ = ["RepairFound", "repair", "repair_html", "repair_lines", "save_repaired"]

ALPHAS = tuple(i / 10 for i in range(11))
FEW = 100  # test texts of each task that α is chosen on


class Between(Protocol):
    """What is asked of a `diff.pair.Pair`."""

    model: Model

    def between(self, after: str, share: Callable[[str, Tensor, Tensor], Tensor]) -> Model: ...


def repair(
    pair: Between,
    after: str,
    old: Sequence[Task],
    new: Task | None,
    within: float = 0.01,
    *,
    alphas: Sequence[float] = ALPHAS,
    few: int = FEW,
    limit: int | None = None,
) -> RepairFound:
    """The α in θ_before + α (θ_after − θ_before) that loses least of the old within a budget of the new score.

    pair, after: the models, and which AFTER. old, new: tasks; a head that only AFTER has is AFTER's at every α.
    within: how much of AFTER's new score may go, in points, or nats of a perplexity (ln 1.02: 2 % more).
    alphas: what is tried besides 0 and 1. few: test texts of each task that the choice is made on, half of those scored
    at most. limit: test texts that are scored in all. What is lost of the old is the mean share of what BEFORE knew
    above a guesser; tasks on which it knew nothing do not count.

    Returns the points tried, the chosen α, and each task's scores on the texts that the choice did not see: the budget
    is kept on the choosing texts, and `to_after` has the interval of what it came to on others. `pair.model` holds the
    last weights that were scored.
    Raises ForgetlabError for no old or new task, and for one whose score is not made of items.
    Source: Wortsman et al. 2022 (WiSE-FT), eq. 1; there α is 0.5, or chosen on the new task alone.
    """
    if not isinstance(new, Task):
        raise ForgetlabError("a repair needs the new task, whose score it keeps: --new FILE")
    listed("old", old, Task, "[task('entities')]")
    if not old:
        raise ForgetlabError("a repair needs an old task or more, to win back: --watch FILE")
    number("within", within)
    tried = sorted({0.0, 1.0, *(number("alpha", alpha, 0, 1) for alpha in alphas)})
    texts = [Texts.of(task, whole("few", few), limit) for task in (new, *old)]
    heads = _at(pair, after, 1.0).heads
    for one in texts:
        if (head := getattr(one.task, "head", None)) is not None and head not in heads:
            raise ForgetlabError(f"neither model has a head for {one.task.name}: there is no score of it to repair")

    scored = [[one.seen(_at(pair, after, alpha)) for one in texts] for alpha in tried]
    facts = [facts_of(one.task, pair.model, one.few) for one in texts]
    known = [knowledge(fact, one.task, *first) for fact, one, first in zip(facts, texts, scored[0], strict=True)]
    points = [[score for score, _ in row] for row in scored]
    looks = [look(a, facts, known, row, points[0], points[-1]) for a, row in zip(tried, points, strict=True)]
    chosen, reason = choose(looks, within, facts[0])
    if not any(known[1:]):
        chosen, reason = (
            None,
            "BEFORE is no better than a guesser on any of the old tasks: nothing is there to win back",
        )
    return {
        "after": after,
        "within": within,
        "alpha": chosen,
        "reason": reason,
        "looks": looks,
        "tasks": _on_unseen(pair, after, texts, chosen),
        "data": {one.task.name: hashes(one.task) for one in texts},
    }


@dataclass(frozen=True)
class Texts:
    """The test items of a task in two parts: the few that a choice is made on, and the rest, which no choice sees."""

    task: Task
    few: int
    limit: int | None

    @classmethod
    def of(cls, task: Task, few: int, limit: int | None) -> Texts:
        """Raises ForgetlabError for a task that has no two items to share out."""
        items = min(task.items() or 0, limit or task.items() or 0)
        if items < 2:
            raise ForgetlabError(
                f"{task.name}: α is chosen on some test items and reported on others; expected two or more, got {items}"
            )
        return cls(task, min(few, items // 2), limit)

    def seen(self, model: Model) -> tuple[float, Tensor]:
        """The main score on the few, and their (few, K) tally."""
        items = tally_of(self.task, model, self.few).items
        return float(self.task.main_score(items.sum(0))), items

    def unseen(self, model: Model) -> Tensor:
        """(n, K) tally of the rest."""
        rest = ~torch.isin(self.task.sample(self.limit), self.task.sample(self.few))
        return tally_of(self.task, model, self.limit).items[rest]


def tally_of(task: Task, model: Model, limit: int | None) -> Tally:
    """A task's tally. Raises ForgetlabError where its score is not made of items."""
    if (found := task.tally(model, limit)) is None:
        raise ForgetlabError(f"{task.name}: its score is no sum over test items, which a repair needs: leave it out")
    return found


def knowledge(facts: TaskFacts, task: Task, score: float, items: Tensor) -> float | None:
    """How far a score is above a guesser's, in points or nats: None within its error; 1 where no guesser is known."""
    if (guess := facts.get("guess")) is None:
        return 1.0
    error = NORMAL * standard_error(items, task.main_score)
    known = worse(facts, guess, score)
    return -known if -known > (error / score if scale(facts) == "ratio" else error) else None


def look(
    alpha: float,
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
        "new": worse(facts[0], after[0], scores[0]),
        "old": statistics.fmean(lost) if lost else 0.0,  # mean of (before − score) / (before − guess)
        "scores": {fact["name"]: score for fact, score in zip(facts, scores, strict=True)},
    }


def choose(looks: Sequence[Look], within: float, new: TaskFacts) -> tuple[float | None, str]:
    """The α that loses least of the old within the budget; else None, and why, in words.

    looks: by α, from 0 to 1. Of equal ones the better new score counts, then the smaller α.

    >>> looks = [{"alpha": a, "old": a, "new": 0.4 * (1 - a), "scores": {"mine": 0.5 + a / 2}} for a in (0.0, 0.9, 1.0)]
    >>> choose(looks, 0.05, {"name": "mine", "metric": "accuracy"})
    (0.9, '')
    """
    first, last, name = looks[0], looks[-1], new["name"]
    if not (math.isfinite(last["new"]) and math.isfinite(last["old"])):
        told = ", ".join(f"{task} {score:g}" for task, score in last["scores"].items())
        return None, f"AFTER's scores are no finite numbers: {told}"
    if first["new"] <= within + ROUNDING:
        was, now = (written(one["scores"][name], scale(new)) for one in (first, last))
        return None, (
            f"on {name} BEFORE, with AFTER's head, is within {budget(within, new)} of AFTER ({was} and {now}): nothing "
            "of this fine-tune is worth its price, or a smaller budget is needed"
        )
    fit = [one for one in looks if one["new"] <= within + ROUNDING and math.isfinite(one["old"])]
    best = min(fit, key=lambda one: (one["old"], one["new"], one["alpha"]))
    if best["alpha"] < 1:
        return best["alpha"], ""
    if last["old"] <= 0:
        return None, "AFTER has lost nothing of the old on these texts: nothing is there to repair"
    reason = f"no α below 1 that loses less of the old keeps {name} within {budget(within, new)} of AFTER"
    less = [one for one in looks[:-1] if one["old"] < last["old"] and one["alpha"] > 0]
    if cheapest := min(less, key=lambda one: one["new"], default=None):
        reason += f"; α = {cheapest['alpha']:g} would with a budget of {budget(cheapest['new'], new)}"
    return None, reason


def _at(pair: Between, after: str, alpha: float) -> Model:
    return pair.between(after, lambda name, before, end: mixed(before, end, alpha))


def _on_unseen(pair: Between, after: str, texts: Sequence[Texts], alpha: float | None) -> list[Unseen]:
    ends = [[one.unseen(_at(pair, after, a)) for one in texts] for a in (0.0, 1.0, *([] if alpha is None else [alpha]))]
    found = []
    for i, one in enumerate(texts):
        facts, (before, end, *repaired) = facts_of(one.task, pair.model, one.limit), [row[i] for row in ends]
        was, now, *then = (float(one.task.main_score(items.sum(0))) for items in (before, end, *repaired))
        row: Unseen = {
            "facts": facts,
            "chosen_on": one.few,
            "scored_on": len(before),
            "before": was,
            "after": now,
            "repaired": then[0] if then else None,
            "to_before": _loss(facts, one.task, before, *repaired),
            "to_after": _loss(facts, one.task, end, *repaired),
        }
        found.append(row)
    return found


def _loss(facts: TaskFacts, task: Task, reference: Tensor, items: Tensor | None = None) -> list[float]:
    """[loss, low, high] of one model against another on the same items, with its 95 % interval."""
    if items is None:
        return []
    metric = facts["metric"] if facts["metric"] in OF_SUMS else task.main_score
    found = change(reference, items, metric, scale=scale(facts), higher_is_better=higher_is_better(facts))
    return [found.loss, found.low, found.high]
