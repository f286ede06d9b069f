"""Waiting times of the labs in a real JupyterLab and Chromium: from a key to the picture on the page.

python benchmarks/latency.py [--moves 10]
Prints medians beside the targets, and writes benchmarks/results/latency.json. All times hold the browser's own work.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/browser drives the page

import torch

from tests.browser.jupyter import Lab, Notebook, Server, browser, write

CELLS = ["from forgetlab.labs import cloud, reward, watch", "cloud.show()", "watch.show()", "reward.show()"]
CLOUD, WATCH, REWARD = 1, 2, 3
TARGETS = {
    "cheap control to new figure": 150,
    "training control to first live point": 400,
    "default training done": 5000,
    "a setting seen before": 200,
    "opening cloud to its first figure": 1000,
    "opening watch to its first figure": 1000,
    "reward: training control to first live point": 400,
    "reward: default training done": 5000,
    "reward: Stop to its word": 150,
}
Entry = dict[str, Any]


def first(lab: Lab, reached: Callable[[Entry], bool], what: str) -> float:
    """Milliseconds to the first thing that satisfies `reached`."""
    lab.until(lambda: any(map(reached, lab.recorded())), what)
    return next(entry["ms"] for entry in lab.recorded() if reached(entry))


def new(entry: Entry) -> bool:
    return bool(entry["new"])


def under_way(entry: Entry) -> bool:
    """Until then the lab still says how the run before ended."""
    return re.search(r"^(training …|step \d+ of)", entry["says"], re.MULTILINE) is not None


def done(entry: Entry) -> bool:
    return re.search(r"^After \d+ steps", entry["says"], re.MULTILINE) is not None


def acknowledged(entry: Entry) -> bool:
    return "stopping …" in entry["says"] or "Stopped" in entry["says"]


def train(lab: Lab, *keys: str) -> tuple[float, float]:
    """Move a slider of a trained lab; milliseconds to the first live point, and to the end."""
    lab.record()
    lab.move(*keys)
    live, begun = first(lab, new, "live point"), first(lab, under_way, "word of the training")
    return live, first(lab, lambda entry: entry["ms"] > begun and done(entry), "end of the training")


def measure(notebook: Notebook, moves: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in TARGETS}
    cheap, live, whole, kept, open_cloud, open_watch, reward_live, reward_whole, stopped = times.values()
    lab = notebook.lab(CLOUD)
    lab.until(lambda: lab.source, "figure")
    for i in range(moves + 1):
        lab.record()
        lab.move("correlation", "ArrowLeft" if i % 12 < 8 else "ArrowRight")
        cheap.append(first(lab, new, "new figure"))
        lab.page.wait_for_timeout(100)
    lab = notebook.lab(WATCH)
    lab.press("Train")  # loads the model
    lab.until(lambda: "After 100 steps" in lab.says, "end of the training")
    seeds = ["ArrowRight"] * min(moves, 9)
    for key in seeds + ["lr"] * (moves - len(seeds)):  # after nine seeds, other learning rates
        point, end = train(lab, *(("learning rate", "ArrowLeft") if key == "lr" else ("seed", key)))
        live.append(point)
        whole.append(end)
        lab.page.wait_for_timeout(200)
    for i in range(moves):
        back = ("learning rate", "ArrowRight") if i < moves - len(seeds) else ("seed", "ArrowLeft")
        lab.record()
        lab.move(*back)
        kept.append(first(lab, new, "kept figure"))
        lab.page.wait_for_timeout(100)
    for cell, found in ((CLOUD, open_cloud), (WATCH, open_watch)):
        for _ in range(moves):
            lab = notebook.lab(cell)
            lab.record()
            notebook.run_cell(cell)
            lab = notebook.lab(cell)
            found.append(first(lab, new, "first figure"))
            lab.page.wait_for_timeout(200)
    lab = notebook.lab(REWARD)
    lab.press("Train")
    lab.until(lambda: "After 40 steps" in lab.says, "end of the training")
    for _ in seeds:
        point, end = train(lab, "seed")
        reward_live.append(point)
        reward_whole.append(end)
        lab.press("Train")
        lab.page.wait_for_timeout(500)
        lab.record()
        lab.press("Stop")
        stopped.append(first(lab, acknowledged, "word of the stop"))
        lab.until(lambda: "Stopped" in lab.says, "end of the run")
    cheap.pop(0)  # the first move of a page warms it up
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moves", type=int, default=10)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place:
        server = Server(Path(place))
        try:
            write(server.root / "labs.ipynb", CELLS)
            with browser() as page:
                version = page.context.browser.version if page.context.browser else ""
                notebook = Notebook(page, server, "labs.ipynb")
                begin = time.perf_counter()
                notebook.run_all()
                imported = time.perf_counter() - begin
                times = measure(notebook, options.moves)
        finally:
            server.close()
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"medians of {options.moves} moves on {os.cpu_count()} cores (load before: {load:.1f})")
    for name, median in medians.items():
        print(f"  {name:<46}{median:8.0f} ms   target {TARGETS[name]:>5} ms   worst {max(times[name]):6.0f}")
    print(f"  import and all labs, once: {imported:.1f} s")
    result = {
        "browser": f"Chromium {version}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "load before": load,
        "import and all labs, s": imported,
        "targets, ms": TARGETS,
        "medians, ms": medians,
        "ms": {name: [round(value, 1) for value in values] for name, values in times.items()},
    }
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "latency.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
