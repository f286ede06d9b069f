"""The protocol of a remedy: a few hooks around a training step, all of which do nothing by default.

Methods compose in a list; the loop in `training.py` calls each hook of each method in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from forgetlab.models import Model
from forgetlab.tasks import Task

if TYPE_CHECKING:
    from forgetlab.training import Record

Group = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A share of a batch: `count` examples of a task, drawn from the rows of `pool` (None: all training rows)."""

    task: Task
    count: int
    pool: Tensor | None = None


@dataclass
class Run:
    """What a method may see of a run.

    anchor: name → copy of each weight before the fine-tune, new heads left out (θ* in the formulas).
    batch_size: examples per step. generator: the run's source of randomness, on the CPU. step: finished steps.
    """

    model: Model
    task: Task
    steps: int
    batch_size: int
    lr: float
    anchor: dict[str, Tensor]
    generator: torch.Generator
    step: int = 0
    _orders: dict[tuple[int, int], Iterator[Tensor]] = field(default_factory=dict)

    def anchored(self) -> tuple[list[Tensor], list[Tensor]]:
        """(weights, their values before the fine-tune) of everything that is trained and was there before."""
        named = dict(self.model.named_parameters())
        pairs = [(named[name], old) for name, old in self.anchor.items() if named[name].requires_grad]
        return [p for p, _ in pairs], [old for _, old in pairs]

    def batch(self, part: Part) -> dict[str, Tensor]:
        """A training batch for a part: rows in a fresh random order, each once before any comes again."""
        key = (id(part.task), id(part.pool))
        if key not in self._orders:
            rows = torch.arange(part.task.size()) if part.pool is None else part.pool
            self._orders[key] = _shuffled(rows, self.generator)
        order = self._orders[key]
        index = torch.stack([next(order) for _ in range(part.count)])
        return part.task.batch(self.model, index, self.generator)


class Method:
    """A remedy. Override the hooks it needs; `name` is what reports and curves call it."""

    name = "none"

    def setup(self, run: Run) -> None:
        """Before the first step, with the model still as it was."""

    def parameter_groups(self, groups: list[Group], run: Run) -> list[Group]:
        """The optimizer's groups ("params", "lr", "names"); what is in none of them is frozen for the run."""
        return groups

    def augment(self, parts: list[Part], run: Run) -> list[Part]:
        """The parts of the next batch; the loss is their mean, weighted by count."""
        return parts

    def penalty(self, run: Run) -> Tensor | None:
        """The term added to the loss, a scalar that can be differentiated, or None."""
        return None

    def add_penalty_gradient(self, run: Run) -> None:
        """Add the penalty's gradient to each `grad`, once per optimizer step; override it where autograd is slow."""
        value = self.penalty(run)
        if value is not None:
            value.backward()

    def adjust_gradients(self, run: Run) -> None:
        """After every gradient is in place, before clipping."""

    def after_step(self, run: Run) -> None:
        """After the optimizer's step."""

    def should_stop(self, record: Record, run: Run) -> str | None:
        """A reason in words to end the run here, or None."""
        return None

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not k.startswith("_") and k != "name")
        return f"{type(self).__name__}({shown})"


def _shuffled(rows: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        yield from rows[torch.randperm(len(rows), generator=generator)]
