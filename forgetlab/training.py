"""Fine-tuning as an iterator: `finetune` yields a Record at each evaluation, and closing it stops the training."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from forgetlab.checks import number, whole
from forgetlab.errors import ForgetlabError
from forgetlab.methods import Group, Method, Part, Run, grouped, state_for
from forgetlab.metrics import parameter_drift
from forgetlab.models import Model, pick_device
from forgetlab.tasks import Scores, Task

Status = Literal["running", "done", "stopped", "diverged"]
Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Record:
    """The state of a run at one evaluation.

    step: finished steps. loss: mean training loss since the last record, nats (None before the first step).
    scores: {task: {metric: value}}, the new task first. penalty: {method: value of its loss term}.
    drift: ‖θ − θ₀‖ over all weights that were there before; drift_per_layer likewise; lr: of each group.
    costs: in the first record, "trained_parameters", "added_parameters" and "bytes" that the methods hold beyond
    plain fine-tuning; setup_seconds: what they took before the first step.
    seconds: since the start, scoring included; train_seconds: of the steps alone.
    status "diverged", "stopped" and "done" end a run; where a method stopped it, the record that made it do so comes
    first and the last one scores the weights that were kept. source: "live".
    """

    step: int
    loss: float | None
    scores: dict[str, Scores]
    penalty: dict[str, float]
    drift: float
    drift_per_layer: dict[str, float]
    lr: list[float]
    seconds: float
    train_seconds: float
    setup_seconds: float = 0.0
    status: Status = "running"
    message: str = ""
    source: str = "live"
    notes: list[str] = field(default_factory=list)
    costs: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The record as plain values, ready for JSON (nan and inf become None)."""
        return _finite(asdict(self))


def finetune(
    model: Model,
    task: Task,
    *,
    methods: Sequence[Method] = (),
    watch: Sequence[Task] = (),
    steps: int = 100,
    lr: float = 1e-3,
    batch_size: int = 32,
    seed: int = 0,
    every: int = 5,
    device: str | torch.device | None = None,
    precision: Precision = "float32",
    weight_decay: float = 0.0,
    clip: float = 1.0,
    accumulation: int = 1,
    limit: int | None = 64,
) -> Iterator[Record]:
    """Fine-tune a model on a task with AdamW and watch what it forgets.

    methods: remedies, composed in order. watch: tasks scored along with the new one.
    steps: optimizer steps. lr: learning rate. batch_size: examples per step, split over `accumulation` passes.
    every: steps between records; there is one before the first step and one at the end.
    device: where to train (None: where the model is). precision: "bfloat16" and "float16" use autocast.
    clip: the largest gradient norm (0: no clipping). limit: test examples per score (None: all).

    Returns an iterator of Records; closing it ends the run and leaves the model in eval mode as trained so far.
    A loss that is not finite ends the run with a record of status "diverged"; `model.restore()` undoes everything.
    On the CPU the same arguments give the same numbers, bit for bit.
    Raises ForgetlabError, before anything is touched, for arguments that cannot work.
    """
    whole("steps", steps)
    whole("batch_size", batch_size)
    whole("every", every)
    whole("accumulation", accumulation)
    number("lr", lr, above=True)
    number("weight_decay", weight_decay)
    number("clip", clip)
    if precision not in ("float32", "bfloat16", "float16"):
        raise ForgetlabError(f"precision must be float32, bfloat16 or float16, got {precision!r}")
    if batch_size % accumulation:
        raise ForgetlabError(f"batch_size {batch_size} cannot be split evenly over {accumulation} passes")
    if task.size() == 0:
        raise ForgetlabError(f"the task {task.name} has no training data: it can be watched, not trained")
    if batch_size > task.size():
        raise ForgetlabError(
            f"batch_size {batch_size} is larger than the {task.size()} training examples of {task.name}; "
            f"use {task.size()} or less"
        )
    if (names := [t.name for t in (task, *watch)]) and len(set(names)) < len(names):
        raise ForgetlabError(f"two tasks have the same name: {', '.join(names)}")
    if device is not None:
        model.to(pick_device(device))
    for one in (task, *watch):
        one.prepare(model, seed)
    notes = task.remarks(model, "train") + [note for one in (task, *watch) for note in one.remarks(model, "test")]
    loop = _Loop(
        model,
        task,
        methods,
        watch,
        steps,
        lr,
        batch_size,
        seed,
        precision,
        weight_decay,
        clip,
        accumulation,
        limit,
    )
    return loop.records(every, notes)


