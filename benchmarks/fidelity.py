"""Known results, reproduced: permuted digits over five tasks, and the main lesson. No download; two cores, minutes.

python benchmarks/fidelity.py [--seeds 5] [--processes 2] [--quick]
Prints each method beside a pilot's numbers and whether the expected ordering holds; writes results/fidelity.json.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from forgetlab import finetune
from forgetlab.experiments.recipes import Bench, Recipe, prepare
from forgetlab.importance import Importance, fisher_diagonal
from forgetlab.metrics import average_accuracy, backward_transfer
from forgetlab.remedies.architectures import Frozen
from forgetlab.remedies.regularizers import EWC, L2SP, OnlineEWC
from forgetlab.remedies.replay import ExperienceReplay
from forgetlab.training.method import Method, Run

Data = tuple[Tensor, Tensor]  # inputs (rows, 64), labels (rows,)
Grid = Mapping[str, tuple[float, ...]]  # method → values of λ
Job = tuple[str, float]  # method, λ


class Row(NamedTuple):
    """A method at one λ: what is measured → a value for each seed."""

    method: str
    lam: float
    scores: dict[str, list[float]]

    def label(self) -> str:
        return f"{self.method}, λ {self.lam:g}" if self.lam else self.method

    def mean(self, name: str) -> float:
        return statistics.fmean(self.scores[name])

    def as_dict(self) -> dict[str, Any]:
        rounded = {name: [round(v, 4) for v in values] for name, values in self.scores.items()}
        return {"method": self.method, "lam": self.lam, **rounded}


class Claim(NamedTuple):
    expected: str
    holds: bool
    measured: str


# Permuted digits. 1408 of the 1797 images train: whole batches of 32 and of 128. The pilot's batch size is unknown.
TASKS, TRAIN, EPOCHS, BATCH, LR = 5, 1408, 30, 32, 0.1
ESTIMATORS = {"EWC, EXACT": ("exact", TRAIN), "EWC, BATCHED(128)": ("batched", 128)}  # and rows in a batch of it
GRID: Grid = {
    "naive": (0,),
    "L2": (0.01, 0.03, 0.1, 0.3),
    "EWC, EXACT": (10, 30, 100, 300),
    "EWC, BATCHED(128)": (1e3, 3e3, 1e4, 3e4),
    "joint": (0,),
}
PILOT = {
    "naive": "54.7/−53.6",
    "L2": "64.2/−39.0, λ 0.03",
    "EWC, EXACT": "79.8/−19.5, λ 100",
    "EWC, BATCHED(128)": "79.5/−21.3, λ 10000",
    "joint": "97.1/+0.3",
}
MARGIN = 5.0  # points between neighbours in the ordering

# The main lesson: tiny-bert learns sentiment; λ is searched on the first seed.
STEPS, NEW, WATCH = 300, "sentiment", ("masked-lm", "entities")
LESSON_GRID: Grid = {
    "none": (0,),
    "l2sp": (0.001, 0.01, 0.1),
    "ewc": (1e1, 1e2, 1e3, 1e4, 1e5),
    "replay": (0,),
    "frozen": (0,),
}
LESSON_PILOT = {  # of another model and grammar: MLM perplexity before → after, entities, sentiment
    "none": "3.06 → 42.7, 0.70, 1.00",
    "l2sp": "3.06 → 4.11, 1.00, 0.93",
    "ewc": "3.06 → 3.17, 1.00, 1.00",
    "replay": "3.06 → ≈ 4, 1.00, 1.00",
    "frozen": "sentiment stays 0.51",
}
REACHED, LEARNT, KEPT, RATIO, CHANCE = 0.95, 0.9, 0.95, 1.5, 0.6


def digits(seed: int) -> tuple[list[Data], list[Data]]:
    """The training and test data of every task: one split of the digits, the pixels shuffled anew for each task."""
    from sklearn.datasets import load_digits

    found = load_digits()
    inputs, labels = torch.tensor(found.data / 16, dtype=torch.float32), torch.tensor(found.target)
    generator = torch.Generator().manual_seed(seed)
    train, test = torch.randperm(len(labels), generator=generator).split([TRAIN, len(labels) - TRAIN])
    pixels = [torch.randperm(inputs.shape[1], generator=generator) for _ in range(TASKS)]
    return [(inputs[train][:, p], labels[train]) for p in pixels], [(inputs[test][:, p], labels[test]) for p in pixels]


def sequence(train: Sequence[Data], method: str, lam: float, seed: int, epochs: int) -> Iterator[nn.Module]:
    """One MLP with a shared head learns task after task; yields it (the same object) after each.

    L2 pulls to the weights after the previous task; so does EWC, by the sum of all earlier tasks' Fishers (online EWC
    with γ = 1). joint goes on with the data of all tasks so far.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    generator = torch.Generator().manual_seed(seed)
    pull: Method | None = None
    for i, (inputs, labels) in enumerate(train):
        if method == "joint":
            inputs, labels = (torch.cat(column) for column in zip(*train[: i + 1], strict=True))
        learn(net, inputs, labels, pull, epochs, generator)
        yield net
        if method == "L2":
            pull = L2SP(lam, proximal=True)
        elif method in ESTIMATORS:
            fisher = fisher_of(net, (inputs, labels), method)
            if isinstance(pull, OnlineEWC):
                pull.consolidate(fisher)
            else:
                pull = OnlineEWC(fisher, lam, gamma=1.0, proximal=True)


