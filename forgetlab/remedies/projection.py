"""Gradient projection: PCGrad and A-GEM turn a step away from what hurts the old tasks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from forgetlab.errors import whole
from forgetlab.interference import WithOld, dot_product, flat
from forgetlab.remedies.regularizers.quadratic import grads
from forgetlab.remedies.replay.experience import bytes_of, reservoir
from forgetlab.tasks import Task
from forgetlab.training.method import Part, Run


class PCGrad(WithOld):
    """Gradient surgery: from each task's gradient take away what opposes another task's, then follow their sum.

    old: tasks with training data, which are trained along. batch_size: examples of each per step (None: as many as the
    run's batch). For each task i, over the other tasks j in random order: if g_i·g_j < 0,
    g_i ← g_i − (g_i·g_j / ‖g_j‖²) g_j, with g_j as it was before any projection.

    The new task's gradient is the one in place: that of the whole batch and of every penalty.
    Where nothing conflicts this is multi-task training: the sum of the gradients, not their mean.
    Costs a forward and backward pass for each old task at each step.
    Raises ForgetlabError where no task has training data, or where every weight that one uses is frozen.
    Source: Yu et al. 2020 (Gradient Surgery for Multi-Task Learning), algorithm 1.

    >>> [*_, last] = finetune(model, new, methods=[PCGrad([old], batch_size=8)], steps=2)
    >>> last.step, last.status
    (2, 'done')
    """

    name = "pcgrad"
    family = "gradients"

    def adjust_gradients(self, run: Run) -> None:
        own = grads([*run.trained()])
        rows = own[0].new_empty(1 + len(self._old), _length(run))
        flat(own, rows[0])
        for task, row in zip(self._old, rows[1:], strict=True):
            flat(run.gradient(Part(task, min(self.batch_size or run.batch_size, task.size()))), row)
        _write(pcgrad(rows, run.generator), own)

    def costs(self, run: Run) -> dict[str, float]:
        rows = 2 + len(self._old)  # every task's gradient, and the one that is being taken
        return {"bytes": float(rows * _length(run) * run.trained()[0].element_size())}


class AGEM(WithOld):
    """Averaged gradient episodic memory: no step along a gradient that raises the loss on a memory of the old tasks.

    old: tasks with training data. memory: examples kept of each. batch_size: of the memory's examples per step, shared
    evenly among the tasks (None: as many as the run's batch).
    If g·r < 0, g ← g − (g·r / r·r) r, with r the gradient on the memory; else nothing changes. The memory is a
    constraint only: other than with replay, its loss is not followed.

    g is the gradient in place: that of the whole batch and of every penalty. Each old task weighs the same in r.
    The bound holds for the gradient: the optimizer's momentum and scaling (Adam) can still step against r.
    Costs one more batch's forward and backward pass at each step.
    Raises ForgetlabError where no task has training data, or where every weight that one uses is frozen.
    Source: Chaudhry et al. 2019 (Efficient Lifelong Learning with A-GEM), eq. 11, with a uniform memory.

    >>> [*_, last] = finetune(model, new, methods=[AGEM([old], memory=100)], steps=2)
    >>> last.step, last.status
    (2, 'done')
    """

    name = "agem"
    family = "gradients"

    def __init__(self, old: Sequence[Task], memory: int = 2000, batch_size: int | None = None) -> None:
        super().__init__(old, batch_size)
        self.memory = whole("memory", memory)

    def setup(self, run: Run) -> None:
        super().setup(run)
        self._pools = [reservoir(task.size(), self.memory, run.generator) for task in self._old]

    def adjust_gradients(self, run: Run) -> None:
        own = grads([*run.trained()])
        share = max(1, (self.batch_size or run.batch_size) // len(self._old))
        reference = own[0].new_zeros(_length(run))
        for task, pool in zip(self._old, self._pools, strict=True):
            reference += flat(run.gradient(Part(task, min(share, len(pool)), pool)))  # eq. 11 is blind to r's length
        _write(agem(flat(own), reference), own)

    def costs(self, run: Run) -> dict[str, float]:
        vectors = 3  # r, and a task's share of it before and after flat
        gradients = vectors * _length(run) * run.trained()[0].element_size()
        return {"bytes": gradients + bytes_of(zip(self._old, self._pools, strict=True), run)}


@torch.no_grad()
def pcgrad(gradients: Tensor, generator: torch.Generator) -> Tensor:
    """The sum of the gradients after surgery; see `PCGrad`.

    gradients: (T, P), a row for each task. generator: on the CPU; draws the order of the others for each task.
    Returns (P,). What is projected stays in the rows' span, so that their (T, T) products are all that is needed.

    >>> rows = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])  # each loses what opposes the other
    >>> pcgrad(rows, torch.Generator().manual_seed(0))  # (½, ½) + (0, 1)
    tensor([0.5000, 1.5000])
    """
    count = len(gradients)
    products = torch.stack([torch.stack([dot_product(a, b) for b in gradients]) for a in gradients])
    share = torch.eye(count, dtype=products.dtype, device=products.device)  # g_i = Σ_k share[i, k] · row k
    for i in range(count):
        for j in torch.randperm(count, generator=generator).tolist():
            if j != i:
                dot = share[i] @ products[:, j]  # g_i·g_j of the running g_i and the original g_j
                share[i, j] -= torch.where(dot < 0, dot / products[j, j], 0.0)
    return share.sum(0) @ gradients


@torch.no_grad()
def agem(gradient: Tensor, reference: Tensor) -> Tensor:
    """The gradient nearest to `gradient` that does not oppose `reference`, both (P,); see `AGEM`.

    >>> agem(torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0]))
    tensor([0.5000, 0.5000])
    """
    dot = dot_product(gradient, reference)
    # chosen on the device, without waiting for it
    share = torch.where(dot < 0, dot / dot_product(reference, reference), 0.0)
    return torch.addcmul(gradient, share, reference, value=-1)


def _write(vector: Tensor, tensors: list[Tensor]) -> None:
    parts = vector.split([t.numel() for t in tensors])
    torch._foreach_copy_(tensors, [part.view_as(t) for part, t in zip(parts, tensors, strict=True)])


def _length(run: Run) -> int:
    return sum(p.numel() for p in run.trained())
