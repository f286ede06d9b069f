"""Along the run: do the old and the new gradient pull apart at the steps at which the old task is forgotten?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from forgetlab.experiments.recipes import Recipe
from forgetlab.interference import GradientCosine, Interference
from forgetlab.labs.kit.base import Lab, Settings
from forgetlab.labs.kit.benches import Benches, RunState, head, score_lines, score_panels
from forgetlab.labs.kit.curves import Curves, Lines, Panel
from forgetlab.labs.kit.figure import titled
from forgetlab.labs.kit.quests import Quest, achieved, last, times
from forgetlab.labs.kit.runner import Driver
from forgetlab.metrics.arrays import rounded
from forgetlab.metrics.retention import scale
from forgetlab.metrics.schema import PlainRecord, TaskFacts
from forgetlab.plots.style import COLORS, INK, number
from forgetlab.remedies.by_name import make_methods
from forgetlab.teaching import compat
from forgetlab.training.loop import finetune

OLD = ("masked-lm", "entities")
LAYERS = ("all", "embeddings", "layer 0", "layer 1", "layer 2")
STEPS, EVERY = 80, 4  # steps of a run, and from one measurement to the next


class Along(RunState):
    """A run with the cosines of the new gradient and each old task's, at these steps: {task: {layer: cosines}}."""

    steps: list[int]
    cosines: dict[str, dict[str, list[float | None]]]


def with_remedy(state: Mapping[str, Any]) -> bool:
    """Whether a run had one."""
    return bool(state["settings"]["remedy"] != "none")


QUESTS = (
    Quest(
        "With a remedy: learn sentiment to 0.8 and keep the entities above 0.95.",
        "One projects on all old tasks.",
        lambda runs: (
            runs[-1]["settings"]["remedy"] != "none" and achieved(runs[-1], 0.8) and last(runs[-1], 2, "f1") > 0.95
        ),
        ({"remedy": "agem"},),
    ),
    Quest(
        "Without one: learn to 0.65, perplexity at most 1.1 times as high.",
        "The rate is a remedy too.",
        lambda runs: (
            runs[-1]["settings"]["remedy"] == "none" and achieved(runs[-1], 0.65) and times(runs[-1], 1) <= 1.1
        ),
        ({"lr": 10**-3.5},),
    ),
)


def show(driver: Driver | None = None) -> Lab[Along]:
    """The lab as a widget: learning rate, remedy, seed; the layer whose cosine is drawn is a matter of view."""
    benches, view = Benches(), lru_cache(maxsize=1)(_curves)  # a figure for as long as the panels are the same

    def work(settings: Settings) -> Iterator[Along]:
        return _work(benches, settings)

    def draw(state: Along, old: Sequence[Along], settings: Settings, source: str) -> tuple[Figure, str]:
        curves = view((Panel("cosine", "", "cosine"), Panel("share", "", ""), *score_panels(state["tasks"])[1:]))
        layer = settings["layer"]
        lines, before = _lines(state, layer), [_lines(s, layer) for s in old]
        figure = curves.draw(lines, before, source)
        seen = [abs(y) for run in (lines, *before) for _, ys in run["cosine"].values() for y in ys if y is not None]
        cosine, top = curves.axes("cosine"), 1.1 * max([0.2, *seen])
        cosine.set_ylim(-top, top)
        titled(cosine, f"gradients, {'all layers' if layer == 'all' else layer}")
        _bars(curves.axes("share"), state, layer)
        return figure, _alt(state, layer)

    return Lab(
        "along",
        work,
        draw,
        training={
            "lr": compat.log_slider("learning rate", 1e-3, 1e-5, 1e-1),
            "remedy": compat.choice("remedy", "none", ("none", "pcgrad", "agem")),
            "seed": compat.slider("seed", 0, 0, 9, 1),
        },
        view={"layer": compat.choice("layer", "all", LAYERS)},
        words=lambda state, settings: _said(state, settings["layer"]),
        head=head,
        presets={"plain": {"remedy": "none"}, "PCGrad": {"remedy": "pcgrad"}, "A-GEM": {"remedy": "agem"}},
        intro="While sentiment is learned: the cosine between its gradient and those of two old tasks, every "
        f"{EVERY} steps. Below 0 (shaded) a step for the new task raises, to first order, the old one's loss.",
        driver=driver,
        quests=QUESTS,
    )


def _curves(panels: Sequence[Panel]) -> Curves:
    curves = Curves(panels)
    curves.axes("cosine").axhspan(-1, 0, color="#f3e3e0", zorder=0)
    curves.axes("cosine").axhline(0, color=INK, lw=1)
    return curves


