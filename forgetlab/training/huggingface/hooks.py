"""Where a Trainer calls back: what a run with remedies and watched tasks does there."""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback


class Hooks(TrainerCallback):
    """Where the Trainer calls back: after the optimizer's step, and around the run."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer._start = time.perf_counter()
        if not state.global_step:
            self.trainer.look()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer._after_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        last = state.global_step >= state.max_steps
        if last or state.global_step % self.trainer.watch_every == 0:
            self.trainer._due = "done" if last else "running"

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.finish()
