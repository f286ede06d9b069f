"""Every remedy at its best strength on two new tasks: what it learns, what it keeps, what it costs.

python -m benchmarks.remedies [--seeds 5] [--steps 200] [--long 600] [--only NAME …] [--processes 2] [--out FOLDER]
Strengths and rates are chosen on validation texts and on seeds of their own; what is reported is measured on test texts
with other seeds, in pairs with plain fine-tuning. Each finished run is kept in --runs: started again, it goes on there.
Writes benchmarks/results/remedies.json and remedies.md, or with a part of the remedies only to --out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import forgetlab
from benchmarks.choosing import ROWS, WIDER, Row, at_edge, beyond, chosen
from benchmarks.remedies_table import matched, page, verdicts_of
from forgetlab.experiments.frontier import shares
from forgetlab.experiments.recipes import Bench, Recipe, prepare
from forgetlab.sources.json_files import digest, read_json, write_json
from forgetlab.sources.shipped import inputs
from forgetlab.tasks.base import facts_of
from forgetlab.tasks.embedded import task
from forgetlab.training.record import Record

NEW = ("sentiment", "plain")  # half of the reviews turned, and none
WATCH = ("masked-lm", "entities", "acceptability")
METRIC = dict.fromkeys(NEW, "accuracy") | {"masked-lm": "perplexity", "entities": "f1", "acceptability": "accuracy"}
LIMIT, RATE = 256, 1e-3
CHOOSING_SEEDS = (100, 101)  # none of those that are reported, which count from 0
MIDDLE = ("step", "status", "scores")  # what is kept of a record on the way

Run = dict[str, Any]
Search = dict[str, dict[float | None, list[Run]]]  # name → rung → a run for each seed


@dataclass(frozen=True)
class Job:
    """A run. split: the texts it is scored on. looks: whether the remedy looks at scores, of validation texts."""

    new: str
    split: str
    spec: str
    seed: int
    steps: int
    every: int
    looks: bool = False

    def recipe(self) -> Recipe:
        methods, _, rate = self.spec.partition(" @ ")
        same: Any = {name: getattr(self, name) for name in ("new", "steps", "every", "seed")}
        return Recipe(watch=WATCH, methods=methods, lr=float(rate) if rate else RATE, limit=LIMIT, **same)


@cache
def benches(new: str) -> dict[str, Bench]:
    """{split: bench} of a new task, around one model."""
    torch.set_num_threads(1)
    test = prepare(Recipe(new=new, watch=WATCH, limit=LIMIT))
    one, *watch = (task(name, split="validation") for name in (new, *WATCH))
    return {"test": test, "validation": Bench(test.model, one, watch)}


def facts(new: str) -> dict[str, Any]:
    """What is to be known of the tasks on each split, a guesser's scores among it: the new one first."""
    return {
        split: [facts_of(one, bench.model, LIMIT) for one in (bench.new, *bench.watch)]
        for split, bench in benches(new).items()
    }


def done(folder: Path, job: Job) -> Run:
    """The run of a job, from the folder if it is there: the first and the last record whole, the others' scores."""
    path = folder / f"{digest([asdict(job), LIMIT, inputs(), forgetlab.__version__])[:16]}.json"
    if found := read_json(path):
        return found
    return write_json(path, computed(job))


def computed(job: Job) -> Run:
    own, test = benches(job.new)["validation" if job.looks else job.split], benches(job.new)["test"]

    def plain(record: Record) -> dict[str, Any]:
        found = record.as_dict()
        if job.looks and job.split == "test" and (record.step == 0 or record.status != "running"):
            scored = {one.name: one.scored(test.model, LIMIT) for one in (test.new, *test.watch)}
            found["scores"] = {name: scores for name, (scores, _) in scored.items()}
            found["tallies"] = {name: tally.plain() for name, (_, tally) in scored.items() if tally is not None}
        return found

    records = [plain(record) for record in own.run(job.recipe())]
    first, last = records[0], records[-1]
    ends = {
        when: {name: record["scores"][name][METRIC[name]] for name in (job.new, *WATCH)}
        for when, record in (("before", first), ("after", last))
    }
    return {
        "method": job.recipe().methods,
        "spec": job.spec,
        "lr": job.recipe().lr,
        "seed": job.seed,
        "steps": job.steps,
        "status": last["status"],
        **ends,
        "ms_per_step": 1000 * last["train_seconds"] / max(1, *(record["step"] for record in records)),
        "setup_seconds": last["setup_seconds"],
        "drift": last["drift"],
        **first["costs"],
        "records": [first, *({key: record[key] for key in MIDDLE} for record in records[1:-1]), last],
    }


