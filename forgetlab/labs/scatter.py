"""Importance scatter, real: Fisher of the old task × Fisher of the new one, and what putting weights back does.

Each Fisher is taken where its task is known: the old one on the shipped model, the new one after the fine-tune.
Before that there is no sentiment head, and one trained alone on the frozen body stays at chance: a Fisher there
would tell how the weights move a random direction of the output. After it the outputs are confident and the Fisher
is small, but only its order counts here, as thresholds are shares. The price: the two are taken at different
weights, as in online EWC. Only the body is compared: the heads of the two tasks have no part in each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from forgetlab.experiments.recipes import Recipe
from forgetlab.importance import fisher_diagonal, put_back, quadrants
from forgetlab.importance.groups import KINDS
from forgetlab.labs.kit.base import Lab, Settings, State
from forgetlab.labs.kit.benches import Benches
from forgetlab.labs.kit.quests import Quest
from forgetlab.labs.kit.runner import Driver
from forgetlab.labs.kit.shown import Change
from forgetlab.labs.views.scatter import ALL, LAYERS, ORDERS, SHARES, TOPS, View, described, told
from forgetlab.metrics import layer_of
from forgetlab.metrics.retention import scale
from forgetlab.plots.style import UNITS, number
from forgetlab.teaching import compat
from forgetlab.training.record import main_score

__all__ = ["body", "show"]

EXAMPLES = 100  # of each Fisher
DOTS = 3000
LIMIT = 128

QUESTS = (
    Quest(
        "Put 5 % back and regain 60 % of what was lost.",
        "Not every old task hangs on few weights.",
        lambda runs: regained(runs[-1], "5 %") >= 0.6,
        ({"old": "masked-lm"},),
    ),
    Quest(
        "Learn sentiment to 0.8 and lose no more than 0.05 of the entities.",
        "Before you put back: learn slower.",
        lambda runs: (
            runs[-1].get("old") == "entities"
            and "after" in runs[-1]
            and runs[-1]["after"][1] >= 0.8
            and runs[-1]["before"][0] - runs[-1]["after"][0] <= 0.05
        ),
        ({"lr": 10**-3.5},),
    ),
)


def show(driver: Driver | None = None) -> Lab:
    """The lab as a widget: old task, steps, learning rate, seed; view: layer, threshold, share of weights put back."""
    benches, view = Benches(), cache(View)

    def draw(state: State, old: Sequence[State], settings: Settings, source: str) -> tuple[Any, str]:
        return view().draw(state, old, settings, source), described(state, settings)

    return Lab(
        "scatter",
        lambda settings: work(benches, settings),
        draw,
        training={
            "old": compat.choice("old task", "entities", ("entities", "masked-lm")),
            "steps": compat.slider("steps", 100, 20, 200, 20),
            "lr": compat.log_slider("learning rate η", 1e-3, 1e-5, 1e-1),
            "seed": compat.slider("seed", 0, 0, 9, 1),
        },
        view={
            "layer": compat.choice("layer", ALL, (ALL, *LAYERS)),
            "top": compat.stops("critical: the top", "10 %", list(TOPS), live=True),
            "k": compat.stops("put back", "5 %", list(SHARES), live=True),
        },
        words=lambda state, settings: told(state, settings["k"]),
        head=head,
        presets={"gentle": {"lr": 10**-3.5}, "usual": {"lr": 1e-3}, "violent": {"lr": 1e-2}},
        intro="A tiny BERT learns sentiment. Which of its weights mattered to the old task, which matter to the new "
        "one, how far did each group move, and does giving some their old values back undo the forgetting?",
        driver=driver,
        quests=QUESTS,
    )


def work(benches: Benches, settings: Settings) -> Iterator[State]:
    """States that grow: the old task's score, then the dots and tables, then the curve of weights put back."""
    recipe = Recipe(
        new="sentiment",
        watch=(settings["old"],),
        steps=settings["steps"],
        lr=settings["lr"],
        seed=settings["seed"],
        every=20,
        limit=LIMIT,
    )
    bench, seed = benches.bench(recipe), settings["seed"]
    model, (old_task,) = bench.model, bench.watch
    model.restore()
    state: State = {"old": old_task.name, "metric": old_task.metric, "scale": old_task.scale}
    yield state | {"progress": f"Fisher of {old_task.name} …"}
    old = body(fisher_diagonal(model, old_task, examples=EXAMPLES, draws=1, seed=seed))
    before = body(model.snapshot())
    for record in bench.run(recipe):
        pair = [finite(main_score(record.scores, task)) for task in (old_task, bench.new)]
        state["before"] = state.get("before", pair)
        yield state | {"progress": f"step {record.step} of {recipe.steps}, on {model.device.type}"}
    if record.status == "diverged":
        state["diverged"] = record.message
        yield state | {"message": told(state, "5 %")}
        return
    state["after"] = pair
    after = model.snapshot()
    new = body(fisher_diagonal(model, bench.new, examples=EXAMPLES, seed=seed))
    state |= measured(old, new, {name: after[name] - before[name] for name in old}, seed)
    yield state | {"progress": "putting weights back …"}

    draw = torch.Generator().manual_seed(seed)
    chance = {name: torch.rand(value.shape, generator=draw) for name, value in old.items()}
    state["put back"], state["new put back"] = {order: [] for order in ORDERS}, []
    for label, share in SHARES.items():
        for order, curve in state["put back"].items():
            put_back(model, before, chance if order == "random" else old, share, least=order == "least important")
            curve.append(finite(old_task.score(model, LIMIT)[old_task.metric]))
            if order == "most important":
                state["new put back"].append(finite(bench.new.score(model, LIMIT)[bench.new.metric]))
            model.restore(after)
        yield state | {"progress": f"put back {label} …"}
    yield state | {"message": told(state, "5 %")}


