"""Remedies that pull the weights back: L = L_task + (λ/2) Σ_i Ω_i (θ_i − θ*_i)², each with its own Ω.

The penalty's gradient λ Ω (θ − θ*) is added directly, fused over all weights, and goes through the optimizer like the
task's own. A stiff penalty (ηλΩ > 2) makes plain gradient steps diverge; `proximal=True` takes the implicit step
θ ← (θ + ηλΩ θ*) / (1 + ηλΩ) after the optimizer's instead, decoupled as AdamW's weight decay is, stable at any λ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from functools import partial
from itertools import repeat
from typing import Any, get_args

import torch
from torch import Tensor

from forgetlab.checks import flag, number, whole
from forgetlab.errors import ForgetlabError, unknown
from forgetlab.importance import Estimator, Importance, check_importance, fisher_diagonal, mas_importance
from forgetlab.importance.kept import once
from forgetlab.methods import Method, Run
from forgetlab.tasks import Task, trainable

Lam = float | Mapping[str, float]
Term = tuple[Tensor, Tensor | float, Tensor]  # a weight, its λΩ, and where it is pulled to

PIECE = 2**18  # elements that are pulled at a time: 1 MiB, whose differences stay in the processor's cache


class Quadratic(Method):
    """The shared machine: a pull of strength λ Ω_i on each weight that was there before.

    lam: λ ≥ 0, or {pattern of parameter names: λ}, such as {"*.layer.0.*": 10, "*": 1}, the first that fits.
    anchor: {name: tensor} to pull towards (default: the weights at the start of the run).
    proximal: take the implicit, decoupled step. Raises ForgetlabError where nothing that it protects is trained.
    """

    def __init__(self, lam: Lam, anchor: Mapping[str, Tensor] | None = None, proximal: bool = False) -> None:
        self.lam = _lam(lam)
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
        for name, p in run.weights.items():
            lam = _lam_of(self.lam, name)
            if lam and (omega is None or name in omega):
                strength = lam if omega is None else lam * omega[name].to(p)
                self._terms.append((p, strength, anchor[name].to(p)))
                if isinstance(strength, Tensor) and p.dim() == 2 and _is_large(p):
                    rows = strength.any(dim=1).nonzero().squeeze(1)
                    if 2 * len(rows) < len(p):  # embeddings: the old tasks have few of the words
                        self._rows[p] = rows

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

    lam: λ ≥ 0, or by pattern (see Quadratic). beta: β ≥ 0. Raises ForgetlabError for another number.
    Source: Li, Grandvalet & Davoine 2018, eq. 2. It is EWC with every F_i = 1.
    """

    name = "l2sp"

    def __init__(self, lam: Lam = 0.05, beta: float = 0.0, proximal: bool = False) -> None:
        super().__init__(lam, proximal=proximal)
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


class EWC(Quadratic):
    """Elastic weight consolidation: pull each weight as strongly as the old tasks' Fisher information says.

    L = L_task + (λ/2) Σ_i F_i (θ_i − θ*_i)².

    fisher: {name: tensor} from `fisher_diagonal` (several tasks: their sum), or the old tasks themselves, of which it
    is then computed at the start with `estimator`, `examples` and `draws`. lam, anchor, proximal: see Quadratic.
    Raises ForgetlabError for a Fisher of another model (it names the parameter) and for tasks without training data.
    Source: Kirkpatrick et al. 2017, eq. 3. Differs from much public code by the per-example Fisher and the factor ½.
    """

    name = "ewc"

    def __init__(
        self,
        fisher: Mapping[str, Tensor] | Sequence[Task],
        lam: Lam = 100.0,
        *,
        anchor: Mapping[str, Tensor] | None = None,
        proximal: bool = False,
        estimator: Estimator = "auto",
        examples: int = 200,
        draws: int = 4,
    ) -> None:
        super().__init__(lam, anchor, proximal)
        self._given = fisher if isinstance(fisher, Mapping) else trainable(fisher, "measure the Fisher information on")
        if estimator not in get_args(Estimator):
            raise unknown("estimator", str(estimator), get_args(Estimator))
        self.estimator: Estimator = estimator
        self.examples, self.draws = whole("examples", examples), whole("draws", draws)

    def importance(self, run: Run) -> Importance:
        if isinstance(self._given, Mapping):
            return dict(self._given)
        how = type(self)._of_task.__qualname__, self.estimator, self.examples, self.draws
        return self.combine([once(run.model, task, how, partial(self._of_task, run, task)) for task in self._given])

    def _of_task(self, run: Run, task: Task) -> Importance:
        return fisher_diagonal(
            run.model, task, estimator=self.estimator, examples=self.examples, draws=self.draws, batch_size=32
        )

    def combine(self, parts: Sequence[Importance]) -> Importance:
        """One Fisher of the tasks' own, in their order: the sum."""
        return {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}


