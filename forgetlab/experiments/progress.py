"""How far a comparison is: on a terminal one line that is written over and over, elsewhere a line every few seconds."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from typing import TYPE_CHECKING, Self

from forgetlab.experiments.recipe import called

if TYPE_CHECKING:
    from forgetlab.experiments.recipe import Recipe
    from forgetlab.metrics.schema import RunResult
    from forgetlab.training.record import Record

PAUSE, LONGEST = 5.0, 60.0  # seconds between two lines: at first, and at most
SHARE = 0.02  # of the time so far: of a run of ten hours nobody wants seven thousand lines


class Progress:
    """A bar for the runs of a comparison; a context, within which lines are written where there is no terminal.

    budget: seconds, or None; steps: of all runs, where there is no budget. first: what is done before them.
    """

    def __init__(self, budget: float | None, steps: int, first: str = "loading the model and the tasks") -> None:
        self.budget, self.steps, self.finished, self.spent = budget, steps, 0, 0.0
        self.start = self.begun = time.perf_counter()
        self._share, self._text = 0.0, first
        self._running: dict[tuple[str, int], int] = {}  # (methods, seed) → its step; several processes have several
        self._ended, self._writer = threading.Event(), threading.Thread(target=self._write, daemon=True)

    def __enter__(self) -> Self:
        self.say(self._text)
        if not sys.stderr.isatty():
            self._writer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._writer.is_alive():
            self._writer.join()
        clear()

    def __call__(self, recipe: Recipe, record: Record) -> None:
        self._running[recipe.methods, recipe.seed] = record.step
        spent = self.spent + time.perf_counter() - self.begun
        self._show(spent, f"{called(recipe.methods)}  seed {recipe.seed}  step {record.step}")

    def landed(self, run: RunResult, spent: float) -> None:
        """A run is there; spent: seconds so far."""
        recipe = run["recipe"]
        self._running.pop((recipe["methods"], recipe["seed"]), None)
        self.finished += recipe["steps"]
        self.spent, self.begun = spent, time.perf_counter()
        self._show(spent, f"{called(recipe['methods'])}  seed {recipe['seed']}  done")

    def say(self, text: str, share: float = 0.0) -> None:
        """What is done just now, and how much of all that there is to do."""
        self._text, self._share = text, share
        show(text)

    def line(self) -> str:
        """How far it is, for a log."""
        so_far = f"{time.perf_counter() - self.start:.0f} s"
        return f"progress: {self._share:.0%}  {self._text}  {so_far}{self._left(', about {:.0f} s left')}"

    def _show(self, spent: float, text: str) -> None:
        steps = self.finished + sum(self._running.copy().values())
        self._share, self._text = min(1.0, spent / self.budget if self.budget else steps / self.steps), text
        bar = "█" * round(20 * self._share) + "·" * (20 - round(20 * self._share))
        show(f"{bar} {self._share:4.0%}  {text}  {self._left('{:.0f} s left')}")

    def _left(self, words: str) -> str:
        seconds = time.perf_counter() - self.start
        return words.format(seconds / self._share - seconds) if self._share > 0.02 and not self.budget else ""

    def _write(self) -> None:
        pause = 0.0
        while not self._ended.wait(pause):
            try:
                sys.stdout.write(f"{self.line()}\n")  # with its end at once: others write too
                sys.stdout.flush()
            except (OSError, ValueError):  # nobody reads it any more
                return
            pause = min(LONGEST, max(PAUSE, SHARE * (time.perf_counter() - self.start)))


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