def head(state: State, settings: Settings) -> list[Change]:
    """The old task before and after the fine-tune, and with the chosen share of its weights put back."""
    if "after" not in state or "diverged" in state:
        return []
    before, after = (number(state[when][0], scale(state)) for when in ("before", "after"))
    changes = [Change(f"{state['old']} {UNITS[state['metric']].partition(' (')[0]}", f"{before} → {after}")]
    curve, place = state.get("put back", {}).get(ORDERS[0], []), list(SHARES).index(settings["k"])
    if len(curve) > place and place:
        changes.append(Change(f"with {settings['k']} put back", number(curve[place], scale(state))))
    return changes


def regained(state: State, share: str) -> float:
    """How much of what the old task lost comes back with this share of its weights, the most important first."""
    curve, place = state.get("put back", {}).get(ORDERS[0], []), list(SHARES).index(share)
    if len(curve) <= place or curve[place] is None:
        return 0.0
    before, after = state["before"][0], state["after"][0]
    return (curve[place] - after) / (before - after) if before != after else 0.0


def body(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the embeddings and layers: no head."""
    return {name: value for name, value in weights.items() if layer_of(name) in LAYERS}


def measured(old: Mapping[str, Tensor], new: Mapping[str, Tensor], moved: Mapping[str, Tensor], seed: int) -> State:
    """{"dots": [old, new, number in LAYERS] of each, "tables": {top: table}, "put back from": {share: importance}}.

    Dots: DOTS of the weights, drawn by `seed`, as log₁₀ of their importance (None: 0). A table is of all weights: the
    "cuts", and for each layer and kind (in KINDS) the "count" and the sum "moved" of squared changes.
    """
    layers = torch.cat([torch.full((v.numel(),), LAYERS.index(layer_of(name))) for name, v in old.items()])
    tables = {}
    for label, top in TOPS.items():
        found = quadrants(old, new, top)
        squares = torch.cat([moved[name].flatten().cpu() for name in found.names]).double().square()
        cell, cells = layers * len(KINDS) + found.kind, len(LAYERS) * len(KINDS)
        sums = torch.bincount(cell, squares, minlength=cells).view(len(LAYERS), -1)
        tables[label] = {
            "cuts": [finite(cut) for cut in found.thresholds],
            "count": torch.bincount(cell, minlength=cells).view(len(LAYERS), -1).tolist(),
            "moved": [[finite(x) for x in row] for row in sums.tolist()],
        }
    chosen = torch.randperm(len(layers), generator=torch.Generator().manual_seed(seed))[:DOTS]
    logs = [[finite(x, 3) for x in values[chosen].log10().tolist()] for values in (found.old, found.new)]
    lowest = {label: float(found.old.quantile(1 - share)) for label, share in SHARES.items()}
    return {
        "dots": [*map(list, zip(*logs, layers[chosen].tolist(), strict=True))],
        "tables": tables,
        "put back from": {label: finite(value) for label, value in lowest.items()},
    }


def finite(value: float, decimals: int | None = None) -> float | None:
    """A number as it is kept: six digits, or some decimals; None for nan and inf."""
    if not math.isfinite(value):
        return None
    return float(f"{value:.6g}") if decimals is None else round(value, decimals)
