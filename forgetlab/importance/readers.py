"""Where examples and predictions come from: a forgetlab model and task, or any module with batches of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from forgetlab.errors import ForgetlabError
from forgetlab.models.model import Model
from forgetlab.models.seeds import stream
from forgetlab.tasks import Task

Batch = Any  # a mapping of tensors for a task, else what the caller's batches are


@dataclass
class Reader:
    """What the estimators need of a model and its data.

    logits(batch): (places, classes). owners(batch): (places,) the row that each place belongs to, ascending.
    targets(batch): (places,) true classes. rows(batch): number of examples. take(batch, lo, hi): a batch of these only.
    of_places: layers that see one row for each place instead of each example.
    """

    module: nn.Module
    batches: Callable[[], Iterator[Batch]]
    logits: Callable[[Batch], Tensor]
    owners: Callable[[Batch], Tensor]
    targets: Callable[[Batch], Tensor]
    rows: Callable[[Batch], int]
    take: Callable[[Batch, int, int], Batch]
    of_places: set[nn.Module]


def of_task(model: Model, task: Task, examples: int, batch_size: int, seed: int) -> Reader:
    """`examples` training texts of a task in a random order given by `seed`, in batches of similar length."""
    task.prepare(model, seed)
    if task.size() == 0:
        raise ForgetlabError(f"the task {task.name} has no training data to measure importance on")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(task.size(), generator=generator)[:examples]
    chosen = chosen[torch.argsort(task.encoded(model, "train").lengths[chosen], stable=True)]

    def batches() -> Iterator[Batch]:
        masks = stream("masks", seed)
        for index in chosen.split(batch_size):
            yield task.batch(model, index, masks)

    return Reader(
        module=model,
        batches=batches,
        logits=lambda batch: task.logits(model, batch),
        owners=task.owners,
        targets=lambda batch: batch["targets"],
        rows=lambda batch: len(batch["input_ids"]),
        take=task.part,
        of_places=set(model.modules()) - set(model.backbone.modules()),
    )


def of_batches(
    module: nn.Module, batches: Iterable[tuple[Tensor, ...]], logits: Callable[[nn.Module, Any], Tensor] | None
) -> Reader:
    """Any module: batches of (inputs, …, targets), one example in each row, one prediction for each example.

    logits(module, batch) → (rows, classes); by default the module is called with all but the last tensor.
    """
    kept = [tuple(batch) for batch in batches]
    if not kept or not all(len(b) > 1 and all(isinstance(t, Tensor) for t in b) and len(b[0]) for b in kept):
        raise ForgetlabError("expected batches of (inputs, targets), tensors with one row for each example")
    device = next(module.parameters()).device
    kept = [tuple(t.to(device) for t in batch) for batch in kept]

    def scores(batch: Batch) -> Tensor:
        values = logits(module, batch) if logits else module(*batch[:-1])
        if values.shape[:-1] != (len(batch[0]),):
            given = tuple(values.shape)
            raise ForgetlabError(f"expected logits of the shape (rows, classes) for {len(batch[0])} rows, got {given}")
        return values.float()

    return Reader(
        module=module,
        batches=lambda: iter(kept),
        logits=scores,
        owners=lambda batch: torch.arange(len(batch[0]), device=device),
        targets=lambda batch: batch[-1],
        rows=lambda batch: len(batch[0]),
        take=lambda batch, lo, hi: tuple(t[lo:hi] for t in batch),
        of_places=set(),
    )
