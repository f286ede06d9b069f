"""Remedies that end a run: when nothing gets better any more, or when too much has been forgotten.

Both read the main metric of a task at each record and never the training loss. A metric where less is better, the
perplexity, counts as 1 / perplexity: the mean probability (geometric) that the right word gets, 0 to 1 and higher is
better like an accuracy. The test examples that choose the weights here flatter them a little: report other ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from forgetlab.errors import ForgetlabError, flag, number, unknown, whole
from forgetlab.tasks import Scores, Task
from forgetlab.training.method import Method, Run, Setting
from forgetlab.training.record import Record, main_score


class EarlyStopping(Method):
    """Stop when a score has not improved for `patience` records, and put the best weights back.

    patience: records, 1 or more. task: a task's name, "all" (the mean over the new and the watched tasks) or None (the
    new task). min_change: a rise up to this much is no improvement; in the unit of an accuracy. restore: whether to put
    the best weights back, which takes a copy of all that is trained.
    The mean is one of accuracies and of 1 / perplexity, each a share of right answers, so that no task's unit outweighs
    the others'. A score that is not a number is no improvement. The best weights come back at the end of a run too.
    Raises ForgetlabError for another value, or a task that is not in the run. Source: Prechelt 1998.

    >>> records = finetune(model, new, methods=[EarlyStopping(patience=2)], lr=1e-9, every=1)
    >>> [(record.step, record.status) for record in records]
    [(0, 'running'), (1, 'running'), (2, 'running'), (2, 'stopped')]
    """

    name = "early-stopping"
    family = "rates and stopping"
    saved = ("_best", "_best_step", "_since", "_kept")

    def __init__(
        self, patience: int = 3, task: str | None = None, min_change: float = 0.0, restore: bool = True
    ) -> None:
        self.patience = whole("patience", patience)
        self.task = task
        self.min_change = number("min_change", min_change)
        self.restore = flag("restore", restore)

    def setup(self, run: Run) -> None:
        self._tasks = _chosen(self.task, run, [run.task])
        self._kept: list[Tensor] = []
        self._best, self._best_step, self._since = 0.0, 0, 0

    def should_stop(self, record: Record, run: Run) -> str | None:
        score = sum(_goodness(task, record.scores) for task in self._tasks) / len(self._tasks)
        score = -math.inf if math.isnan(score) else score  # such as a Trainer's loss before its first step
        if record.step == 0 or score > self._best + self.min_change:
            self._best, self._best_step, self._since = score, record.step, 0
            if self.restore:
                _keep(self._kept, run)
            return None
        self._since += 1
        if self._since < self.patience and record.status == "running":
            return None
        names = ", ".join(task.name for task in self._tasks)
        records = f"{self._since} record{'s' * (self._since > 1)}"
        reason = f"no improvement of {names} since step {self._best_step} ({records})"
        if not self.restore:
            return reason
        _put_back(self._kept, run)
        return f"{reason}; the weights of step {self._best_step} are back"

    def costs(self, run: Run) -> dict[str, float]:
        return {"bytes": _bytes(run) if self.restore else 0.0}


class SafetyBrake(Method):
    """Stop when a watched score has fallen too far, and put back the latest weights at which none had.

    The fall is relative to the score before the first step: an accuracy may fall to (1 − drop) of it, a perplexity rise
    to 1 / (1 − drop) of it. With 0.05 an accuracy of 0.85 may fall to 0.8075, so that 0.75 stops the run, and a
    perplexity of 15 may rise to 15.8. A score that is not a number has fallen.

    drop: 0 or more, below 1. patience: records in a row, 1 or more. task: a task's name, "all" (the new task too) or
    None (every watched task). It holds a copy of all that is trained.
    It sees a fall at the next record only. A run that ends or diverges with a fall gets the kept weights back too.
    Raises ForgetlabError for another value, a task that is not in the run, or where nothing is watched.

    >>> brake = SafetyBrake(drop=0.05)
    >>> [first, *_, last] = finetune(model, new, methods=[brake], watch=[old], lr=0.01, every=1)
    >>> last.status, last.scores["entities"]["f1"] >= 0.95 * first.scores["entities"]["f1"]
    ('stopped', True)
    """

    name = "safety-brake"
    family = "rates and stopping"
    main = Setting("drop", high=0.95)
    saved = ("_before", "_kept_step", "_fallen_for", "_kept")

    def __init__(self, drop: float = 0.05, patience: int = 1, task: str | None = None) -> None:
        self.drop = number("drop", drop, 0, 1, below=True)
        self.patience = whole("patience", patience)
        self.task = task

    def setup(self, run: Run) -> None:
        self._tasks = _chosen(self.task, run, run.watch)
        if not self._tasks:
            raise ForgetlabError("the safety brake has nothing to look at: give the run tasks to watch, or name one")
        self._kept: list[Tensor] = []
        self._before: Mapping[str, Scores] = {}
        self._kept_step, self._fallen_for = 0, 0

    def should_stop(self, record: Record, run: Run) -> str | None:
        if record.step == 0:
            self._before = record.scores
        fallen = [task for task in self._tasks if self._fell(task, record.scores)]
        if record.step == 0 or not fallen:
            _keep(self._kept, run)
            self._kept_step, self._fallen_for = record.step, 0
            return None
        self._fallen_for += 1
        if self._fallen_for < self.patience and record.status == "running":
            return None
        _put_back(self._kept, run)
        words = ", ".join(self._words(task, record.scores) for task in fallen)
        return (
            f"{words} by step {record.step}, more than the allowed {self.drop:.3g} of it; "
            f"the weights of step {self._kept_step} are back"
        )

    def costs(self, run: Run) -> dict[str, float]:
        return {"bytes": _bytes(run)}

    def _fell(self, task: Task, scores: Mapping[str, Scores]) -> bool:
        before = _goodness(task, self._before)
        # s < (1 − drop) s₀, written so that nan has fallen; 0.72 is allowed where 0.9 · 0.8 is 0.7200000000000001
        return not _goodness(task, scores) >= (1 - self.drop - 1e-9) * before

    def _words(self, task: Task, scores: Mapping[str, Scores]) -> str:
        before, now = main_score(self._before, task), main_score(scores, task)
        verb = "fell" if task.higher_is_better else "rose"
        return f"the {task.metric} of {task.name} {verb} from {before:.3g} to {now:.3g}"


@torch.no_grad()
def _keep(kept: list[Tensor], run: Run) -> None:
    """Copy all that a run may train, new heads included, whether switched on at present or not."""
    if not kept:
        kept += [torch.empty_like(p) for p in _weights(run)]
    torch._foreach_copy_(kept, _weights(run))


@torch.no_grad()
def _put_back(kept: list[Tensor], run: Run) -> None:
    torch._foreach_copy_(_weights(run), kept)


def _weights(run: Run) -> list[Tensor]:
    return [p for group in run.groups for p in group["params"]]


def _bytes(run: Run) -> float:
    return float(sum(p.numel() * p.element_size() for p in _weights(run)))


def _goodness(task: Task, scores: Mapping[str, Scores]) -> float:
    """A task's main metric, turned so that more is better."""
    value = main_score(scores, task)
    if task.higher_is_better:
        return value
    return 1 / value if value else math.inf


def _chosen(name: str | None, run: Run, default: Sequence[Task]) -> list[Task]:
    tasks = [run.task, *run.watch]
    if name is None:
        return list(default)
    if name == "all":
        return tasks
    if chosen := [task for task in tasks if task.name == name]:
        return chosen
    raise unknown("task of the run", name, ["all", *(task.name for task in tasks)])
