"""Who hears of a comparison while it runs: the terminal, OUT/runs/log.txt, TensorBoard and W&B."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from forgetlab.experiments import progress
from forgetlab.experiments.recipe import Recipe, called
from forgetlab.experiments.sweeps import RunFolder
from forgetlab.experiments.trackers import Trackers
from forgetlab.metrics.schema import BenchFacts, RunResult
from forgetlab.training.record import Record


class Teller:
    """Passes on what happens. bar: the progress; kept: OUT/runs; report_to: see `trackers`; command: for the log."""

    def __init__(
        self, bar: progress.Progress, kept: RunFolder, report_to: Sequence[str] = (), command: str = ""
    ) -> None:
        self.bar, self.kept, self.report_to, self.command = bar, kept, report_to, command
        self._trackers = Trackers((), kept.folder, (), self.say)
        self._main: dict[str, str] = {}  # of each task its main score
        self._keys: dict[Recipe, str] = {}  # a key takes the hash of every file

    def say(self, note: str) -> None:
        """A note, as it is known."""
        progress.clear()
        print(f"note: {note}", flush=True)
        self.kept.log(f"note: {note}")

    def facts(self, facts: BenchFacts) -> None:
        """The model and its tasks are there; the runs begin."""
        self._main = {task["name"]: task["metric"] for task in facts["tasks"]}
        self.kept.log(self.command or "called from Python")
        watched = ", ".join(task["name"] for task in facts["tasks"][1:]) or "nothing"
        self.kept.log(f"{facts['model']['name']} learns {facts['new']}; watched: {watched}")
        if self.report_to:
            self._trackers = Trackers(self.report_to, self.kept.folder, facts["tasks"], self.say)

    def record(self, recipe: Recipe, record: Record) -> None:
        """A record of a run that goes on."""
        self.bar(recipe, record)
        scores = (f"{name} {metric} {record.scores[name][metric]:.4g}" for name, metric in self._main.items())
        loss = "" if record.loss is None else f"loss {record.loss:.4g}; "
        self.kept.log(f"{called(recipe.methods)}, seed {recipe.seed}, step {record.step}: {loss}{', '.join(scores)}")
        if self.report_to:
            if recipe not in self._keys:
                self._keys[recipe] = recipe.key()
            self._trackers.record(asdict(recipe), self._keys[recipe], record.as_dict())

    def run(self, run: RunResult, spent: float) -> None:
        """A run has ended, or was found in the folder; spent: seconds so far."""
        self.bar.landed(run, spent)
        recipe, last = run["recipe"], run["records"][-1]
        self.kept.log(f"{called(recipe['methods'])}, seed {recipe['seed']}: {last['status']} at step {last['step']}")
        self._trackers.landed(run)

    def saved(self, folder: Path | None, run: RunResult, same: bool) -> None:
        """The recommended model lies in its folder; same: whether it has the bits of the run that was compared."""
        recipe, bits = run["recipe"], "the same bits" if same else "with other numbers: see its README.md"
        progress.clear()
        line = f"model: {folder}   ({called(recipe['methods'])}, seed {recipe['seed']}, trained once more: {bits})"
        print(line, flush=True)
        self.kept.log(line)

    def saved_all(self, folder: Path, held: int, others: int) -> None:
        """The models of all runs lie in their folders, but for those that a transformers folder cannot hold."""
        more = f"; {others} more add parts that a transformers folder cannot hold" if others else ""
        print(f"models: {folder}   ({held} runs{more})", flush=True)

    def close(self) -> None:
        """Nothing comes any more, perhaps in the middle of a run."""
        self._trackers.close()
