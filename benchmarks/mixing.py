"""How much old data to mix in, at which rate: do six short runs name it better than a fixed quarter does?

python -m benchmarks.mixing [--runs FOLDER]
For six new tasks, long runs over a grid of three rates and four replay ratios, and six short ones (20 of 160 steps) at
its corners. Of each old task these place the curve g(fall) = a + c · ln(η t) + d · ln(1 + 10 p), with c and d of the
law of other new tasks (`forecast_law`; the form of Bethune et al. 2025, 2502.06042, in steps and ratio); of the new one
logit(learned) = a + b · ln η + c · ln(1 − p) + 1.3 · ln t. The pair that is named: the most that is learned where the
share kept is to be as wished. Writes benchmarks/results/mixing.json and .md (6 minutes of one core).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.correlation import spearman
from benchmarks.forecast_runs import MIX_SHORT, MIX_STEPS, MIXED, done, mixed
from forgetlab.experiments.forecast_law import Law, fit, loosened, shipped, squeezed
from forgetlab.experiments.frontier import shares
from forgetlab.experiments.trials import fall
from forgetlab.metrics.retention import higher_is_better, on, scale
from forgetlab.metrics.summary import kept_of, learned_of, score

Cell = tuple[float, float]  # a rate and a ratio
Grid = dict[Cell, dict[str, Any]]
RESULTS = Path(__file__).parent / "results"
FIXED: dict[str, Cell] = {
    "a quarter, the planned rate": (1e-3, 0.25),
    "a tenth, the planned rate": (1e-3, 0.1),
    "a half, the planned rate": (1e-3, 0.5),
    "a quarter, a third of the rate": (3e-4, 0.25),
}
WISHES, GAIN, LEVEL = (0.7, 0.8, 0.9), 1.3, 0.9


def place(rate: float, ratio: float, steps: int) -> list[float]:
    return [math.log(rate * steps), math.log1p(10 * ratio)]


def kept_by_curve(grid: Grid, laws: Mapping[str, Law]) -> dict[Cell, float]:
    """The share of the old that the curve foretells for the long run of each cell, the mean over the old tasks."""
    short = {cell: run for cell, run in grid.items() if run["trials"]}
    first, tasks = next(iter(short.values()))["records"][0], next(iter(short.values()))["tasks"]
    found: dict[Cell, list[float]] = {cell: [] for cell in grid}
    for task in tasks[1:]:
        if kept_of(task, [first, first]) is None:
            continue
        slopes = laws[scale(task)].weights[2:]
        y = squeezed([fall(task, *run["trials"][0]) for run in short.values()])
        start = float(np.mean(y - np.array([place(*cell, MIX_SHORT) for cell in short]) @ slopes))
        sign = 1 if higher_is_better(task) else -1
        known = sign * float(on(scale(task), score(first, task)) - on(scale(task), task["guess"]))
        for cell in grid:
            fell = float(loosened(start + np.dot(place(*cell, MIX_STEPS), slopes)))
            found[cell].append(min(max(1 - fell / known, 0.0), 1.0))
    return {cell: statistics.fmean(values) for cell, values in found.items()}


def learned_by_curve(grid: Grid) -> dict[Cell, float]:
    """The share of the new task that the curve foretells for each long run."""
    short = {cell: run for cell, run in grid.items() if run["trials"]}
    x = np.array([[1.0, math.log(rate), math.log(1 - ratio)] for rate, ratio in short])
    y = [_logit(learned_of(run["tasks"][0], run["trials"][0])) for run in short.values()]
    weights, *_ = np.linalg.lstsq(x, np.array(y), rcond=None)
    more = GAIN * math.log(MIX_STEPS / MIX_SHORT)
    logits = {(rate, ratio): more + np.dot([1.0, math.log(rate), math.log(1 - ratio)], weights) for rate, ratio in grid}
    return {cell: float(1 / (1 + np.exp(-logit))) for cell, logit in logits.items()}


def named(wish: float, kept: Mapping[Cell, float], learned: Mapping[Cell, float]) -> Cell:
    """The most that is learned where the wished share is kept; where none is, the most that is kept."""
    allowed = [cell for cell in kept if kept[cell] >= wish] or [max(kept, key=lambda cell: kept[cell])]
    return max(allowed, key=lambda cell: learned[cell])


def _logit(share: float) -> float:
    share = min(max(share, 0.01), 0.99)
    return math.log(share / (1 - share))


def concluded(grids: Mapping[tuple[str, str], Grid]) -> dict[str, Any]:
    """What the named pairs and the fixed ones came to, and how often the share kept lay inside its interval."""
    others = [one for one in shipped() if (one["model"], one["new"]) not in grids]
    laws = {name: fit([one for one in others if one["scale"] == name]) for name in ("points", "ratio")}
    ends = {key: {cell: shares(run["records"], run["tasks"]) or (0.0, 0.0) for cell, run in grid.items()}
            for key, grid in grids.items()}  # fmt: skip
    kept = {key: kept_by_curve(grid, laws) for key, grid in grids.items()}
    learned = {key: learned_by_curve(grid) for key, grid in grids.items()}
    missed = {key: [abs(kept[key][cell] - ends[key][cell][0]) for cell in grid] for key, grid in grids.items()}
    half = {
        key: float(np.quantile([m for other, ms in missed.items() if other != key for m in ms], LEVEL)) for key in grids
    }
    rows = dict[str, list[tuple[float, float, bool]]]()
    inside = []
    for key, end in ends.items():
        for wish in WISHES:
            own = named(wish, kept[key], learned[key])
            inside.append(abs(kept[key][own] - end[own][0]) <= half[key])
            best = named(wish, {c: e[0] for c, e in end.items()}, {c: e[1] for c, e in end.items()})
            chosen = {"named by six short runs": own, **FIXED, "the best of the grid": best}
            for name, cell in chosen.items():
                rows.setdefault(name, []).append((*end[cell], end[cell][0] >= wish))
    pairs = [(kept[key][cell], end[cell][0]) for key, end in ends.items() for cell in end]
    return {
        "long runs": len(pairs), "level": LEVEL,
        "coverage": float(np.mean([m <= half[key] for key, own in missed.items() for m in own])),
        "coverage of the named": float(np.mean(inside)),
        "half width": statistics.fmean(half.values()),
        "rho": spearman(*zip(*pairs, strict=True)),
        "rows": {name: np.mean(np.array(found, dtype=float), axis=0).tolist() for name, found in rows.items()},
        "ends": {": ".join(key): [[*cell, *end[cell]] for cell in sorted(end)] for key, end in ends.items()},
    }  # fmt: skip


def page(found: Mapping[str, Any]) -> str:
    head = "ratio and rate | kept | learned | mean of both | wished share kept"
    lines = [f"| {head} |", "|" + " --- |" * 5]
    for name, (kept, learned, met) in found["rows"].items():
        lines.append(f"| {name} | {kept:.2f} | {learned:.2f} | {(kept + learned) / 2:.3f} | {100 * met:.0f} % |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("forecast-runs"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    grids: dict[tuple[str, str], Grid] = {key: {} for key in MIXED}
    for job in mixed():
        run = done(options.runs, job)
        recipe = job.recipe
        grids[recipe.model, recipe.new][recipe.lr, float(recipe.methods.partition("=")[2])] = run
    results = concluded(grids)
    RESULTS.joinpath("mixing.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    RESULTS.joinpath("mixing.md").write_text(page(results), encoding="utf-8")
    print(page(results), {key: value for key, value in results.items() if key not in ("rows", "ends")})


if __name__ == "__main__":
    main()
