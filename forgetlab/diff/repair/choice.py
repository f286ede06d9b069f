"""A fine-tune in part undone: θ = θ_before + α (θ_after − θ_before), the α chosen within a budget of the new score.

One α for all weights, then an α for each layer. Other ways between the two models (weights by Fisher information, only
the largest changes, changes dropped at random) were measured and are not offered: benchmarks/repairs.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from forgetlab.diff.repair.found import Between, Look, RepairFound, Unseen, poured
from forgetlab.diff.repair.saved import save_repaired
from forgetlab.diff.repair.search import best_of, hopeless, layer_by_layer, look, too_dear
from forgetlab.diff.repair.shown import repair_html, repair_lines
from forgetlab.errors import ForgetlabError, listed, number, whole
from forgetlab.experiments.saving import hashes
from forgetlab.metrics.drift import layer_of
from forgetlab.metrics.paired import change
from forgetlab.metrics.retention import higher_is_better, scale, worse
from forgetlab.metrics.schema import TaskFacts
from forgetlab.metrics.tally import OF_SUMS, Tally
from forgetlab.metrics.uncertainty import NORMAL, standard_error
from forgetlab.models.model import Model
from forgetlab.tasks import Task
from forgetlab.tasks.base import facts_of

__all__ = ["RepairFound", "repair", "repair_html", "repair_lines", "save_repaired"]

ALPHAS = tuple(i / 10 for i in range(11))
FEW = 100  # test texts of each task that α is chosen on
NOTHING_KNOWN = "BEFORE is no better than a guesser on any of the old tasks: nothing is there to win back"


def repair(
    pair: Between,
    after: str,
    old: Sequence[Task],
    new: Task | None,
    within: float = 0.01,
    *,
    alphas: Sequence[float] = ALPHAS,
    by_layer: bool = True,
    few: int = FEW,
    limit: int | None = None,
) -> RepairFound:
    """The α in θ_before + α (θ_after − θ_before) that loses least of the old within a budget of the new score.

    pair, after: the models, and which AFTER. old, new: tasks; a head that only AFTER has is AFTER's at every α.
    within: how much of AFTER's new score may go, in points, or nats of a perplexity (ln 1.02: 2 % more).
    alphas: what is tried besides 0 and 1. by_layer: whether each layer's own α is then moved where that is better.
    few: test texts of each task that all this is chosen on, half of those scored at most. limit: test texts that are
    scored in all. What is lost of the old is the mean share of what BEFORE knew above a guesser; tasks on which it knew
    nothing do not count.

    Returns the points tried, the chosen one, and each task's scores on the texts that the choice did not see: the
    budget is kept on the choosing texts, and `to_after` has the interval of what it came to on others. `pair.model`
    holds the last weights that were scored.
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
    heads, moved = _ends(pair, after)
    for one in texts:
        if (head := getattr(one.task, "head", None)) is not None and head not in heads:
            raise ForgetlabError(f"neither model has a head for {one.task.name}: there is no score of it to repair")

    scored = [[one.seen(model) for one in texts] for alpha in tried for model in [poured(pair, after, alpha)]]
    facts = [facts_of(one.task, pair.model, one.few) for one in texts]
    known = [knowledge(fact, one.task, *first) for fact, one, first in zip(facts, texts, scored[0], strict=True)]
    before, *_, end = points = [[score for score, _ in row] for row in scored]
    looks = [look(a, {}, facts, known, row, before, end) for a, row in zip(tried, points, strict=True)]

    def at(alpha: float, layers: dict[str, float]) -> Look:
        model = poured(pair, after, alpha, layers)
        return look(alpha, layers, facts, known, [one.seen(model)[0] for one in texts], before, end)

    reason = hopeless(looks, within, facts[0]) if any(known[1:]) else NOTHING_KNOWN
    if by_layer and not reason:
        looks += layer_by_layer(at, best_of(looks, within), moved, within)
    chosen = None if reason else best_of(looks, within)
    if chosen is not None and chosen["alpha"] == 1 and not chosen["layers"]:
        chosen, reason = None, too_dear(looks, within, facts[0])
    return {
        "after": after,
        "within": within,
        "chosen": chosen,
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


def _ends(pair: Between, after: str) -> tuple[Any, list[str]]:
    """The heads that AFTER answers with, and the layers that moved."""
    moved: dict[str, None] = {}

    def end(name: str, before: Tensor, weight: Tensor) -> Tensor:
        if not torch.equal(before, weight):
            moved[layer_of(name)] = None
        return weight

    return pair.between(after, end).heads, list(moved)


def _on_unseen(pair: Between, after: str, texts: Sequence[Texts], chosen: Look | None) -> list[Unseen]:
    asked: list[tuple[float, Any]] = [
        (0.0, {}),
        (1.0, {}),
        *([] if chosen is None else [(chosen["alpha"], chosen["layers"])]),
    ]
    ends = [[one.unseen(model) for one in texts] for a, layers in asked for model in [poured(pair, after, a, layers)]]
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
