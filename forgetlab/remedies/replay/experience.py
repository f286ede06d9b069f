"""Replay of stored examples, which of them a small memory keeps, and training on everything at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from forgetlab.errors import ForgetlabError, number, one_of, whole
from forgetlab.tasks import Classification, Tagging
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
        return {"bytes": bytes_of(self._past, run)}


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
    spread = True

    def __init__(
        self, old: Sequence[Task], ratio: float = 0.25, memory: int = 2000, sampling: Sampling = "reservoir"
    ) -> None:
        super().__init__(ratio)
        self.memory = whole("memory", memory)
        one_of("sampling", sampling, get_args(Sampling))
        self.sampling = sampling
        self._old = trainable(old, "replay")

    def recall(self, run: Run) -> list[tuple[Task, Tensor]]:
        if self.sampling == "balanced":
            return [(task, class_balanced(task, self.memory, run.generator)) for task in self._old]
        return [(task, reservoir(task.size(), self.memory, run.generator)) for task in self._old]


class Multitask(Method):
    """Train on the old tasks' full data along with the new one: the upper bound that replay approaches.

    L = L_new + w Σ_old L_old. old: tasks with training data; each step adds a batch of every one of them. weight: w,
    above 0. Raises ForgetlabError for another weight and where no task can be trained. Source: Caruana 1997.

    >>> [*_, last] = finetune(model, new, methods=[Multitask([old])], steps=2)
    >>> last.status
    'done'
    """

    name = "multitask"
    family = "replay"

    def __init__(self, old: Sequence[Task], weight: float = 1.0) -> None:
        self._old = trainable(old, "replay")
        self.weight = number("weight", weight, 0, above=True)

    def setup(self, run: Run) -> None:
        for task in self._old:
            task.prepare(run.model, run.seed)

    def augment(self, parts: list[Part], run: Run) -> list[Part]:
        return [*parts, *(Part(task, min(parts[0].count, task.size()), None, self.weight) for task in self._old)]


def reservoir(size: int, memory: int, generator: torch.Generator) -> Tensor:
    """Row numbers of a uniform sample of a stream, taken in one pass.

    size: rows of the stream. memory: rows to keep. Returns (min(size, memory),) rows; each set of rows is equally
    likely. Raises ForgetlabError for a memory that is not a whole number above 0.
    Source: Vitter 1985, algorithm R: row i (from 0) takes a random one of i + 1 places, if the memory has that place.

    >>> reservoir(1000, 5, torch.Generator().manual_seed(0)).shape
    torch.Size([5])
    """
    whole("memory", memory)
    kept = torch.arange(min(size, memory))
    later = torch.arange(len(kept), size)
    places = (torch.rand(len(later), generator=generator, dtype=torch.float64) * (later + 1)).long()
    for row, place in zip(later.tolist(), places.tolist(), strict=True):
        if place < memory:
            kept[place] = row
    return kept


def class_balanced(task: Task, memory: int, generator: torch.Generator) -> Tensor:
    """Row numbers of a memory that keeps as many examples of each class, to within one; a rare class is kept whole.

    Classification: by label. Tagging: by the rarest kind of entity in the text ("O" where there is none).
    Other tasks have no classes: theirs is a uniform `reservoir`. Within a class the sample is uniform.
    Returns at most `memory` rows. Raises ForgetlabError for a memory smaller than the number of classes.
    Source: the goal of Chrysakis & Moens 2020 (class-balancing reservoir), reached from known class sizes, not online.

    >>> rows = class_balanced(new, 10, torch.Generator().manual_seed(0))
    >>> sorted(new.train.labels[row] for row in rows)[4:6]
    ['negative', 'positive']
    """
    whole("memory", memory)
    if (classes := _classes(task)) is None:
        return reservoir(task.size(), memory, generator)
    rows = defaultdict(list)
    for row, name in enumerate(classes):
        rows[name].append(row)
    if memory < len(rows):
        raise ForgetlabError(
            f"memory {memory} is less than the {len(rows)} classes of {task.name}: keep {len(rows)} or more"
        )
    kept: list[Tensor] = []
    left = memory
    # the smallest class first: what it leaves of its share goes to the larger ones
    for done, own in enumerate(sorted(rows.values(), key=len)):
        share = left // (len(rows) - done)
        kept.append(torch.tensor(own)[reservoir(len(own), share, generator)])
        left -= len(kept[-1])
    return torch.cat(kept)


def bytes_of(memories: Iterable[tuple[Task, Tensor]], run: Run) -> float:
    """The size of the token ids of all examples in memories: tasks, each with its rows."""
    held = 0
    for task, rows in memories:
        encoded = task.encoded(run.model, "train")
        held += int(encoded.lengths[rows].sum()) * encoded.columns["input_ids"].element_size()
    return float(held)


def _classes(task: Task) -> list[str] | None:
    """The class that each training row counts for, or None where the task has no classes."""
    if isinstance(task, Classification) and task.train and task.train.labels:
        return list(task.train.labels)
    if isinstance(task, Tagging) and task.train and task.train.tags:
        kinds = [{tag.partition("-")[2] or tag for tag in tags} for tags in task.train.tags]  # B-PER → PER
        frequency = Counter(kind for own in kinds for kind in own)
        return [min(own, key=lambda kind: (frequency[kind], kind)) for own in kinds]
    return None
