"""What is looked at during a run: the scores of its tasks, the penalties, how far the weights have gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor

import torch

from forgetlab.metrics import parameter_drift
from forgetlab.models.model import evaluating
from forgetlab.models.sharded import within
from forgetlab.tasks import CausalLM, Classification, MaskedLM, Scores, Tagging, Tally, Task
from forgetlab.training.method import Method, Run, by_name
from forgetlab.training.record import Record

OWN_KINDS = (Classification, Tagging, MaskedLM, CausalLM)
Scored = tuple[Scores, Tally | None]


def measured(run: Run, tasks: Sequence[Task], limit: int | None, pool: Executor | None = None) -> Record:
    """A Record of a run as it is now, with the tallies of its tasks; its losses and times are for the caller to add.

    pool: threads that score tasks side by side, each task on one thread with the same bits as ever. Only tasks of
    forgetlab's own classes, which read the model and nothing else, and where no method switches the model for a task.
    """

    def score(task: Task) -> Scored:
        with torch.no_grad(), run.autocast(), run.state(task):
            return within(run.model, lambda: task.scored(run.model, limit))

    with evaluating(run.model):  # here once: a task that puts a mode back must not do so in the middle of another
        found: dict[str, Scored] = {}
        if pool is not None and all(type(method).for_task is Method.for_task for method in run.methods):
            found = _side_by_side(pool, score, [task for task in tasks if type(task) in OWN_KINDS])
        found = {task.name: found[task.name] if task.name in found else score(task) for task in tasks}
    with torch.no_grad(), run.autocast():
        values = {name: method.penalty(run) for name, method in by_name(run.methods).items()}
    drift = parameter_drift(run.anchor, run.weights) if run.anchor else None
    return Record(
        step=run.step,
        loss=None,
        scores={name: scores for name, (scores, _) in found.items()},
        penalty={name: float(value) for name, value in values.items() if value is not None},
        drift=drift.total if drift else 0.0,
        drift_per_layer=drift.per_layer if drift else {},
        lr=[group["lr"] for group in run.groups],
        tallies={name: tally.plain() for name, (_, tally) in found.items() if tally is not None},
    )


def _side_by_side(pool: Executor, score: Callable[[Task], Scored], tasks: Sequence[Task]) -> dict[str, Scored]:
    def alone(task: Task) -> Scored:
        torch.set_num_threads(1)  # a new thread takes the process's number, which may be another run's
        return score(task)

    try:
        found: Iterator[Scored] = pool.map(alone, tasks)
    except RuntimeError:  # no thread can begin: the interpreter is at its end, or the machine has no more
        found = map(score, tasks)
    return dict(zip([task.name for task in tasks], found, strict=True))
