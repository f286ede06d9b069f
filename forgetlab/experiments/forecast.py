"""What will the planned run cost? Its first steps are taken, and a law of past runs says how far it goes from there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import forgetlab
from forgetlab.experiments.forecast_law import LEVEL, Law, Past, fit, shipped
from forgetlab.experiments.past_runs import SHORT, runs_like
from forgetlab.experiments.recipe import Recipe, called
from forgetlab.experiments.recipes import Bench, prepare
from forgetlab.experiments.trials import Trial, old_share, past_of, run_trials, trials_of
from forgetlab.metrics.retention import best, higher_is_better, on, scale
from forgetlab.metrics.schema import TaskFacts
from forgetlab.metrics.summary import nothing_to_lose, score
from forgetlab.plots.style import number
from forgetlab.tasks.base import facts_of

SEEDS = (101, 102, 103)  # none of those that a comparison counts from 0
SMALL = 0.02  # points or nats: less is no fall that anybody asks about
UNSCORED = "its score is no number"
RUINED = "the trial has ruined it, its score is no number any more; use a lower --lr"
NOTHING = "it starts within its error of guessing, so it has nothing to lose"
MOST = 8  # past runs of the user's own that are tried again
WORST = 2.5  # times what a perplexity had over a guesser; no past run lost more than 2.3 times that
COUNT = 10  # what a result of these counts for in the law, which has hundreds of others'


@dataclass(frozen=True)
class Forecast:
    """What a watched task's main score will be at the end of the run.

    fall: by how much it will be worse, in points or, on the scale "ratio", in nats; low, high: its interval, which
    `LEVEL` of runs end in. moved: the same after the trial. word: "will fall", "will stay", "will gain" or "cannot be
    told". strange: whether no past run was like this one.
    """

    task: TaskFacts
    before: float
    moved: float
    fall: float
    low: float
    high: float
    word: str
    strange: bool


@dataclass(frozen=True)
class Forecasts:
    """All of a recipe's. left_out: {watched task: why nothing is told}. own: past results of the user's own."""

    recipe: Recipe
    tasks: list[Forecast]
    left_out: dict[str, str]
    seeds: tuple[int, ...]
    own: int
    notes: list[str]

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"forgetlab": forgetlab.__version__, "level": LEVEL, "trial_steps": SHORT, **asdict(self)}


def forecast(recipe: Recipe, seeds: Sequence[int] = SEEDS, past: str | Path | None = None) -> Forecasts:
    """Foretell what the run of a recipe costs, from its first 8 steps at each of the seeds.

    past: the folder of an earlier report of this model and these tasks, whose runs the law is fitted on too; each of
    their results counts for ten others.
    Raises ForgetlabError where the run is no longer than the trial, where the trial diverges, and for another folder.

    >>> recipe = Recipe(new="sentiment", watch=("entities",), steps=100, limit=16)
    >>> [one.task["name"] for one in forecast(recipe, seeds=(1,)).tasks]
    ['entities']
    """
    bench = prepare(recipe)
    tasks = [facts_of(one, bench.model, recipe.limit) for one in (bench.new, *bench.watch)]
    weights = bench.model.size
    own = list(_own(bench, recipe, tasks, Path(past))) if past is not None else []
    pairs = run_trials(bench, recipe, seeds)
    left_out = dict.fromkeys(nothing_to_lose([{"recipe": {}, "records": list(pairs[0])}], tasks), NOTHING)
    found = [one for one in trials_of(tasks, pairs, recipe, weights) if one.task["name"] not in left_out]
    past_results = [*shipped(), *own * COUNT]
    laws = {name: fit([one for one in past_results if one["scale"] == name]) for name in ("points", "ratio")}
    told = [foretold(trial, laws[scale(trial.task)], recipe.model) for trial in found]
    scored = {*left_out, *(one.task["name"] for one in told)}
    for task in (task for task in tasks[1:] if task["name"] not in scored):
        left_out[task["name"]] = RUINED if math.isfinite(score(pairs[0][0], task)) else UNSCORED
    return Forecasts(recipe, told, left_out, tuple(seeds), len(own), bench.notes)


def foretold(trial: Trial, law: Law, model: str) -> Forecast:
    """A trial scaled by a law; within what the score can reach."""
    task, before = trial.task, trial.before
    sign = 1 if higher_is_better(task) else -1
    least = sign * float(on(scale(task), before) - on(scale(task), best(task)))  # below 0: what it can still gain
    most = before if scale(task) == "points" and sign > 0 else math.inf
    if scale(task) == "ratio" and (guess := task.get("guess")):
        most = WORST * sign * float(on("ratio", before) - on("ratio", guess))
    middle, low, high = (
        min(max(end, least), most) for end in (law.middle(trial.x), *law.ends(trial.x, trial.error, model))
    )
    if low > 0 and middle >= SMALL:
        word = "will fall"
    elif low >= -SMALL and high <= SMALL:
        word = "will stay"
    else:
        word = "will gain" if high < 0 else "cannot be told"
    return Forecast(
        task, before, trial.moved, middle, low, high, word, model not in law.models or law.strangeness(trial.x) > 1
    )


def table(found: Forecasts) -> str:
    """The forecasts in words, a line for each watched task."""
    recipe, share = found.recipe, f"{LEVEL:.0%}".replace("%", " %")
    trials = f"{len(found.seeds)} trial{'s' if len(found.seeds) > 1 else ''} of {SHORT} steps"
    lines = [
        f"After {recipe.steps} steps at a rate of {recipe.lr:g} with {called(recipe.methods)}, from {trials} "
        f"(in brackets, where {share} of runs end):",
        "",
    ]
    width = max([len(one.task["name"]) for one in found.tasks] + [0])
    lines += [f"  {one.task['name']:<{width}}  {sentence(one)}" for one in found.tasks]
    lines += [f"  {name}  nothing is told: {reason}" for name, reason in found.left_out.items()]
    if strange := [one.task["name"] for one in found.tasks if one.strange]:
        lines += ["", f"No past run was like this one for {', '.join(strange)}: its interval is widened, and a guess."]
    if any(one.word == "will fall" for one in found.tasks) and not old_share(recipe.methods):
        lines += [
            "",
            "What usually keeps most of it: a quarter of old data in each batch (--method replay:ratio=0.25).",
        ]
    source = f", {found.own} of them yours" if found.own else ""
    return "\n".join([*lines, "", f"The law stands on {found.own + len(shipped())} past results{source}."])


def sentence(one: Forecast) -> str:
    """A forecast in words.

    >>> task = {"name": "general", "metric": "perplexity", "scale": "ratio"}
    >>> sentence(Forecast(task, 3.0, 0.1, 1.1, 0.7, 1.6, "will fall", False))
    'perplexity 3.00 will probably be worse by ×3.00 (×2.01 to ×4.95)'
    """
    on_ratio = scale(one.task) == "ratio"
    middle, low, high = (_shown(end, on_ratio) for end in (one.fall, one.low, one.high))
    said = {
        "will fall": f"will probably be worse by {middle}",
        "will gain": f"will probably be better by {_shown(-one.fall, on_ratio)}",
        "will stay": "will probably stay as it is",
        "cannot be told": "cannot be told",
    }[one.word]
    return f"{one.task['metric']} {number(one.before, scale(one.task))} {said} ({low} to {high})"


def _shown(fall: float, on_ratio: bool) -> str:
    return f"×{number(math.exp(fall))}" if on_ratio else number(fall, "points")


def _own(bench: Bench, recipe: Recipe, tasks: Sequence[TaskFacts], folder: Path) -> Iterator[Past]:
    """What the runs of an earlier report add to the law; each is tried again, as compare keeps no record at step 8."""
    for one, run in runs_like(recipe, folder)[:MOST]:
        ends = (run["records"][0], run["records"][-1])
        yield from past_of(tasks, run_trials(bench, one, SEEDS[:1]), one, bench.model.size, ends)
