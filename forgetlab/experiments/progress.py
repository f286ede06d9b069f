"""One line on the terminal that is written over and over; silent where the output is not one."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forgetlab.experiments.recipe import Recipe
    from forgetlab.metrics.schema import RunResult
    from forgetlab.training.record import Record


class Progress:
    """A bar for the runs of a comparison.

    budget: seconds, or None; steps: of all runs, where there is no budget.
    """

    def __init__(self, budget: float | None, steps: int) -> None:
        self.budget, self.steps, self.finished, self.spent = budget, steps, 0, 0.0
        self.start = self.begun = time.perf_counter()

    def __call__(self, recipe: Recipe, record: Record) -> None:
        spent = self.spent + time.perf_counter() - self.begun
        self._show(record.step, spent, f"{recipe.methods}  seed {recipe.seed}  step {record.step}")

    def landed(self, run: RunResult, spent: float) -> None:
        """A run is there; spent: seconds so far."""
        self.finished += run["recipe"]["steps"]
        self.spent, self.begun = spent, time.perf_counter()
        self._show(0, spent, f"{run['recipe']['methods']}  seed {run['recipe']['seed']}  done")

    def _show(self, step: int, spent: float, text: str) -> None:
        seconds = time.perf_counter() - self.start
        share = min(1.0, spent / self.budget if self.budget else (self.finished + step) / self.steps)
        left = f"{seconds / share - seconds:.0f} s left" if share > 0.02 and not self.budget else ""
        bar = "█" * round(20 * share) + "·" * (20 - round(20 * share))
        show(f"{bar} {share:4.0%}  {text}  {left}")


def show(text: str) -> None:
    """The line, in the place of the one before."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1  # spaces, for a Windows console may not know escapes
        print(f"\r{text[:width]:<{width}}", end="", file=sys.stderr, flush=True)


def clear() -> None:
    """Nothing, in the place of the line."""
    show("")
    if sys.stderr.isatty():
        print("\r", end="", file=sys.stderr, flush=True)
