"""Remedies that add a term to the loss: they pull the weights back to where they were."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from forgetlab.errors import ForgetlabError
from forgetlab.methods import Method, Run


class L2SP(Method):
    """Pull every weight equally towards its value before the fine-tune.

    L = L_task + (λ/2) Σ_i (θ_i − θ*_i)² + (β/2) ‖w_new‖², the last term over the heads that are new.

    lam: λ ≥ 0. beta: β ≥ 0. Raises ForgetlabError for another number.
    Source: Li, Grandvalet & Davoine 2018, eq. 2. The gradient λ(θ − θ*) is added directly, fused over all weights;
    it goes through the optimizer like the task's own (it is not decoupled as AdamW's weight decay is).
    """

    name = "l2sp"

    def __init__(self, lam: float = 0.05, beta: float = 0.0) -> None:
        self.lam = strength("lam", lam)
        self.beta = strength("beta", beta)

    def penalty(self, run: Run) -> Tensor:
        old = sum(((p - a) ** 2).sum() for p, a in zip(*run.anchored(), strict=True))
        new = sum((p**2).sum() for p in self._new(run))
        return torch.as_tensor(self.lam / 2 * old + self.beta / 2 * new)

    @torch.no_grad()
    def add_penalty_gradient(self, run: Run) -> None:
        weights, anchor = run.anchored()
        if weights and self.lam:
            # ∂/∂θ (λ/2)(θ − θ*)² = λ(θ − θ*)
            torch._foreach_add_(grads(weights), torch._foreach_sub(weights, anchor), alpha=self.lam)
        new = self._new(run)
        if new and self.beta:
            torch._foreach_add_(grads(new), new, alpha=self.beta)

    def _new(self, run: Run) -> list[Tensor]:
        old = set(run.weights.values())
        return [p for p in run.trained() if p not in old]


def grads(weights: list[Tensor]) -> list[Tensor]:
    """The gradients of the weights, made zero where a weight took no part in the loss."""
    for p in weights:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    return [p.grad for p in weights if p.grad is not None]


def strength(name: str, value: float) -> float:
    """A finite number ≥ 0; raises ForgetlabError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ForgetlabError(f"{name} must be a number of 0 or more, got {value!r}")
    return float(value)
