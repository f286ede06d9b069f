"""One comparison from start to results: which runs, where they are computed, what is taken up, what to choose."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from forgetlab.errors import ForgetlabError
from forgetlab.experiments import workers
from forgetlab.experiments.frontier import dots, shares
from forgetlab.experiments.plan import Plan, spoken
from forgetlab.experiments.recipes import recipes_of, results_of
from forgetlab.experiments.recommendation import recommend, verdicts
from forgetlab.experiments.saving import Models, fits_a_folder, recipe_of, same_bits, winner
from forgetlab.experiments.search import End, Pair, Search
from forgetlab.experiments.sweeps import Dispatcher, RunFolder
from forgetlab.experiments.teller import Teller
from forgetlab.experiments.workers import Pool
from forgetlab.metrics.schema import BenchFacts, Results, RunResult
from forgetlab.metrics.summary import nothing_to_lose
from forgetlab.remedies.by_name import METHODS, make_methods


def execute(
    plan: Plan,
    kept: RunFolder,
    told: Teller,
    on_results: Callable[[Results], None] = lambda results: None,
) -> Results:
    """Run a plan; returns the content of results.json. Each run lands in OUT/runs as it finishes.

    kept: OUT/runs, opened; no other process may use it meanwhile. told: hears of everything on the way; of single
    records where no cluster computes them. on_results: called before models are saved, which takes further runs.
    """
    start = time.perf_counter()
    try:
        with _pool(plan, told.record) as pool:
            try:
                facts = pool.executor.submit(workers.facts, plan.recipe, plan.budget is not None).result()
            except Exception as error:
                raise workers.explain(error, pool) from error
            estimate, loading = facts.pop("seconds"), time.perf_counter() - start
            reserved = estimate if plan.save else 0.0  # the winner is trained once more
            if plan.budget is not None and loading + estimate + reserved > plan.budget:
                raise ForgetlabError(
                    f"--budget {spoken(plan.budget)} is too small: loading takes {spoken(loading)} here and one run of "
                    f"{plan.recipe.steps} steps about {spoken(estimate)}"
                )
            facts["machine"]["processes"] = pool.size()
            told.facts(facts)
            for note in facts["notes"]:
                told.say(note)
            every = Models(plan.place, facts)
            sweep = Dispatcher(pool, kept, strict="all" not in plan.methods, estimate=estimate)
            sweep.on_run = lambda run: told.run(run, loading + sweep.spent())
            if plan.budget is None:
                sweep.models = every if plan.save_all else None
                results = results_of(facts, sweep(recipes_of(plan.recipe, plan.names(), plan.seeds)))
            else:
                results = _searched(plan, facts, sweep, plan.budget - loading - reserved, told.say)
            _conclude(plan, results, sweep, told.say)
            on_results(results)
            _save(plan, results, every, pool, told)
    except ForgetlabError as error:
        if not kept.wrote:
            kept.drop_log()
            raise
        raise ForgetlabError(f"{error} ({kept.told()})") from error
    return results


def _conclude(plan: Plan, results: Results, sweep: Dispatcher, say: Callable[[str], None]) -> None:
    """Add to the results what was left out, and what to choose."""
    more = [f"{name} does not fit here and was left out: {reason}" for name, reason in sweep.refused.items()]
    if damaged := list(dict.fromkeys(sweep.kept.damaged)):
        more.append(f"damaged in {sweep.kept.folder}, and computed again: {', '.join(damaged)}")
    runs, tasks, searched = results["runs"], results["tasks"], plan.budget is not None
    idle = nothing_to_lose(runs, tasks)
    alike = [f"{name}: nothing to lose, as it starts within its error of guessing; it counts nowhere" for name in idle]
    for note in [*more, *results.pop("left_out", []), *alike]:
        say(note)
        results["notes"].append(note)
    found, watched, to_lose = dots(runs, tasks), len(tasks) > 1, len(tasks) - 1 > len(idle)
    tried = {method.name for dot in found for method in make_methods(dot["spec"], None)}
    untried = [name for name in METHODS if name not in tried and name not in sweep.refused]
    results["keep"] = plan.keep
    results["recommendation"] = recommend(
        found, plan.keep, watched=watched, to_lose=to_lose, searched=searched, untried=untried
    )
    results["verdicts"] = verdicts(found)


def _save(plan: Plan, results: Results, every: Models, pool: Pool, told: Teller) -> None:
    """Train the models that are wanted and not there yet once more, and save them."""
    jobs = [(every, run, list[str]()) for run in results["runs"] if plan.save_all and not every.has(run)]
    if plan.save:
        run, reason = winner(results, plan.keep)
        if reason:
            other = "" if run else "; --save-all FOLDER keeps the model of every run"
            told.say(f"{'saved instead' if run else 'nothing is saved'} in {plan.save}: {reason}{other}")
        jobs += [(Models(lambda _: plan.save, results), run, results["recommendation"])] if run else []
    size = pool.size()
    for some in (jobs[i : i + size] for i in range(0, len(jobs), size)):
        recipes = [recipe_of(run) for _, run, _ in some]
        asked = [
            pool.executor.submit(workers.compute, r, save=m.draft(r)) for r, (m, *_) in zip(recipes, some, strict=True)
        ]
        for future, (models, run, advice) in zip(asked, some, strict=True):
            try:
                again = future.result()
            except Exception as error:
                raise workers.explain(error, pool) from error
            place = models.finish(again, run, advice)
            if place == plan.save:
                told.saved(place, run, same_bits(again, run))
    if plan.save_all:
        held = [run for run in results["runs"] if fits_a_folder(run["recipe"]["methods"])]
        told.saved_all(plan.save_all, len(held), len(results["runs"]) - len(held))


def _searched(plan: Plan, facts: BenchFacts, sweep: Dispatcher, left: float, say: Callable[[str], None]) -> Results:
    runs: dict[Pair, RunResult] = {}

    def ask(pairs: Sequence[Pair], share: float) -> dict[Pair, End]:
        more = sweep([replace(plan.recipe, methods=m, seed=s) for m, s in pairs], until=share * left)
        found = {(run["recipe"]["methods"], run["recipe"]["seed"]): run for run in more}
        runs.update(found)
        return {pair: shares(run["records"], facts["tasks"]) for pair, run in found.items()}

    search = Search(plan.names(), list(plan.seeds), plan.keep, ask)
    if too_many := _too_many(plan, search, sweep, left):
        say(too_many)  # now, not after the time is gone
        facts["notes"].append(too_many)
    best = search.run()
    chosen = [run for spec in best for (methods, _), run in sorted(runs.items()) if methods == spec]
    tried = [
        {"methods": methods, "seed": seed, "ends": search.found[methods, seed], "seconds": run["seconds"]}
        for (methods, seed), run in runs.items()
        if methods not in best
    ]
    return {**results_of(facts, chosen), "search": tried, "left_out": search.told()}


def _too_many(plan: Plan, search: Search, sweep: Dispatcher, left: float) -> str:
    """Drop from a search what has no time for its first try, by what a plain run takes; returns what to say of it."""
    first = {name: replace(plan.recipe, methods=m, seed=s) for name, (m, s) in search.first_tries().items()}
    open_ones = [name for name, recipe in first.items() if sweep.kept.get(recipe) is None]
    size = sweep.pool.size()
    turns = int(left / sweep.estimate) if sweep.estimate else len(open_ones)
    if not (dropped := open_ones[max(1, turns * size) :]):
        return ""
    search.methods = [name for name in search.methods if name not in dropped]
    enough = spoken(plan.budget - left + sweep.estimate * math.ceil(len(open_ones) / size)) if plan.budget else ""
    return (
        f"--budget is too short for a first try of every method, at about {spoken(sweep.estimate)} a run; left out "
        f"from the start: {', '.join(dropped)}; {enough} would do for one of each"
    )


def _pool(plan: Plan, on_record: Callable[..., None]) -> AbstractContextManager[Pool]:
    if plan.cluster:
        return workers.cluster(plan.cluster)
    jobs = math.inf if plan.budget is not None else len(plan.names()) * len(plan.seeds)
    processes, threads = workers.threads_for(plan.recipe, plan.processes, jobs)
    return workers.here(threads, on_record) if processes == 1 else workers.several(processes, threads, on_record)
