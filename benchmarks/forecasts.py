"""Can a trial of 8 steps tell what a whole fine-tune will forget? Runs the law was fitted on, and runs it has not seen.

python -m benchmarks.forecasts [--runs FOLDER] [--count 76] [--real FOLDER]
Makes the runs of benchmarks/forecast_runs.py (30 minutes of one core; each is kept in --runs: started again, it goes on
there), fits the law on those of some new tasks, and checks it on all others. Writes benchmarks/results/forecasts.json
and .md, and data/forecast/law.json, which the command `forecast` uses. --real: a folder with reviews.csv, authors.csv,
wnut.conll, grimm.txt and plays.txt, and the models minilm and docs-gpt; without it their runs are left out.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.correlation import bootstrapped, spearman
from benchmarks.forecast_runs import all_jobs, done
from benchmarks.forecasts_table import page
from forgetlab.experiments.forecast import COUNT, MOST
from forgetlab.experiments.forecast_law import FILE, LEVEL, Law, Past, fit, loosened, squeezed
from forgetlab.experiments.recipe import Recipe
from forgetlab.experiments.trials import SCHEDULES, fall, trials_of
from forgetlab.remedies.by_name import make_methods
from forgetlab.sources.json_files import digest, write_json
from forgetlab.sources.shipped import data_folder

Row = dict[str, Any]
RESULTS = Path(__file__).parent / "results"
BASELINES: dict[str, Callable[[Row], list[float]]] = {
    "always the mean": lambda row: [1.0],
    "the rate": lambda row: [1.0, math.log(row["lr"])],
    "rate and length": lambda row: [1.0, math.log(row["lr"]), math.log(row["steps"])],
    "drift after 8 steps": lambda row: [1.0, math.log(row["drift"])],
    "rise after 8 steps": lambda row: [1.0, row["x"][1]],
}
SETS: dict[str, Callable[[Row], bool]] = {
    "tiny-bert": lambda row: row["role"] == "unseen" and row["model"] == "tiny-bert",
    "tiny-gpt": lambda row: row["role"] == "unseen" and row["model"] == "tiny-gpt",
    "all-MiniLM-L6-v2": lambda row: row["role"] == "real" and row["model"] == "minilm",
    "a GPT on real text": lambda row: row["role"] == "real" and row["model"] == "docs-gpt",
    "all": lambda row: row["role"] != "fit",
}
KEYS = ("middle", *BASELINES)


def recipe_of(run: Mapping[str, Any]) -> Recipe:
    return Recipe(**{**run["recipe"], "watch": tuple(run["recipe"]["watch"])})


def rows_of(run: Mapping[str, Any], middles: bool = False) -> list[Row]:
    """A row for each watched task at the run's end; with middles also on the way, where no schedule knows the end."""
    recipe, records, rows = recipe_of(run), run["records"], list[Row]()
    if any(isinstance(one, SCHEDULES) for one in make_methods(recipe.methods, None)) or not middles:
        records = [records[0], records[-1]]
    same = {
        "role": run["role"],
        "run": digest(run["recipe"])[:16],
        "model": Path(recipe.model).name,
        "methods": recipe.methods,
    }
    same |= {"new": Path(recipe.new).name, "lr": recipe.lr}
    for record in records[1:]:
        to = replace(recipe, steps=record["step"])
        for trial in trials_of(run["tasks"], run["trials"], to, run["parameters"]):
            fell = fall(trial.task, records[0], record)
            if math.isfinite(fell):
                about = {"old": Path(trial.task["name"]).name, "scale": trial.task["scale"], "steps": to.steps}
                about["drift"] = float(np.mean([last["drift"] for _, last in run["trials"]]))
                rows.append({**same, **about, "x": trial.x, "error": trial.error, "moved": trial.moved, "fall": fell})
    return rows


def foretold(rows: Sequence[Row], laws: Mapping[str, Law], fitted: Sequence[Row]) -> list[Row]:
    """The rows with what the law and the baselines, fitted on the same runs, say of each."""
    found = [{**row, "middle": laws[row["scale"]].middle(row["x"])} for row in rows]
    for row in found:
        row["low"], row["high"] = laws[row["scale"]].ends(row["x"], row["error"], row["model"])
        row["strange"] = laws[row["scale"]].strangeness(row["x"])
    for name, columns in BASELINES.items():
        for scale in laws:
            own = [row for row in fitted if row["scale"] == scale]
            x, y = np.array([columns(row) for row in own]), squeezed([row["fall"] for row in own])
            weights, *_ = np.linalg.lstsq(x, y, rcond=None)
            for row in found:
                if row["scale"] == scale:
                    row[name] = float(loosened(np.dot(columns(row), weights)))
    return found


