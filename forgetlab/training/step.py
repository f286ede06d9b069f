"""A step's batches, forward and backward: each in one pass, or in two halves where the memory ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from forgetlab.errors import ForgetlabError
from forgetlab.models import memory
from forgetlab.tasks import Task
from forgetlab.training.method import Method, Part, Run

Batch = dict[str, Tensor]


class Passes:
    """Makes the gradients of a run's steps.

    accumulation: passes that a step's examples are split over. scaler: of the run's precision.
    """

    def __init__(self, run: Run, accumulation: int, scaler: torch.amp.GradScaler) -> None:
        self.run, self.accumulation, self.scaler = run, accumulation, scaler
        self.halved, self.said = False, set[str]()

    def draw(self) -> list[tuple[Part, Batch]]:
        """The parts of a step, those that methods add among them, and a fresh batch for each."""
        run, batches = self.run, list[tuple[Part, Batch]]()
        for _ in range(self.accumulation):
            batches += [(part, run.batch(part)) for part in run.parts(run.batch_size // self.accumulation)]
        for note in dict.fromkeys(note for part, batch in batches for note in part.task.remarks_on(batch)):
            if note not in self.said:
                self.said.add(note)
                run.notes.append(note)
        return batches

    def gradient(self, batches: Sequence[tuple[Part, Batch]]) -> Tensor:
        """Add up the gradient of a step's batches, in halves from the first one on that is too large for the memory."""
        if not self.halved:
            try:
                return self._add_up(batches)
            except (RuntimeError, MemoryError) as error:
                if not memory.out_of_memory(error) or all(len(b["input_ids"]) < 2 for _, b in batches):
                    raise
            # only here: while the error is held, so are the tensors of the pass that failed
            self.halved = True
            self.run.notes.append(
                f"out of memory at step {self.run.step + 1}: from there on each batch is taken in two halves, whose "
                "gradients add up to its own"
            )
            for p in self.run.model.parameters():
                p.grad = None
            memory.free(self.run.model.device)
        return self._add_up(batches)

    def too_large(self) -> ForgetlabError:
        """What to say where the memory is not enough even so."""
        run, at_once = self.run, self.run.batch_size // self.accumulation
        tried = f"{at_once} examples at once" + (" and with half as many" if self.halved else "")
        return ForgetlabError(
            f"{run.model.name} on {run.model.device} ran out of memory at step {run.step + 1} with {tried}: lower "
            f"batch_size, keep it and raise accumulation (now {self.accumulation}; {4 * self.accumulation} trains the "
            "same in smaller passes), or use shorter texts, a smaller model or precision='bfloat16'"
        )

    def _add_up(self, batches: Sequence[tuple[Part, Batch]]) -> Tensor:
        run, total = self.run, torch.zeros((), device=self.run.model.device)
        for (part, batch), weight in zip(batches, self._weights(batches), strict=True):
            for piece, share in halves(part.task, batch) if self.halved else [(batch, 1.0)]:
                with run.autocast(), run.state(part.task):
                    loss = self._loss(part.task, piece) * (weight * share)
                if not loss.requires_grad:
                    raise ForgetlabError(
                        f"nothing that is trained takes part in the loss of {part.task.name}: leave out its replay, "
                        "or have it share the added weights (shared=1)"
                    )
                self.scaler.scale(loss).backward()
                total += loss.detach()
        return total

    def _weights(self, batches: Sequence[tuple[Part, Batch]]) -> list[float]:
        """What the mean loss of each batch counts for: its part's share of the examples, times its part's weight.

        Of that, each of several passes has its share of the predictions, so that their means add up to one.
        """
        if self.accumulation == 1:
            return [part.weight * part.count / self.run.batch_size for part, _ in batches]
        keys = [(part.task, id(part.pool), part.weight) for part, _ in batches]  # the same part of each pass
        examples, predictions = Counter[Any](), Counter[Any]()
        for key, (part, batch) in zip(keys, batches, strict=True):
            examples[key] += part.count
            predictions[key] += len(batch["targets"])
        shares = [len(b["targets"]) / (predictions[key] or 1) for key, (_, b) in zip(keys, batches, strict=True)]
        return [key[-1] * examples[key] / self.run.batch_size * own for key, own in zip(keys, shares, strict=True)]

    def _loss(self, task: Task, batch: Batch) -> Tensor:
        model = self.run.model
        if all(type(method).batch_penalty is Method.batch_penalty for method in self.run.methods):
            return task.loss(model, batch)
        with model.shared_forward():
            return sum(self.run.batch_penalties(task, batch), task.loss(model, batch))


def halves(task: Task, batch: dict[str, Tensor]) -> Iterator[tuple[dict[str, Tensor], float]]:
    """The two halves of a batch, each with its share of the predictions.

    With these weights the mean losses of the halves add up to that of the whole. A half in which nothing is
    predicted is left out.
    """
    rows = len(batch["input_ids"])
    for lo, hi in ((0, rows // 2), (rows // 2, rows)):
        half = task.part(batch, lo, hi)
        if count := len(half["targets"]):
            yield half, count / len(batch["targets"])
