"""Remedies that pull the weights back: L = L_task + (λ/2) Σ_i Ω_i (θ_i − θ*_i)², each with its own Ω.

The penalty's gradient λ Ω (θ − θ*) is added directly, fused over all weights, and goes through the optimizer like the
task's own. A stiff penalty (ηλΩ > 2) makes plain gradient steps diverge; `proximal=True` takes the implicit step
θ ← (θ + ηλΩ θ*) / (1 + ηλΩ) after the optimizer's instead, decoupled as AdamW's weight decay is, stable at any λ.
All this is in the precision of the weights; Ω is measured in float32, and the penalty's value is summed in it.

The same λ is next to nothing for one model and too stiff for another: their Ω differ a thousandfold. What carries over
is the mean of λΩ over the weights, so that is what the usual strength fixes, the same for every Ω.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch

import torch
from torch import Tensor

from forgetlab.errors import ForgetlabError, flag, number
from forgetlab.importance import Importance, check_importance
from forgetlab.models.sharded import like, whole
from forgetlab.remedies.regularizers import in_cache
from forgetlab.training.method import Method, Run, Setting

Lam = float | Mapping[str, float]

USUAL = 0.02  # the mean of λΩ over the weights at strength 1: see docs/strengths.md


class Quadratic(Method):
    """The shared machine: a pull of strength λ Ω_i on each weight that was there before.

    lam: λ ≥ 0, or {pattern of parameter names: λ}, such as {"*.layer.0.*": 10, "*": 1}, the first that fits; None:
    λ = strength · 0.02 / mean Ω, over the weights that Ω is known of. What it was is `lam_used`, and a note of the run.
    anchor: {name: tensor} to pull towards (default: the weights at the start of the run).
    proximal: take the implicit, decoupled step. Raises ForgetlabError where nothing that it protects is trained, and
    for a λ and a strength at once.
    """

    family = "weights held"
    main = Setting("strength")

    def __init__(
        self,
        lam: Lam | None = None,
        anchor: Mapping[str, Tensor] | None = None,
        proximal: bool = False,
        strength: float = 1.0,
    ) -> None:
        self.lam = None if lam is None else _lam(lam)
        strength = number("strength", strength)
        if lam is None:
            self.strength = strength
        elif strength != 1:
            raise ForgetlabError(f"{self.name}: got lam={lam} and strength={strength:g}; give one of them, not both")
        self._lam = self.lam
        self.proximal, self._anchor = flag("proximal", proximal), anchor
        self._terms: list[in_cache.Term] = []
        self._rows: dict[Tensor, Tensor | None] = {}  # of each weight: the rows that are pulled, where they are few

    def importance(self, run: Run) -> Importance | None:
        """Ω by parameter name, or None for 1 everywhere."""
        return None

    def setup(self, run: Run) -> None:
        omega = self.importance(run)
        if omega is not None:
            backbone = {name for name in run.weights if not name.startswith("heads.")}
            check_importance(omega, {**dict(run.model.named_parameters()), **run.weights}, needed=backbone)
        anchor: Mapping[str, Tensor] = run.anchor
        if self._anchor is not None:
            check_importance(anchor := self._anchor, run.weights, needed=run.weights, what="anchor")
        self._terms, self._rows = [], {}
        self._lam = self._usual(run, omega) if self.lam is None else self.lam
        for name, p in run.weights.items():
            lam = _lam_of(self._lam, name)
            if lam and (omega is None or name in omega):
                strength = lam if omega is None else lam * like(omega[name], p)
                self._terms.append((p, strength, like(anchor[name], p)))
                self._rows[p] = in_cache.few_rows(p, strength)

    @property
    def lam_used(self) -> float | dict[str, float] | None:
        """λ of the last run; before the first one None, where no λ was given."""
        return self._lam

    def _usual(self, run: Run, omega: Importance | None) -> float:
        """λ = strength · 0.02 / mean Ω; 0 where Ω is 0 everywhere."""
        known = [torch.ones(1)] if omega is None else [omega[name] for name in run.weights if name in omega]
        total = sum(float(whole(value.sum(dtype=torch.float64))) for value in known)
        mean = total / max(1, sum(value.numel() for value in known))
        if not math.isfinite(mean):
            raise ForgetlabError(f"{self.name}: the importance has values that are not finite; expected finite ones")
        lam = self.strength * USUAL / mean if mean else 0.0
        run.notes.append(f"{self.name}: λ = {lam:.3g}, {self.strength:g} × the usual strength")
        return lam

    def check(self, run: Run) -> None:
        trained = {p for group in run.groups for p in group["params"]}  # gradual unfreezing may switch some on later
        if (self._terms or not run.weights) and not any(p.requires_grad or p in trained for p, _, _ in self._terms):
            raise ForgetlabError(
                f"{self.name} has nothing to protect: another method keeps every old weight frozen; leave one out"
            )

    def _active(self) -> list[in_cache.Term]:
        return [term for term in self._terms if term[0].requires_grad]

    def penalty(self, run: Run) -> Tensor:
        zero = torch.zeros((), device=run.model.device)
        return sum((whole((s * (p - a) ** 2).sum(dtype=torch.float32)) / 2 for p, s, a in self._active()), zero)

    @torch.no_grad()
    def add_penalty_gradient(self, run: Run) -> None:
        if self.proximal:
            return
        small = []
        for term in self._active():
            p, _, anchor = term
            if p.grad is None and torch.equal(p, anchor):
                continue  # no part of the loss, and where it was: it rests, as it does without a pull
            if in_cache.is_large(p):
                in_cache.add_pull(grads([p])[0], term, self._rows[p])
            else:
                small.append(term)
        if small:
            weights, strengths, anchors = map(list, zip(*small, strict=True))
            pull = torch._foreach_sub(weights, anchors)
            torch._foreach_mul_(pull, strengths)  # ∂/∂θ (λΩ/2)(θ − θ*)² = λΩ(θ − θ*), for all small weights at once
            torch._foreach_add_(grads(weights), pull)

    @torch.no_grad()
    def after_step(self, run: Run) -> None:
        if not self.proximal:
            return
        rates = {p: group["lr"] for group in run.groups for p in group["params"]}
        for term in self._active():
            p, strength, anchor = term
            if in_cache.is_large(p):
                in_cache.step_back(term, self._rows[p], rates[p])
            else:
                kept = 1 / (1 + rates[p] * strength)
                torch.lerp(anchor, p, kept, out=p)  # (θ + sθ*) / (1 + s) = θ* + (θ − θ*) / (1 + s), s = ηλΩ

    def costs(self, run: Run) -> dict[str, float]:
        held = [t for _, s, a in self._terms for t in (s, a) if isinstance(t, Tensor)]
        return {"bytes": float(sum(t.nbytes for t in held))}


class L2SP(Quadratic):
    """Pull every weight equally towards its value before the fine-tune.

    L = L_task + (λ/2) Σ_i (θ_i − θ*_i)² + (β/2) ‖w_new‖², the last term over the heads that are new.

    lam, strength: see Quadratic; usual is λ = 0.02. beta: β ≥ 0. Raises ForgetlabError for another number.
    Source: Li, Grandvalet & Davoine 2018, eq. 2. It is EWC with every F_i = 1.

    >>> [*_, last] = finetune(model, new, methods=[L2SP(lam=0.1)], steps=2)
    >>> round(last.penalty["l2sp"] / (0.1 / 2 * last.drift**2), 3)
    1.0
    """

    name = "l2sp"
    spread = True

    def __init__(
        self, lam: Lam | None = None, beta: float = 0.0, proximal: bool = False, strength: float = 1.0
    ) -> None:
        super().__init__(lam, proximal=proximal, strength=strength)
        self.beta = number("beta", beta)

    def check(self, run: Run) -> None:
        if not self.beta:
            super().check(run)

    def penalty(self, run: Run) -> Tensor:
        new = sum((whole((p**2).sum()) / 2 for p in self._new(run)), torch.zeros((), device=run.model.device))
        return super().penalty(run) + self.beta * new

    @torch.no_grad()
    def add_penalty_gradient(self, run: Run) -> None:
        super().add_penalty_gradient(run)
        new = self._new(run)
        if new and self.beta:
            torch._foreach_add_(grads(new), new, alpha=self.beta)

    def _new(self, run: Run) -> list[Tensor]:
        old = set(run.weights.values())
        return [p for p in run.trained() if p not in old]


def grads(weights: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of the weights, made zero where a weight took no part in the loss."""
    for p in weights:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    return [p.grad for p in weights if p.grad is not None]


def _lam(lam: Lam) -> float | dict[str, float]:
    if isinstance(lam, Mapping):
        return {pattern: number(f"lam of {pattern!r}", value) for pattern, value in lam.items()}
    return number("lam", lam)


def _lam_of(lam: float | dict[str, float], name: str) -> float:
    if isinstance(lam, float):
        return lam
    return next((value for pattern, value in lam.items() if fnmatch(name, pattern)), 0.0)
