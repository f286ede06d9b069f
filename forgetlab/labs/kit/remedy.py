"""What the remedy labs share: a run with a remedy beside the same run without it, and a panel of all runs so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

import ipywidgets as widgets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from forgetlab.experiments import results
from forgetlab.experiments.recipes import Recipe
from forgetlab.labs.kit.base import Lab, Settings, State
from forgetlab.labs.kit.benches import Benches, RunState, head, score_lines, score_panels, told
from forgetlab.labs.kit.curves import Curves, Lines, Panel
from forgetlab.labs.kit.quests import Quest
from forgetlab.labs.kit.runner import Driver
from forgetlab.labs.kit.so_far import Point, SoFar, scatter
from forgetlab.metrics.retention import scale
from forgetlab.plots.style import number

THIS, PLAIN = "this run", "no remedy"
USUAL: dict[str, Any] = {
    "new": "sentiment",
    "watch": ("masked-lm", "entities"),
    "steps": 100,
    "every": 10,
    "limit": 128,
}


def recipe(methods: str, seed: int, **more: Any) -> Recipe:
    """The fine-tune that the remedies are tried on: a tiny BERT and sentiment, unless said otherwise."""
    return Recipe(methods=methods, seed=seed, **{**USUAL, **more})


def beside_plain(benches: Benches, with_remedy: Recipe) -> Iterator[RunState]:
    """The states of a run; then "plain", the records of the same run without a remedy, from a kept one if there is."""
    plain = replace(with_remedy, methods="none")
    kept = results.get("plain", asdict(plain))
    for now in benches.run(with_remedy):
        state: RunState = {**now, "plain": kept or []}
        yield _compared(state) if kept and "message" in state else state
    if kept:
        return
    for other in benches.run(plain):
        used = ("step", "scores", "status", "message", "costs")
        state["plain"] = [{key: record[key] for key in used} for record in other["records"]]
        state["progress"] = f"without the remedy, to compare: {other['progress']}"
        yield _compared(state) if "message" in other else {**state}
    results.put("plain", asdict(plain), state["plain"])


def _compared(state: RunState) -> RunState:
    """The state with a message on both runs."""
    last = score_lines(state["tasks"], state["plain"][-1:], PLAIN)
    ends = [f"{t['name']} {number(last[t['name']][PLAIN][1][0], scale(t))}" for t in state["tasks"]]
    return {**state, "message": f"{told(state)} Without the remedy it ends at {', '.join(ends)}."}


def lab(
    name: str,
    recipe: Callable[[Settings], Recipe],
    *,
    training: Mapping[str, widgets.Widget],
    intro: str,
    presets: Mapping[str, Settings],
    driver: Driver | None,
    so_far: SoFar | None = None,
    panels: Sequence[Panel] = (),
    lines: Callable[[RunState, Settings], Lines] = lambda state, settings: {},
    before: Callable[[Settings], Mapping[str, Any]] = lambda settings: {},
    top: tuple[Panel, Callable[[Axes, Any], None]] | None = None,
    tell: Callable[[Any, Settings], str] = lambda state, settings: "",
    quests: Sequence[Quest] = (),
) -> Lab[Any]:
    """A lab of one remedy. recipe: what the controls describe.

    so_far: a last panel with all runs. panels, lines: more of them, beside the scores with and without the remedy.
    before: computed ahead of the run and kept in its state, for `top`, `tell` and `so_far` too. top: a panel above, and
    what paints it. tell: words to add.
    """
    benches = Benches()
    views = lru_cache(maxsize=1)(Curves)  # a figure for as long as the panels are the same
    points: dict[Point, None] = {}

    def work(settings: Settings) -> Iterator[State]:
        found = before(settings)
        for run in beside_plain(benches, recipe(settings)):
            state: State = {**run, **found}
            if "message" in state:
                state["message"] = f"{state['message']} {tell(state, settings)}".strip()
            yield state

    def draw(state: RunState, old: Sequence[RunState], settings: Settings, source: str) -> tuple[Figure, str]:
        last = [Panel("so far", so_far.title, so_far.up, log=not so_far.share)] if so_far else []
        first = [top[0]] if top else []
        view = views((*first, *score_panels(state["tasks"]), *panels, *last))
        plain = score_lines(state["tasks"], state["plain"], PLAIN)  # below, and in the first look
        shown: dict[str, Any] = {task: dict(own) for task, own in plain.items()}
        for more in (score_lines(state["tasks"], state["records"], THIS), lines(state, settings)):
            for panel, own in more.items():
                shown.setdefault(panel, {}).update(own)
        figure = view.draw(shown, [score_lines(s["tasks"], s["records"], THIS) for s in old], source)
        if top:
            top[1](view.axes(top[0].key), state)
        if so_far:
            if not old:  # the lab was just opened, or reset
                points.clear()
            present = None  # a run under way has no point yet, and some runs have none at all
            if "message" in state:
                present, *others = so_far.of(state, settings)
                newest = [point for point in (present, *others) if point]
                for point in newest:
                    points.pop(point, None)
                points.update(dict.fromkeys(reversed(newest)))  # this run comes last
            scatter(view.axes("so far"), list(points), so_far, present)
        return figure, state.get("message") or told(state)

    common: Any = {"presets": presets, "intro": intro, "driver": driver, "quests": quests}
    return Lab(name, work, draw, head=head, training=training, **common)