def fisher_of(net: nn.Module, data: Data, method: str) -> Importance:
    estimator, rows = ESTIMATORS[method]
    batches = zip(*(column.split(rows) for column in data), strict=True)
    return fisher_diagonal(net, batches, estimator=estimator)  # type: ignore[arg-type]


def learn(
    net: nn.Module, inputs: Tensor, labels: Tensor, pull: Method | None, epochs: int, generator: torch.Generator
) -> None:
    """Plain SGD, and the pull's proximal step towards the weights of the start after each step."""
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    weights = dict(net.named_parameters())
    anchor = {name: p.detach().clone() for name, p in weights.items()}
    # what the package's loop would hand to a method; a pull reads only the weights and the learning rate
    about: dict[str, Any] = {"model": net, "task": None, "groups": optimizer.param_groups}
    run = Run(**about, steps=0, batch_size=BATCH, lr=LR, anchor=anchor, weights=weights, generator=generator)
    if pull:
        pull.setup(run)
    for _ in range(epochs):
        for index in torch.randperm(len(labels), generator=generator).split(BATCH):
            nn.functional.cross_entropy(net(inputs[index]), labels[index]).backward()
            optimizer.step()
            optimizer.zero_grad()
            if pull:
                pull.after_step(run)


def digits_run(method: str, lam: float, seed: int, epochs: int) -> dict[str, float]:
    """ACC and BWT in points, of one sequence; for EWC also the sum of the Fisher diagonal after the first task."""
    train, test = digits(seed)
    R: list[list[float]] = []
    more: dict[str, float] = {}
    for net in sequence(train, method, lam, seed, epochs):
        if not R and method in ESTIMATORS:
            more["ΣF"] = sum(float(f.sum()) for f in fisher_of(net, train[0], method).values())
        with torch.no_grad():
            R.append([100 * float((net(x).argmax(-1) == y).float().mean()) for x, y in test])
    return {"ACC": average_accuracy(R), "BWT": backward_transfer(R), **more}


def lesson_run(method: str, lam: float, seed: int, steps: int) -> dict[str, float]:
    """Sentiment accuracy, entity F1 and the perplexity of the masked words, of one fine-tune."""
    bench = lesson()
    made = {
        "none": Method,
        "l2sp": lambda: L2SP(lam),
        "ewc": lambda: EWC(bench.watch, lam),
        "replay": lambda: ExperienceReplay(bench.watch),
        "frozen": Frozen,
    }[method]()
    bench.model.restore()
    options: dict[str, Any] = {"steps": steps, "every": steps, "seed": seed, "limit": 512}
    first, last = finetune(bench.model, bench.new, methods=[made], watch=bench.watch, **options)
    before, after = first.scores["masked-lm"]["perplexity"], last.scores["masked-lm"]["perplexity"]
    return {
        "sentiment": last.scores[NEW]["accuracy"],
        "entities": last.scores["entities"]["f1"],
        "perplexity": after,
        "ratio": after / before,
    }


