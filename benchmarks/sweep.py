"""A sweep of sixteen recipes (rates × strengths) against one run of it: in processes; with --all one by one, at once.

python benchmarks/sweep.py [--repeats 7] [--all] [--device cpu]
Prints medians of seconds, and of multiples of one run in the same round, and writes
benchmarks/results/sweep-DEVICE.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from forgetlab.experiments import workers
from forgetlab.experiments.recipes import Bench, Recipe, prepare, sweep
from forgetlab.models.device import device_name

BASE = Recipe(new="sentiment", watch=("masked-lm", "entities", "acceptability"), steps=50, every=10, limit=128)
RECIPES = [
    replace(BASE, lr=lr, methods=f"l2sp:lam={lam}") for lr in (3e-4, 1e-3, 3e-3, 1e-2) for lam in (0.01, 0.1, 1, 10)
]


def in_processes(recipes: list[Recipe], executor: Any) -> list[Any]:
    return [future.result() for future in [executor.submit(workers.compute, recipe) for recipe in recipes]]


def alone(recipes: list[Recipe], bench: Bench) -> Any:
    """Where a second core would score watched tasks side by side, as in each process of a sweep it does not."""
    with workers.here(1):
        return sweep(recipes, bench=bench)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--all", action="store_true", help="one by one and with stacked weights too: minutes")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    base = replace(BASE, device=options.device)
    recipes = [replace(recipe, device=options.device) for recipe in RECIPES]
    bench: Bench = prepare(base)
    processes, threads = workers.threads_for(base, None, len(recipes))
    ways: dict[str, Callable[[], Any]] = {"one run": lambda: sweep(recipes[5:6], bench=bench)}
    if options.device == "cpu":
        ways["one run, one thread"] = lambda: alone(recipes[5:6], bench)
    if options.all and options.device == "cpu":
        ways["16, one by one"] = lambda: alone(recipes, bench)
    if options.all or options.device != "cpu":
        ways["16, all at once"] = lambda: sweep(recipes, bench=bench, together=True)
    with workers.several(processes, threads) as pool:  # as a notebook has them: started once, kept for the next sweep
        if options.device == "cpu":
            in_processes(recipes[:processes], pool.executor)
            ways[f"16, in {processes} processes"] = lambda: in_processes(recipes, pool.executor)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.repeats):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    single = [name for name in ("one run", "one run, one thread") if name in ways]
    times = {  # of the runs beside it
        one: {
            n: statistics.median(a / b for a, b in zip(taken, seconds[one], strict=True))
            for n, taken in seconds.items()
        }
        for one in single
    }
    for name, value in medians.items():
        print(f"{name:<22}{value:8.2f} s   " + "   ".join(f"{times[one][name]:6.2f} × {one}" for one in single))
    result = {
        "device": device_name(bench.model),
        "torch": torch.__version__,
        "cores": torch.get_num_threads(),
        "repeats": options.repeats,
        "medians": medians,
        **{f"times {one}": {name: round(value, 2) for name, value in times[one].items()} for one in single},
    }
    path = Path(__file__).parent / "results" / f"sweep-{bench.model.device.type}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
