"""Runs that land in a folder as they finish, so that an interrupted comparison goes on where it stopped."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from forgetlab.errors import ForgetlabError
from forgetlab.experiments import workers
from forgetlab.experiments.folders import LOCK, LOG, MANIFEST, RUNS
from forgetlab.experiments.identity import differences, identity
from forgetlab.experiments.locks import locked
from forgetlab.experiments.past_runs import files_of_runs, whole_runs
from forgetlab.experiments.recipes import Recipe
from forgetlab.experiments.saving import Models
from forgetlab.experiments.workers import Pool
from forgetlab.metrics.schema import RunResult
from forgetlab.sources.json_files import DRAFT, digest, read_json, write_json


@contextmanager
def opened(out: Path, recipe: Recipe, resume: bool) -> Iterator[RunFolder]:
    """A RunFolder that no other process may write to meanwhile. Raises ForgetlabError where one does."""
    folder = out / RUNS
    with locked(folder / LOCK):
        for draft in folder.glob(f".*{DRAFT}"):  # of a process that was killed
            with suppress(OSError):
                draft.unlink()
        yield RunFolder(out, recipe, resume)


class RunFolder:
    """OUT/runs: one file a finished run, named by the recipe's key, and sweep.json, which says what they are runs of.

    out: the folder of the report. resume: take up what lies there. Nothing is written before the first run.
    Each file carries a digest, and each run that of the sweep: one that was damaged, changed by hand or made from other
    files counts as none. A sweep.json that is lost is made anew from the runs.
    Raises ForgetlabError, with resume, for runs of another recipe, and without it for those of an interrupted sweep.
    """

    def __init__(self, out: Path, recipe: Recipe, resume: bool) -> None:
        self.folder = out / RUNS
        self.damaged: list[str] = []
        self.wrote = False
        self._log: Path | None = None
        self._put: set[str] = set()  # keys of what was to be kept: an interrupt may come right after the file is there
        self._identity = identity(recipe)
        self._of = digest(self._identity)
        found = read_json(self.folder / MANIFEST) or self._remade()
        self._fresh = not (resume and found)
        if found and resume:
            if differing := differences(found, self._identity):
                raise ForgetlabError(
                    f"{out} holds runs of another recipe ({'; '.join(differing)}): choose another --out"
                )
        elif found and not found.get("finished"):
            raise ForgetlabError(
                f"{out} holds {_runs(len(whole_runs(self.folder)))} of an interrupted comparison: "
                "go on with --resume, or choose another --out"
            )

    def get(self, recipe: Recipe) -> RunResult | None:
        """The finished run of a recipe, or None; a damaged file counts as none, and is noted in `damaged`."""
        path = self.folder / f"{recipe.key()}.json"
        if self._fresh or not path.exists():
            return None
        kept = read_json(path) or {}
        run = kept.get("run")
        if run and kept.get("of") == self._of and run.get("key") == recipe.key():
            return run
        self.damaged.append(path.name)
        return None

    def put(self, run: RunResult) -> RunResult:
        """Keep a run; its file appears whole or not at all. Returns it as it can be read from there."""
        path = self.folder / f"{run['key']}.json"
        self._put.add(run["key"])
        try:
            if not self.wrote:
                self._write_manifest(finished=False)
            kept = write_json(path, {"of": self._of, "run": run})
            if not self.wrote and self._fresh:
                for old in files_of_runs(self.folder):
                    if old != path:  # runs of a finished sweep make room now that there is something new
                        old.unlink()
            self.wrote = True
            return kept["run"]
        except OSError as error:
            raise ForgetlabError(f"cannot keep a run in {self.folder}: {error.strerror or error}") from error

    def finish(self) -> None:
        """All runs are there, and so is their report: the folder may be used for another comparison."""
        with suppress(OSError):
            self._write_manifest(finished=True)

    def log(self, line: str) -> None:
        """Add a line to OUT/runs/log.txt, with the time; a disk that refuses costs the line only."""
        new, self._log = self._log is None, self.folder / LOG
        with suppress(OSError), self._log.open("w" if new and self._fresh else "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n")

    def drop_log(self) -> None:
        """Nothing came of it: an error before the first run leaves no trace."""
        if self._log and self._fresh and not self.wrote:
            self._log.unlink(missing_ok=True)

    def told(self) -> str:
        """What is kept of a sweep that did not finish, in words."""
        ours = [kept["run"]["key"] for kept in whole_runs(self.folder) if kept["of"] == self._of]
        own = [key for key in ours if not self._fresh or key in self._put]
        if not own:
            return f"no run had finished; how far it was: {self._log}" if self._log else "nothing was written"
        return f"{_runs(len(own))} in {self.folder}: the same command with --resume goes on from there"

    def _write_manifest(self, finished: bool) -> None:
        write_json(self.folder / MANIFEST, {**self._identity, "finished": finished})

    def _remade(self) -> dict[str, Any] | None:
        """What a lost sweep.json said, as far as the runs tell; this recipe's, if any of them is of it."""
        there = whole_runs(self.folder)
        if not there:
            return None
        if any(kept["of"] == self._of for kept in there):
            return {**self._identity, "finished": False}
        return {"recipe": there[0]["run"]["recipe"], "forgetlab": self._identity["forgetlab"], "finished": False}


