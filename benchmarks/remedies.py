"""Every remedy at its best strength on the embedded world: what it learns, what it keeps, what it costs.

python benchmarks/remedies.py [--seeds 3] [--steps 200] [--only NAME …]
Searches each remedy's strengths on one seed, runs the best one on all seeds, prints a table and writes
benchmarks/results/remedies.json and remedies.md. Runs share the cores, one thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from forgetlab.experiments.frontier import benchmark_shares, dots
from forgetlab.experiments.recipes import Bench, Recipe, describe, prepare
from forgetlab.experiments.recommendation import verdicts

# Remedy → the strengths that are tried, "@ rate" where it has a learning rate of its own (few new weights want a
# higher one). The best is decided by `balance` on seed 0.
GRID = {
    "none": ["none"],
    "l2sp": [f"l2sp:lam={x}" for x in ("0.01", "0.02", "0.05", "0.1", "0.2")],
    "l2sp, proximal": [f"l2sp:lam={x},proximal=1" for x in (3, 10, 30, 100)],
    "ewc": [f"ewc:lam={x}" for x in (1, 10, 100, 1000)],
    "ewc, proximal": [f"ewc:lam={x},proximal=1" for x in ("1e3", "1e4", "1e5", "1e6")],
    "online-ewc": [f"online-ewc:lam={x}" for x in (10, 100, 1000)],
    "si": [f"si:lam={x}" for x in (1, 10, 100)],
    "mas": [f"mas:lam={x}" for x in ("3e-5", "1e-4", "3e-4", "1e-3")],
    "lwf": [f"lwf:lam={x}" for x in ("0.1", "0.3", "1", "3")],
    "kl-anchor": [f"kl-anchor:beta={x}" for x in ("0.1", "0.3", "1", "3")],
    "replay": [f"replay:ratio={x}" for x in ("0.125", "0.25", "0.5", "0.75")],
    "generative": [f"generative:ratio={x}" for x in ("0.25", "0.5", "0.75")],
    "multitask": ["multitask"],
    "lower rate": ["none @ 1e-4", "none @ 3e-4"],
    "frozen": ["frozen", "frozen @ 1e-2", "frozen @ 3e-2"],
    "adapters": [f"adapters:width={x} @ {lr}" for x in (16, 64) for lr in ("3e-3", "1e-2")],
    "adapters, shared": [f"adapters:width={x},shared=1 @ {lr}" for x in (16, 64) for lr in ("3e-3", "1e-2")],
    "lora": [f"lora:r={x} @ {lr}" for x in (4, 16) for lr in ("3e-3", "1e-2")],
    "lora, one task": [f"lora:r={x},shared=0 @ {lr}" for x in (4, 16) for lr in ("3e-3", "1e-2")],
    "columns": [f"columns:width={x} @ {lr}" for x in (16, 64) for lr in ("3e-3", "1e-2")],
    "layerwise-rates": [f"layerwise-rates:factor={x} @ {lr}" for x in ("1.5", "2.6") for lr in ("1e-3", "3e-3")],
    "warmup": ["warmup:share=0.1", "warmup:share=0.3"],
    "cosine": ["cosine"],
    "slanted-triangular": ["slanted-triangular"],
    "gradual-unfreezing": ["gradual-unfreezing"],
    "early-stopping": ["early-stopping:patience=5"],
    "safety-brake": [f"safety-brake:drop={x}" for x in ("0.05", "0.2", "0.35")],
    "pcgrad": ["pcgrad"],
    "agem": ["agem"],
    "wise": [f"wise:alpha={x}" for x in ("0.3", "0.5", "0.7")],
    "replay + ewc": [f"replay:ratio=0.25+ewc:lam={x}" for x in (1, 10, 100)],
    "ULMFiT": [f"layerwise-rates+slanted-triangular+gradual-unfreezing @ {lr}" for lr in ("1e-3", "3e-3")],
}
NEW, WATCH = "sentiment", ("masked-lm", "entities", "acceptability")
METRIC = {"sentiment": "accuracy", "masked-lm": "perplexity", "entities": "f1", "acceptability": "accuracy"}

_bench: Bench | None = None


def one(recipe: Recipe) -> dict[str, Any]:
    """One run: scores before and after, and what it cost."""
    global _bench
    if _bench is None:
        torch.set_num_threads(1)
        _bench = prepare(replace(recipe, methods="none"))
    records = list(_bench.run(recipe))
    first, last = records[0], records[-1]
    steps = max(1, max(record.step for record in records))
    return {
        "method": recipe.methods,
        "lr": recipe.lr,
        "seed": recipe.seed,
        "status": last.status,
        "before": {task: first.scores[task][metric] for task, metric in METRIC.items()},
        "after": {task: last.scores[task][metric] for task, metric in METRIC.items()},
        "ms_per_step": 1000 * last.train_seconds / steps,
        "setup_seconds": last.setup_seconds,
        "drift": last.drift,
        "records": [first.as_dict(), last.as_dict()],
        **first.costs,
    }


def facts(recipe: Recipe) -> list[dict[str, Any]]:
    """What is to be known of the tasks, a guesser's scores among it: the new one first."""
    return describe(prepare(replace(recipe, methods="none")))["tasks"]