def with_own(rows: Sequence[Row], fitted: Sequence[Row]) -> list[Row]:
    """The rows foretold once more, with up to `MOST` other runs of the same model and new task, as by --past."""
    found = list[Row]()
    for row in rows:
        same = [one for one in rows if all(one[key] == row[key] for key in ("model", "new", "scale"))]
        runs = dict.fromkeys(one["run"] for one in same if one["run"] != row["run"])
        own = [one for one in same if one["run"] in [*runs][:MOST]]
        law = fit([*(one for one in fitted if one["scale"] == row["scale"]), *own * COUNT])  # type: ignore[misc]
        low, high = law.ends(row["x"], row["error"], row["model"])
        found.append({**row, "middle": law.middle(row["x"]), "low": low, "high": high})
    return found


def over_runs(rows: Sequence[Row], value: Callable[[Sequence[Row]], float]) -> tuple[float, float, float]:
    """A value of some rows with its interval over whole runs drawn anew."""
    runs: dict[str, list[Row]] = {}
    for row in rows:
        runs.setdefault(row["run"], []).append(row)
    own = list(runs.values())
    return bootstrapped(lambda drawn: value([row for i in drawn for row in own[i]]), len(own), draws=300)


def rho(rows: Sequence[Row], key: str) -> float:
    """Spearman's ρ between a forecast and the fall."""
    return spearman([row[key] for row in rows], [row["fall"] for row in rows])


def within(rows: Sequence[Row], key: str) -> float:
    """The mean of ρ over the watched tasks of each model, each over its own runs."""
    tasks: dict[Any, list[Row]] = {}
    for row in rows:
        tasks.setdefault((row["model"], row["old"]), []).append(row)
    return float(np.mean([rho(own, key) for own in tasks.values() if len(own) > 3]))


def told(rows: Sequence[Row], keys: Sequence[str] = KEYS) -> dict[str, Any]:
    """What a set of rows of one scale says of the forecasts."""

    def missed(key: str) -> list[float]:
        return [abs(row[key] - row["fall"]) for row in rows]

    return {
        "runs": len({row["run"] for row in rows}),
        "pairs": len(rows),
        "coverage": over_runs(rows, lambda some: float(np.mean([r["low"] <= r["fall"] <= r["high"] for r in some]))),
        "width": float(np.median([row["high"] - row["low"] for row in rows])),
        "strange": sum(row["strange"] > 1 for row in rows),
        "rho": {key: over_runs(rows, lambda some, key=key: rho(some, key)) for key in keys},
        "within": {key: over_runs(rows, lambda some, key=key: within(some, key)) for key in keys},
        "error": {key: float(np.mean(missed(key))) for key in keys},
        "median error": {key: float(np.median(missed(key))) for key in keys},
    }


def concluded(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The results of all runs."""
    fitted = [row for run in runs if run["role"] == "fit" for row in rows_of(run, middles=True)]
    laws = {scale: fit([row for row in fitted if row["scale"] == scale]) for scale in ("points", "ratio")}
    unseen = [row for run in runs if run["role"] in ("unseen", "real") for row in rows_of(run)]
    found = foretold(unseen, laws, fitted)
    sets: dict[str, Any] = {}
    for name, belongs in SETS.items():
        for scale in laws:
            if len(own := [row for row in found if belongs(row) and row["scale"] == scale]) > 3:
                sets.setdefault(name, {})[scale] = told(own)
    again = with_own(found, fitted)
    own_past = {}
    for name, belongs in SETS.items():
        for scale in laws:
            if some := [row for row in again if belongs(row) and row["scale"] == scale]:
                own_past.setdefault(name, {})[scale] = told(some, ("middle",))
    about = {
        scale: {"weights": law.weights.tolist(), "known": law.known, "other": law.other, "results": law.results}
        for scale, law in laws.items()
    }
    rows = [{key: _short(row[key]) for key in row if key != "run"} for row in found]
    return {"level": LEVEL, "law": about, "sets": sets, "own past": own_past, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("forecast-runs"))
    parser.add_argument("--count", type=int, default=76, help="runs to fit on, and as many to check on")
    parser.add_argument("--real", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    jobs = [job for job in all_jobs(options.count, options.real) if job.role != "mix"]
    runs = list[dict[str, Any]]()
    for job in jobs:
        runs.append(done(options.runs, job))
        print(f"{time.process_time():.0f} s of one core: {len(runs)} of {len(jobs)}, {job.role}", flush=True)
    results = concluded(runs)
    RESULTS.joinpath("forecasts.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    RESULTS.joinpath("forecasts.md").write_text(page(results), encoding="utf-8")
    ship(runs)


def ship(runs: Sequence[Mapping[str, Any]]) -> None:
    """Write the past results that the command forecasts from: those of role fit, and real ones."""
    rows = [row for run in runs if run["role"] in ("fit", "real") for row in rows_of(run, middles=run["role"] == "fit")]
    past = [{key: _short(row[key]) for key in Past.__annotations__} for row in rows]
    made = "benchmarks/forecasts.py: the runs of role fit, at their ends and half-way, and those of role real"
    write_json(data_folder() / FILE, {"made": made, "past": past})


def _short(value: Any) -> Any:
    if isinstance(value, list):
        return [_short(one) for one in value]
    return round(value, 5) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
