"""A Trainer's checkpoints with the state of the methods: written whole, taken up only where they are of this run."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput

from forgetlab.errors import ForgetlabError
from forgetlab.models.sharded import is_sharded, like, whole
from forgetlab.training.huggingface import checkpoints
from forgetlab.training.huggingface.watching import Watching
from forgetlab.training.method import Run


class Resuming(Watching):
    """The part of `ForgettingMixin` that saves and resumes; the whole defines what is declared here."""

    _run: Run | None
    _settings: list[list[Any]] | None  # of the methods, before their setup

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **more: Any) -> Any:
        """As in `Trainer`, but that True takes up the newest checkpoint that is whole; a run at its end stays there.

        Raises ForgetlabError where there is none, where the one given is damaged or of other methods, and where the
        data give out early; what was learned stays, scored.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = checkpoints.newest(str(self.args.output_dir))
        elif resume_from_checkpoint and (wrong := checkpoints.fault(Path(resume_from_checkpoint))):
            raise ForgetlabError(f"{resume_from_checkpoint}: {wrong}; resume from another checkpoint")
        if resume_from_checkpoint and (ended := self._ended(resume_from_checkpoint)):
            return ended
        try:
            return super().train(resume_from_checkpoint, *args, **more)
        except ValueError as error:
            if "does not contain any data" not in str(error):  # accelerate, of a stream that does not start anew
                raise
            self.finish()
            step = self.state.global_step
            raise ForgetlabError(
                f"the training data gave out after step {step} of {self.state.max_steps}: what was learned until then "
                "is in the model, and scored in `records`; give data that start anew at each epoch, or "
                f"max_steps={step}"
            ) from None

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self._look_if_due()  # what methods remember of it is part of their state
        run, shared = self._begin(), {}
        folder = Path(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}")
        if self.args.should_save:
            checkpoints.unseal(folder)
        if self.args.should_save or self.is_fsdp_enabled:  # of weights in pieces every process has one to give
            own = {id(p) for p in self.model.parameters()}
            shared = {f"anchor/{name}": whole(value).cpu() for name, value in run.anchor.items()}
            shared |= {f"head/{n}": p for n, p in self.together.named_parameters() if id(p) not in own}
        if not self.args.should_save:
            shared = {}
        more = {
            "methods": self._settings,
            "still": checkpoints.sample(self._still()),
            "first": self._first,
            "limit": self.limit,
            "stopped": self.stopped,
            "loss": [float(self._loss), self._loss_steps],
            "last": self.records[-1].loss if self.records else None,
        }
        checkpoints.save(folder, run, self.methods, shared, more, self.args.process_index)
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)  # it removes older checkpoints, which until here are needed
        self.accelerator.wait_for_everyone()
        if self.args.should_save and folder.is_dir():  # the Trainer keeps the latest by the clock, which may jump
            checkpoints.seal(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Set the methods up at the weights from before the fine-tune, then bring their state and the weights back."""
        folder = Path(resume_from_checkpoint)
        saved = checkpoints.load(folder, self.args.process_index)
        self._check_same(saved.plain)
        if self._run is None:
            self._to_anchor(saved.group("anchor"))
            self.together.hold_still()
        else:  # FSDP: the methods had to be set up first
            self._check_anchor(self._run, saved.group("anchor"))
        if "still" in saved.plain:  # else an older checkpoint, which holds them
            self._check_still(saved.plain["still"])
        run, heads = self._begin(), saved.group("head")
        with checkpoints.explained(folder), torch.no_grad():
            saved.bring_back(run, self.methods, self.args.device)
            self._first, (total, self._loss_steps) = saved.plain["first"], saved.plain["loss"]
            self._loss = torch.full_like(self._loss, total)
            for name, p in self.together.named_parameters():
                if name in heads:
                    p.copy_(heads[name])
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with checkpoints.explained(Path(checkpoint or "")):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with checkpoints.explained(Path(checkpoint or "")):
            super()._load_rng_state(checkpoint)

    def _check_same(self, plain: Mapping[str, Any]) -> None:
        """Raise ForgetlabError where a checkpoint is of another run than this one."""
        if wrong := checkpoints.differing(plain["methods"], self._settings or checkpoints.settings(self.methods)):
            raise ForgetlabError(f"the checkpoint was {wrong}: resume with the same ones, in the same order")
        if self.watch and plain["limit"] != self.limit:
            raise ForgetlabError(
                f"the checkpoint was made with limit={plain['limit']}, this run has limit={self.limit}: scores of "
                "other examples cannot be compared"
            )
        if new := [task.name for task in self.watch if task.name not in plain["first"]]:
            watched = ", ".join(plain["first"]) or "nothing"
            raise ForgetlabError(
                f"the checkpoint's run watched {watched}, this one watches {', '.join(new)} too, whose score before "
                "the first step is not known: leave it out"
            )

    def _still(self) -> dict[str, Tensor]:
        """The frozen weights that are at hand whole, of which a checkpoint holds nothing but a sample."""
        still = {n: p for n, p in self.together.named_parameters() if p in self.together.still}
        return {n: p for n, p in still.items() if not (is_sharded(p) or p.is_meta) and p.is_floating_point()}

    def _check_still(self, there: Mapping[str, str]) -> None:
        """Raise ForgetlabError where the frozen weights of a checkpoint's run were other ones."""
        here = checkpoints.sample(self._still())
        for name in there.keys() | here.keys():
            if there.get(name) != here.get(name):
                raise ForgetlabError(
                    f"the checkpoint is of another model: {name!r}, which is frozen and so not in it, was another one "
                    "or was trained; give the model that the run began with"
                )

    @torch.no_grad()
    def _to_anchor(self, anchor: Mapping[str, Tensor]) -> None:
        named = dict(self.together.named_parameters())
        for name, value in anchor.items():
            if name not in named or named[name].shape != value.shape:
                raise ForgetlabError(f"the checkpoint is of another model: {name!r} does not fit the one given")
            named[name].copy_(like(value, named[name]))

    def _check_anchor(self, run: Run, anchor: Mapping[str, Tensor]) -> None:
        """Raise ForgetlabError where a run in pieces would go on from another start than it began with."""
        here = {name: whole(value).cpu() for name, value in run.anchor.items()}
        if odd := sorted(
            n
            for n in here.keys() | anchor.keys()
            if not (n in here and n in anchor and torch.equal(here[n], anchor[n]))
        ):
            raise ForgetlabError(
                f"the checkpoint's run began with other weights than the model given ({odd[0]}): with FSDP give the "
                "Trainer the model that it began with"
            )

    def _ended(self, checkpoint: str) -> TrainOutput | None:
        """Of a run that was at its end: the weights and the state as they were then, and a record of them."""
        state = TrainerState.load_from_json(str(Path(checkpoint, TRAINER_STATE_NAME)))
        plain = checkpoints.load(Path(checkpoint), self.args.process_index).plain
        stopped = plain["stopped"]
        planned = self.args.max_steps if self.args.max_steps > 0 else self._planned_steps()
        if state.global_step < planned and not stopped:
            return None
        self.state, self.stopped, self._start = state, stopped, time.perf_counter()
        self._load_from_checkpoint(checkpoint)
        if self.args.load_best_model_at_end and state.best_model_checkpoint:
            self._load_best_model()
        self.records.append(self._record(self._begin(), "stopped" if stopped else "done", plain["last"], stopped))
        return TrainOutput(state.global_step, math.nan, {})

    def _planned_steps(self) -> int:
        """As the Trainer counts them, which on a resume it does after the methods' setup only."""
        batches = len(self.get_train_dataloader())
        return math.ceil(self.args.num_train_epochs * math.ceil(batches / self.args.gradient_accumulation_steps))