def balance(run: dict[str, Any], tasks: list[dict[str, Any]]) -> float:
    """½ share of the new task that was learned + ½ mean share of the old scores that was kept, each in [0, 1]."""
    shares = benchmark_shares(run, tasks)
    return 0.0 if shares is None else sum(shares) / 2


def asked(base: Recipe, spec: str, seed: int = 0) -> Recipe:
    """The recipe of a line of GRID."""
    methods, _, rate = spec.partition(" @ ")
    return replace(base, methods=methods, seed=seed, lr=float(rate) if rate else base.lr)


def mean(values: list[float], digits: int) -> str:
    spread = f" ±{statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def table(best: dict[str, list[dict[str, Any]]], tasks: list[dict[str, Any]]) -> str:
    """Markdown, best balance first; the step's time is relative to that of "none"."""
    head = ["remedy", "at its best", NEW, "masked-lm perplexity", "entities F1", "acceptability", "balance"]
    head += ["time a step", "set-up, s", "memory, copies of the weights", "weights trained", "weights added"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    plain = statistics.median(run["ms_per_step"] for run in best["none"]) if "none" in best else 1.0
    weights = best["none"][0]["trained_parameters"] if "none" in best else 1.0
    for name, runs in sorted(best.items(), key=lambda pair: -statistics.fmean(balance(run, tasks) for run in pair[1])):
        column = {task: [run["after"][task] for run in runs] for task in METRIC}
        step = statistics.median(run["ms_per_step"] for run in runs) / plain
        cells = [name, f"`{runs[0]['spec']}`", *(mean(column[task], 2) for task in METRIC)]
        cells += [mean([balance(run, tasks) for run in runs], 3), f"×{step:.2f}"]
        cells += [
            f"{statistics.fmean(run['setup_seconds'] for run in runs):.1f}",
            f"{runs[0]['bytes'] / 4 / weights:.2f}",
        ]
        cells += [f"{runs[0]['trained_parameters']:,.0f}", f"{runs[0]['added_parameters']:,.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def judged(best: dict[str, list[dict[str, Any]]], tasks: list[dict[str, Any]]) -> list[str]:
    """Each remedy against plain fine-tuning over the same seeds, with the 95 % interval of seeds and test items."""
    runs = [
        {"recipe": {"methods": name, "seed": run["seed"]}, "records": run["records"]}
        for name, own in best.items()
        for run in own
    ]
    found = sorted(verdicts(dots(runs, tasks)), key=lambda row: -row["balance"][0])
    return [
        "- {} {}: {:+.3f} ({:+.3f} to {:+.3f}).".format(row["methods"], row["verdict"], *row["balance"])
        for row in found
        if None not in row["balance"]
    ]


def without_records(runs: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    return {name: [{k: v for k, v in run.items() if k != "records"} for run in own] for name, own in runs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", nargs="*", choices=list(GRID), default=list(GRID))
    options = parser.parse_args()
    start = time.perf_counter()
    os.environ["OMP_NUM_THREADS"] = "1"
    base = Recipe(new=NEW, watch=WATCH, steps=options.steps, every=20, limit=256)
    tasks = facts(base)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        names = [(name, spec) for name in options.only for spec in GRID[name]]
        tried = list(pool.map(one, [asked(base, spec) for _, spec in names]))
        searched: dict[str, list[dict[str, Any]]] = {}
        for (name, spec), run in zip(names, tried, strict=True):
            run["spec"] = spec
            print(f"{name:20} {spec:45} balance {balance(run, tasks):.3f}", flush=True)
            searched.setdefault(name, []).append(run)
        chosen = {name: max(runs, key=lambda run: balance(run, tasks)) for name, runs in searched.items()}
        jobs = [(name, seed) for name in chosen for seed in range(1, options.seeds)]
        more = pool.map(one, [asked(base, chosen[name]["spec"], seed) for name, seed in jobs])
        best = {name: [run] for name, run in chosen.items()}
        for (name, _), run in zip(jobs, more, strict=True):
            best[name].append(run)
    text = "\n".join(
        [
            "# Every remedy at its best strength",
            "",
            f"tiny-bert learns {NEW} for {options.steps} steps (batch 32, AdamW 1e-3) and is scored on 256 test texts",
            f"of each task; {options.seeds} seeds, mean ± standard deviation. The strength was chosen on seed 0 by the",
            "balance: ½ share of the new task learned + ½ mean share of the old scores kept, above a guesser who",
            "knows only the frequencies, of a perplexity in nats.",
            "Made by `python benchmarks/remedies.py`.",
            "",
            "Before: " + ", ".join(f"{task} {value:.2f}" for task, value in best["none"][0]["before"].items()) + ".",
            "",
            table(best, tasks),
            "",
            "Balance against plain fine-tuning, in pairs over the seeds, with the 95 % interval:",
            "",
            *judged(best, tasks),
        ]
    )
    print(text)
    print(f"{time.perf_counter() - start:.0f} s")
    folder = Path(__file__).parent / "results"
    if options.only == list(GRID):
        (folder / "remedies.md").write_text(text + "\n")
        content = {"tasks": tasks, "search": without_records(searched), "best": without_records(best)}
        (folder / "remedies.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