class Dispatcher:
    """Computes runs in a pool and keeps them in a folder.

    kept: a RunFolder. on_run: called with each run that is there, and whether it was found in the folder.
    strict: a run that cannot start is an error; else it is noted in `refused`, {methods: reason}.
    estimate: seconds of a run of which nothing is known yet. clock: seconds. models: where each run's model goes.
    """

    def __init__(
        self,
        pool: Pool,
        kept: RunFolder,
        *,
        on_run: Callable[[RunResult], None] = lambda run: None,
        strict: bool = True,
        estimate: float = 0.0,
        clock: Callable[[], float] = time.perf_counter,
        models: Models | None = None,
    ) -> None:
        self.pool, self.kept, self.on_run, self.strict, self.estimate = pool, kept, on_run, strict, estimate
        self.refused: dict[str, str] = {}
        self.models = models
        self._clock, self._start = clock, clock()
        self._earlier = 0.0  # what the runs found in the folder took
        self._took: dict[str, list[float]] = {}  # first remedy → seconds of its runs

    def spent(self) -> float:
        """Seconds since the start, with those of the runs that were found in the folder."""
        return self._clock() - self._start + self._earlier

    def __call__(self, recipes: Sequence[Recipe], until: float = math.inf) -> list[RunResult]:
        """The runs of the recipes, in their order. What would not be done when `until` is spent is left out."""
        found: dict[Recipe, RunResult] = {}
        queue, active = deque(recipes), dict[Future[RunResult], Recipe]()
        while queue or active:
            while queue and len(active) < self.pool.size():
                recipe = queue.popleft()
                if run := self.kept.get(recipe):
                    self._earlier += run["seconds"] / self.pool.size()
                    self._landed(recipe, run, found)
                elif self.spent() + self._expected(recipe) <= until:
                    draft = self.models.draft(recipe) if self.models else ""
                    active[self.pool.executor.submit(workers.compute, recipe, save=draft)] = recipe
            for future in wait(active, return_when=FIRST_COMPLETED).done:
                recipe = active.pop(future)
                try:
                    run = future.result()
                except Exception as error:
                    raise workers.explain(error, self.pool) from error
                if run["key"] != recipe.key():
                    raise ForgetlabError(
                        "a worker of the cluster reads other files, or has another version of forgetlab"
                    )
                if "error" not in run:
                    run = self.kept.put(run)
                    if self.models:
                        self.models.finish(run)
                self._landed(recipe, run, found)
        return [found[recipe] for recipe in recipes if recipe in found]

    def _landed(self, recipe: Recipe, run: RunResult, found: dict[Recipe, RunResult]) -> None:
        if "error" in run:
            if self.strict:
                raise ForgetlabError(run["error"])
            self.refused[recipe.methods] = run["error"]
            return
        self._took.setdefault(recipe.methods.partition(":")[0], []).append(run["seconds"])
        found[recipe] = run
        self.on_run(run)

    def _expected(self, recipe: Recipe) -> float:
        own = self._took.get(recipe.methods.partition(":")[0])
        known = own or [seconds for several in self._took.values() for seconds in several]
        return statistics.fmean(known) if known else self.estimate


def _runs(n: int) -> str:
    return f"{n} finished run{'' if n == 1 else 's'}"