@functools.cache
def lesson() -> Bench:
    """tiny-bert and its tasks, once in each process."""
    return prepare(Recipe(new=NEW, watch=WATCH, device="cpu"))


def measure(
    pool: Executor, run: Callable[..., dict[str, float]], jobs: Sequence[Job], seeds: Sequence[int], length: int
) -> Iterator[Row]:
    """A row for each job, as soon as its last seed is done; printed on the way."""
    calls = [(method, lam, seed, length) for method, lam in jobs for seed in seeds]
    found = pool.map(run, *zip(*calls, strict=True))
    for method, lam in jobs:
        each = [next(found) for _ in seeds]
        row = Row(method, lam, {name: [one[name] for one in each] for name in each[0]})
        print(f"  {row.label():<28}" + "   ".join(f"{name} {shown(v)}" for name, v in row.scores.items()), flush=True)
        yield row


def permuted_digits(pool: Executor, seeds: Sequence[int], grid: Grid, epochs: int) -> tuple[list[Row], list[Row]]:
    """(a row for each λ of each method, the row of each method at its best mean ACC)."""
    print(f"Permuted digits: {TASKS} tasks of {epochs} epochs, {len(seeds)} seeds; mean ± standard deviation, points")
    rows = list(measure(pool, digits_run, jobs_of(grid), seeds, epochs))
    return rows, [max((r for r in rows if r.method == m), key=lambda r: r.mean("ACC")) for m in grid]


def main_lesson(pool: Executor, seeds: Sequence[int], grid: Grid, steps: int) -> tuple[list[Row], list[Row]]:
    """(a row for each λ of each method on the first seed, the row of each method at its best λ on all seeds).

    Best: the lowest perplexity among those that learn sentiment; where none does, the best sentiment.
    """

    def quality(row: Row) -> tuple[bool, float]:
        learnt = row.mean("sentiment") >= LEARNT
        return learnt, -row.mean("perplexity") if learnt else row.mean("sentiment")

    print(f"Main lesson: tiny-bert, {steps} steps on {NEW}; the search for λ, one seed")
    rows = list(measure(pool, lesson_run, jobs_of(grid), seeds[:1], steps))
    best = [max((r for r in rows if r.method == m), key=quality) for m in grid]
    print(f"each at its best λ, {len(seeds)} seeds")
    return rows, list(measure(pool, lesson_run, [(r.method, r.lam) for r in best], seeds, steps))


def digits_claims(best: Sequence[Row]) -> list[Claim]:
    """The expected ordering of the permuted digits, against the rows of each method's best λ."""
    row = {r.method: r for r in best}
    claims = []
    for low, high in pairwise(("naive", "L2", "EWC, EXACT", "joint")):
        gap = row[high].mean("ACC") - row[low].mean("ACC")
        claims.append(Claim(f"{low} < {high} by {MARGIN:g} points of ACC or more", gap >= MARGIN, f"{gap:+.1f}"))
    exact, batched = row["EWC, EXACT"], row["EWC, BATCHED(128)"]
    times, inverse = batched.lam / exact.lam, exact.mean("ΣF") / batched.mean("ΣF")  # a weight feels only λF
    expected = "the best λ of BATCHED(128) is 30 to 300 times that of EXACT"
    return [*claims, Claim(expected, 30 <= times <= 300, f"× {times:.0f}, of ΣF × 1/{inverse:.0f}")]


