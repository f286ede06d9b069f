"""Recipes for labs: a bench of their own each, and records as the state that grows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isnan
from typing import Any

from forgetlab.experiments.recipes import Bench, Recipe, prepare
from forgetlab.labs.kit.curves import Lines, Panel
from forgetlab.metrics.retention import scale
from forgetlab.metrics.schema import PlainRecord, TaskFacts
from forgetlab.metrics.summary import score
from forgetlab.models.loading import shipped_models
from forgetlab.plots.style import UNITS, number
from forgetlab.tasks.base import facts_of

State = dict[str, Any]


def device(model: str) -> str:
    """Where a lab runs a model: one so small as the shipped ones has answered before a GPU has started."""
    return "cpu" if model in shipped_models() else "auto"


class Runs:
    """Runs recipes for one lab. Model and tasks are loaded at the first run and kept, apart from every other lab's."""

    def __init__(self) -> None:
        self._benches: dict[tuple[Any, ...], Bench] = {}

    def bench(self, recipe: Recipe) -> Bench:
        """The model and tasks of a recipe."""
        what = (recipe.model, recipe.new, recipe.watch, recipe.similarity)
        if what not in self._benches:
            self._benches[what] = prepare(replace(recipe, device=device(recipe.model)))
        return self._benches[what]

    def __call__(self, recipe: Recipe, bench: Bench | None = None) -> Iterator[State]:
        """States {"records": so far, "tasks": …, "progress": …, "message": at the end}. bench: one of the lab's own."""
        bench = bench or self.bench(recipe)
        tasks = [facts_of(task, bench.model, recipe.limit) for task in (bench.new, *bench.watch)]
        records: list[dict[str, Any]] = []
        for record in bench.run(recipe):
            records.append(record.as_dict())
            progress = f"step {record.step} of {recipe.steps}, on {bench.model.device.type}"
            state = {"tasks": tasks, "records": list(records), "progress": progress}
            if record.status != "running":
                state["message"] = told(state)
            yield state


def score_lines(state: Mapping[str, Any], label: str = "") -> Lines:
    """The main score of every task over the steps, one panel for each task. A diverged value is a gap."""
    lines: dict[str, Any] = {}
    for task in state["tasks"]:
        x = [record["step"] for record in state["records"]]
        y = [_score(record, task) for record in state["records"]]
        lines[task["name"]] = {label or task["name"]: (x, y)}
    return lines


def score_panels(tasks: Sequence[Mapping[str, Any]]) -> list[Panel]:
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


def told(state: Mapping[str, Any]) -> str:
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


def _score(record: PlainRecord, task: TaskFacts) -> float | None:
    value = score(record, task)
    return None if isnan(value) else value