class _Loop:
    def __init__(
        self,
        model: Model,
        task: Task,
        methods: Sequence[Method],
        watch: Sequence[Task],
        steps: int,
        lr: float,
        batch_size: int,
        seed: int,
        precision: Precision,
        weight_decay: float,
        clip: float,
        accumulation: int,
        limit: int | None,
    ) -> None:
        self.model, self.methods, self.tasks = model, list(methods), [task, *watch]
        self.clip, self.accumulation, self.limit = clip, accumulation, limit
        self.weight_decay = weight_decay
        # what was there before: the weights remembered at loading, new heads left out
        weights = {n: p for n, p in model.named_parameters() if n in model.known_names}
        anchor = {n: p.detach().clone() for n, p in weights.items()}
        generator = torch.Generator().manual_seed(seed)
        self.run = Run(
            model, task, steps, batch_size, lr, anchor, weights, generator, self._autocast, self._state, watch=watch
        )
        self.learns_from_batches = [m for m in methods if type(m).batch_penalty is not Method.batch_penalty]
        self.rates: list[float] = []
        self.setup_seconds = self.train_seconds = 0.0
        self.random = _Randomness(seed, model.device)
        self.dtype = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=precision == "float16")

    def records(self, every: int, notes: list[str]) -> Iterator[Record]:
        run, model = self.run, self.model
        trainable = {p: p.requires_grad for p in model.parameters()}
        start = time.perf_counter()
        try:
            with self.random:
                for method in self.methods:
                    method.setup(run)
                optimizer = self._optimizer()
                for method in self.methods:
                    method.check(run)
                self.setup_seconds = time.perf_counter() - start
                record = self._record(None, start, notes, self._costs())
            yield record
            while record.status != "stopped":
                with self.random:
                    reasons = [reason for method in self.methods if (reason := method.should_stop(record, run))]
                    if reasons:
                        kept = self._record(record.loss, start)
                        record = replace(kept, status="stopped", message="; ".join(reasons))
                if not reasons:
                    if record.status != "running":
                        return
                    with self.random, torch.enable_grad():
                        begin = time.perf_counter()
                        model.train()
                        losses = [self._step(optimizer) for _ in range(min(every, run.steps - run.step))]
                        loss = float(torch.stack(losses).mean())  # the one wait for the device between records
                        self.train_seconds += time.perf_counter() - begin
                        record = self._record(loss, start)
                yield record
        finally:
            for p in model.parameters():
                p.requires_grad_(trainable.get(p, True))
                p.grad = None
            model.eval()

    def _optimizer(self) -> torch.optim.Optimizer:
        named = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        groups: list[Group] = [{"params": [p for _, p in named], "names": [n for n, _ in named], "lr": self.run.lr}]
        groups = grouped(self.methods, groups, self.run)
        fused = self.model.device.type in ("cpu", "cuda")
        optimizer = torch.optim.AdamW(groups, lr=self.run.lr, weight_decay=self.weight_decay, fused=fused)
        self.run.groups = optimizer.param_groups
        self.rates = [group["lr"] for group in optimizer.param_groups]
        return optimizer

    def _costs(self) -> dict[str, float]:
        totals = {"added_parameters": 0.0, "bytes": 0.0}
        for method in self.methods:
            for name, value in method.costs(self.run).items():
                totals[name] = totals.get(name, 0.0) + value
        return totals | {"trained_parameters": float(sum(p.numel() for p in self.run.trained()))}

    def _step(self, optimizer: torch.optim.Optimizer) -> Tensor:
        run, model = self.run, self.model
        for group, rate in zip(run.groups, self.rates, strict=True):
            group["lr"] = rate
        for method in self.methods:
            method.before_step(run)
        total = torch.zeros((), device=model.device)
        for _ in range(self.accumulation):
            parts = [Part(run.task, run.batch_size // self.accumulation)]
            for method in self.methods:
                parts = method.augment(parts, run)
            for part in parts:
                batch = run.batch(part)
                with self._autocast(), self._state(part.task):
                    loss = self._loss(part.task, batch) * (part.count / run.batch_size)
                if not loss.requires_grad:
                    raise ForgetlabError(
                        f"nothing that is trained takes part in the loss of {part.task.name}: leave out its replay, "
                        "or have it share the added weights (shared=1)"
                    )
                self.scaler.scale(loss).backward()
                total += loss.detach()
        self.scaler.unscale_(optimizer)
        for method in self.methods:
            method.observe_gradients(run)
        for method in self.methods:
            method.add_penalty_gradient(run)
        for method in self.methods:
            method.adjust_gradients(run)
        if self.clip:
            nn.utils.clip_grad_norm_(run.trained(), self.clip)
        self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad()
        run.step += 1
        for method in self.methods:
            method.after_step(run)
        return total

    def _loss(self, task: Task, batch: dict[str, Tensor]) -> Tensor:
        if not self.learns_from_batches:
            return task.loss(self.model, batch)
        with self.model.shared_forward():
            loss = task.loss(self.model, batch)
            for method in self.learns_from_batches:
                if (more := method.batch_penalty(task, batch, self.run)) is not None:
                    loss = loss + more
        return loss

    def _record(
        self,
        loss: float | None,
        start: float,
        notes: Sequence[str] = (),
        costs: dict[str, float] | None = None,
    ) -> Record:
        run, found = self.run, measured(self.run, self.methods, self.tasks, self.limit)
        status: Status = "done" if run.step == run.steps else "running"
        message = ""
        if loss is not None and not (math.isfinite(loss) and math.isfinite(found["drift"])):
            status = "diverged"
            message = f"the loss is no longer finite after step {run.step}: the learning rate {run.lr:g} is too high"
        return Record(
            **found,
            loss=loss,
            seconds=time.perf_counter() - start,
            train_seconds=self.train_seconds,
            setup_seconds=self.setup_seconds,
            status=status,
            message=message,
            notes=list(notes),
            costs=costs or {},
        )

    def _state(self, task: Task) -> AbstractContextManager[None]:
        return state_for(task, self.methods, self.run)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.model.device.type, dtype=self.dtype)


def measured(run: Run, methods: Sequence[Method], tasks: Sequence[Task], limit: int | None) -> dict[str, Any]:
    """What every Record of a run holds by name: step, scores of the tasks, penalties, drift, learning rates."""
    scores = {}
    with torch.no_grad(), run.autocast():
        for task in tasks:
            with run.state(task):
                scores[task.name] = task.score(run.model, limit)
        values = {method.name: method.penalty(run) for method in methods}
    drift = parameter_drift(run.anchor, run.weights)
    return {
        "step": run.step,
        "scores": scores,
        "penalty": {name: float(value) for name, value in values.items() if value is not None},
        "drift": drift.total,
        "drift_per_layer": drift.per_layer,
        "lr": [group["lr"] for group in run.groups],
    }


class _Randomness:
    """The run's own state of torch's global generators (dropout): set while it computes, put away at each yield."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        with torch.random.fork_rng(devices=[device] if self._cuda else []):
            torch.manual_seed(seed)
            self._own = self._get()

    def _get(self) -> tuple[Tensor, Tensor | None]:
        return torch.get_rng_state(), torch.cuda.get_rng_state(self._cuda) if self._cuda else None

    def _set(self, state: tuple[Tensor, Tensor | None]) -> None:
        torch.set_rng_state(state[0])
        if state[1] is not None:
            torch.cuda.set_rng_state(state[1], self._cuda or "cuda")

    def __enter__(self) -> None:
        self._theirs = self._get()
        self._set(self._own)

    def __exit__(self, *_: object) -> None:
        self._own = self._get()
        self._set(self._theirs)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
