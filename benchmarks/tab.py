"""The page that trains: does it end where `finetune` does, how long does it take, does it stay smooth, how large is it?

    python -m benchmarks.tab [SEEDS]

Some minutes of one core; writes benchmarks/results/tab.json and tab.md. Needs ziglang, and Chromium for the page. With
0 seeds the page alone is measured anew, for which nothing else should be running.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from book import build, program
from book.program import Program, Settings
from forgetlab.experiments.recipes import prepare
from forgetlab.labs import pull
from forgetlab.labs.kit import remedy

RESULTS = Path(__file__).parent / "results"
RUNS: dict[str, Settings] = {"no pull": {}, "EWC, λ = 100": {"method": "EWC"}}
# The longest time between two frames, and how long the page's own thread was ever busy (tasks above 50 ms, else 0).
WATCH = """() => { window.gap = 0; window.task = 0; let last = performance.now();
  new PerformanceObserver(l => l.getEntries().forEach(e => { task = Math.max(task, e.duration) }))
    .observe({type: 'longtask'});
  const frame = now => { if (worker) gap = Math.max(gap, now - last); last = now; requestAnimationFrame(frame) };
  requestAnimationFrame(frame) }"""


def agreement(own: Program, settings: Settings, seeds: Iterable[int]) -> dict[str, dict[str, float]]:
    """The means over seeds of both at the end, their difference, and its standard error: by score."""
    chosen, seeds = {**program.DEFAULTS, **settings}, list(seeds)
    methods = "none"
    if chosen["method"] != "none":
        methods = pull.METHODS[chosen["method"]].format(**chosen, estimator="auto")
    recipe = replace(remedy.recipe(methods, 0), steps=chosen["steps"], every=chosen["steps"], lr=chosen["lr"])
    bench = prepare(recipe)
    page, live = list[dict[str, float]](), list[dict[str, float]]()
    for seed in seeds:
        *_, last = own.run({**chosen, "seed": seed})
        page.append({name: float(last[name]) for name in ("accuracy", "nll", "f1", "drift")})
        *_, record = bench.run(replace(recipe, seed=seed))
        found = record.scores
        live.append(
            {
                "accuracy": found["sentiment"]["accuracy"],
                "nll": found["masked-lm"]["loss"],
                "f1": found["entities"]["f1"],
                "drift": record.drift,
            }
        )
        print(
            chosen["method"], seed, {k: [round(float(r[k]), 3) for r in (last, live[-1])] for k in live[-1]}, flush=True
        )
    return {name: _apart([one[name] for one in page], [one[name] for one in live]) for name in live[0]}


def _apart(page: list[float], live: list[float]) -> dict[str, float]:
    a, b = statistics.fmean(page), statistics.fmean(live)
    error = math.sqrt(sum(statistics.variance(values) / len(values) for values in (page, live)))
    return {"page": a, "finetune": b, "difference": a - b, "error": error}


def measured(folder: Path) -> dict[str, float]:
    """The page in Chromium, from a file: seconds, frames."""
    from playwright.sync_api import sync_playwright

    from tests.browser.jupyter import FLAGS, chromium

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.set_default_timeout(600_000)
        begun = time.perf_counter()
        page.goto((folder / build.NAME).as_uri())
        ready = time.perf_counter() - begun
        page.evaluate(WATCH)
        seconds = dict[str, list[float]]()
        for method in ("none", "EWC", "none", "EWC", "none", "EWC"):
            page.evaluate("method => train({...opening, method})", method)
            page.wait_for_function("worker === null")
            seconds.setdefault(method, []).append(page.evaluate("shown.seconds"))
        found = page.evaluate("[gap, task]")
        browser.close()
    return {
        "ready, s": ready,
        "run without a pull, s": statistics.median(seconds["none"]),
        "run with EWC, s": statistics.median(seconds["EWC"]),
        "longest time between two frames, ms": found[0],
        "longest task of the page's thread, ms (0: below 50)": found[1],
    }


def report(result: Mapping[str, Any]) -> str:
    """tab.md"""
    lines = [
        "# The page that trains",
        "",
        f"Its ends beside those of `finetune`: 100 steps, {result['seeds']} seeds; made by `python -m benchmarks.tab`.",
        "The error is that of the difference, from the spread over seeds of both.",
        "",
        "| run | score | page | finetune | difference | error |",
        "|---|---|---|---|---|---|",
    ]
    for name, scores in result["agreement"].items():
        for score, one in scores.items():
            lines.append(f"| {name} | {score} | " + " | ".join(f"{one[key]:.3f}" for key in one) + " |")
    lines += ["", "nll: mean −log p at the gaps of general text, nats; its exponential is the perplexity.", ""]
    lines += ["| the page in Chromium, from a file | |", "|---|---|"]
    lines += [f"| {name} | {value:.3g} |" for name, value in result["page"].items()]
    return "\n".join(lines) + "\n"


def main(seeds: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder, kept = Path(place), RESULTS / "tab.json"
        (folder / build.NAME).write_text(build.page(folder), encoding="utf-8")
        page = {**measured(folder), "megabytes": (folder / build.NAME).stat().st_size / 1e6}
        if seeds:
            own = program.made(folder)
            found = {name: agreement(own, settings, range(seeds)) for name, settings in RUNS.items()}
            result = {"seeds": seeds, "agreement": found, "page": page}
        else:
            result = {**json.loads(kept.read_text(encoding="utf-8")), "page": page}
    kept.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "tab.md").write_text(report(result), encoding="utf-8")
    print(report(result))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 16)
