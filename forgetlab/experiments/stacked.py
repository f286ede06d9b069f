"""Many runs at once: weights stacked, one launch for all of them.

A tiny model keeps a GPU waiting for launches. Runs of one task and one seed see the same batches, so they may differ in
the learning rate and in a quadratic pull (L2-SP, EWC, online EWC, MAS) and still share every kernel. The numbers are
those of `finetune` one by one, up to rounding. On a CPU processes are faster (`workers.several`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from forgetlab.errors import ForgetlabError
from forgetlab.metrics import parameter_drift
from forgetlab.models import memory
from forgetlab.models.functional import eager_attention, with_weights
from forgetlab.models.model import Model, evaluating
from forgetlab.models.open_runs import under_way
from forgetlab.remedies.regularizers import L2SP, Quadratic
from forgetlab.remedies.regularizers.ewc import Measured
from forgetlab.tasks import OnPolicy, Task
from forgetlab.training.measuring import Scored
from forgetlab.training.method import Method, Part, Run
from forgetlab.training.options import Options, check, make_ready
from forgetlab.training.record import Record
from forgetlab.training.torch_state import TorchState

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # torch's AdamW
Stack = dict[str, Tensor]  # name → (runs, *shape)


@dataclass(frozen=True)
class Variant:
    """What tells one of the runs from another: its learning rate and its pull (None: plain fine-tuning)."""

    lr: float = 1e-3
    pull: Quadratic | None = None


def stackable(methods: Sequence[Method]) -> bool:
    """Whether a run with these methods can be one of many at once: nothing, or one pull on the weights."""
    own = [m for m in methods if type(m) is not Method]
    fixed = len(own) == 1 and isinstance(own[0], L2SP | Measured)  # SI is none of them: it goes on measuring
    return not own or (fixed and not getattr(own[0], "beta", 0.0))


def finetune_stacked(
    model: Model,
    task: Task,
    variants: Sequence[Variant],
    *,
    watch: Sequence[Task] = (),
    steps: int = 100,
    batch_size: int = 32,
    seed: int = 0,
    every: int = 5,
    clip: float = 1.0,
    limit: int | None = 64,
) -> Iterator[list[Record | None]]:
    """Fine-tune a model in several variants at once; yields the variants' records at each evaluation.

    model: is left as it was, but for the new tasks' heads. Other arguments as in `finetune`, float32, without weight
    decay.
    A variant whose loss is not finite has a record of status "diverged", and None from then on.
    "train_seconds" of a record is the time of all variants together, divided by their number.
    Raises ForgetlabError for no variants, for a pull that cannot be stacked, and for what `finetune` refuses.
    """
    if not variants:
        raise ForgetlabError("no variants given; expected a list of Variant(lr, pull)")
    if isinstance(task, OnPolicy):
        raise ForgetlabError(f"{task.name} has other answers in each run, so they cannot be stacked: use finetune")
    if odd := [v.pull for v in variants if v.pull is not None and not stackable([v.pull])]:
        raise ForgetlabError(f"{odd[0].name} with beta, or no pull on the weights, runs one by one: use finetune")
    for variant in variants:
        options = Options(steps, variant.lr, batch_size, seed, every, clip=clip, limit=limit)
        check(model, task, (), watch, options)
    make_ready(model, (task, *watch), options.seed)

    def runs() -> Generator[list[Record | None], None, None]:
        make_ready(model, (task, *watch), options.seed)  # another run may have come and gone since the call
        yield from _Stacked(model, task, variants, watch, options).records()

    return under_way(runs(), model)


class _Stacked:
    def __init__(
        self, model: Model, task: Task, variants: Sequence[Variant], watch: Sequence[Task], options: Options
    ) -> None:
        self.model, self.task, self.tasks, self.variants = model, task, [task, *watch], variants
        self.every, self.clip, self.limit, seed = options.every, options.clip, options.limit, options.seed
        self.run = Run.begin(model, task, options.steps, options.batch_size, variants[0].lr, seed, watch=watch)
        self.torch_state = TorchState(model, seed)
        self.rates = torch.tensor([v.lr for v in variants], device=model.device)
        self.over = [False] * len(variants)
        self.start = time.perf_counter()
        self.setup_seconds = self.train_seconds = 0.0

    def records(self) -> Iterator[list[Record | None]]:
        memory.start_peak(self.model.device)
        yield self._look_after(self._set_up)
        while self.run.step < self.run.steps and not all(self.over):
            yield self._look_after(self._train)

    def _look_after(self, work: Callable[[], list[float] | None]) -> list[Record | None]:
        """The records after `work`, which returns each run's loss."""
        with self.torch_state, eager_attention(self.model), evaluating(self.model):
            losses = work()
            with torch.no_grad():
                scored = {task.name: self._scored(task) for task in self.tasks}
                return [self._record(i, losses[i] if losses else None, scored) for i in range(len(self.variants))]

    def _train(self) -> list[float]:
        begin = time.perf_counter()
        self.model.train()
        try:
            losses = [self._step() for _ in range(min(self.every, self.run.steps - self.run.step))]
            mean: list[float] = torch.stack(losses).mean(0).tolist()
        finally:
            self.model.eval()
        self.train_seconds += time.perf_counter() - begin
        return mean

    def _set_up(self) -> None:
        """The stacks, and what pulls each weight: strengths (runs, …), 0 where a variant has no pull on it."""
        model, count = self.model, len(self.variants)
        named = dict(model.named_parameters())
        for variant in self.variants:
            if variant.pull is not None:
                variant.pull.setup(self.run)
        names: dict[Tensor, str] = {p: n for n, p in named.items()}
        terms = [{names[p]: (s, a) for p, s, a in v.pull._terms} if v.pull else {} for v in self.variants]
        self.trained: Stack = {n: p.detach().expand(count, *p.shape).clone() for n, p in named.items()}
        self.strength, self.towards = {}, {}
        for name in self.trained:
            own = [term.get(name) for term in terms]
            if any(own):
                like = torch.zeros_like(named[name])
                self.strength[name] = torch.stack([like + t[0] if t else like for t in own])
                self.towards[name] = torch.stack([t[1] if t else self.run.anchor.get(name, like) for t in own])
        self.proximal = torch.tensor([bool(v.pull and v.pull.proximal) for v in self.variants], device=model.device)
        self.mean = {n: torch.zeros_like(p) for n, p in self.trained.items()}
        self.square = {n: torch.zeros_like(p) for n, p in self.trained.items()}
        self.setup_seconds = time.perf_counter() - self.start

    def _loss(self, weights: Stack, batch: Any) -> Tensor:
        return with_weights(self.model, weights, lambda: self.task.loss(self.model, batch))

    @torch.no_grad()
    def _step(self) -> Tensor:
        batch = self.run.batch(Part(self.task, self.run.batch_size))
        gradient = vmap(grad_and_value(self._loss), in_dims=(0, None), randomness="same")
        gradients, losses = gradient(self.trained, batch)
        for name, strength in self.strength.items():  # λΩ(θ − θ*), of those that are not proximal
            pull = strength * (self.trained[name] - self.towards[name])
            gradients[name] += pull.masked_fill(self._each(self.proximal, pull), 0.0)
        if self.clip:
            norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients.values()]).norm(dim=0)
            scale = (self.clip / (norms + 1e-6)).clamp(max=1.0)
            gradients = {n: g * self._each(scale, g) for n, g in gradients.items()}
        t = self.run.step + 1
        for name, g in gradients.items():
            mean = self.mean[name].lerp_(g, 1 - BETA1)
            square = self.square[name].mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
            root = square.sqrt() / math.sqrt(1 - BETA2**t) + EPSILON
            self.trained[name] -= self._each(self.rates / (1 - BETA1**t), g) * mean / root  # AdamW without decay
        for name, strength in self.strength.items():
            s = self._each(self.rates, strength) * strength
            s = (s / (1 + s)).masked_fill(~self._each(self.proximal, s), 0.0)
            self.trained[name].lerp_(self.towards[name], s)  # (θ + sθ*) / (1 + s)
        self.run.step = t
        return losses

    @staticmethod
    def _each(values: Tensor, like: Tensor) -> Tensor:
        """(runs,) → (runs, 1, …), to go with a stack."""
        return values.view(-1, *[1] * (like.dim() - 1))

    def _scored(self, task: Task) -> list[Scored]:
        """The scores of every run on a task, its predictions made at once; a probe's one after the other."""
        count = len(self.variants)
        if type(task)._scored is not Task._scored:
            return [
                with_weights(self.model, self._of(i), lambda: task.scored(self.model, self.limit)) for i in range(count)
            ]
        batches, items = task.test_batches(self.model, self.limit), len(task.sample(self.limit))

        def logits(weights: Stack) -> list[Tensor]:
            return with_weights(self.model, weights, lambda: [task.logits(self.model, batch) for batch in batches])

        stacks = vmap(logits)(self.trained)
        return [task.scores_of(zip(batches, (s[i] for s in stacks), strict=True), items) for i in range(count)]

    def _of(self, i: int) -> Stack:
        return {name: stack[i] for name, stack in self.trained.items()}

    def _record(self, i: int, loss: float | None, scored: dict[str, list[Scored]]) -> Record | None:
        if self.over[i]:
            return None
        variant, weights = self.variants[i], self._of(i)
        drift = parameter_drift(self.run.anchor, weights)
        self.over[i] = loss is not None and not (math.isfinite(loss) and math.isfinite(drift.total))
        done = self.run.step == self.run.steps
        pulled = {n: s[i] for n, s in self.strength.items()}
        penalty = sum(float((s * (weights[n] - self.towards[n][i]) ** 2).sum()) / 2 for n, s in pulled.items())
        tallies = {name: tally.plain() for name, values in scored.items() if (tally := values[i][1]) is not None}
        message = f"the loss is no longer finite: the learning rate {variant.lr:g} is too high"
        return Record(
            step=self.run.step,
            loss=loss,
            scores={name: values[i][0] for name, values in scored.items()},
            penalty={variant.pull.name: penalty} if variant.pull else {},
            drift=drift.total,
            drift_per_layer=drift.per_layer,
            lr=[variant.lr],
            seconds=time.perf_counter() - self.start,
            setup_seconds=self.setup_seconds,
            train_seconds=self.train_seconds / len(self.variants),
            status="diverged" if self.over[i] else "done" if done else "running",
            message=message if self.over[i] else "",
            peak_memory=memory.peak(self.model.device),
            tallies=tallies if loss is None or done or self.over[i] else {},
        )
