"""Fine-tuning as an iterator: `finetune` yields a Record at each evaluation, and closing it stops the training."""

from __future__ import annotations

import math
import secrets
import tempfile
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from forgetlab.models import memory
from forgetlab.models.device import pick_device
from forgetlab.models.model import Model
from forgetlab.models.open_runs import under_way
from forgetlab.tasks import Classification, Tagging, Task
from forgetlab.training import compiling
from forgetlab.training.measuring import measured
from forgetlab.training.method import Group, Method, Run, grouped
from forgetlab.training.options import Options, Precision, check, make_ready
from forgetlab.training.record import Record, Status
from forgetlab.training.start import filed
from forgetlab.training.step import Passes
from forgetlab.training.torch_state import TorchState


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
    compile: bool = False,
) -> Generator[Record, None, None]:
    """Fine-tune a model on a task with AdamW and watch what it forgets.

    methods: remedies, composed in order. watch: tasks scored along with the new one.
    steps: optimizer steps. lr: learning rate. batch_size: examples per step, split over `accumulation` passes.
    every: steps between records; there is one before the first step and one at the end.
    device: where to train (None: where the model is). precision: "bfloat16" and "float16" use autocast.
    clip: the largest gradient norm (0: no clipping). limit: test items per score (None: all), a fixed sample by class.
    compile: train through torch.compile, with the same results but for rounding and the draws of dropout; where no
    compiler works the run goes on without, and a note says so.

    Returns a generator of Records; closing it ends the run and leaves the model in eval mode as trained so far.
    A loss that is not finite ends the run with a record of status "diverged"; `model.restore()` undoes everything.
    The run begins with the first `next`, from the weights of that moment, and is open until the generator is at its
    end or closed. A model has one open run at a time; `model.restore()` closes it.
    On the CPU the same arguments give the same numbers, bit for bit. Every draw comes from `seed`; torch's global
    generator is touched only where the model drops out in training (dropout knows no other), with its state put back.
    Where a step runs out of memory, its batch and all later ones are taken in two halves, and a note says so. The
    examples, their masks and the optimizer steps stay the same and the halves' gradients add up to the whole batch's
    (halves are weighted by their predictions); only rounding, the draws of dropout and, where texts differ in length,
    the weights of places in a method's own term (LwF, KLAnchor) differ.
    Raises ForgetlabError, before anything is touched, for arguments that cannot work and for a model with an open run;
    and later where half a batch is still too much for the memory.

    >>> records = [*finetune(model, new, watch=[old], steps=10)]
    >>> [record.step for record in records], round(records[0].scores["entities"]["f1"], 2)
    ([0, 5, 10], 1.0)
    """
    options = Options(steps, lr, batch_size, seed, every, precision, weight_decay, clip, accumulation, limit, compile)
    check(model, task, methods, watch, options)
    to = model.device if device is None else pick_device(device)
    tasks, known = (task, *watch), {*model.heads, getattr(task, "head", None)}
    make_ready(model, tasks, options.seed)
    model.to(to)
    notes = [
        f"{one.name}: its head is new and has learned nothing that could be forgotten; fine-tune the model on it first"
        for one in watch
        if isinstance(one, Classification | Tagging) and one.head not in known
    ]
    notes += task.remarks(model, "train")
    notes += [note for one in tasks for note in one.remarks(model, "test", limit=limit)]

    def run() -> Generator[Record, None, None]:
        make_ready(model, tasks, options.seed)  # another run may have come and gone since the call
        yield from _Loop(model, tasks, methods, options, notes).records()

    return under_way(run(), model)


