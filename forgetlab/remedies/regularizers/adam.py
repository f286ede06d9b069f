"""EWC with what Adam has gathered anyway: its running mean of squared gradients in the place of the Fisher."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from forgetlab.errors import ForgetlabError, whole
from forgetlab.importance import Importance
from forgetlab.importance.fisher import ready
from forgetlab.models.seeds import stream
from forgetlab.remedies.regularizers.ewc import Measured
from forgetlab.remedies.regularizers.quadratic import Lam
from forgetlab.tasks import Task
from forgetlab.training.method import Part, Run

BATCH = 32


class AdamEWC(Measured):
    """EWC whose Fisher is Adam's second moment of old batches: F ≈ B · v̂.

    v ← β₂ v + (1 − β₂) ḡ², v̂ = v / (1 − β₂ᵗ), with ḡ the mean over a batch of B old examples of the gradient of
    log p(y|x), y the *true* labels, all those of a text together. Where single gradients have mean 0, as at the end of
    training, E ḡ² = E g² / B, so that B · v̂ is the empirical Fisher; else it holds B · (E g)² too.
    L = L_task + (λ/2) Σ_i F_i (θ_i − θ*_i)².

    importance: {name: tensor} from `adam_importance`, free where the optimizer of the old training is at hand; or the
    old tasks, over which Adam (β₂ = 0.999) is then led at the start with the weights at rest, `examples` of each in
    batches of 32 drawn by the run's seed. The other arguments, `more`: see Measured.
    Source: Li et al. 2025 ("Fishers for free?", Squisher, arXiv 2507.18807).

    >>> [*_, last] = finetune(model, new, methods=[AdamEWC([old], examples=64)], steps=2)
    >>> last.penalty["ewc-adam"] > 0
    True
    """

    name = "ewc-adam"

    def __init__(
        self,
        importance: Mapping[str, Tensor] | Sequence[Task],
        lam: Lam | None = None,
        *,
        examples: int = 1600,
        **more: Any,
    ) -> None:
        super().__init__(importance, lam, examples=examples, **more)

    def _of_task(self, run: Run, task: Task) -> Importance:
        model, own = run.model, replace(run, generator=stream("the pass of Adam", run.seed), _orders={})
        size = min(BATCH, task.size())
        with ready(model):
            adam = torch.optim.Adam(run.weights.values(), lr=0.0)  # it gathers, and moves nothing
            try:
                for _ in range(max(1, self.examples // size)):
                    batch = own.batch(Part(task, size))
                    texts = len(batch["targets"]) / size  # predictions a text: they count together, as in the Fisher
                    (texts * task.loss(model, batch)).backward()
                    adam.step()
                    model.zero_grad()
            finally:
                model.zero_grad()
        return adam_importance(adam, run.weights.items(), size)


def adam_importance(
    optimizer: torch.optim.Optimizer, named: Iterable[tuple[str, nn.Parameter]], batch_size: int
) -> Importance:
    """An importance from the state of Adam or AdamW after a training: B · v̂, {name: tensor}; see `AdamEWC`.

    named: `model.named_parameters()`; a weight that never had a gradient gets 0. batch_size: B, examples in each of the
    batches whose mean gradient it was (the scale is that of the loss it was trained with; `strength` takes that out).
    Raises ForgetlabError for an optimizer that has no second moments.

    >>> w = torch.nn.Parameter(torch.zeros(1))
    >>> adam = torch.optim.Adam([w])
    >>> w.grad = torch.tensor([3.0])
    >>> adam.step()
    >>> round(adam_importance(adam, [("w", w)], batch_size=2)["w"].item(), 4)  # 2 · 3²
    18.0
    """
    whole("batch_size", batch_size)
    betas = {p: group.get("betas", (0.0, 0.0))[1] for group in optimizer.param_groups for p in group["params"]}
    found: Importance = {}
    for name, p in named:
        state = optimizer.state.get(p, {})
        if "exp_avg_sq" in state:
            correction = 1 - betas[p] ** float(state["step"])
            found[name] = batch_size * state["exp_avg_sq"].float() / correction
        else:
            found[name] = torch.zeros_like(p, dtype=torch.float32, requires_grad=False)
    if not any(bool(value.any()) for value in found.values()):
        raise ForgetlabError(
            f"{type(optimizer).__name__} holds no squared gradients of these weights: give the Adam or AdamW that "
            "has trained them"
        )
    return found
