"""Recipes for labs: benches of their own, and the records of a run as a state that grows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isnan
from typing import Any, NotRequired, TypedDict

from forgetlab.experiments.recipes import Bench, Recipe, prepare
from forgetlab.labs.kit.curves import Lines, Panel
from forgetlab.labs.kit.shown import Change
from forgetlab.metrics.retention import scale
from forgetlab.metrics.schema import PlainRecord, TaskFacts
from forgetlab.metrics.summary import score
from forgetlab.models.loading import shipped_models
from forgetlab.plots.style import UNITS, number
from forgetlab.tasks.base import facts_of


class RunState(TypedDict):
    """A run so far. message: at its end. plain: records of the same run without a remedy."""

    tasks: list[TaskFacts]
    records: list[PlainRecord]
    progress: str
    message: NotRequired[str]
    plain: NotRequired[list[PlainRecord]]


def device(model: str) -> str:
    """Where a lab runs a model: one so small as the shipped ones has answered before a GPU has started."""
    return "cpu" if model in shipped_models() else "auto"


class Benches:
    """A lab's own benches: a model and its tasks are loaded at the first run and kept, apart from every other lab's."""

    def __init__(self) -> None:
        self._benches: dict[tuple[Any, ...], Bench] = {}

    def bench(self, recipe: Recipe) -> Bench:
        """The model and tasks of a recipe."""
        what = (recipe.model, recipe.new, recipe.watch, recipe.similarity)
        if what not in self._benches:
            self._benches[what] = prepare(replace(recipe, device=device(recipe.model)))
        return self._benches[what]

    def run(self, recipe: Recipe) -> Iterator[RunState]:
        """The states of a run."""
        return states(self.bench(recipe), recipe)


def states(bench: Bench, recipe: Recipe) -> Iterator[RunState]:
    """The states of a run on a bench."""
    tasks = [facts_of(task, bench.model, recipe.limit) for task in (bench.new, *bench.watch)]
    records: list[PlainRecord] = []
    for record in bench.run(recipe):
        records.append(record.as_dict())
        progress = f"step {record.step} of {recipe.steps}, on {bench.model.device.type}"
        state: RunState = {"tasks": tasks, "records": list(records), "progress": progress}
        if record.status != "running":
            state["message"] = told(state)
        yield state


def score_lines(tasks: Sequence[TaskFacts], records: Sequence[PlainRecord], label: str = "") -> Lines:
    """The main score of every task over the steps, one panel for each task. A diverged value is a gap."""
    lines: dict[str, Any] = {}
    for task in tasks:
        x = [record["step"] for record in records]
        y = [_score(record, task) for record in records]
        lines[task["name"]] = {label or task["name"]: (x, y)}
    return lines


def score_panels(tasks: Sequence[TaskFacts]) -> list[Panel]:
    """A panel for each task, the new one first."""
    return [
        Panel(
            task["name"],
            f"{'watched' if i else 'new'}: {task['name']}",
            UNITS.get(task["metric"], task["metric"]),
            log=scale(task) == "ratio",
            floor=task["floor"],
            limits=None if scale(task) == "ratio" else (-0.03, 1.05),
        )
        for i, task in enumerate(tasks)
    ]


def told(state: RunState) -> str:
    """The run in a sentence: each task's score before and after."""
    first, last = state["records"][0], state["records"][-1]
    if last["status"] == "diverged":
        return f"Diverged: {last['message']}."
    parts = []
    for task in state["tasks"]:
        before, after = (number(_score(r, task), scale(task)) for r in (first, last))
        parts.append(f"{task['name']} {before} → {after}")
    how = f" ({last['message']})" if last["message"] else ""
    return f"After {last['step']} steps: {', '.join(parts)}{how}."


def head(state: RunState, settings: Mapping[str, Any]) -> list[Change]:
    """Each task's score before and after, a watched perplexity as a multiple; and what it is without a remedy."""
    return [
        Change(
            f"{task['name'].partition('@')[0]} {UNITS.get(task['metric'], task['metric']).partition(' (')[0]}",
            _changed(state["records"], task, times=i > 0),
            f"no remedy {_changed(state['plain'], task, i > 0).split(' ')[-1]}" if state.get("plain") else "",
        )
        for i, task in enumerate(state["tasks"])
    ]


def _changed(records: Sequence[PlainRecord], task: TaskFacts, times: bool) -> str:
    first, last = (_score(records[i], task) for i in (0, -1))
    if first is None or last is None:
        return "diverged" if last is None else number(last, scale(task))
    if times and scale(task) == "ratio":
        return f"×{number(last / first)}"
    return f"{number(first, scale(task))} → {number(last, scale(task))}"


def _score(record: PlainRecord, task: TaskFacts) -> float | None:
    value = score(record, task)
    return None if isnan(value) else value
