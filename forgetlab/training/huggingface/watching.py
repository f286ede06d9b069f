"""A Trainer's watched tasks: scored along the way, logged, and shown to the methods that may stop the run."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import Trainer

from forgetlab.errors import ForgetlabError
from forgetlab.metrics.retention import kept
from forgetlab.metrics.summary import error_before
from forgetlab.models.model import Model
from forgetlab.tasks import Task
from forgetlab.tasks.base import facts_of
from forgetlab.training.huggingface.lent_heads import WithLentHeads, plain
from forgetlab.training.measuring import measured
from forgetlab.training.method import Method, Run
from forgetlab.training.record import Record, Status, main_score

_SomeTrainer: Any = object  # a Trainer of any kind stands behind it


class Watching(_SomeTrainer):
    """The part of `ForgettingMixin` that scores and logs."""

    def __init__(
        self,
        methods: Sequence[Method],
        watch: Sequence[Task],
        limit: int | None,
        before: Model | None,
        *given: Any,
        **trainer: Any,
    ) -> None:
        try:
            super().__init__(*given, **trainer)
        except ImportError as error:
            if "bitsandbytes" not in str(error):
                raise
            raise ForgetlabError(
                "a model in 4 or 8 bits needs the package bitsandbytes, which is not installed or too old: "
                "pip install -U bitsandbytes, or take the model in bfloat16"
            ) from error
        tokenizer = self.processing_class or (before.tokenizer if before else None)
        if tokenizer is None and (watch or methods):
            raise ForgetlabError("watching and remedies read text: give processing_class=tokenizer, or before=load(…)")
        self.methods, self.watch, self.limit = list(methods), list(watch), limit
        self.together = WithLentHeads(plain(self.model), tokenizer, before)
        own = set(self.model.parameters())  # these are where the Trainer wants them
        for p in self.together.parameters():
            p.data = p.data if p in own else p.data.to(self.args.device)
        for task in self.watch:
            task.prepare(self.together, self.args.seed)
        self.records: list[Record] = []
        self.stopped = ""
        # of each watched task the first score with its error, and a guesser's score; of a resumed run too
        self._first: dict[str, Sequence[Any]] = {}
        self._due: Status | None = None  # a look at this step, once the Trainer has evaluated and before it saves
        self._loss, self._loss_steps = torch.zeros((), device=self.args.device), 0  # sum since the last record
        self._start = time.perf_counter()

    def _begin(self) -> Run:
        raise NotImplementedError

    def look(self, last: bool = False) -> Record:
        """Score the watched tasks now, log the scores, and ask the methods whether to stop."""
        run, loss = self._begin(), self._mean_loss()
        self._due = None
        record = self._logged(self._record(run, "done" if last else "running", loss))
        if not self.stopped and (reasons := [r for m in self.methods if (r := m.should_stop(record, run))]):
            self.stopped = "; ".join(reasons)
            self.control.should_training_stop = True
            record = self._logged(self._record(run, "stopped", loss, self.stopped))  # other weights may be back
        return record

    def finish(self) -> None:
        """See to it that the last record is of the last step: a run may end before its time."""
        if self.records and self.records[-1].status == "running":
            if self.records[-1].step < self.state.global_step:
                self.look(last=True)
            else:
                self.records[-1] = replace(self.records[-1], status="done")

    def _look_if_due(self) -> None:
        if self._due is not None:
            self.look(last=self._due == "done")

    def _maybe_log_save_evaluate(self, *args: Any, **more: Any) -> None:
        super()._maybe_log_save_evaluate(*args, **more)
        self._look_if_due()

    def _record(self, run: Run, status: Status, loss: float | None, message: str = "") -> Record:
        found = measured(run, self.watch, self.limit)
        return replace(
            found,
            scores={run.task.name: {"loss": self._new_score(loss)}, **found.scores},
            tallies=found.tallies if status != "running" or not self.records else {},
            loss=loss,
            seconds=time.perf_counter() - self._start,
            status=status,
            message=message,
        )

    def _logged(self, record: Record) -> Record:
        self.records.append(record)
        wanted = self.control.should_log  # `log` takes it for done: the Trainer's own line may be still to come
        if self._is_trl():  # its log adds its means to a line and begins them anew: that is for its own lines
            Trainer.log(self, self._as_logs(record))
        else:
            self.log(self._as_logs(record))
        self.control.should_log = wanted
        return record

    def _is_trl(self) -> bool:
        """Whether it is one of trl's trainers, which keep their means in `_metrics`."""
        return hasattr(self, "_metrics")

    def _mean_loss(self) -> float | None:
        """Of the training steps since the last record, as the Trainer logs it; None where there was none."""
        if not self._loss_steps:
            return self.records[-1].loss if self.records else None
        mean = float(self.accelerator.gather(self._loss.reshape(1)).mean()) / self._loss_steps
        self._loss, self._loss_steps = torch.zeros_like(self._loss), 0
        return mean

    def _new_score(self, loss: float | None) -> float:
        """The loss on the evaluation set at this step, or on the training batches where none is evaluated on."""
        if self.args.eval_strategy == "no":
            return math.nan if loss is None else loss
        now = [logs for logs in self.state.log_history if logs.get("step") == self.state.global_step]
        found = [v for logs in now for k, v in logs.items() if k.startswith("eval_") and k.endswith("loss")]
        return statistics.fmean(found) if found else math.nan  # of several sets the mean

    def _as_logs(self, record: Record) -> dict[str, float]:
        logs = {"drift": record.drift}
        for task in self.watch:
            now = main_score(record.scores, task)
            if task.name not in self._first:
                facts = facts_of(task, self._begin().model, self.limit)
                self._first[task.name] = (now, error_before(facts, record.as_dict()), facts["guess"])
            start, error, guess = self._first[task.name]
            how: Any = {"scale": task.scale, "higher_is_better": task.higher_is_better}
            logs[f"watch/{task.name}/{task.metric}"] = now
            if (share := kept(start, now, guess, error=error, **how)) is not None:
                logs[f"kept/{task.name}"] = share
        return logs | {f"penalty/{name}": value for name, value in record.penalty.items()}
