"""Remedies that mix the past into each batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from forgetlab.errors import ForgetlabError
from forgetlab.methods import Method, Part, Run
from forgetlab.tasks import Task


class ExperienceReplay(Method):
    """Keep a memory of old training examples and put some of them into every batch.

    old: the tasks to remember, each with training data. ratio: share of the batch that comes from the memory,
    in (0, 1); the batch keeps its size, so a higher ratio means fewer new examples. memory: examples kept of each task.
    With several tasks each step replays one of them, in turn.
    Raises ForgetlabError for an empty memory or a ratio outside (0, 1).
    Source: Rolnick et al. 2019 (experience replay for continual learning), with a uniform memory.
    """

    name = "replay"

    def __init__(self, old: Sequence[Task], ratio: float = 0.5, memory: int = 2000) -> None:
        if not isinstance(ratio, int | float) or not 0 < ratio < 1:
            raise ForgetlabError(f"ratio must be between 0 and 1, both excluded, got {ratio!r}")
        if not isinstance(memory, int) or memory < 1:
            raise ForgetlabError(f"memory must be a whole number above 0, got {memory!r}")
        self._old = [task for task in old if task.size()]
        if not self._old:
            names = ", ".join(task.name for task in old) or "no task"
            raise ForgetlabError(f"nothing to replay: {names} given, a task with training data expected")
        self.ratio = float(ratio)
        self.memory = memory
        self._pools: list[Tensor] = []

    def setup(self, run: Run) -> None:
        if round(self.ratio * run.batch_size) in (0, run.batch_size):
            raise ForgetlabError(
                f"ratio {self.ratio:g} of a batch of {run.batch_size} leaves no room for one of the two sides; "
                f"use a ratio between {1 / run.batch_size:.2g} and {1 - 1 / run.batch_size:.2g}"
            )
        self._pools = [torch.randperm(t.size(), generator=run.generator)[: self.memory] for t in self._old]
        for task in self._old:
            task.prepare(run.model)

    def augment(self, parts: list[Part], run: Run) -> list[Part]:
        total = sum(part.count for part in parts)
        replayed = round(self.ratio * total)
        turn = run.step % len(self._old)
        first, *rest = parts
        kept = Part(first.task, first.count - replayed, first.pool)
        return [kept, *rest, Part(self._old[turn], replayed, self._pools[turn])]


class Multitask(Method):
    """Train on the old tasks' full data along with the new one: the upper bound that replay approaches.

    old: tasks with training data. Each step adds a batch of every one of them; the losses are summed.
    """

    name = "multitask"

    def __init__(self, old: Sequence[Task]) -> None:
        self._old = list(old)

    def setup(self, run: Run) -> None:
        for task in self._old:
            task.prepare(run.model)

    def augment(self, parts: list[Part], run: Run) -> list[Part]:
        return [*parts, *(Part(task, min(parts[0].count, task.size())) for task in self._old)]
