"""Results as figures need them: what each method did, over its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forgetlab.errors import ForgetlabError
from forgetlab.metrics.schema import PlainRecord, Results, RunResult, TaskFacts
from forgetlab.metrics.summary import kept_of, score
from forgetlab.plots.style import COLORS, DASHES, UNITS

Array = NDArray[np.float64]
Line = tuple[Array, Array]


@dataclass
class Side:
    """What one method did. lines: for each task the (steps, values) of each run, nan where one is missing.

    ends: (forgetting, new score) of each run that did not diverge, spread: their deviation over seeds;
    drifts: {layer: a value for each of these runs}.
    """

    label: str
    who: str
    look: dict[str, Any]
    lines: list[list[Line]]
    ends: Array
    spread: Array
    drifts: dict[str, list[float]]


def read(results: Results | Sequence[PlainRecord]) -> tuple[list[TaskFacts], list[Side]]:
    """(tasks, the new one first; a side for each method, "none" first). Raises ForgetlabError if nothing was run."""
    if isinstance(results, Mapping):
        tasks: list[TaskFacts] = results["tasks"]
        runs: list[RunResult] = results["runs"]
    else:
        scores = results[0]["scores"] if results else {}
        tasks = [{"name": n, "metric": [*(m for m in UNITS if m in s), *s][0]} for n, s in scores.items()]
        runs = [{"recipe": {"methods": ""}, "records": list(results)}]
    if not tasks or not runs:
        raise ForgetlabError("there is nothing to draw: no run has a record")
    names = sorted(dict.fromkeys(run["recipe"]["methods"] for run in runs), key="none".__ne__)
    sides = []
    for i, name in enumerate(names, start="none" not in names):  # looks are the same with and without "none"
        own = [run["records"] for run in runs if run["recipe"]["methods"] == name]
        lines = [[_line(records, task) for records in own] for task in tasks]
        ends = np.array([end(tasks, records) for records in own])
        well = np.isfinite(ends).all(axis=1)
        spread = ends[well].std(axis=0, ddof=1) if sum(well) > 1 else np.zeros(2)
        last = [own[k][-1]["drift_per_layer"] for k in np.flatnonzero(well)]
        drifts = {layer: [end[layer] for end in last] for layer in own[0][0]["drift_per_layer"]}
        share = f"{sum(~well)} of {len(own)} " if len(own) > 1 else ""
        label = name if well.all() else f"{name} ({share}diverged)"
        who = {"none": "Without a remedy", "": "In this run"}.get(name, f"With {label}")
        look = {"color": COLORS[i % 9], "linestyle": DASHES[i % 6], "marker": "osD^vPh*<>p"[i % 11]}
        sides.append(Side(label, who, look, lines, ends[well], spread, drifts))
    return tasks, sides


def end(tasks: Sequence[TaskFacts], records: Sequence[PlainRecord]) -> tuple[float, float]:
    """(forgetting, new score) of a run, as `trade_off` defines them; nan where it diverged or has no score."""
    shares = [share for task in tasks[1:] if (share := kept_of(task, records)) is not None]
    return 1 - float(np.mean(shares)) if shares else 0.0, score(records[-1], tasks[0])


def _line(records: Sequence[PlainRecord], task: TaskFacts) -> Line:
    steps, values = [record["step"] for record in records], [score(record, task) for record in records]
    return np.array(steps, dtype=float), np.array(values, dtype=float)
