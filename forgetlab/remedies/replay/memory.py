"""Which training examples a small memory keeps."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

from forgetlab.errors import ForgetlabError, whole
from forgetlab.tasks import Classification, Tagging, Task
from forgetlab.training.method import Run


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
