"""Runs that land in a folder as they finish, so that an interrupted comparison goes on where it stopped."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import forgetlab
from forgetlab import workers
from forgetlab.errors import ForgetlabError
from forgetlab.paths import inputs, sha256
from forgetlab.recipes import Recipe
from forgetlab.results import write_json
from forgetlab.source_names import source_files
from forgetlab.workers import Pool, Run

FOLDER, MANIFEST = "runs", "sweep.json"


class RunFolder:
    """OUT/runs: one file a finished run, named by the recipe's key, and sweep.json, which says what they are runs of.

    out: the folder of the report. resume: take up what lies there. Nothing is written before the first run.
    Raises ForgetlabError, with resume, for runs of another recipe, and without it for those of an interrupted sweep.
    """

    def __init__(self, out: Path, recipe: Recipe, resume: bool) -> None:
        self.folder = out / FOLDER
        self.damaged: list[str] = []
        self.wrote = False
        self._identity = identity(recipe)
        found = _read(self.folder / MANIFEST)
        self._fresh = not (resume and found)
        if found and resume:
            if differing := differences(found, self._identity):
                raise ForgetlabError(
                    f"{out} holds runs of another recipe ({'; '.join(differing)}): choose another --out"
                )
        elif found and not found.get("finished"):
            raise ForgetlabError(
                f"{out} holds {_runs(_count(self.folder))} of an interrupted comparison: go on with --resume, or "
                "choose another --out"
            )

    def get(self, recipe: Recipe) -> Run | None:
        """The finished run of a recipe, or None; a damaged file counts as none, and is noted in `damaged`."""
        path = self.folder / f"{recipe.key()}.json"
        if self._fresh or not path.exists():
            return None
        run = _read(path)
        if run and run.get("key") == recipe.key() and run.get("records") and isinstance(run.get("seconds"), float):
            return run
        self.damaged.append(path.name)
        return None

    def put(self, run: Run) -> Run:
        """Keep a run; its file appears whole or not at all. Returns it as it can be read from there."""
        try:
            if not self.wrote:
                write_json(self.folder / MANIFEST, {**self._identity, "finished": False})
                for path in self.folder.glob("*.json") if self._fresh else ():
                    if path.name != MANIFEST:  # runs of a finished sweep make room now that there is something new
                        path.unlink()
                self.wrote = True
            return json.loads(write_json(self.folder / f"{run['key']}.json", run))
        except OSError as error:
            raise ForgetlabError(f"cannot keep a run in {self.folder}: {error.strerror or error}") from error


def finish(out: Path) -> None:
    """All runs are there, and so is their report: the folder may be used for another comparison."""
    path = out / FOLDER / MANIFEST
    if found := _read(path):
        with suppress(OSError):
            write_json(path, {**found, "finished": True})


def told(out: Path) -> str:
    """What is kept of a sweep that did not finish, in words."""
    manifest = _read(out / FOLDER / MANIFEST)
    if not manifest or manifest.get("finished"):
        return "nothing was written"
    return f"{_runs(_count(out / FOLDER))} in {out / FOLDER}: the same command with --resume goes on from there"


def identity(recipe: Recipe) -> dict[str, Any]:
    """What all runs of a sweep share: the recipe but for its methods and seed, the files, forgetlab's version."""
    content = {name: value for name, value in asdict(recipe).items() if name not in ("methods", "seed")}
    model = Path(recipe.model).expanduser()
    files = source_files((recipe.new, *recipe.watch))
    files += [path for path in sorted(model.glob("*")) if path.suffix in (".json", ".safetensors")]
    shared = {"recipe": content, "files": {str(path): sha256(path) for path in files if path.is_file()}}
    return json.loads(json.dumps({**shared, "shipped data": inputs(), "forgetlab": forgetlab.__version__}))


def differences(there: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """In words, what tells two identities apart."""
    old, new = ({**one.get("recipe", {}), "forgetlab": one.get("forgetlab")} for one in (there, wanted))
    told = [
        f"{name} was {_shown(old.get(name))}, now {_shown(value)}"
        for name, value in new.items()
        if old.get(name) != value
    ]
    was, now = there.get("files", {}), wanted["files"]
    told += [f"{name} has changed" for name in now if name in was and now[name] != was[name]]
    if not told and (was != now or there.get("shipped data") != wanted["shipped data"]):
        told.append("the data has changed")
    return told


class Sweep:
    """Computes runs in a pool and keeps them in a folder.

    kept: a RunFolder. on_run: called with each run that is there, and whether it was found in the folder.
    strict: a run that cannot start is an error; else it is noted in `refused`, {methods: reason}.
    estimate: seconds of a run of which nothing is known yet. clock: seconds.
    """

    def __init__(
        self,
        pool: Pool,
        kept: RunFolder,
        *,
        on_run: Callable[[Run], None] = lambda run: None,
        strict: bool = True,
        estimate: float = 0.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.pool, self.kept, self.on_run, self.strict, self.estimate = pool, kept, on_run, strict, estimate
        self.refused: dict[str, str] = {}
        self._clock, self._start = clock, clock()
        self._earlier = 0.0  # what the runs found in the folder took
        self._took: dict[str, list[float]] = {}  # first remedy → seconds of its runs

    def spent(self) -> float:
        """Seconds since the start, with those of the runs that were found in the folder."""
        return self._clock() - self._start + self._earlier

    def __call__(self, recipes: Sequence[Recipe], until: float = math.inf) -> list[Run]:
        """The runs of the recipes, in their order. What would not be done when `until` is spent is left out."""
        found: dict[Recipe, Run] = {}
        queue, active = deque(recipes), dict[Future[Run], Recipe]()
        while queue or active:
            while queue and len(active) < self.pool.size():
                recipe = queue.popleft()
                if run := self.kept.get(recipe):
                    self._earlier += run["seconds"] / self.pool.size()
                    self._landed(recipe, run, found)
                elif self.spent() + self._expected(recipe) <= until:
                    active[self.pool.executor.submit(workers.compute, recipe)] = recipe
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
                self._landed(recipe, run, found)
        return [found[recipe] for recipe in recipes if recipe in found]

    def _landed(self, recipe: Recipe, run: Run, found: dict[Recipe, Run]) -> None:
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


def _count(folder: Path) -> int:
    return sum(path.name != MANIFEST for path in folder.glob("*.json"))


def _runs(n: int) -> str:
    return f"{n} finished run{'' if n == 1 else 's'}"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _shown(value: Any) -> str:
    return (", ".join(value) if isinstance(value, list) else str(value)) or "nothing"
