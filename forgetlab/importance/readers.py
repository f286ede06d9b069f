"""Where examples and predictions come from: a forgetlab model and task, or any module with batches of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forgetlab.errors import ForgetlabError
from forgetlab.models.model import Model, lm_kind_of
from forgetlab.models.seeds import stream
from forgetlab.tasks import Task
from forgetlab.tasks.encoding import IGNORE

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
    module: nn.Module,
    batches: Iterable[tuple[Tensor, ...] | Mapping[str, Any]],
    logits: Callable[[nn.Module, Any], Tensor] | None,
) -> Reader:
    """Any module: batches of (inputs, …, targets), one example in each row, one prediction for each example.

    logits(module, batch) → (rows, classes); by default the module is called with all but the last tensor.
    Batches that are mappings with "labels" are those of a transformers model, see `_of_mappings`.
    """
    given = list(batches)
    device = next(module.parameters()).device
    mappings = [{k: _moved(v, device) for k, v in batch.items()} for batch in given if isinstance(batch, Mapping)]
    if given and len(mappings) == len(given):
        return _of_mappings(module, mappings, logits)
    kept: list[tuple[Any, ...]] = [tuple(batch) for batch in given]
    if not kept or not all(len(b) > 1 and all(isinstance(t, Tensor) for t in b) and len(b[0]) for b in kept):
        raise ForgetlabError(
            "expected batches of (inputs, targets), tensors with one row for each example, or of a transformers data "
            "loader: mappings with labels"
        )
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


def _of_mappings(
    module: nn.Module, batches: list[dict[str, Any]], logits: Callable[[nn.Module, Any], Tensor] | None
) -> Reader:
    """A transformers model and its data loader: {"input_ids", …, "labels"} with a label for each row or each token.

    The model is called with all but the labels. Tokens labelled -100 ask for nothing, as in its own loss; a causal
    language model is asked at each token for the label of the next one.
    """
    for batch in batches:
        label = batch.get("labels")
        if not isinstance(label, Tensor) or not len(label) or label.is_floating_point() or label.dim() not in (1, 2):
            told = f"labels {tuple(label.shape)} of {label.dtype}" if isinstance(label, Tensor) else f"keys {[*batch]}"
            raise ForgetlabError(f'expected "labels" with the number of a class for each row or token, got {told}')
    shifted = lm_kind_of(module) == "causal"

    def asked(batch: Batch) -> Tensor:
        """(rows, tokens): the class that each place is asked for, IGNORE where it is asked for none."""
        labels: Tensor = batch["labels"]
        if labels.dim() == 1:
            return labels.unsqueeze(1)
        return F.pad(labels[:, 1:], (0, 1), value=IGNORE) if shifted else labels

    def scores(batch: Batch) -> Tensor:
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        values = logits(module, inputs) if logits else module(**inputs).logits
        wanted, shape = asked(batch), tuple(values.shape)
        if values.dim() == 2:
            values = values.unsqueeze(1)
        if values.shape[:-1] != wanted.shape:
            raise ForgetlabError(f"expected logits for labels of the shape {tuple(batch['labels'].shape)}, got {shape}")
        return values[wanted != IGNORE].float()

    return Reader(
        module=module,
        batches=lambda: iter(batches),
        logits=scores,
        owners=lambda batch: (asked(batch) != IGNORE).nonzero()[:, 0],
        targets=lambda batch: asked(batch)[asked(batch) != IGNORE],
        rows=lambda batch: len(batch["labels"]),
        take=lambda batch, lo, hi: {k: v[lo:hi] if isinstance(v, Tensor) else v for k, v in batch.items()},
        of_places=set(),
    )


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value
