"""A trial: the first steps of a planned run, at a few seeds of their own, and what they did to the watched tasks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from forgetlab.errors import ForgetlabError
from forgetlab.experiments.forecast_law import Past, columns
from forgetlab.experiments.past_runs import SHORT, check_length
from forgetlab.experiments.recipe import Recipe
from forgetlab.experiments.recipes import Bench
from forgetlab.metrics.retention import scale, worse
from forgetlab.metrics.schema import PlainRecord, TaskFacts
from forgetlab.metrics.summary import error_before, score
from forgetlab.remedies.by_name import make_methods
from forgetlab.remedies.replay.experience import Replay
from forgetlab.remedies.schedules import Cosine, SlantedTriangular, Warmup

SCHEDULES = (Warmup, Cosine, SlantedTriangular)

Pair = Sequence[PlainRecord]  # the first record of a run and the last one


@dataclass(frozen=True)
class Trial:
    """What the first steps did to a watched task. x: a row of `forecast_law.columns`, on the mean over the seeds.

    before: its main score; error: half its 95 % interval, on its scale. moved: by how much it is worse after the trial.
    """

    task: TaskFacts
    before: float
    error: float
    moved: float
    x: list[float]


def run_trials(bench: Bench, recipe: Recipe, seeds: Sequence[int], short: int = SHORT) -> list[Pair]:
    """The planned run, schedule and all, ended after `short` steps: its first and last record at each seed.

    Raises ForgetlabError where the run is no longer than that, and where a trial diverges.
    """
    check_length(recipe, short)
    return [first_steps(bench, replace(recipe, seed=seed), short) for seed in seeds]


def first_steps(bench: Bench, recipe: Recipe, short: int) -> Pair:
    """The records at 0 and at `short` of a run that is ended there; raises ForgetlabError where it diverges."""
    run, found = bench.run(replace(recipe, every=short)), list[PlainRecord]()
    for record in run:
        if record.status == "diverged":
            raise ForgetlabError(f"the trial diverged: {record.message}; use a lower --lr")
        found.append(record.as_dict())
        if len(found) == 2:
            break
    run.close()  # type: ignore[attr-defined]
    return found


def trials_of(tasks: Sequence[TaskFacts], pairs: Sequence[Pair], recipe: Recipe, weights: int) -> list[Trial]:
    """A Trial for each watched task that has a score before and after. pairs: of `run_trials`; weights: the model's."""
    way = further(recipe.methods, recipe.steps, int(pairs[0][-1]["step"]))
    pace = statistics.fmean(last["drift"] for _, last in pairs) / math.sqrt(weights)
    found = []
    for task in tasks[1:]:
        moved = statistics.fmean(fall(task, *pair) for pair in pairs)
        rises = [_rise(task, *pair) for pair in pairs]
        rise = statistics.fmean(one for one in rises if one is not None) if None not in rises else moved
        if math.isfinite(moved) and math.isfinite(rise):
            x = columns(rise, pace, way, old_share(recipe.methods))
            first = pairs[0][0]
            found.append(Trial(task, score(first, task), error_before(task, first), moved, x))
    return found


def past_of(tasks: Sequence[TaskFacts], pairs: Sequence[Pair], recipe: Recipe, weights: int, ends: Pair) -> list[Past]:
    """What a finished run adds to the law. pairs: its trials; ends: its first and last record."""
    found = list[Past]()
    for trial in trials_of(tasks, pairs, recipe, weights):
        fell = fall(trial.task, *ends)
        if math.isfinite(fell):
            one = Past(
                model=recipe.model,
                new=recipe.new,
                scale=scale(trial.task),
                x=trial.x,
                error=trial.error,
                fall=fell,
            )
            found.append(one)
    return found


def fall(task: TaskFacts, first: PlainRecord, last: PlainRecord) -> float:
    """By how much a task's main score is worse: in points, on the scale "ratio" ln of the factor; nan if unknown."""
    return worse(task, score(first, task), score(last, task))


def further(methods: str, steps: int, short: int) -> float:
    """ln (Σ_{t<T} η_t / Σ_{t<n} η_t): how much further than its first n steps a run goes, by its schedule.

    >>> round(math.exp(further("none", 80, 8)), 6), round(math.exp(further("warmup:share=0.5", 32, 8)), 6)
    (10.0, 10.888889)
    """
    rates = schedule(methods, steps)
    return math.log(sum(rates) / sum(rates[:short]))


def schedule(methods: str, steps: int) -> list[float]:
    """The share of its full rate that a run has at each step.

    >>> schedule("warmup:share=0.5", 4)
    [0.5, 1.0, 1.0, 1.0]
    """
    made = [one for one in make_methods(methods, None) if isinstance(one, SCHEDULES)]
    run: Any = SimpleNamespace(steps=steps, step=0, groups=[])
    for one in made:
        one.setup(run)
    rates = []
    for run.step in range(steps):
        run.groups = [{"lr": 1.0}]
        for one in made:
            one.before_step(run)
        rates.append(run.groups[0]["lr"])
    return rates


def old_share(methods: str) -> float:
    """The share of a batch that comes from the old tasks.

    >>> old_share("replay:ratio=0.3+l2sp"), old_share("none")
    (0.3, 0.0)
    """
    return sum((one.ratio for one in make_methods(methods, None) if isinstance(one, Replay)), 0.0)


def _rise(task: TaskFacts, first: PlainRecord, last: PlainRecord) -> float | None:
    before, after = (record["scores"][task["name"]].get("loss") for record in (first, last))
    return None if before is None or after is None else after - before
