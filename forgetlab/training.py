"""Fine-tuning as an iterator: `finetune` yields a Record at each evaluation, and closing it stops the training."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from forgetlab import compiling, memory
from forgetlab.checks import flag, listed, number, whole
from forgetlab.errors import ForgetlabError
from forgetlab.exits import closed_at_exit
from forgetlab.loading import pick_device
from forgetlab.methods import Group, Method, Part, Run, grouped
from forgetlab.metrics import parameter_drift
from forgetlab.models import Model, evaluating
from forgetlab.records import Record, Status
from forgetlab.tasks import CausalLM, Classification, MaskedLM, Scores, Tagging, Task
from forgetlab.torch_state import TorchState

Precision = Literal["float32", "bfloat16", "float16"]
Batch = dict[str, Tensor]
OWN_KINDS = (Classification, Tagging, MaskedLM, CausalLM)


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
    clip: the largest gradient norm (0: no clipping). limit: test examples per score (None: all).
    compile: train through torch.compile, with the same results but for rounding and the draws of dropout; where no
    compiler works the run goes on without, and a note says so.

    Returns a generator of Records; closing it ends the run and leaves the model in eval mode as trained so far.
    A loss that is not finite ends the run with a record of status "diverged"; `model.restore()` undoes everything.
    On the CPU the same arguments give the same numbers, bit for bit.
    Where a step runs out of memory, its batch and all later ones are taken in two halves, and a note says so. The
    examples, their masks and the optimizer steps stay the same and the halves' gradients add up to the whole batch's
    (halves are weighted by their predictions); only rounding, the draws of dropout and, where texts differ in length,
    the weights of places in a method's own term (LwF, KLAnchor) differ.
    Raises ForgetlabError, before anything is touched, for arguments that cannot work; and later where half a batch is
    still too much for the memory.
    """
    check_arguments(model, task, methods, watch, lr, steps, batch_size, every, clip, limit)
    whole("accumulation", accumulation)
    number("weight_decay", weight_decay)
    flag("compile", compile)
    if precision not in ("float32", "bfloat16", "float16"):
        raise ForgetlabError(f"precision must be float32, bfloat16 or float16, got {precision!r}")
    if batch_size % accumulation:
        raise ForgetlabError(f"batch_size {batch_size} cannot be split evenly over {accumulation} passes")
    to = model.device if device is None else pick_device(device)
    heads = set(model.heads)
    try:
        for one in (task, *watch):
            one.prepare(model, seed)
    except ForgetlabError:
        for name in set(model.heads) - heads:
            del model.heads[name]
        raise
    model.to(to)
    notes = [
        f"{one.name}: its head is new and has learned nothing that could be forgotten; fine-tune the model on it first"
        for one in watch
        if isinstance(one, Classification | Tagging) and one.head not in heads and one.head != _head_of(task)
    ]
    notes += task.remarks(model, "train") + [note for one in (task, *watch) for note in one.remarks(model, "test")]
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
        compile,
        notes,
    )
    return closed_at_exit(loop.records(every))


def check_arguments(
    model: Model,
    task: Task,
    methods: Sequence[Method],
    watch: Sequence[Task],
    lr: float,
    steps: int,
    batch_size: int,
    every: int,
    clip: float,
    limit: int | None,
) -> None:
    """Raise ForgetlabError for what no fine-tune can work with, one by one or stacked."""
    if not isinstance(model, Model):
        raise ForgetlabError(
            f"the model must be a forgetlab Model, got {type(model).__name__}: load(folder) makes one; "
            "huggingface.ForgettingTrainer takes a transformers model as it is"
        )
    if not isinstance(task, Task):
        raise ForgetlabError(
            f'the task must be a Task, such as task("sentiment") or task_from("my.csv"), got {type(task).__name__}'
        )
    listed("methods", methods, Method, "[EWC(old, lam=10)]")
    listed("watch", watch, Task, '[task("entities")]')
    number("lr", lr, above=True)
    number("clip", clip)
    whole("steps", steps)
    whole("batch_size", batch_size)
    whole("every", every)
    if limit is not None:
        whole("limit", limit)
    if task.size() == 0:
        raise ForgetlabError(f"the task {task.name} has no training data: it can be watched, not trained")
    if batch_size > task.size():
        raise ForgetlabError(
            f"batch_size {batch_size} is larger than the {task.size()} training examples of {task.name}; "
            f"use {task.size()} or less"
        )
    if len({t.name for t in (task, *watch)}) < 1 + len(watch):
        raise ForgetlabError(f"two tasks have the same name: {', '.join(t.name for t in (task, *watch))}")


