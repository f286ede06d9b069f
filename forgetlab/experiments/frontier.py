"""The two axes of the frontier, what a run keeps of the old and what it learns of the new, and which runs lie on it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from forgetlab.errors import ForgetlabError
from forgetlab.metrics.schema import PlainRecord, RunResult, TaskFacts
from forgetlab.metrics.summary import kept_of, learned_of, resampled_scores, resampled_shares
from forgetlab.remedies.by_name import family

Share = Literal["balance", "kept", "new"]  # balance: half of what is kept plus half of what is learned


class Dot(TypedDict):
    """A methods text on the frontier. name: its first remedy; kept, new: a share for each seed that did not diverge.

    seeds: these; drawn: for each of them (2, draws), both shares on test sets drawn anew (empty without tallies).
    diverged: how many seeds did. tried: [kept, new] of the runs at every strength.
    """

    name: str
    spec: str
    family: str
    kept: list[float]
    new: list[float]
    diverged: int
    seeds: NotRequired[list[int]]
    drawn: NotRequired[list[NDArray[np.float64]]]
    tried: NotRequired[list[list[float]]]


def values(dot: Dot, key: Share) -> list[float]:
    """A share at each seed."""
    if key == "balance":
        return [(kept + new) / 2 for kept, new in zip(dot["kept"], dot["new"], strict=True)]
    return dot[key]


def mean(dot: Dot, key: Share) -> float:
    """Over seeds."""
    return statistics.fmean(values(dot, key))


def spread(dot: Dot, key: Share) -> float | None:
    """The standard deviation over seeds; None for one."""
    return statistics.stdev(values(dot, key)) if len(dot["kept"]) > 1 else None


def best_within(dots: Sequence[Dot], budget: float) -> Dot | None:
    """Of the dots that on the mean lose `budget` of the old or less, the one with the best new score."""
    allowed = [dot for dot in dots if dot["kept"] and mean(dot, "kept") >= 1 - budget]
    return max(allowed, key=lambda dot: (mean(dot, "new"), mean(dot, "kept")), default=None)


def dots(runs: Sequence[RunResult], tasks: Sequence[TaskFacts]) -> list[Dot]:
    """A dot for each methods text among the runs of a comparison, in their order.

    With nothing watched (or nothing to lose), all is kept.
    """
    scores = resampled_scores(runs, tasks)
    drawn = resampled_shares(runs, tasks, scores)
    found: dict[str, Dot] = {}
    for run, both in zip(runs, drawn, strict=True):
        spec = run["recipe"]["methods"]
        empty = Dot(name=spec.partition(":")[0], spec=spec, family=family(spec), kept=[], new=[], diverged=0)
        dot = found.setdefault(spec, {**empty, "seeds": [], "drawn": []})
        if (end := shares(run["records"], tasks)) is None:
            dot["diverged"] += 1
        else:
            dot["kept"].append(end[0])
            dot["new"].append(end[1])
            dot["seeds"].append(run["recipe"]["seed"])
            if scores:
                dot["drawn"].append(both)
    return list(found.values())


def shares(records: Sequence[PlainRecord], tasks: Sequence[TaskFacts]) -> tuple[float, float] | None:
    """(mean share kept of the old, share learned of the new) at the end of a run; None where it diverged.

    A watched task with nothing to lose counts nowhere; where no other one is, all is kept.
    """
    if records[-1]["status"] == "diverged":
        return None
    new, *watched = tasks
    old = [share for task in watched if (share := kept_of(task, records)) is not None]
    return statistics.fmean(old) if old else 1.0, learned_of(new, records)


def read_benchmark(path: str | Path, new: str = "sentiment") -> list[Dot]:
    """The dots of benchmarks/results/remedies.json: each remedy at its best strength, over seeds.

    new: "sentiment", whose results are the file's own, or "plain", whose results stand in it under that name.
    Its "tasks" come first the new one, then the old ones; here "new" is the score of the new task, and "tried" holds
    every run of the search, on validation texts.
    A remedy all of whose seeds diverged is left out. Raises ForgetlabError for another file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        content = content if new == "sentiment" else content[new]
        tasks, dots = content["tasks"], []
        searched = content.get("validation_tasks", tasks)
        for name, runs in content["best"].items():
            ends = [_end(run, tasks) for run in runs if run["status"] != "diverged"]
            tried = [_end(run, searched) for run in content["search"][name] if run["status"] != "diverged"]
            dot = Dot(
                name=name,
                spec=runs[0].get("spec", runs[0]["method"]),
                family=family(runs[0]["method"]),
                kept=[kept for kept, _ in ends],
                new=[new for _, new in ends],
                tried=[list(end) for end in tried],
                diverged=len(runs) - len(ends),
            )
            if ends:
                dots.append(dot)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ForgetlabError(f"{path} is not a result of benchmarks/remedies.py ({type(error).__name__})") from None
    return dots


def benchmark_shares(run: Mapping[str, Any], tasks: Sequence[TaskFacts]) -> tuple[float, float] | None:
    """`shares` of a run of that file, which has the scores alone: {"status", "before": {task: score}, "after"}."""
    records = [
        {"status": run["status"], "scores": {t["name"]: {t["metric"]: run[when][t["name"]]} for t in tasks}}
        for when in ("before", "after")
    ]
    return shares(records, tasks)


def _end(run: Mapping[str, Any], tasks: Sequence[TaskFacts]) -> tuple[float, float]:
    end = benchmark_shares(run, tasks)
    assert end is not None  # diverged runs are left out
    return round(end[0], 4), round(run["after"][tasks[0]["name"]], 4)
