"""The remedies and the forgetting scores inside `transformers.Trainer` and trl's trainers: a mixin.

Everything else stays the Trainer's: data, loss, precision, accumulation, logging, checkpoints, several processes.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer

from forgetlab.errors import ForgetlabError, whole
from forgetlab.importance import cache
from forgetlab.models.model import Model, evaluating, lm_kind_of
from forgetlab.models.sharded import in_one_place, is_sharded, within
from forgetlab.tasks import Task
from forgetlab.training.huggingface import checkpoints
from forgetlab.training.huggingface.hooks import Hooks
from forgetlab.training.huggingface.lent_heads import Theirs, overheard, plain, texts_of
from forgetlab.training.huggingface.resuming import Resuming
from forgetlab.training.method import Method, Run, grouped
from forgetlab.training.start import filed


class ForgettingMixin(Resuming):
    """Remedies and watched tasks for any Trainer: `class MySFT(ForgettingMixin, SFTTrainer)`, and trl has them.

    model and all that is not named here: as the Trainer takes it, in its order; a `forgetlab.load`ed model (its body is
    trained) will do too. methods: remedies, composed in order. watch: tasks to score along the way.
    before: a forgetlab model of the same checkpoint, whose language-model head and named heads serve the watched
    tasks and the remedies where `model` has none of its own; its backbone is replaced by the one in training.
    watch_every: steps between scores (None: `args.logging_steps`), besides those before the first step and after the
    last. limit: test examples per score (None: all).

    Scores go where the Trainer logs: "watch/entities/f1", "kept/entities" (the share of what was known above a guesser,
    `metrics.retention.kept`; not there where there is nothing to lose), "penalty/ewc", "drift". `records` holds them as
    finetune's Records. A method that stops the run says why in `stopped`. The penalty's gradient is added once per
    optimizer step, before clipping. Without methods the weights are those of the Trainer alone, bit for bit.
    With replay, the batch is used whole and its loss gets the share that replay leaves it. Examples are the texts of a
    batch: packed ones each by itself, and of a preference both answers.
    Checkpoints hold the state of the methods; resume with the same methods, or a ForgetlabError names the difference.
    A record's `loss` is the mean over the training steps since the last one. The score of the new task, which
    EarlyStopping reads, is the loss on the evaluation set at that step (nan where the Trainer does not evaluate then),
    or the record's loss where no evaluation is asked for.
    Raises ForgetlabError where the tasks or methods do not fit the model, and for a class that names a Trainer first.

    >>> from transformers import Trainer, TrainingArguments
    >>> class Mine(ForgettingMixin, Trainer):  # or trl's SFTTrainer, DPOTrainer, GRPOTrainer
    ...     pass
    >>> Mine(model, TrainingArguments("out"), train_dataset=[{}], watch=[old]).records
    []
    """

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        order = cls.__mro__
        if Trainer in order and order.index(Trainer) < order.index(ForgettingMixin):
            raise ForgetlabError(
                f"{cls.__name__}: ForgettingMixin stands before the Trainer: class X(ForgettingMixin, SFTTrainer)"
            )

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | str,
        *given: Any,
        methods: Sequence[Method] = (),
        watch: Sequence[Task] = (),
        before: Model | None = None,
        watch_every: int | None = None,
        limit: int | None = 256,
        **trainer: Any,
    ) -> None:
        if isinstance(model, Model):
            before, model = model, model.body
        if (names := [task.name for task in watch]) and len(set(names)) < len(names):
            raise ForgetlabError(f"two watched tasks have the same name: {', '.join(names)}")
        if isinstance(model, nn.Module):
            body = cast(Any, plain(model))
            in_one_place(body, type(body).__name__)  # a Trainer would fail as it moves them
            if lm_kind_of(body) == "causal" and getattr(body, "loss_type", "") is None:
                body.loss_type = "ForCausalLM"  # what transformers takes for GPT-2, with a warning
        super().__init__(methods, watch, limit, before, model, *given, **trainer)
        self.watch_every = whole("watch_every", watch_every or max(1, int(self.args.logging_steps)))
        self._run: Run | None = None
        self._settings = None
        self._own_mean: bool | None = None  # see _is_mean
        self._fresh = True  # the next batch begins an optimizer step
        self.add_callback(Hooks(self))

    # -- the run ------------------------------------------------------------------------------------

    def _begin(self) -> Run:
        """The run as methods see it, with their setup done; the model has its weights from before by now."""
        if self._run is not None:
            return self._run
        self._settings = checkpoints.settings(self.methods)
        together, args = self.together, self.args
        for method in self.methods:
            if method.adds_weights:
                raise ForgetlabError(
                    f"{method.name} adds weights that a Trainer's checkpoint cannot hold: give the Trainer a peft "
                    "model instead, or use finetune"
                )
            if self.is_fsdp_enabled and not method.spread:
                raise ForgetlabError(
                    f"{method.name} does not work where FSDP has spread the weights over processes: take L2SP, EWC or "
                    "ExperienceReplay, or let each process have the whole model (DDP)"
                )
        per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps
        steps = args.max_steps if args.max_steps > 0 else self.state.max_steps or self._planned_steps()
        together.hold_still()
        run = Run.begin(
            together,
            Theirs(),
            steps,
            per_step,
            args.learning_rate,
            args.seed,
            autocast=self.accelerator.autocast,
            methods=self.methods,
            watch=self.watch,
            new=together.new_head(),
        )
        if not self.methods:  # then only the looks ask for it
            file = Path(args.output_dir, f".forgetlab-start-{secrets.token_hex(4)}.safetensors")
            run.anchor = filed(run.anchor, together._pretrained, file)
        required = {p: p.requires_grad for p in together.parameters()}
        for method in self.methods:
            method.setup(run)
        cache.forget_large()
        if self.args.process_index:  # the same memories everywhere, other draws from them
            run.generator.manual_seed(args.seed + 7919 * args.process_index)
        for p in together.parameters():
            p.requires_grad_(required.get(p, True))
        self._run = run
        return run

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is not None:
            return self.optimizer
        if self.is_fsdp_enabled:  # the weights are yet to be spread: see create_scheduler
            return super().create_optimizer(model)
        self._begin()
        return self._grouped(super().create_optimizer(model))

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """By now the weights are as they will be trained; those of FSDP were spread after the optimizer was made."""
        if self.is_fsdp_enabled and self._run is None:
            self._begin()
            self._grouped(cast(Any, self.optimizer).optimizer)
        return super().create_scheduler(num_training_steps, optimizer)

    def _grouped(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """The optimizer with its groups as the methods want them."""
        run = cast(Run, self._run)
        names = {p: name for m in (self.model, self.together) for name, p in m.named_parameters()}
        groups = [{**group, "names": [names[p] for p in group["params"]]} for group in optimizer.param_groups]
        # heads of the watched tasks that are not the Trainer's own: they learn when they are replayed
        own = set(self.model.parameters())
        if heads := [p for p in names if p not in own and p.requires_grad]:
            groups.append({**groups[-1], "params": heads, "names": [names[p] for p in heads]})
        groups = grouped(self.methods, groups, run)
        optimizer.param_groups.clear()
        for group in groups:
            if group["params"]:
                optimizer.add_param_group(group)
        run.groups = optimizer.param_groups
        for method in self.methods:
            method.check(run)
        return optimizer

    # -- a step -------------------------------------------------------------------------------------

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        run = cast(Run, self._run)
        if self._fresh:
            run.groups = cast(Any, self.optimizer).param_groups  # a loaded state has brought new ones
            self._rates = [group["lr"] for group in run.groups]
            for method in self.methods:
                method.before_step(run)
            self._fresh = False
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._loss = self._loss + loss.detach()
        if self.accelerator.sync_gradients:
            self._finish_gradients(run)
        return loss

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if not model.training or not self.methods or self._run is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        run, kept = self._run, dict(inputs)
        batch = texts_of(kept)
        # a compiled model would be compiled anew for each hook
        ear = nullcontext(list[Tensor]()) if self.args.torch_compile else overheard(self.together.backbone, batch)
        with ear as heard:
            found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        own, outputs = found if return_outputs else (found, None)
        count = len(next(value for value in batch.values() if isinstance(value, Tensor)))
        parts = run.parts(count)
        # what is added here is a mean over this batch; where the Trainer takes the loss as done, so must this be
        said = getattr(self, "loss_is_scaled_for_ga", None)  # newer transformers let one say so
        counted = num_items_in_batch is not None
        done = said if said is not None else (self.model_accepts_loss_kwargs and counted) or self.compute_loss_func
        scale = 1 / self.current_gradient_accumulation_steps if done else 1.0
        asked = (
            scale < 1 and counted and said is None and not self._is_trl()
        )  # trl's losses are what they are said to be
        if asked and self._is_mean(model, kept, num_items_in_batch):
            own = own * scale  # else the task would weigh as many times more than all that is added
        loss = sum(part.count for part in parts if part.task is run.task) / count * own
        for part in parts:
            new = part.task is run.task
            if new and all(type(method).batch_penalty is Method.batch_penalty for method in self.methods):
                continue
            share = scale * part.weight * part.count / count
            values = batch if new else run.batch(part)
            made = heard[0] if new and len(heard) == 1 else None
            with run.state(part.task), self.together.shared_forward(batch, made):
                loss = loss + share * within(self.together, partial(self._added, part.task, values, new))
        return (loss, outputs) if return_outputs else loss

    def _added(self, task: Task, batch: Any, new: bool) -> Tensor:
        """What a batch adds to the Trainer's own loss: that of an old task, and the methods' terms."""
        own = torch.zeros((), device=self.args.device) if new else task.loss(self.together, batch)
        return sum(cast(Run, self._run).batch_penalties(task, batch), own)

    @torch.no_grad()
    def _is_mean(self, model: Any, inputs: Any, count: Any) -> bool:
        """Whether the loss is the batch's mean though the Trainer takes it for a share of the step's.

        So it is with transformers' classifiers: they accept `num_items_in_batch`, which the Trainer then relies on, and
        do not use it. Asked once, of the first batch.
        """
        if self._own_mean is None:
            compute, devices = super().compute_loss, [self.args.device] if self.args.device.type == "cuda" else []
            with evaluating(model), torch.random.fork_rng(devices=devices):
                one, two = (float(compute(model, dict(inputs), False, n)) for n in (count, 2 * count))
            self._own_mean = one == two
        return self._own_mean

    @torch.no_grad()
    def _finish_gradients(self, run: Run) -> None:
        """Once per optimizer step, when the gradients of all its batches are in place, and before they are clipped."""
        scaler = getattr(self.accelerator, "scaler", None)
        scale = scaler.get_scale() if scaler is not None and scaler.is_enabled() else 1.0
        gradients = [p.grad for p in run.trained() if p.grad is not None]
        if scale != 1.0:  # a power of two: nothing is rounded
            torch._foreach_div_(gradients, scale)
        with torch.enable_grad():
            run.finish_gradients()
        gradients = [p.grad for p in run.trained() if p.grad is not None]
        if self.methods and self.accelerator.num_processes > 1:  # other draws in each process, one step for all
            gradients = [gradient for gradient in gradients if not is_sharded(gradient)]  # FSDP has done so by now
            for gradient in gradients:
                gradient.copy_(self.accelerator.reduce(gradient, "mean"))
        if scale != 1.0:
            torch._foreach_mul_(gradients, scale)

    def _after_step(self) -> None:
        run = cast(Run, self._run)
        run.step += 1
        self._loss_steps += 1
        self._fresh = True
        if not self.accelerator.optimizer_step_was_skipped:
            for method in self.methods:
                method.after_step(run)
        for group, rate in zip(run.groups, self._rates, strict=True):
            group["lr"] = rate  # the Trainer's schedule goes on from its own rate
        self.together.zero_grad()


class ForgettingTrainer(ForgettingMixin, Trainer):
    """transformers' Trainer with remedies and watched tasks: see `ForgettingMixin` for what it takes besides.

    model, args, train_dataset, data_collator, …: as for `transformers.Trainer`; a peft model or a `forgetlab.load`ed
    one (its body is trained) will do too.

    >>> from transformers import AutoModelForSequenceClassification, TrainingArguments
    >>> own = AutoModelForSequenceClassification.from_config(model.config)
    >>> ForgettingTrainer(own, TrainingArguments("out"), train_dataset=[{}], watch=[old], before=model).records
    []
    """