def _head_of(task: Task) -> str | None:
    return task.head if isinstance(task, Classification | Tagging) else None


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
        compile: bool,
        notes: list[str],
    ) -> None:
        self.model, self.methods, self.tasks = model, list(methods), [task, *watch]
        self.clip, self.accumulation, self.limit = clip, accumulation, limit
        self.compile, self.notes, self.halved = compile, notes, False
        self.weight_decay = weight_decay
        # what was there before: the weights remembered at loading, new heads left out
        weights = {n: p for n, p in model.named_parameters() if n in model.known_names}
        anchor = {n: p.detach().clone() for n, p in weights.items()}
        generator = torch.Generator().manual_seed(seed)
        # nothing that the run holds leads back to it: it goes, with its copies of the weights, when nobody uses it
        dtype = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
        autocast = partial(torch.autocast, model.device.type, dtype=dtype) if dtype else nullcontext
        self.run = Run(
            model, task, steps, batch_size, lr, anchor, weights, generator, autocast, self.methods, watch=watch
        )
        self.learns_from_batches = [m for m in methods if type(m).batch_penalty is not Method.batch_penalty]
        self.rates: list[float] = []
        self.parameters: list[nn.Parameter] = []
        self.setup_seconds = self.train_seconds = 0.0
        self.torch_state = TorchState(model, model.device, seed)
        self.pool = ThreadPoolExecutor(spare) if (spare := self.torch_state.spare_threads) > 1 else None
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=precision == "float16")

    def records(self, every: int) -> Generator[Record, None, None]:
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
                if self.compile and (note := compiling.compile_backbone(model, self._sample_loss)):
                    self.notes.append(note)
                self.setup_seconds = time.perf_counter() - start
                record = self._record(None, start, self._costs())
            yield record
            while record.status != "stopped":
                with self.torch_state:
                    reasons = [reason for method in self.methods if (reason := method.should_stop(record, run))]
                    if reasons:
                        kept = self._record(record.loss, start)
                        record = replace(kept, status="stopped", message="; ".join(reasons))
                if not reasons:
                    if record.status != "running":
                        return
                    with self.torch_state, torch.enable_grad():
                        begin = time.perf_counter()
                        model.train()
                        losses = [self._step(optimizer) for _ in range(min(every, run.steps - run.step))]
                        loss = float(torch.stack(losses).mean())  # the one wait for the device between records
                        self.train_seconds += time.perf_counter() - begin
                        model.eval()
                        record = self._record(loss, start)
                yield record
        except (RuntimeError, MemoryError) as error:
            if not memory.out_of_memory(error):
                raise
            raise self._too_large() from None
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
        optimizer = torch.optim.AdamW(groups, lr=self.run.lr, weight_decay=self.weight_decay, fused=in_one)
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
        batches = []
        for _ in range(self.accumulation):
            parts = [Part(run.task, run.batch_size // self.accumulation)]
            for method in self.methods:
                parts = method.augment(parts, run)
            batches += [(part, run.batch(part)) for part in parts]
        total = self._gradient(batches)
        self.scaler.unscale_(optimizer)
        for method in self.methods:
            method.observe_gradients(run)
        for method in self.methods:
            method.add_penalty_gradient(run)
        for method in self.methods:
            method.adjust_gradients(run)
        if self.clip:
            # in the model's order, whatever the groups: a sum of squares is rounded by its order
            nn.utils.clip_grad_norm_([p for p in self.parameters if p.requires_grad], self.clip)
        scale = self.scaler.get_scale()
        self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad()
        run.step += 1
        if self.scaler.get_scale() >= scale:  # else the gradients were not finite and no step was taken (float16)
            for method in self.methods:
                method.after_step(run)
        return total

    def _gradient(self, batches: Sequence[tuple[Part, Batch]]) -> Tensor:
        """Add up the gradient of the batches, in halves from the first one on that is too large for the memory."""
        if not self.halved:
            try:
                return self._passes(batches)
            except (RuntimeError, MemoryError) as error:
                if not memory.out_of_memory(error) or all(len(b["input_ids"]) < 2 for _, b in batches):
                    raise
            # only here: while the error is held, so are the tensors of the pass that failed
            self.halved = True
            self.notes.append(
                f"out of memory at step {self.run.step + 1}: from there on each batch is taken in two halves, whose "
                "gradients add up to its own"
            )
            for p in self.model.parameters():
                p.grad = None
            memory.free(self.model.device)
        return self._passes(batches)

    def _passes(self, batches: Sequence[tuple[Part, Batch]]) -> Tensor:
        run, total = self.run, torch.zeros((), device=self.model.device)
        for (part, batch), weight in zip(batches, self._weights(batches), strict=True):
            for piece, share in memory.halves(part.task, batch) if self.halved else [(batch, 1.0)]:
                with run.autocast(), run.state(part.task):
                    loss = self._loss(part.task, piece) * (weight * share)
                if not loss.requires_grad:
                    raise ForgetlabError(
                        f"nothing that is trained takes part in the loss of {part.task.name}: leave out its replay, "
                        "or have it share the added weights (shared=1)"
                    )
                self.scaler.scale(loss).backward()
                total += loss.detach()
        return total

    def _weights(self, batches: Sequence[tuple[Part, Batch]]) -> list[float]:
        """What the mean loss of each batch counts for: its part's share of the examples.

        Of that, each of several passes has its share of the predictions, so that their means add up to one.
        """
        if self.accumulation == 1:
            return [part.count / self.run.batch_size for part, _ in batches]
        keys = [(part.task, id(part.pool)) for part, _ in batches]  # the same part of each pass
        examples, predictions = Counter[Any](), Counter[Any]()
        for key, (part, batch) in zip(keys, batches, strict=True):
            examples[key] += part.count
            predictions[key] += len(batch["targets"])
        shares = [len(b["targets"]) / predictions[key] for key, (_, b) in zip(keys, batches, strict=True)]
        return [examples[key] / self.run.batch_size * share for key, share in zip(keys, shares, strict=True)]

    def _sample_loss(self) -> Tensor:
        run, task = self.run, self.run.task
        batch = task.batch(self.model, torch.arange(min(2, task.size())), torch.Generator().manual_seed(0))
        with run.autocast(), run.state(task):
            return task.loss(self.model, batch)

    def _too_large(self) -> ForgetlabError:
        run, at_once = self.run, self.run.batch_size // self.accumulation
        tried = f"{at_once} examples at once" + (" and with half as many" if self.halved else "")
        return ForgetlabError(
            f"{run.model.name} on {run.model.device} ran out of memory at step {run.step + 1} with {tried}: lower "
            f"batch_size, keep it and raise accumulation (now {self.accumulation}; {4 * self.accumulation} trains the "
            "same in smaller passes), or use shorter texts, a smaller model or precision='bfloat16'"
        )

    def _loss(self, task: Task, batch: Batch) -> Tensor:
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
        costs: dict[str, float] | None = None,
    ) -> Record:
        run = self.run
        with compiling.as_written() if self.compile else nullcontext():
            found = measured(run, self.tasks, self.limit, self.pool)
        notes, self.notes = self.notes, []  # each is said once
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
            notes=notes,
            costs=costs or {},
            peak_memory=memory.peak(run.model.device),
        )


