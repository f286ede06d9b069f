"""Remedies that pull the weights back: L = L_task + (λ/2) Σ_i Ω_i (θ_i − θ*_i)², each with its own Ω.

The penalty's gradient λ Ω (θ − θ*) is added directly, fused over all weights, and goes through the optimizer like the
task's own. A stiff penalty (ηλΩ > 2) makes plain gradient steps diverge; `proximal=True` takes the implicit step
θ ← (θ + ηλΩ θ*) / (1 + ηλΩ) after the optimizer's instead, decoupled as AdamW's weight decay is, stable at any λ.

The same λ is next to nothing for one model and too stiff for another: their Ω differ a thousandfold. What carries over
is the mean of λΩ over the weights, so that is what the usual strength fixes, the same for every Ω.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from forgetlab.errors import ForgetlabError, flag, number
from forgetlab.importance import Importance, check_importance
from forgetlab.training.method import Method, Run, Setting

Lam = float | Mapping[str, float]
Term = tuple[Tensor, Tensor | float, Tensor]  # a weight, its λΩ, and where it is pulled to

USUAL = 0.02  # the mean of λΩ over the weights at strength 1: see docs/strengths.md
PIECE = 2**18  # elements that are pulled at a time: 1 MiB, whose differences stay in the processor's cache


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
        self.proximal = flag("proximal", proximal)
        self._anchor = anchor
        self._terms: list[Term] = []
        self._rows: dict[Tensor, Tensor] = {}  # of large weights that are pulled in few of their rows: which

    def importance(self, run: Run) -> Importance | None:
        """Ω by parameter name, or None for 1 everywhere."""
        return None

    def setup(self, run: Run) -> None:
        omega = self.importance(run)
        if omega is not None:
            check_importance(omega, {**dict(run.model.named_parameters()), **run.weights}, needed=_backbone(run))
        if self._anchor is not None:
            check_importance(self._anchor, run.weights, needed=run.weights)
        anchor = self._anchor or run.anchor
        self._terms, self._rows = [], {}
        self._lam = self._usual(run, omega) if self.lam is None else self.lam
        for name, p in run.weights.items():
            lam = _lam_of(self._lam, name)
            if lam and (omega is None or name in omega):
                strength = lam if omega is None else lam * omega[name].to(p)
                self._terms.append((p, strength, anchor[name].to(p)))
                if isinstance(strength, Tensor) and p.dim() == 2 and _is_large(p):
                    rows = strength.any(dim=1).nonzero().squeeze(1)
                    if 2 * len(rows) < len(p):  # embeddings: the old tasks have few of the words
                        self._rows[p] = rows

    @property
    def lam_used(self) -> float | dict[str, float] | None:
        """λ of the last run; before the first one None, where no λ was given."""
        return self._lam

    def _usual(self, run: Run, omega: Importance | None) -> float:
        """λ = strength · 0.02 / mean Ω; 0 where Ω is 0 everywhere."""
        mean = 1.0 if omega is None else _mean([omega[name] for name in run.weights if name in omega])
        if not math.isfinite(mean):
            raise ForgetlabError(f"{self.name}: the importance has values that are not finite; expected finite ones")
        lam = self.strength * USUAL / mean if mean else 0.0
        run.notes.append(f"{self.name}: λ = {lam:.3g}, {self.strength:g} × the usual strength")
        return lam

    def check(self, run: Run) -> None:
        if self._terms and not any(p.requires_grad for p, _, _ in self._terms):
            trained = {p for group in run.groups for p in group["params"]}
            if not any(p in trained for p, _, _ in self._terms):  # gradual unfreezing may switch them on later
                raise ForgetlabError(
                    f"{self.name} has nothing to protect: another method keeps every old weight frozen; leave one out"
                )

    def _active(self) -> list[Term]:
        return [term for term in self._terms if term[0].requires_grad]

    def penalty(self, run: Run) -> Tensor:
        zero = torch.zeros((), device=run.model.device)
        return sum(((s * (p - a) ** 2).sum() / 2 for p, s, a in self._active()), zero)

    @torch.no_grad()
    def add_penalty_gradient(self, run: Run) -> None:
        if self.proximal:
            return
        small = []
        for term in self._active():
            if term[0].grad is None and torch.equal(term[0], term[2]):
                continue  # no part of the loss, and where it was: it rests, as it does without a pull
            if not _is_large(term[0]):
                small.append(term)
                continue
            whole = grads([term[0]])[0]
            for rows, (p, strength, anchor) in self._some_rows(term):
                whole.index_add_(0, rows, (p - anchor).mul_(strength))
            if term[0] in self._rows:
                continue
            room = torch.empty(PIECE, dtype=whole.dtype)  # one for all pieces: they would wait for new memory
            for gradient, p, strength, anchor in _pieces(whole, *term):
                away = torch.sub(p, anchor, out=room[: len(p)])
                if isinstance(strength, Tensor):
                    gradient.addcmul_(away, strength)  # ∂/∂θ (λΩ/2)(θ − θ*)² = λΩ(θ − θ*)
                else:
                    gradient.add_(away, alpha=strength)
        if small:
            weights, strengths, anchors = map(list, zip(*small, strict=True))
            pull = torch._foreach_sub(weights, anchors)
            torch._foreach_mul_(pull, strengths)  # the same, fused over all small weights
            torch._foreach_add_(grads(weights), pull)

    @torch.no_grad()
    def after_step(self, run: Run) -> None:
        if not self.proximal:
            return
        rates = {p: group["lr"] for group in run.groups for p in group["params"]}
        for term in self._active():
            whole, rate = term[0], rates[term[0]]
            for rows, (p, strength, anchor) in self._some_rows(term):
                whole.index_copy_(0, rows, torch.lerp(anchor, p, 1 / (1 + rate * strength)))
            if whole in self._rows:
                continue
            for p, strength, anchor in _pieces(*term) if _is_large(whole) else [term]:
                kept = 1 / (1 + rate * strength)
                torch.lerp(anchor, p, kept, out=p)  # (θ + sθ*) / (1 + s) = θ* + (θ − θ*) / (1 + s)

    def _some_rows(self, term: Term) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """(which, copies of these rows), in pieces, of a weight that is pulled in few rows; nothing for any other."""
        if (rows := self._rows.get(term[0])) is not None:
            for some in rows.split(max(1, PIECE // term[0].shape[1])):
                yield some, [t[some] for t in term if isinstance(t, Tensor)]

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

    def __init__(
        self, lam: Lam | None = None, beta: float = 0.0, proximal: bool = False, strength: float = 1.0
    ) -> None:
        super().__init__(lam, proximal=proximal, strength=strength)
        self.beta = number("beta", beta)

    def check(self, run: Run) -> None:
        if not self.beta:
            super().check(run)

    def penalty(self, run: Run) -> Tensor:
        new = sum(((p**2).sum() / 2 for p in self._new(run)), torch.zeros((), device=run.model.device))
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


def _is_large(p: Tensor) -> bool:
    return p.device.type == "cpu" and p.numel() > PIECE and p.is_contiguous()


def _pieces(*values: Tensor | float) -> Iterator[tuple[Any, ...]]:
    """Tensors of one size in pieces, numbers as they are: what is computed in between never leaves the cache."""
    return zip(*(v.flatten().split(PIECE) if isinstance(v, Tensor) else repeat(v) for v in values), strict=False)


def _lam(lam: Lam) -> float | dict[str, float]:
    if isinstance(lam, Mapping):
        return {pattern: number(f"lam of {pattern!r}", value) for pattern, value in lam.items()}
    return number("lam", lam)


def _lam_of(lam: float | dict[str, float], name: str) -> float:
    if isinstance(lam, float):
        return lam
    return next((value for pattern, value in lam.items() if fnmatch(name, pattern)), 0.0)


def _mean(values: Sequence[Tensor]) -> float:
    total = sum(float(value.sum(dtype=torch.float64)) for value in values)
    return total / max(1, sum(value.numel() for value in values))


def _backbone(run: Run) -> set[str]:
    return {name for name in run.weights if not name.startswith("heads.")}
