"""Synaptic intelligence: importance gathered along the path of training instead of from data afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from forgetlab.errors import number, whole
from forgetlab.importance import Importance
from forgetlab.models.seeds import stream
from forgetlab.remedies.regularizers.quadratic import Lam, Quadratic
from forgetlab.tasks.base import Task, trainable
from forgetlab.training.method import Part, Run
from forgetlab.training.torch_state import apart


class SI(Quadratic):
    """Pull each weight as strongly as its moves have lowered the loss of earlier tasks.

    Along a run ω −= g · Δθ, with g the gradient of the loss without any penalty; at the next run's start
    Ω += relu(ω / (Δ² + ξ)), with Δ how far the weight went in all. L = L_task + (λ/2) Σ_i Ω_i (θ_i − θ*_i)².

    The same object goes through the runs of a sequence. old: for a model whose earlier path is unknown, tasks to walk
    at the first start: `walk` steps on all of them together, drawn by the run's seed, which are undone once ω is known.
    lam, strength, proximal: see Quadratic. xi: ξ > 0 keeps Ω finite. Raises ForgetlabError for numbers out of range.
    What it has gathered it keeps: after `model.restore()` begin with a new one.
    Source: Zenke, Poole & Ganguli 2017, eq. 3–5. Differs from the paper by the factor ½, and by the walk.

    >>> si = SI(lam=1)  # the first run teaches it what matters
    >>> [[*finetune(model, one, methods=[si], steps=2)][-1].penalty["si"] > 0 for one in (old, new)]
    [False, True]
    """

    name = "si"
    saved = ("_path",)

    def __init__(
        self,
        old: Sequence[Task] = (),
        lam: Lam | None = None,
        xi: float = 1e-3,
        walk: int = 50,
        proximal: bool = False,
        strength: float = 1.0,
    ) -> None:
        super().__init__(lam, proximal=proximal, strength=strength)
        self._old = trainable(old, "walk on") if old else []
        self.xi = number("xi", xi, above=True)
        self.walk = whole("walk", walk)
        self._omega: Importance = {}  # Ω, of all earlier runs
        self._path: Importance = {}  # ω, of the present run
        self._start: Mapping[str, Tensor] = {}
        self._step: tuple[list[Tensor], ...] = ()  # ω, g, θ before and θ of the step under way

    def importance(self, run: Run) -> Importance:
        if not self._omega:
            self._omega = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in run.weights.items()}
            if self._old:
                self._gain(*self._walk(run))
        if self._path:
            self._gain(self._path, {name: run.anchor[name] - start for name, start in self._start.items()})
        # in float32: what a step adds is far below half precision's share of the sum
        self._path = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in run.weights.items()}
        self._start = run.anchor
        return self._omega

    def _gain(self, path: Importance, moved: Importance) -> None:
        for name, omega in self._omega.items():
            if name in path:
                self._omega[name] = omega + torch.relu(path[name] / (moved[name] ** 2 + self.xi))

    @torch.no_grad()
    def observe_gradients(self, run: Run) -> None:
        names = [name for name, p in run.weights.items() if p.requires_grad]
        weights: list[Tensor] = [run.weights[name] for name in names]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in weights]
        self._step = [self._path[name] for name in names], gradients, [p.clone() for p in weights], weights

    @torch.no_grad()
    def after_step(self, run: Run) -> None:
        super().after_step(run)  # first: a proximal pull is part of the path
        path, gradients, before, weights = self._step
        if path:
            moved = [change.float() for change in torch._foreach_sub(weights, before)]
            torch._foreach_addcmul_(path, [g.float() for g in gradients], moved, value=-1.0)  # ω −= g Δθ

    def _walk(self, run: Run) -> tuple[Importance, Importance]:
        """(ω, Δ) of some steps on the old tasks; the weights are put back."""
        own = replace(run, generator=stream("the walk of SI", run.seed), _orders={})
        weights = list(run.weights.values())
        required = [p.requires_grad for p in weights]
        path = [torch.zeros_like(p, dtype=torch.float32) for p in weights]
        optimizer = torch.optim.AdamW(weights, lr=run.lr, weight_decay=0.0)
        with apart(run.model), torch.enable_grad():
            run.model.train()
            for p in set(run.model.parameters()) - run.model.still:
                p.requires_grad_(True)
            try:
                for _ in range(self.walk):
                    for task in self._old:
                        loss = task.loss(run.model, own.batch(Part(task, min(run.batch_size, task.size()))))
                        (loss / len(self._old)).backward()
                    with torch.no_grad():
                        before = [p.clone() for p in weights]
                        optimizer.step()
                        for total, p, old in zip(path, weights, before, strict=True):
                            if p.grad is not None:
                                total -= p.grad.float() * (p - old).float()
                    run.model.zero_grad()
            finally:  # an interrupt must not leave the model where the walk has led it
                with torch.no_grad():
                    moved = {name: p - run.anchor[name] for name, p in run.weights.items()}
                    for (name, p), needed in zip(run.weights.items(), required, strict=True):
                        p.copy_(run.anchor[name])
                        p.requires_grad_(needed)
                run.model.zero_grad()
                run.model.eval()
        return dict(zip(run.weights, path, strict=True)), moved

    def costs(self, run: Run) -> dict[str, float]:
        copies = sum(p.nbytes for p in run.weights.values())
        return {"bytes": super().costs(run)["bytes"] + 3.0 * copies}  # ω, and g and θ of each step