def costs(new: str, specs: Mapping[str, str], repeats: int = 5) -> dict[str, dict[str, float]]:
    """What each row costs: the time of a step relative to a plain one just before, the set-up, memory and weights."""
    bench, found, seeds = benches(new)["test"], {}, count()  # a seed is used once: an importance is measured each time
    for name, spec in specs.items():
        ratios, setups, last = [], [], {}
        for seed in islice(seeds, repeats):
            both = list[float]()
            for one in ("none", spec):
                last = [record.as_dict() for record in bench.run(Job(new, "test", one, seed, 20, 20).recipe())]
                both.append(last[-1]["train_seconds"] / max(1, last[-1]["step"]))
            ratios.append(both[1] / both[0])
            setups.append(last[-1]["setup_seconds"])
        found[name] = {"step": statistics.median(ratios), "setup": statistics.median(setups), **last[0]["costs"]}
    return found


def balance(run: Run, tasks: list[dict[str, Any]]) -> float:
    """½ share of the new task that was learned + ½ mean share of the old scores that was kept, each in [0, 1]."""
    return sum(shares(run["records"], tasks) or (0.0, 0.0)) / 2


def balances(search: Mapping[float | None, list[Run]], tasks: list[dict[str, Any]]) -> dict[float | None, float]:
    """Of each rung, the mean over the seeds it was tried on."""
    return {rung: statistics.fmean(balance(run, tasks) for run in runs) for rung, runs in search.items()}