def lesson_claims(best: Sequence[Row]) -> list[Claim]:
    """The expectations of the main lesson, against the rows of each method's best λ."""
    row = {r.method: r for r in best}
    naive, frozen = row["none"], row["frozen"]
    most = max(best, key=lambda r: r.mean("ratio"))
    claims = [
        Claim(f"naive learns: sentiment ≥ {REACHED}", naive.mean("sentiment") >= REACHED, short(naive)),
        Claim("naive forgets most, as the ratio of perplexities", most is naive, f"most: {most.method}, {short(most)}"),
        Claim(f"frozen does not learn: sentiment ≤ {CHANCE}", frozen.mean("sentiment") <= CHANCE, short(frozen)),
    ]
    for method in ("ewc", "replay"):
        r = row[method]
        keeps = r.mean("sentiment") >= LEARNT and r.mean("entities") >= KEPT and r.mean("ratio") <= RATIO
        expected = f"{method} keeps both: sentiment ≥ {LEARNT}, entities ≥ {KEPT}, perplexity ≤ × {RATIO}"
        claims.append(Claim(expected, keeps, short(r)))
    return claims


def jobs_of(grid: Grid) -> list[Job]:
    return [(method, lam) for method, lams in grid.items() for lam in lams]


def shown(values: Sequence[float]) -> str:
    """Mean ± standard deviation, with fewer digits for larger numbers."""
    digits = 1 if statistics.fmean(map(abs, values)) >= 10 else 3
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def short(row: Row) -> str:
    means = (row.mean(name) for name in ("sentiment", "entities", "ratio"))
    return "sentiment {:.3f}, entities {:.3f}, perplexity × {:.2f}".format(*means)


def report(title: str, best: Sequence[Row], pilot: Mapping[str, str], claims: Sequence[Claim]) -> None:
    print(f"\n{title}")
    for row in best:
        scores = "".join(f"{name} {shown(values):<17}" for name, values in row.scores.items())
        print(f"  {row.label():<28}{scores}  pilot: {pilot[row.method]}")
    for claim in claims:
        print(f"  {'holds' if claim.holds else 'does not hold':<14}{claim.expected} ({claim.measured})")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2, help="each computes on one thread")
    parser.add_argument("--quick", action="store_true", help="only see that it works: short, and nothing is written")
    options = parser.parse_args()
    seeds, epochs, steps = range(options.seeds), EPOCHS, STEPS
    digits_grid, lesson_grid = GRID, LESSON_GRID
    if options.quick:
        seeds, epochs, steps = range(1), 2, 20
        digits_grid, lesson_grid = ({m: v[len(v) // 2 :][:1] for m, v in g.items()} for g in (GRID, LESSON_GRID))
    start = time.perf_counter()
    # one thread each: the numbers do not depend on how many cores there are
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, context, torch.set_num_threads, (1,)) as pool:
        grid, best = permuted_digits(pool, seeds, digits_grid, epochs)
        claims = digits_claims(best)
        report("Permuted digits, each at its best λ: ACC, BWT in points", best, PILOT, claims)
        for row in best:
            lams = digits_grid[row.method]
            if len(lams) > 1 and row.lam in (lams[0], lams[-1]):
                print(f"  the best λ of {row.method} is at the edge of its grid: widen it\n")
        digits_seconds = time.perf_counter() - start
        lesson_search, lesson_best = main_lesson(pool, seeds, lesson_grid, steps)
    lesson_claimed = lesson_claims(lesson_best)
    title = "Main lesson: sentiment accuracy, entity F1, masked-word perplexity after, and its ratio to before"
    report(title, lesson_best, LESSON_PILOT, lesson_claimed)
    seconds, used = time.perf_counter() - start, os.times()
    processor = used.children_user + used.children_system  # unlike the clock, hardly longer on a busy machine
    print(
        f"{digits_seconds:.0f} s for the digits, {seconds:.0f} s in all, {options.processes} processes; "
        f"{processor:.0f} s of processor time"
    )
    if options.quick:
        return
    if len(seeds) < 5:
        print("fewer than 5 seeds: too few for the expectations above")
    result = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processes": options.processes,
        "seconds": {"digits": round(digits_seconds), "all": round(seconds), "processor": round(processor)},
        "digits": {"grid": [row.as_dict() for row in grid], "best": {row.method: row.lam for row in best}},
        "lesson": {"search": [r.as_dict() for r in lesson_search], "best": [r.as_dict() for r in lesson_best]},
        "claims": [claim._asdict() for claim in claims + lesson_claimed],
    }
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "fidelity.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
