"""The two axes of the frontier, what a run keeps of the old and what it learns of the new, and which runs lie on it."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetlab.errors import ForgetlabError
from forgetlab.remedies import family

Scores = Mapping[str, float]
Dot = dict[str, Any]


def learned(before: float, after: float) -> float:
    """Share of what there was to learn: (after − before) / (1 − before) of a score up to 1; 0 where it fell."""
    return max(0.0, (after - before) / (1 - before)) if before < 1 else 0.0


def learned_nats(before: float, after: float, floor: float = 1.0) -> float:
    """The same of a perplexity, in nats: (ln before − ln after) / (ln before − ln floor); 0 where it rose.

    floor: the lowest that any model can reach (1 where it is not known).
    """
    return max(0.0, math.log(before / after) / math.log(before / floor)) if before > floor else 0.0


def kept(before: Scores, after: Scores, perplexities: Collection[str] = ()) -> float:
    """Mean share of the old scores that is still there, in [0, 1].

    before, after: {old task: score}. perplexities: the tasks whose score is one.
    A task's share is after / before, for a perplexity before / after, and 1 at most: a gain does not make up for a
    loss. A task whose score was 0 had nothing to lose and is left out; nan and inf count as all lost.
    Raises ForgetlabError where no task is left.
    """
    shares = []
    for task, start in before.items():
        if start:
            share = start / after[task] if task in perplexities else after[task] / start
            shares.append(min(1.0, share) if math.isfinite(share) else 0.0)
    if not shares:
        raise ForgetlabError("kept needs an old task with a score above 0 before the fine-tune")
    return statistics.fmean(shares)


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """The numbers of the points that no other one beats (higher is better in both), from left to right.

    One point beats another where it is better in one thing and not worse in the other: equal ones do not.
    """
    best, front = -math.inf, list[int]()
    for i in sorted(range(len(points)), key=lambda i: (-points[i][0], -points[i][1], -i)):
        if points[i][1] > best or (front and points[i] == points[front[-1]]):
            best = points[i][1]
            front.append(i)
    return front[::-1]


def best_within(dots: Sequence[Dot], budget: float) -> Dot | None:
    """Of the dots that on the mean lose `budget` of the old or less, the one with the best new score."""
    allowed = [dot for dot in dots if dot["kept"] and statistics.fmean(dot["kept"]) >= 1 - budget]
    return max(allowed, key=lambda dot: (statistics.fmean(dot["new"]), statistics.fmean(dot["kept"])), default=None)


def dots(runs: Sequence[Mapping[str, Any]], tasks: Sequence[Mapping[str, Any]]) -> list[Dot]:
    """A dot for each methods text among the runs of a comparison (`recipes.compare`), in their order.

    [{"name": its first remedy, "spec", "family", "kept", "new": the share learned, a value for each seed that did
    not diverge, "diverged": how many did}]. With nothing watched (or nothing to lose), all is kept.
    """
    found: dict[str, Dot] = {}
    for run in runs:
        spec = run["recipe"]["methods"]
        empty = {"name": spec.partition(":")[0], "spec": spec, "family": family(spec)}
        dot = found.setdefault(spec, {**empty, "kept": [], "new": [], "diverged": 0})
        if (end := shares(run["records"], tasks)) is None:
            dot["diverged"] += 1
        else:
            dot["kept"].append(end[0])
            dot["new"].append(end[1])
    return list(found.values())


def shares(records: Sequence[Mapping[str, Any]], tasks: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """(share kept of the old, share learned of the new) at the end of a run; None where it diverged."""
    if records[-1]["status"] == "diverged":
        return None
    before, after = (
        {t["name"]: _known(record["scores"][t["name"]][t["metric"]]) for t in tasks}
        for record in (records[0], records[-1])
    )
    (new, *watched) = tasks
    start, end = before[new["name"]], after[new["name"]]
    if new["metric"] == "perplexity":
        gain = learned_nats(start, end, new.get("floor") or 1.0) if math.isfinite(start) and math.isfinite(end) else 0.0
    else:
        gain = learned(start, end)
    old = {t["name"]: before[t["name"]] for t in watched if before[t["name"]] and math.isfinite(before[t["name"]])}
    return kept(old, after, {t["name"] for t in watched if t["metric"] == "perplexity"}) if old else 1.0, gain


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def read_benchmark(
    path: str | Path, new: str = "sentiment", perplexities: Collection[str] = ("masked-lm",)
) -> list[Dot]:
    """The dots of benchmarks/results/remedies.json: each remedy at its best strength, over seeds.

    new: the new task; all others of a run are old. Returns [{"name", "spec", "family", "kept", "new": a value for
    each seed, "diverged": seeds that did, "tried": [[kept, new], …] at every strength, on one seed}].
    A remedy all of whose seeds diverged is left out. Raises ForgetlabError for another file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        dots = []
        for name, runs in content["best"].items():
            ends = [_end(run, new, perplexities) for run in runs if run["status"] != "diverged"]
            tried = [_end(run, new, perplexities) for run in content["search"][name] if run["status"] != "diverged"]
            dot = {"name": name, "spec": runs[0].get("spec", runs[0]["method"]), "family": family(runs[0]["method"])}
            dot |= {"kept": [k for k, _ in ends], "new": [n for _, n in ends], "tried": [list(end) for end in tried]}
            if ends:
                dots.append({**dot, "diverged": len(runs) - len(ends)})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ForgetlabError(f"{path} is not a result of benchmarks/remedies.py ({type(error).__name__})") from None
    return dots


def _end(run: Mapping[str, Any], new: str, perplexities: Collection[str]) -> tuple[float, float]:
    before = {task: score for task, score in run["before"].items() if task != new}
    return round(kept(before, run["after"], perplexities), 4), round(run["after"][new], 4)