class Benchmark:
    """All runs of some rows. runs_of: jobs → their runs, in order. tasks: {new: {split: facts}}."""

    def __init__(
        self, rows: Mapping[str, Row], runs_of: Any, tasks: dict[str, Any], options: argparse.Namespace
    ) -> None:
        self.rows, self.runs_of, self.tasks, self.options = rows, runs_of, tasks, options

    def search(self) -> dict[str, Search]:
        """The validation runs of every dial: three rungs, and more where the best one stands on the edge."""
        found: dict[str, Search] = {new: {name: {} for name in self.rows} for new in self.options.new}
        wanted = [(new, name, rung) for new in found for name, row in self.rows.items() for rung in row.start()]
        for _ in range(1 + WIDER):
            self._try([one for one in wanted if one[2] is not None], found, self.options.steps)
            wanted = [
                (new, name, rung)
                for new, search in found.items()
                for name, tried in search.items()
                if tried and (rung := beyond(self.rows[name].rungs, self._balances(new, tried))) is not None
            ]
        return found

    def longer(self, found: dict[str, Search]) -> dict[str, Search]:
        """The same for the longer runs, at the rung that was chosen and the one below."""
        longer: dict[str, Search] = {new: {} for new in found}
        wanted = []
        for new, search in found.items():
            for name, row in self.rows.items():
                if row.long:
                    longer[new][name] = {}
                    if search[name]:
                        place = row.rungs.index(chosen(self._balances(new, search[name])) or 0)
                        wanted += [(new, name, rung) for rung in row.rungs[max(0, place - 1) : place + 1]]
        self._try(wanted, longer, self.options.long)
        return longer

    def best(self, new: str, search: Search, steps: int) -> dict[str, list[Run]]:
        """The test runs of each row at the rung that was chosen, one for each seed."""
        rungs = {name: chosen(self._balances(new, tried)) if tried else None for name, tried in search.items()}
        jobs = [
            self._job(new, "test", name, rung, seed, steps)
            for name, rung in rungs.items()
            for seed in range(self.options.seeds)
        ]
        runs = iter(self.runs_of(jobs))
        return {name: [next(runs) for _ in range(self.options.seeds)] for name in rungs}

    def _try(self, wanted: list[tuple[str, str, Any]], found: dict[str, Search], steps: int) -> None:
        jobs = [
            self._job(new, "validation", name, rung, s, steps) for new, name, rung in wanted for s in CHOOSING_SEEDS
        ]
        runs = iter(self.runs_of(jobs))
        for new, name, rung in wanted:
            found[new][name][rung] = [next(runs) for _ in CHOOSING_SEEDS]

    def _balances(self, new: str, tried: Mapping[float | None, list[Run]]) -> dict[float | None, float]:
        return balances(tried, self.tasks[new]["validation"])

    def _job(self, new: str, split: str, name: str, rung: float | None, seed: int, steps: int) -> Job:
        row = self.rows[name]
        every = row.every if row.stops else steps if split == "validation" else max(1, steps // 10)
        return Job(new, split, row.at(rung), seed, steps, every, row.stops)

    def block(self, new: str, search: Search, longer: Search) -> dict[str, Any]:
        """What the results say of a new task, as plain values but for the records."""
        best, long = self.best(new, search, self.options.steps), self.best(new, longer, self.options.long)
        tasks, validation = self.tasks[new]["test"], self.tasks[new]["validation"]
        for runs in (*best.values(), *long.values()):
            for run in runs:
                run["kept"], run["learned"] = shares(run["records"], tasks) or (None, None)
        return {
            "tasks": tasks,
            "validation_tasks": validation,
            "search": {
                name: [run for runs in tried.values() for run in runs] or best[name][:1]
                for name, tried in search.items()
            },
            "best": best,
            "long": long,
            "edge": [name for name, tried in search.items() if tried and at_edge(self._balances(new, tried))],
            "verdicts": verdicts_of(best, tasks),
            "long_verdicts": verdicts_of({"none": best["none"]} | {f"{n}, longer": r for n, r in long.items()}, tasks),
            "kept_at_equal_learning": self._equal(best, best["none"], tasks),
            "long_kept_at_equal_learning": self._equal(long, best["none"], tasks),
        }

    def _equal(self, rows: dict[str, list[Run]], plain: list[Run], tasks: list[Any]) -> dict[str, list[float]]:
        return {name: matched(runs, plain, tasks, self.rows[name].ends) for name, runs in rows.items()}


def without_records(block: Any) -> Any:
    if isinstance(block, dict):
        return {key: without_records(value) for key, value in block.items() if key != "records"}
    return [without_records(value) for value in block] if isinstance(block, list) else block


def told(runs: Iterable[Run], total: int, start: float) -> list[Run]:
    found = []
    for run in runs:
        found.append(run)
        after = ", ".join(f"{name} {value:.3g}" for name, value in run["after"].items() if value is not None)
        print(
            f"{time.perf_counter() - start:6.0f} s {len(found):4}/{total} {run['spec']:50} seed {run['seed']}: {after}",
            flush=True,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--long", type=int, default=600)
    parser.add_argument("--new", nargs="*", choices=NEW, default=list(NEW))
    parser.add_argument("--only", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=Path, default=Path("build/remedies"), help="where finished runs are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    rows = {name: row for name, row in ROWS.items() if name in ("none", *options.only)}
    if (len(rows) < len(ROWS) or len(options.new) < len(NEW)) and options.out == parser.get_default("out"):
        parser.error("a part of the table needs an --out of its own")
    start = time.perf_counter()
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:

        def runs_of(jobs: list[Job]) -> list[Run]:
            return told(pool.map(partial(done, options.runs), jobs), len(jobs), start)

        tasks = dict(zip(options.new, pool.map(facts, options.new), strict=True))
        bench = Benchmark(rows, runs_of, tasks, options)
        search = bench.search()
        longer = bench.longer(search)
        blocks = {new: bench.block(new, search[new], longer[new]) for new in options.new}
    first, *others = options.new
    specs = {name: runs[0]["spec"] for name, runs in blocks[first]["best"].items()}
    made = {name: getattr(options, name) for name in ("seeds", "steps", "long")}
    content = without_records(
        blocks[first] | {new: blocks[new] for new in others} | {"made": made, "costs": costs(first, specs)}
    )
    text = page(content, options.new)
    print(text)
    print(f"{time.perf_counter() - start:.0f} s")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "remedies.md").write_text(text + "\n", encoding="utf-8")
    (options.out / "remedies.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