class OnlineEWC(EWC):
    """EWC for a sequence: one anchor, and a Fisher that fades: F ← γ F + F_t after each task t.

    gamma: γ in [0, 1]; 1 is the plain sum. `consolidate(fisher)` adds the Fisher of a task just learned; the next
    run then anchors to its own start, where no anchor was given. Everything else as in EWC; given tasks count as a
    sequence in their order.
    Source: Schwarz et al. 2018 (Progress & Compress), eq. 8–9. Theirs pulls with γ F, this with F: their λ is ours / γ.
    """

    name = "online-ewc"

    def __init__(
        self,
        fisher: Mapping[str, Tensor] | Sequence[Task],
        lam: Lam = 100.0,
        gamma: float = 0.9,
        *,
        anchor: Mapping[str, Tensor] | None = None,
        proximal: bool = False,
        estimator: Estimator = "auto",
        examples: int = 200,
        draws: int = 4,
    ) -> None:
        super().__init__(
            fisher, lam, anchor=anchor, proximal=proximal, estimator=estimator, examples=examples, draws=draws
        )
        self.gamma = number("gamma", gamma, 0, 1)

    def combine(self, parts: Sequence[Importance]) -> Importance:
        faded = dict(parts[0])
        for part in parts[1:]:
            faded = {name: self.gamma * value + part[name] for name, value in faded.items()}
        return faded

    def consolidate(self, fisher: Mapping[str, Tensor]) -> None:
        """F ← γ F + F_t. fisher: F_t of the task just learned, for the same parameters as before."""
        if not isinstance(self._given, Mapping):
            raise ForgetlabError("consolidate needs a method that was given a Fisher, not tasks")
        given = {name: torch.empty_like(value) for name, value in self._given.items()}
        check_importance(fisher, given, needed=given)
        self._given = self.combine([dict(self._given), dict(fisher)])


class MAS(EWC):
    """Memory-aware synapses: the pull follows how much the old outputs react to each weight; no labels are used.

    L = L_task + (λ/2) Σ_i Ω_i (θ_i − θ*_i)²,  Ω = mean_x |∂‖f(x)‖² / ∂θ|.

    importance: {name: tensor} from `mas_importance`, or the old tasks (see EWC).
    Source: Aljundi et al. 2018, eq. 3–4; differs from it by the factor ½.
    """

    name = "mas"

    def __init__(
        self,
        importance: Mapping[str, Tensor] | Sequence[Task],
        lam: Lam = 3e-4,
        *,
        anchor: Mapping[str, Tensor] | None = None,
        proximal: bool = False,
        examples: int = 200,
    ) -> None:
        super().__init__(importance, lam, anchor=anchor, proximal=proximal, examples=examples)

    def _of_task(self, run: Run, task: Task) -> Importance:
        return mas_importance(run.model, task, examples=self.examples)


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


def _backbone(run: Run) -> set[str]:
    return {name for name in run.weights if not name.startswith("heads.")}
