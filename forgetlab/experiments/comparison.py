"""One comparison from start to results: which runs, where they are computed, what is taken up, what to choose."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

from forgetlab.errors import ForgetlabError, number, whole
from forgetlab.experiments import report, workers
from forgetlab.experiments.frontier import dots, shares
from forgetlab.experiments.recipes import Recipe, recipes_of, results_of
from forgetlab.experiments.recommendation import recommend, verdicts
from forgetlab.experiments.search import End, Pair, Search
from forgetlab.experiments.sweeps import Dispatcher, RunFolder
from forgetlab.experiments.workers import Pool
from forgetlab.metrics.schema import BenchFacts, Results, RunResult
from forgetlab.metrics.summary import nothing_to_lose
from forgetlab.remedies.by_name import METHODS, family, make_methods

UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass
class Plan:
    """What to compare, and how.

    methods: methods texts, or ["all"]: every remedy, those left out that do not fit. out: the report's folder.
    budget: seconds, within which strengths are searched; None: the methods as they are. keep: the share of the old
    scores that is to stay. resume: take up the runs in `out`. processes: None is what is fastest. cluster: the
    address of a Dask scheduler.
    """

    recipe: Recipe
    methods: Sequence[str]
    seeds: Sequence[int]
    out: Path
    budget: float | None = None
    keep: float = 0.95
    resume: bool = False
    processes: int | None = None
    cluster: str | None = None

    def check(self) -> None:
        """Raise ForgetlabError for what cannot work, before anything is loaded."""
        if not self.methods:
            raise ForgetlabError("no method given; try --methods none,l2sp,ewc,replay, or all")
        if not self.seeds:
            raise ForgetlabError("--seeds must be 1 or more, got 0")
        number("--keep", self.keep, 0, 1)
        if self.processes is not None:
            whole("--processes", self.processes)
            if self.cluster:
                raise ForgetlabError("--processes and --cluster exclude each other: a cluster's workers are its own")
        report.check_folder(self.out)
        for method in self.names():
            make_methods(method, None)

    def names(self) -> list[str]:
        """The methods texts, "all" taken apart: one of each family at a time, in case time is short."""
        families: dict[str, list[str]] = {}
        for name in METHODS:
            families.setdefault(family(name), []).append(name)
        every = [name for row in zip_longest(*families.values()) for name in row if name]
        return list(dict.fromkeys(name for given in self.methods for name in (every if given == "all" else [given])))


def execute(
    plan: Plan,
    kept: RunFolder,
    *,
    say: Callable[[str], None],
    on_record: Callable[..., None],
    on_run: Callable[[RunResult, float], None],
) -> Results:
    """Run a plan; returns the content of results.json. Each run lands in OUT/runs as it finishes.

    kept: OUT/runs, opened; no other process may use it meanwhile.
    say: called with each note as it is known. on_record: at each record, where runs are computed in this process;
    on_run: at each run that is there, with the seconds spent.
    """
    start = time.perf_counter()
    try:
        with _pool(plan, on_record) as pool:
            try:
                facts = pool.executor.submit(workers.facts, plan.recipe, plan.budget is not None).result()
            except Exception as error:
                raise workers.explain(error, pool) from error
            estimate, loading = facts.pop("seconds"), time.perf_counter() - start
            if plan.budget is not None and loading + estimate > plan.budget:
                raise ForgetlabError(
                    f"--budget {spoken(plan.budget)} is too small: loading takes {spoken(loading)} here and one run of "
                    f"{plan.recipe.steps} steps about {spoken(estimate)}"
                )
            for note in facts["notes"]:
                say(note)
            sweep = Dispatcher(pool, kept, strict="all" not in plan.methods, estimate=estimate)
            sweep.on_run = lambda run: on_run(run, loading + sweep.spent())
            facts["machine"]["processes"] = pool.size()
            if plan.budget is None:
                results = results_of(facts, sweep(recipes_of(plan.recipe, plan.names(), plan.seeds)))
            else:
                results = _searched(plan, facts, sweep, plan.budget - loading)
    except ForgetlabError as error:
        if not kept.wrote:
            raise
        raise ForgetlabError(f"{error} ({kept.told()})") from error
    more = [f"{name} does not fit here and was left out: {reason}" for name, reason in sweep.refused.items()]
    if damaged := list(dict.fromkeys(kept.damaged)):
        more.append(f"damaged in {kept.folder}, and computed again: {', '.join(damaged)}")
    runs, tasks, searched = results["runs"], results["tasks"], plan.budget is not None
    idle = nothing_to_lose(runs, tasks)
    alike = [f"{name}: nothing to lose, as it starts within its error of guessing; it counts nowhere" for name in idle]
    for note in [*more, *results.pop("left_out", []), *alike]:
        say(note)
        results["notes"].append(note)
    found, watched, to_lose = dots(runs, tasks), len(tasks) > 1, len(tasks) - 1 > len(idle)
    advice = recommend(found, plan.keep, watched=watched, to_lose=to_lose, searched=searched)
    return {**results, "keep": plan.keep, "recommendation": advice, "verdicts": verdicts(found)}


def seconds(text: str) -> float:
    """A time as "90s", "10m" or "1.5h", in seconds; raises ForgetlabError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([smh])", text.strip().lower())
    if not found or not float(found[1]):
        raise ForgetlabError(f"--budget must be a time such as 90s, 10m or 1.5h, got {text!r}")
    return float(found[1]) * UNITS[found[2]]


def spoken(time: float) -> str:
    """Seconds as people say them: 0.4 s, 12 s, 5 min, 1.5 h."""
    if time < 120:
        return f"{time:.1f} s" if time < 10 else f"{time:.0f} s"
    return f"{time / 60:.0f} min" if time < 7200 else f"{time / 3600:.1f} h"


def _searched(plan: Plan, facts: BenchFacts, sweep: Dispatcher, left: float) -> Results:
    runs: dict[Pair, RunResult] = {}

    def ask(pairs: Sequence[Pair], share: float) -> dict[Pair, End]:
        more = sweep([replace(plan.recipe, methods=m, seed=s) for m, s in pairs], until=share * left)
        found = {(run["recipe"]["methods"], run["recipe"]["seed"]): run for run in more}
        runs.update(found)
        return {pair: shares(run["records"], facts["tasks"]) for pair, run in found.items()}

    search = Search(plan.names(), list(plan.seeds), plan.keep, ask)
    best = search.run()
    chosen = [run for spec in best for (methods, _), run in sorted(runs.items()) if methods == spec]
    tried = [
        {"methods": methods, "seed": seed, "ends": search.found[methods, seed], "seconds": run["seconds"]}
        for (methods, seed), run in runs.items()
        if methods not in best
    ]
    return {**results_of(facts, chosen), "search": tried, "left_out": search.told()}


def _pool(plan: Plan, on_record: Callable[..., None]) -> AbstractContextManager[Pool]:
    if plan.cluster:
        return workers.cluster(plan.cluster)
    jobs = math.inf if plan.budget is not None else len(plan.names()) * len(plan.seeds)
    processes, threads = workers.threads_for(plan.recipe, plan.processes, jobs)
    return workers.here(threads, on_record) if processes == 1 else workers.several(processes, threads)
