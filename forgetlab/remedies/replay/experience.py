"""Replay of stored examples, and training on everything at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor

from forgetlab.errors import ForgetlabError, number, unknown, whole
from forgetlab.remedies.replay.memory import class_balanced, reservoir
from forgetlab.tasks.base import Task, trainable
from forgetlab.training.method import Method, Part, Run, Setting

Sampling = Literal["reservoir", "balanced"]


class Replay(Method, ABC):
    """Give a share of the training examples to the past; a subclass says which examples that is."""

    family = "replay"
    main = Setting("ratio", high=0.95)
    saved = ("_seen", "_replayed", "_turn")

    def __init__(self, ratio: float) -> None:
        self.ratio = number("ratio", ratio, 0, 1, below=True)  # at 1 nothing new would be learned
        self._past: list[tuple[Task, Tensor]] = []

    @abstractmethod
    def recall(self, run: Run) -> list[tuple[Task, Tensor]]:
        """What is replayed: tasks, each with the (N,) training rows that may be drawn."""

    def setup(self, run: Run) -> None:
        self._past = self.recall(run) if self.ratio else []  # ratio 0 is the naive run, bit for bit
        self._seen = self._replayed = self._turn = 0
        for task, _ in self._past:
            task.prepare(run.model, run.seed)

    def augment(self, parts: list[Part], run: Run) -> list[Part]:
        new, *rest = parts
        if not self._past or new.task is not run.task:
            return parts
        total = sum(part.count for part in parts)
        self._seen += total
        # counted over the run, so that the share is exact however small the batch or its passes
        owed = round(self.ratio * self._seen) - self._replayed
        if owed > new.count + 1:
            raise ForgetlabError(
                f"{self.name} with ratio {self.ratio:g} wants {owed} of a batch of {total}, the other methods leave it "
                f"{new.count}: use lower ratios, so that there is room for the new task"
            )
        count = min(owed, new.count)
        if not count:
            return parts
        self._replayed += count
        task, rows = self._past[self._turn % len(self._past)]
        self._turn += 1
        mixed = [Part(new.task, new.count - count, new.pool), *rest, Part(task, count, rows)]
        return [part for part in mixed if part.count]

    def costs(self, run: Run) -> dict[str, float]:
        """ "bytes": the token ids of every example that may be replayed."""
        held = 0
        for task, rows in self._past:
            encoded = task.encoded(run.model, "train")
            held += int(encoded.lengths[rows].sum()) * encoded.columns["input_ids"].element_size()
        return {"bytes": float(held)}


class ExperienceReplay(Replay):
    """Keep a memory of old training examples and put some of them into the batches.

    old: the tasks to remember; those without training data are left out. ratio: share of the training examples that
    comes from the memory, from 0 (the naive run) to below 1; the batch keeps its size, so a higher ratio means fewer
    new examples. Where ratio × batch size is not whole, the batches take turns so that the share is exact over the run.
    memory: examples kept of each task. sampling: "reservoir" (uniform) or "balanced" (as many of each class).
    With several tasks, each batch replays one of them, in turn. Texts have the marks that their task trains with: a
    causal one the end token only where the model's pre-training had it (`Model.end_mark`).
    Raises ForgetlabError for a bad ratio, memory or sampling, and where no task can be replayed.
    Source: Rolnick et al. 2019 (experience replay for continual learning); the memories are `reservoir` and
    `class_balanced`, drawn once before the first step.

    >>> replay = ExperienceReplay([old], ratio=0.25, memory=100)
    >>> first = next(finetune(model, new, methods=[replay]))
    >>> first.costs
    {'added_parameters': 0.0, 'bytes': 12496.0, 'trained_parameters': 216312.0}
    """

    name = "replay"

    def __init__(
        self, old: Sequence[Task], ratio: float = 0.25, memory: int = 2000, sampling: Sampling = "reservoir"
    ) -> None:
        super().__init__(ratio)
        self.memory = whole("memory", memory)
        if sampling not in get_args(Sampling):
            raise unknown("sampling", sampling, get_args(Sampling))
        self.sampling = sampling
        self._old = trainable(old, "replay")

    def recall(self, run: Run) -> list[tuple[Task, Tensor]]:
        if self.sampling == "balanced":
            return [(task, class_balanced(task, self.memory, run.generator)) for task in self._old]
        return [(task, reservoir(task.size(), self.memory, run.generator)) for task in self._old]


class Multitask(Method):
    """Train on the old tasks' full data along with the new one: the upper bound that replay approaches.

    old: tasks with training data. Each step adds a batch of every one of them; the losses are summed.
    Raises ForgetlabError where no task can be trained.

    >>> [*_, last] = finetune(model, new, methods=[Multitask([old])], steps=2)
    >>> last.status
    'done'
    """

    name = "multitask"
    family = "replay"

    def __init__(self, old: Sequence[Task]) -> None:
        self._old = trainable(old, "replay")

    def setup(self, run: Run) -> None:
        for task in self._old:
            task.prepare(run.model, run.seed)

    def augment(self, parts: list[Part], run: Run) -> list[Part]:
        return [*parts, *(Part(task, min(parts[0].count, task.size())) for task in self._old)]
