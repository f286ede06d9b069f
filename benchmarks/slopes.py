"""Can the gradients before the first step tell what a fine-tune will forget? Part of benchmarks/not_kept.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.correlation import bootstrapped, spearman
from benchmarks.remedies import LIMIT, RATE, WATCH
from forgetlab.experiments.recipes import Recipe, prepare
from forgetlab.interference import Gradients, task_gradient
from forgetlab.training.loop import finetune

NEW = ("plain", "sentiment", "sentiment:turned=1", "register", "entailment")
NEW += tuple(f"masked-lm:{register}" for register in ("reviews", "notices", "news"))
Row = dict[str, Any]


def said(new: Gradients, old: Gradients) -> dict[str, float]:
    """What two gradients at the start foretell of the old loss, larger where more should be forgotten."""
    pairs = [(a, b) for name, a in new.items() if a is not None and (b := old.get(name)) is not None]
    inner = sum(float((a * b).sum()) for a, b in pairs)
    mine, its = (sum(float(g.square().sum()) for g in own) ** 0.5 for own in zip(*pairs, strict=True))
    return {
        "−g_new · g_old": -inner,  # to first order, what a step of gradient descent adds to the old loss
        "−cosine": -inner / (mine * its),
        "−sign(g_new) · g_old": -sum(float((a.sign() * b).sum()) for a, b in pairs),  # Adam's first step
        "‖g_new‖": mine,  # what needs no old task
    }


def forecasts(seeds: Sequence[int], steps: int) -> dict[str, Any]:
    """For each new task, seed and old task: the forecasts, and by how many nats the old loss then rose."""
    rows = list[Row]()
    for new in NEW:
        for seed in seeds:
            bench = prepare(Recipe(new=new, watch=WATCH, limit=LIMIT))
            slopes = {one.name: task_gradient(bench.model, one, seed=seed) for one in bench.watch}
            own = task_gradient(bench.model, bench.new, seed=seed)
            bench.model.restore()
            options: dict[str, Any] = {"steps": steps, "every": steps, "lr": RATE, "seed": seed, "limit": LIMIT}
            first, last = (one.scores for one in finetune(bench.model, bench.new, watch=bench.watch, **options))
            for old, slope in slopes.items():
                rose = last[old]["loss"] - first[old]["loss"]
                rows.append({"new": new, "seed": seed, "old": old, "rose": rose} | said(own, slope))
    names = [name for name in rows[0] if name not in ("new", "seed", "old", "rose")]
    return {"rows": rows, "correlations": {name: correlation(rows, name) for name in names}}


def correlation(rows: Sequence[Row], name: str) -> tuple[float, float, float]:
    """Spearman's ρ over the new tasks (each the mean of its seeds), mean over the old ones; in groups by new task."""
    news, olds = list(dict.fromkeys(row["new"] for row in rows)), list(dict.fromkeys(row["old"] for row in rows))

    def means(key: str) -> Any:
        of = {(new, old): [r[key] for r in rows if (r["new"], r["old"]) == (new, old)] for new in news for old in olds}
        return np.array([[np.mean(of[new, old]) for new in news] for old in olds])

    x, y = means(name), means("rose")

    def value(drawn: Sequence[int]) -> float:
        return float(np.mean([spearman(a[list(drawn)], b[list(drawn)]) for a, b in zip(x, y, strict=True)]))

    return bootstrapped(value, len(news))