def _work(benches: Benches, settings: Settings) -> Iterator[Along]:
    options: Any = {"lr": settings["lr"], "seed": settings["seed"], "steps": STEPS, "every": EVERY, "limit": 64}
    bench = benches.bench(Recipe(new="sentiment", watch=OLD))
    bench.model.restore()
    watch = bench.watch
    cosines = GradientCosine(watch, every=EVERY)
    methods = [cosines, *make_methods(settings["remedy"], watch)]
    tasks = [TaskFacts(name=t.name, metric=t.metric, floor=t.floor) for t in (bench.new, *watch)]
    records: list[PlainRecord] = []
    for record in finetune(bench.model, bench.new, methods=methods, watch=watch, **options):
        records.append({key: record.as_dict()[key] for key in ("step", "status", "message", "scores")})
        own = {task: [one for one in cosines.measurements if one.task == task] for task in OLD}
        state: Along = {
            "tasks": tasks,
            "records": list(records),
            "progress": f"step {record.step} of {STEPS}, on {bench.model.device.type}",
            "steps": [one.step for one in own[OLD[0]]],
            "cosines": {
                task: {layer: [_of_layer(one.cosine, layer) for one in found] for layer in LAYERS}
                for task, found in own.items()
            },
        }
        if record.status != "running":
            state["message"] = _said(state, "all")
        yield state


def _of_layer(cosine: Interference, layer: str) -> float | None:
    value = cosine.total if layer == "all" else cosine.per_layer[layer]
    return rounded(value, 4)


def conflicts(state: Along, task: str, layer: str) -> float | None:
    """Share of the measured steps whose cosine is below 0; None where none was measured."""
    below = [value < 0 for value in state["cosines"][task][layer] if value is not None]
    return sum(below) / len(below) if below else None


def rises(state: Along, task: str, layer: str = "all") -> tuple[list[float], list[float]]:
    """How much the old loss (nats) rose from a measurement to the next: after a conflict in the layer, after none."""
    losses = [record["scores"][task]["loss"] for record in state["records"]]
    after: tuple[list[float], list[float]] = ([], [])
    for cosine, before, later in zip(state["cosines"][task][layer], losses[:-1], losses[1:], strict=False):
        if cosine is not None and before is not None and later is not None:
            after[0 if cosine < 0 else 1].append(later - before)
    return after


def _said(state: Along, layer: str) -> str:
    if (last := state["records"][-1])["status"] == "diverged":
        return f"Diverged: {last['message']}."
    place, parts = "" if layer == "all" else f" in {layer}", []
    for task in OLD:
        said = [
            f"{np.mean(values):+.3f} nats after {words}".replace("-", "−")
            for values, words in zip(rises(state, task, layer), ("a conflict", "none"), strict=True)
            if values
        ]
        share = _percent(conflicts(state, task, layer))
        parts.append(f"{task}: conflict{place} at {share} of the steps; its loss changed by {' and '.join(said)}")
    return f"{'. '.join(parts)} (means over {EVERY} steps)."


def _alt(state: Along, layer: str) -> str:
    shares = [f"{_percent(conflicts(state, task, layer))} with {task}" for task in OLD]
    ends = []
    for task in state["tasks"][1:]:
        values = score_lines([task], state["records"])[task["name"]][task["name"]][1]
        ends.append(f"{task['name']} {number(values[0], scale(task))} → {number(values[-1], scale(task))}")
    return f"Steps in conflict ({layer}): {', '.join(shares)}. {', '.join(ends)}."


def _lines(state: Along, layer: str) -> Lines:
    scores = score_lines(state["tasks"][1:], state["records"])
    return {"cosine": {task: (state["steps"], state["cosines"][task][layer]) for task in OLD}, **scores}


def _bars(ax: Axes, state: Along, layer: str) -> None:
    ax.clear()
    for i, task in enumerate(OLD):
        shares = [100 * (conflicts(state, task, one) or 0) for one in LAYERS]
        place = np.arange(len(LAYERS)) + 0.38 * i - 0.19
        ax.barh(place, shares, 0.36, color=COLORS[i], hatch=("", "//")[i], edgecolor="white", zorder=3)
    titled(ax, "steps in conflict")
    ax.set_xlabel("share of measured steps (%)", fontsize=12, color=INK)
    ax.set(xlim=(0, 100), ylim=(len(LAYERS) - 0.5, -0.5))
    ax.set_yticks(range(len(LAYERS)), [f"▸ {one}" if one == layer else one for one in LAYERS])


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"
