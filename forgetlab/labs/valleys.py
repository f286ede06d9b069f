"""Two valleys: the loss on the plane through the old, the new and the joint solution, with real trajectories on it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from forgetlab.experiments.recipes import Bench, Recipe
from forgetlab.labs.kit.base import Lab, Settings, State
from forgetlab.labs.kit.benches import Benches
from forgetlab.labs.kit.quests import Quest
from forgetlab.labs.kit.runner import Driver
from forgetlab.labs.kit.shown import Change
from forgetlab.labs.views.valleys import picture
from forgetlab.metrics.arrays import rounded
from forgetlab.metrics.landscape import Plane, weights_of
from forgetlab.plots.style import number
from forgetlab.teaching import compat

NEW, OLD = "sentiment", "masked-lm"
WARM = "warmup:share=0.5"  # at the rates that learn in so few steps, a run without it is thrown out of the valley
# the joint one has all the old data and weighs it as a quarter of each batch; replay has 50 old texts
RUNS = {
    "naive": WARM,
    "joint": f"replay:ratio=0.25,memory=100000+{WARM}",
    "EWC": f"ewc:lam=100,examples=100+{WARM}",
    "replay": f"replay:ratio=0.25,memory=50+{WARM}",
}
GRID, TEXTS, SNAPSHOTS = 13, 48, 10  # points a side; texts in each loss; snapshots of a run

QUESTS = (
    Quest(
        "Let EWC end lower than the plain run on both tasks.",
        "At a rate that throws the plain run too far.",
        lambda runs: all(runs[-1]["ends"]["EWC"][t] < runs[-1]["ends"]["naive"][t] for t in (NEW, OLD)),
        ({"lr": 10**-2.5},),
    ),
    Quest(
        "A plain run that learns (below 0.6 nats) and leaves the old loss below 2.",
        "Stop it earlier.",
        lambda runs: runs[-1]["ends"]["naive"][NEW] < 0.6 and runs[-1]["ends"]["naive"][OLD] < 2,
        ({"steps": 40},),
    ),
)


def show(driver: Driver | None = None) -> Lab:
    """The lab as a widget: learning rate, steps, seed; view: which task's loss is filled, which trajectories."""
    benches = Benches()

    def work(settings: Settings) -> Iterator[State]:
        recipe = Recipe(new=NEW, watch=(OLD,), lr=settings["lr"], steps=settings["steps"], seed=settings["seed"])
        return _work(benches.bench(recipe), recipe)

    def draw(state: State, old: Sequence[State], settings: Settings, source: str) -> tuple[Figure, str]:
        filled = settings["filled"]
        shown = list(RUNS) if settings["shown"] == "all" else [settings["shown"]]
        alt = f"Filled contours: {filled}. {state.get('message', state.get('progress', ''))}"
        return picture(state, filled, NEW if filled == OLD else OLD, shown, source), alt

    return Lab(
        "valleys",
        work,
        draw,
        training={
            "lr": compat.log_slider("learning rate", 2e-3, 1e-4, 1e-1),
            "steps": compat.slider("steps", 80, 20, 100, 20),
            "seed": compat.slider("seed", 0, 0, 9, 1),
        },
        view={
            "filled": compat.choice("filled contours", OLD, (OLD, NEW)),
            "shown": compat.choice("trajectories", "all", ("all", *RUNS)),
        },
        head=lambda state, _: [
            Change(f"{name}: loss of {' / '.join(ends)}", " / ".join(map(number, ends.values())))
            for name, ends in state["ends"].items()
            if name in ("naive", "joint")
        ],
        intro="Three sets of weights span a plane: before (old), after plain fine-tuning (new), after training on both "
        "tasks (joint). All weights are mixed on it, the sentiment head too: at “old” that head is still at its random "
        "start. Runs leave the plane, so their lines are shadows; the words above say how far off each ends.",
        driver=driver,
        quests=QUESTS,
    )


def _work(bench: Bench, recipe: Recipe) -> Iterator[State]:
    state: State = {"paths": {}, "ends": {}, "diverged": []}
    tracks: dict[str, list[dict[str, torch.Tensor]]] = {}
    tasks = {NEW: bench.new, OLD: bench.watch[0]}

    def loss(name: str) -> torch.Tensor:
        (batch,) = tasks[name].test_batches(bench.model, TEXTS)
        return tasks[name].loss(bench.model, batch)

    losses = {name: partial(loss, name) for name in tasks}
    plane: Plane | None = None
    for name, methods in RUNS.items():
        plan = replace(recipe, methods=methods, every=max(1, recipe.steps // SNAPSHOTS), limit=8)
        tracks[name] = []
        for record in bench.run(plan):
            if record.status == "diverged":
                state["diverged"] = [*state["diverged"], name]
            tracks[name].append(weights_of(bench.model))
            yield {**state, "progress": f"{name}: step {record.step} of {plan.steps}, on {bench.model.device.type}"}
        with torch.inference_mode():
            state["ends"][name] = {task: rounded(float(of()), 4) for task, of in losses.items()}
        if name in state["diverged"]:
            if name in ("naive", "joint"):  # without them there is no plane
                yield {**state, "message": f"The {name} run diverged: without it there is no plane. Lower the rate."}
                return
            continue
        if name == "joint":
            plane = Plane(tracks["naive"][0], tracks["naive"][-1], tracks["joint"][-1])
            state["points"] = dict(zip(("old", "new", "joint"), plane.points, strict=True))
            state["paths"] = {own: [plane.locate(weights) for weights in tracks[own]] for own in tracks}
        elif plane:
            state["paths"] = {**state["paths"], name: [plane.locate(weights) for weights in tracks[name]]}
    assert plane is not None
    x, y = np.array([place[:2] for path in state["paths"].values() for place in path]).T
    state["xs"], state["ys"] = (np.linspace(*_widened(values), GRID).round(4).tolist() for values in (x, y))
    state["loss"] = {name: [] for name in losses}
    at_once = GRID**2 if bench.model.device.type == "cuda" else 1
    for row in plane.evaluate(bench.model, state["xs"], state["ys"], losses, at_once=at_once):
        state["loss"] = {name: [*state["loss"][name], [rounded(value, 4) for value in row[name]]] for name in losses}
        yield {**state, "progress": f"loss on the plane: row {len(state['loss'][OLD])} of {GRID}"}
    yield {**state, "message": _told(state)}


def _told(state: State) -> str:
    parts = []
    for name, path in state["paths"].items():
        x, y, off = path[-1]
        share = off / math.hypot(x, y, off)
        ends = ", ".join(f"{task} {number(value)}" for task, value in state["ends"][name].items())
        parts.append(f"{name} {ends}, {share:.0%} off the plane")
    parts += [f"{name} diverged" for name in state["diverged"]]
    return f"Loss at the end of each run (nats), and the share of its way that leads out: {'; '.join(parts)}."


def _widened(values: Any) -> tuple[float, float]:
    margin = 0.15 * (values.max() - values.min())
    return values.min() - margin, values.max() + margin