def measured(run: Run, tasks: Sequence[Task], limit: int | None, pool: Executor | None = None) -> dict[str, Any]:
    """What every Record of a run holds by name: step, scores of the tasks, penalties, drift, learning rates.

    pool: threads that score tasks side by side, each task on one thread with the same bits as ever. Only tasks of
    forgetlab's own classes, which read the model and nothing else, and where no method switches the model for a task.
    """

    def score(task: Task) -> Scores:
        with torch.no_grad(), run.autocast(), run.state(task):
            return task.score(run.model, limit)

    with evaluating(run.model):  # here once: a task that puts a mode back must not do so in the middle of another
        scores = {}
        if pool is not None and all(type(method).for_task is Method.for_task for method in run.methods):
            scores = _side_by_side(pool, score, [task for task in tasks if type(task) in OWN_KINDS])
        scores = {task.name: scores[task.name] if task.name in scores else score(task) for task in tasks}
    with torch.no_grad(), run.autocast():
        values = {method.name: method.penalty(run) for method in run.methods}
    drift = parameter_drift(run.anchor, run.weights)
    return {
        "step": run.step,
        "scores": scores,
        "penalty": {name: float(value) for name, value in values.items() if value is not None},
        "drift": drift.total,
        "drift_per_layer": drift.per_layer,
        "lr": [group["lr"] for group in run.groups],
    }


def _side_by_side(pool: Executor, score: Callable[[Task], Scores], tasks: Sequence[Task]) -> dict[str, Scores]:
    def alone(task: Task) -> Scores:
        torch.set_num_threads(1)  # a new thread takes the process's number, which may be another run's
        return score(task)

    try:
        found: Iterator[Scores] = pool.map(alone, tasks)
    except RuntimeError:  # no thread can begin: the interpreter is at its end, or the machine has no more
        found = map(score, tasks)
    return dict(zip([task.name for task in tasks], found, strict=True))
