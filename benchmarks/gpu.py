"""What a card does, in one command of at most eight minutes: the tests that need CUDA, then each measurement.

python benchmarks/gpu.py [--device cuda] [--small]
Prints what it finds, and writes benchmarks/results/gpu.json and the table in docs/speed.md. With --small, for which any
device is good, it shows that the script works: tiny sizes, and both files go to a folder of their own (--out FOLDER).
What fails, or has no time left, is said in its place and costs nothing else: each group has a process of its own.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
from fisher import MODELS, classifier, texts, way
from sweep import BASE
from timing import matrix_rate, seconds
from usual_sizes import Case, Found, bert_case, compared, llama_case

from forgetlab.experiments.recipes import prepare, sweep
from forgetlab.labs import watch

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- what a card does: begin -->", "<!-- what a card does: end -->"


@dataclass(frozen=True)
class Sizes:
    """How much is measured. matrix: side of the product that tells the device's rate."""

    lab_steps: int = 100
    sweep_steps: int = 50
    stacks: tuple[int, ...] = (16, 64)
    fisher: int = 256
    steps: int = 20
    matrix: int = 8192
    repeats: int = 3


FULL, SMALL = Sizes(), Sizes(lab_steps=5, sweep_steps=2, stacks=(2,), fisher=4, steps=1, matrix=64, repeats=1)


def words(error: BaseException) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]


# -- measurements ------------------------------------------------------------------------------------


def lab(sizes: Sizes, device: str) -> Found:
    """The watch lab's default run, on the card and on the CPU beside it: which of them answers first?"""
    settings = {"lr": 1e-3, "steps": sizes.lab_steps, "similarity": 1.0, "seed": 0}
    found = {}
    for place in dict.fromkeys((device, "cpu")):
        recipe = replace(watch.recipe(settings), device=place)
        bench = prepare(recipe)
        for _ in range(2):  # the first run of a process pays for what is set up once
            start, at = time.perf_counter(), []
            for _ in bench.run(recipe):  # a record holds numbers: nothing is left to wait for
                at.append(time.perf_counter() - start)
        found[place] = {"first live point, s": at[1], "whole run, s": at[-1]}
    return found


