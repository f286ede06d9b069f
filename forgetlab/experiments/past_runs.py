"""The finished runs that a comparison has kept in its folder, read without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forgetlab.errors import ForgetlabError, whole
from forgetlab.experiments.folders import MANIFEST, RUNS
from forgetlab.experiments.recipe import Recipe
from forgetlab.sources.json_files import read_json

SHORT = 8  # steps of a trial


def files_of_runs(folder: Path) -> list[Path]:
    """The files of runs in a folder."""
    return [path for path in sorted(folder.glob("*.json")) if path.name != MANIFEST]


def whole_runs(folder: Path) -> list[dict[str, Any]]:
    """What is kept of each run in a folder whose file is whole: {"of": digest of the sweep, "run": …}."""
    found = [read_json(path) for path in files_of_runs(folder)]
    return [kept for kept in found if kept and "of" in kept and "run" in kept]


def runs_like(recipe: Recipe, folder: Path) -> list[tuple[Recipe, dict[str, Any]]]:
    """The finished runs of a report with a recipe's model and tasks; raises ForgetlabError where there is none."""
    runs = [kept["run"] for kept in whole_runs(folder / RUNS)]
    given = [Recipe(**{**run["recipe"], "watch": tuple(run["recipe"]["watch"])}) for run in runs]
    alike = [
        (one, run) for one, run in zip(given, runs, strict=True)
        if (one.model, one.new, one.watch, one.limit) == (recipe.model, recipe.new, recipe.watch, recipe.limit)
        and one.steps > SHORT and run["records"][-1]["status"] == "done"
    ]  # fmt: skip
    if not alike:
        raise ForgetlabError(
            f"{folder} holds no finished run of {recipe.model} with the same new, watched tasks and limit: "
            "give the folder that `compare --out` wrote for them"
        )
    return alike


def check_length(recipe: Recipe, short: int = SHORT) -> None:
    """Raise ForgetlabError for a run that is no longer than its trial."""
    if recipe.steps <= whole("short", short):
        raise ForgetlabError(
            f"a run of {recipe.steps} steps is no longer than its trial of {short}: run it (compare --steps "
            f"{recipe.steps}), or give --steps above {short}"
        )