class _Loop:
    def __init__(
        self, model: Model, tasks: Sequence[Task], methods: Sequence[Method], options: Options, notes: list[str]
    ) -> None:
        self.model, self.tasks, self.methods, self.options = model, tasks, list(methods), options
        # nothing that the run holds leads back to it: it goes, with its copies of the weights, when nobody uses it
        autocast = partial(torch.autocast, model.device.type, dtype=getattr(torch, options.precision))
        self.run = Run.begin(
            model,
            tasks[0],
            options.steps,
            options.batch_size,
            options.lr,
            options.seed,
            autocast=nullcontext if options.precision == "float32" else autocast,
            methods=self.methods,
            watch=tasks[1:],
            notes=notes,
        )
        if not methods:  # then only the looks ask for it
            file = Path(tempfile.gettempdir(), f"forgetlab-start-{secrets.token_hex(8)}.safetensors")
            self.run.anchor = filed(self.run.anchor, model._pretrained, file)
        self.rates: list[float] = []
        self.parameters: list[nn.Parameter] = []
        self.setup_seconds = self.train_seconds = 0.0
        self.torch_state = TorchState(model, options.seed)
        self.pool = ThreadPoolExecutor(spare) if (spare := self.torch_state.spare_threads) > 1 else None
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=options.precision == "float16")
        self.passes = Passes(self.run, options.accumulation, self.scaler)

    def records(self) -> Generator[Record, None, None]:
        run, model = self.run, self.model
        trainable = {p: p.requires_grad for p in model.parameters()}
        start = time.perf_counter()
        memory.start_peak(model.device)
        try:
            with self.torch_state:
                for p in model.parameters():
                    p.grad = None  # what somebody's backward() has left is no part of the first step
                for method in self.methods:
                    method.setup(run)
                optimizer = self._optimizer()
                self.parameters = list(model.parameters())
                for method in self.methods:
                    method.check(run)
                if self.options.compile and (note := compiling.compile_backbone(model, self._sample_loss)):
                    run.notes.append(note)
                self.setup_seconds = time.perf_counter() - start
                record = self._record(None, start, self._costs())
            yield record
            while record.status != "stopped":
                with self.torch_state:
                    reasons = [reason for method in self.methods if (reason := method.should_stop(record, run))]
                    if reasons:
                        kept = self._record(record.loss, start, ends=True)
                        record = replace(kept, status="stopped", message="; ".join(reasons))
                if not reasons:
                    if record.status != "running":
                        return
                    with self.torch_state, torch.enable_grad():
                        begin = time.perf_counter()
                        model.train()
                        losses = [self._step(optimizer) for _ in range(min(self.options.every, run.steps - run.step))]
                        loss = float(torch.stack(losses).mean())  # the one wait for the device between records
                        self.train_seconds += time.perf_counter() - begin
                        model.eval()
                        record = self._record(loss, start)
                yield record
        except (RuntimeError, MemoryError) as error:
            if not memory.out_of_memory(error):
                raise
            raise self.passes.too_large() from None
        finally:
            try:
                if self.pool:
                    self.pool.shutdown(cancel_futures=True)
            finally:  # a second interrupt ends the waiting, not this
                compiling.undo(model)
                for p in model.parameters():
                    p.requires_grad_(trainable.get(p, True))
                    p.grad = None
                model.eval()

    def _optimizer(self) -> torch.optim.Optimizer:
        named = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        groups: list[Group] = [{"params": [p for _, p in named], "names": [n for n, _ in named], "lr": self.run.lr}]
        groups = grouped(self.methods, groups, self.run)
        in_one = self.model.device.type in ("cpu", "cuda")
        optimizer = torch.optim.AdamW(groups, lr=self.run.lr, weight_decay=self.options.weight_decay, fused=in_one)
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
        run = self.run
        for group, rate in zip(run.groups, self.rates, strict=True):
            group["lr"] = rate
        for method in self.methods:
            method.before_step(run)
        with compiling.as_written() if self.options.compile else nullcontext():  # some tasks write their batches
            batches = self.passes.draw()
        total = self.passes.gradient(batches)
        self.scaler.unscale_(optimizer)
        run.finish_gradients()
        if self.options.clip:
            # in the model's order, whatever the groups: a sum of squares is rounded by its order
            nn.utils.clip_grad_norm_([p for p in self.parameters if p.requires_grad], self.options.clip)
        scale = self.scaler.get_scale()
        self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad()
        run.step += 1
        if self.scaler.get_scale() >= scale:  # else the gradients were not finite and no step was taken (float16)
            for method in self.methods:
                method.after_step(run)
        return total

    def _sample_loss(self) -> Tensor:
        run, task = self.run, self.run.task
        with compiling.as_written(), run.autocast(), run.state(task):
            batch = task.batch(self.model, torch.arange(min(2, task.size())), torch.Generator().manual_seed(0))
        with run.autocast(), run.state(task):
            return task.loss(self.model, batch)

    def _record(
        self, loss: float | None, start: float, costs: dict[str, float] | None = None, ends: bool = False
    ) -> Record:
        run = self.run
        with compiling.as_written() if self.options.compile else nullcontext():
            found = measured(run, self.tasks, self.options.limit, self.pool)
        notes = [*run.notes]
        run.notes.clear()  # each is said once
        status: Status = "done" if run.step == run.steps else "running"
        message = ""
        if loss is not None and not (math.isfinite(loss) and math.isfinite(found.drift)):
            status = "diverged"
            message = f"the loss is no longer finite after step {run.step}: the learning rate {run.lr:g} is too high"
        kept = ends or loss is None or status != "running"
        return replace(
            found,
            tallies=found.tallies if kept else {},
            loss=loss,
            seconds=time.perf_counter() - start,
            train_seconds=self.train_seconds,
            setup_seconds=self.setup_seconds,
            status=status,
            message=message,
            notes=notes,
            costs=costs or {},
            peak_memory=memory.peak(run.model.device),
        )