def stacked(sizes: Sizes, device: str) -> Found:
    """Recipes with stacked weights against one run."""
    base = replace(BASE, device=device, steps=sizes.sweep_steps, every=max(2, sizes.sweep_steps // 5))
    bench = prepare(base)

    def run(count: int) -> None:
        rates = [3e-4 * 1.1**i for i in range(max(1, count // 2))]
        recipes = [replace(base, lr=lr, methods=f"l2sp:lam={lam}") for lr in rates for lam in (0.1, 1)]
        sweep(recipes[:count], bench=bench, together=count > 1)

    run(1)
    taken = {n: median(seconds(partial(run, n), device) for _ in range(sizes.repeats)) for n in (1, *sizes.stacks)}
    return {str(n): {"s": value, "times one": value / taken[1]} for n, value in taken.items()}


def fisher(sizes: Sizes, device: str) -> Found:
    """The diagonal Fisher by hooks against the loop over examples."""
    found = {}
    for name, (vocabulary, length) in MODELS.items():
        module, batches = classifier(vocabulary, device), texts(vocabulary, length, sizes.fisher, device)
        taken = {}
        for kind in ("hooks", "loop"):
            call = way(kind, module, batches)
            call()
            taken[kind] = median(seconds(call, device) for _ in range(sizes.repeats))
        found[name] = {**taken, "times the loop": taken["loop"] / taken["hooks"]}
    return found


def training(case: Callable[[bool, str], Case], sizes: Sizes, device: str) -> Found:
    """Steps per second in bfloat16 (autocast) and peak memory: a bare loop, then forgetlab with each remedy."""
    rate = matrix_rate(sizes.matrix, device, torch.bfloat16)
    return {"matrix rate, per s": rate, **compared(case(sizes == SMALL, device), sizes.steps, rate, words)}


Measure = Callable[[Sizes, str], Found]
GROUPS: dict[str, tuple[int, dict[str, Measure]]] = {  # group → (seconds at most, its measurements)
    "small models": (150, {"lab": lab, "stacked": stacked, "fisher": fisher}),
    "usual sizes": (
        210,
        {"DistilBERT size": partial(training, bert_case), "1B Llama size": partial(training, llama_case)},
    ),
}
TESTS = 110  # seconds


def measure(group: str, device: str, small: bool) -> None:
    """In a process of its own: a line of JSON for each measurement of a group."""
    for name, how in GROUPS[group][1].items():
        try:
            found = how(SMALL if small else FULL, device)
        except Exception as error:
            found = {"failed": words(error)}
        print("\n" + json.dumps({name: found}), flush=True)


# -- all of it ---------------------------------------------------------------------------------------


def run(command: list[str], limit: float) -> tuple[str, str]:
    """(what a command says, why it ended before its time or "")."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired as late:
        said = late.stdout or b""
        return said.decode() if isinstance(said, bytes) else said, f"stopped after {limit:.0f} s"
    last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return done.stdout, f"its process ended: {last}"[:300] if done.returncode else ""


def tests() -> Found:
    """The tests marked `gpu`: how many passed, failed and were skipped."""
    files = [str(f) for f in sorted(ROOT.glob("tests/*/test_*.py")) + sorted(ROOT.glob("tests/test_*.py"))
             if "pytest.mark.gpu" in f.read_text(encoding="utf-8")]  # fmt: skip
    said, ended = run([sys.executable, "-m", "pytest", "-m", "gpu", *files], TESTS)
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|error)", said)}
    failed = re.findall(r"^(?:FAILED|ERROR) .*", said, re.MULTILINE)
    return counts | ({"failed": failed} if failed else {"failed": ended} if ended else {})


def measured(device: str, small: bool) -> Found:
    found = {}
    for group, (limit, names) in GROUPS.items():
        options = ["--device", device, *(["--small"] if small else []), "--group", group]
        said, ended = run([sys.executable, __file__, *options], limit)
        for line in said.splitlines():
            if line.startswith("{"):
                found |= json.loads(line)
        found |= {name: {"failed": ended} for name in names if name not in found}
        for name in names:
            print(f"{name}: {json.dumps(found[name])}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that the script works")
    parser.add_argument("--out", type=Path, help="folder of both files; with --small a new one")
    parser.add_argument("--group", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.group:
        return measure(options.group, options.device, options.small)
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch finds no CUDA device here; to see that the script works: make gpu DEVICE=cpu SMALL=1")
    if options.device == "cpu" and not options.small:
        sys.exit("a CPU would take hours for a card's sizes: make gpu DEVICE=cpu SMALL=1")
    start = time.perf_counter()
    card = torch.cuda.get_device_name() if options.device == "cuda" else f"cpu ({platform.machine()})"
    result = {"device": card, "torch": torch.__version__, "cuda": torch.version.cuda, "small": options.small}
    result |= {"tests": tests(), "found": measured(options.device, options.small)}
    result["seconds"] = round(time.perf_counter() - start)
    print(f"{result['seconds']} s")
    to_docs = options.out is None and not options.small
    out = ROOT / "benchmarks" / "results" if to_docs else options.out or Path(tempfile.mkdtemp(prefix="forgetlab-gpu-"))
    out.mkdir(parents=True, exist_ok=True)
    page = ROOT / "docs" / "speed.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    if not after:
        sys.exit(f"{page} lacks the lines {BEGIN} and {END} around its table")
    (out / "gpu.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = f"{before}{BEGIN}\n{table(result)}\n{END}{after}"
    (page if to_docs else out / "speed.md").write_text(text, encoding="utf-8")
    print(f"written to {out}")
    if '"failed"' in json.dumps(result):
        sys.exit("something failed: it is said in its place")


def table(result: Found) -> str:
    """The lines of docs/speed.md."""
    found, count = result["found"], result["tests"].get("passed", 0)
    head = f"Measured on {result['device']} with torch {result['torch']}; {result['seconds']} s for everything."
    rows = [("tests that need CUDA", f"{count} passed", "all")] if "failed" not in result["tests"] else []
    rows += [("tests that need CUDA", f"failed: {result['tests']['failed']}", "all")] if not rows else []
    for name, one in found.items():
        if "failed" in one:
            rows.append((name, f"failed: {one['failed']}", ""))
        elif name == "lab":
            rows += [
                (f"a lab on {place}: {what[:-3]}", f"{s:.3g} s", "")
                for place, at in one.items()
                for what, s in at.items()
            ]
        elif name == "stacked":
            rows += [
                (f"{n} recipes with stacked weights", f"{way['times one']:.2f} × one run", "3 ×" if n == "16" else "")
                for n, way in one.items()
                if n != "1"
            ]
        elif name == "fisher":
            rows += [(f"Fisher by hooks, {k}", f"{v['times the loop']:.1f} × the loop", "4.5") for k, v in one.items()]
        else:
            rows += [(f"{name}, {one['batch']}: {kind}", training_words(run), "") for kind, run in one["runs"].items()]
    lines = ["| what | measured | aim |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]
    return "\n".join([head, "", *lines])


def training_words(run: Found) -> str:
    if "failed" in run:
        return f"failed: {run['failed']}"
    said = [f"{run['steps per s']:.3g} steps/s"]
    if "share of the rate" in run:
        said.append(f"{run['share of the rate']:.0%} of the matrix rate")
    if run["peak, copies of the weights"]:
        said.append(f"{run['peak, copies of the weights']:.1f} copies of the weights at the peak")
    return ", ".join([*said, *([run["note"]] if "note" in run else [])])


if __name__ == "__main__":
    main()
