"""The two axes of the frontier, what a run keeps of the old and what it learns of the new, and which runs lie on it."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetlab.checks import number
from forgetlab.errors import ForgetlabError, unknown
from forgetlab.summary import kept_of, learned_of, resampled_scores, resampled_shares

Dot = dict[str, Any]

# Remedy → its main setting, the value that strength 1 stands for, and its ends. None: it has no strength.
STRENGTHS: dict[str, tuple[str, float, float, float] | None] = {
    "none": None,
    "l2sp": ("lam", 0.03, 0, math.inf),
    "ewc": ("lam", 30.0, 0, math.inf),
    "si": ("lam", 10.0, 0, math.inf),
    "mas": ("lam", 3e-4, 0, math.inf),
    "lwf": ("lam", 1.0, 0, math.inf),
    "kl-anchor": ("beta", 1.0, 0, math.inf),
    "replay": ("ratio", 0.25, 0, 0.95),
    "generative": ("ratio", 0.25, 0, 0.95),
    "frozen": None,
    "adapters": ("width", 16, 1, 256),
    "lora": ("r", 8, 1, 64),
    "columns": ("width", 16, 1, 128),
    "layerwise-rates": ("factor", 2.6, 1, 1000),
    "warmup": ("share", 0.1, 0, 1),
    "safety-brake": ("drop", 0.05, 0, 0.95),
    "wise": ("alpha", 0.5, 0, 1),
}
FAMILIES = {
    "weights held": ("l2sp", "ewc", "online-ewc", "si", "mas"),
    "outputs held": ("lwf", "kl-anchor"),
    "replay": ("replay", "generative", "multitask"),
    "structure": ("frozen", "adapters", "lora", "columns"),
    "gradients": ("pcgrad", "agem"),
    "rates and stopping": (),  # and all else
    "none": ("none",),
}


def best_within(dots: Sequence[Dot], budget: float) -> Dot | None:
    """Of the dots that on the mean lose `budget` of the old or less, the one with the best new score."""
    allowed = [dot for dot in dots if dot["kept"] and statistics.fmean(dot["kept"]) >= 1 - budget]
    return max(allowed, key=lambda dot: (statistics.fmean(dot["new"]), statistics.fmean(dot["kept"])), default=None)


def dots(runs: Sequence[Mapping[str, Any]], tasks: Sequence[Mapping[str, Any]]) -> list[Dot]:
    """A dot for each methods text among the runs of a comparison (`recipes.compare`), in their order.

    [{"name": its first remedy, "spec", "family", "kept", "new": the share learned, a value for each seed that did
    not diverge, "seeds": these, "drawn": (seeds, 2, draws) both shares on test sets drawn anew (empty without tallies),
    "diverged": how many did}]. With nothing watched (or nothing to lose), all is kept.
    """
    scores = resampled_scores(runs, tasks)
    drawn = resampled_shares(runs, tasks, scores)
    found: dict[str, Dot] = {}
    for run, both in zip(runs, drawn, strict=True):
        spec = run["recipe"]["methods"]
        empty = {"name": spec.partition(":")[0], "spec": spec, "family": family(spec)}
        dot = found.setdefault(spec, {**empty, "kept": [], "new": [], "seeds": [], "drawn": [], "diverged": 0})
        if (end := shares(run["records"], tasks)) is None:
            dot["diverged"] += 1
        else:
            dot["kept"].append(end[0])
            dot["new"].append(end[1])
            dot["seeds"].append(run["recipe"]["seed"])
            if scores:
                dot["drawn"].append(both)
    return list(found.values())


def shares(records: Sequence[Mapping[str, Any]], tasks: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """(mean share kept of the old, share learned of the new) at the end of a run; None where it diverged.

    A watched task with nothing to lose counts nowhere; where no other one is, all is kept.
    """
    if records[-1]["status"] == "diverged":
        return None
    new, *watched = tasks
    old = [share for task in watched if (share := kept_of(task, records)) is not None]
    return statistics.fmean(old) if old else 1.0, learned_of(new, records)


def with_strength(remedy: str, strength: float) -> str:
    """A remedy's text form: `strength` times the usual value of its main setting, within what that may be.

    >>> with_strength("replay", 2), with_strength("frozen", 2)
    ('replay:ratio=0.5', 'frozen')
    """
    if remedy not in STRENGTHS:
        raise unknown("remedy", remedy, STRENGTHS)
    number("strength", strength)
    if (found := STRENGTHS[remedy]) is None:
        return remedy
    setting, usual, low, high = found
    value = min(high, max(low, strength * usual))
    text = str(round(value)) if isinstance(usual, int) else f"{value:.3g}".replace("e+", "e")  # + parts methods
    return f"{remedy}:{setting}={text}"


def family(methods: str) -> str:
    """Which of FAMILIES a recipe's methods belong to; the first one decides."""
    first = methods.partition("+")[0].partition(":")[0].strip()
    return next((name for name, own in FAMILIES.items() if first in own), "rates and stopping")


def read_benchmark(path: str | Path) -> list[Dot]:
    """The dots of benchmarks/results/remedies.json: each remedy at its best strength, over seeds.

    Its "tasks" come first the new one, then the old ones. Returns [{"name", "spec", "family", "kept": mean share of
    the old, "new": score of the new task, a value for each seed, "diverged": seeds that did, "tried": [[kept, new], …]
    at every strength, on one seed}].
    A remedy all of whose seeds diverged is left out. Raises ForgetlabError for another file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        tasks, dots = content["tasks"], []
        for name, runs in content["best"].items():
            ends = [_end(run, tasks) for run in runs if run["status"] != "diverged"]
            tried = [_end(run, tasks) for run in content["search"][name] if run["status"] != "diverged"]
            dot = {"name": name, "spec": runs[0].get("spec", runs[0]["method"]), "family": family(runs[0]["method"])}
            dot |= {"kept": [k for k, _ in ends], "new": [n for _, n in ends], "tried": [list(end) for end in tried]}
            if ends:
                dots.append({**dot, "diverged": len(runs) - len(ends)})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ForgetlabError(f"{path} is not a result of benchmarks/remedies.py ({type(error).__name__})") from None
    return dots


def benchmark_shares(run: Mapping[str, Any], tasks: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """`shares` of a run of that file, which has the scores alone: {"status", "before": {task: score}, "after"}."""
    records = [
        {"status": run["status"], "scores": {t["name"]: {t["metric"]: run[when][t["name"]]} for t in tasks}}
        for when in ("before", "after")
    ]
    return shares(records, tasks)


def _end(run: Mapping[str, Any], tasks: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    end = benchmark_shares(run, tasks)
    assert end is not None  # diverged runs are left out
    return round(end[0], 4), round(run["after"][tasks[0]["name"]], 4)
