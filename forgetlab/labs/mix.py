"""Mix in the past: some of each batch comes from a memory of old examples."""

from __future__ import annotations

from forgetlab.experiments.recipes import Recipe
from forgetlab.labs.kit import remedy
from forgetlab.labs.kit.base import Lab, Settings
from forgetlab.labs.kit.benches import RunState
from forgetlab.labs.kit.quests import Quest, achieved
from forgetlab.labs.kit.runner import Driver
from forgetlab.labs.kit.so_far import Point, SoFar, reached
from forgetlab.teaching import compat

MEMORY, ALL = "a memory", "all old texts"

QUESTS = (
    Quest(
        "With a memory of ten texts: learn 0.8 and keep 80 %.",
        "How much of a batch must be old?",
        lambda runs: (
            runs[-1]["settings"]["past"] == MEMORY
            and runs[-1]["settings"]["memory"] < 11
            and achieved(runs[-1], 0.8, 0.8)
        ),
        ({"memory": 10.0},),
    ),
    Quest(
        "Learn 0.9 and keep 95 %.",
        "With all the old texts at hand, weighed lightly.",
        lambda runs: achieved(runs[-1], 0.9, 0.95),
        ({"past": ALL, "weight": 0.1},),
    ),
    Quest(
        "So much past that nothing new is learned (below 0.55).",
        "A batch is not larger than before.",
        lambda runs: not achieved(runs[-1], 0.55),
        ({"ratio": 0.9, "memory": 1000.0},),
    ),
)


def show(driver: Driver | None = None) -> Lab[RunState]:
    """The lab as a widget: from where, share of old examples, memory size, how it is chosen, task weight, seed."""
    return remedy.lab(
        "mix",
        recipe,
        training={
            "past": compat.choice("the past is", MEMORY, [MEMORY, ALL]),
            "ratio": compat.slider("replay ratio", 0.25, 0.0, 0.9, 0.05),
            "memory": compat.log_slider("memory (texts)", 100.0, 10.0, 1000.0, per_decade=2),
            "sampling": compat.choice("memory keeps", "reservoir", ["reservoir", "balanced"]),
            "weight": compat.log_slider("task weight w", 1.0, 0.01, 10.0, per_decade=2),
            "seed": compat.slider("seed", 0, 0, 9, 1),
        },
        presets={
            "a handful": {"past": MEMORY, "ratio": 0.25, "memory": 10.0},
            "half, from 100": {"past": MEMORY, "ratio": 0.5, "memory": 100.0},
            "nearly all old": {"past": MEMORY, "ratio": 0.9, "memory": 1000.0},
            "multi-task, w = 0.1": {"past": ALL, "weight": 0.1},
        },
        intro=(
            "A share of each batch (the ratio) is drawn from a memory of old texts, so many of each old task. "
            "The batch keeps its size: more of the past is less of the new. With all old texts (multi-task training) "
            "each step adds a batch of every old task, and its loss counts w times: L = L_new + w Σ L_old."
        ),
        so_far=SoFar("all runs: memory", "memory (kB)", "share", lambda s, c: [point(s, c)], log=True),
        tell=cost,
        driver=driver,
        quests=QUESTS,
    )


def recipe(settings: Settings) -> Recipe:
    """The run that the controls describe."""
    if settings["past"] == ALL:
        return remedy.recipe(f"multitask:weight={settings['weight']:g}", settings["seed"])
    spec = f"replay:ratio={settings['ratio']:g},memory={round(settings['memory'])},sampling={settings['sampling']}"
    return remedy.recipe(spec, settings["seed"])


def point(state: RunState, settings: Settings) -> Point | None:
    """What a run reached, at the size of its memory; with ratio 0 or all old texts there is none, and no point."""
    size = state["records"][0]["costs"]["bytes"] / 1000
    return (
        reached(size, f"{settings['ratio']:.0%}, {_pace(state):.0f} ms/step", state["tasks"], state["records"])
        if size
        else None
    )


def cost(state: RunState, settings: Settings) -> str:
    """Memory and time in words."""
    if settings["past"] == ALL:
        return f"All old texts are at hand; a step takes {_pace(state):.0f} ms where this was run."
    size = state["records"][0]["costs"]["bytes"] / 1000
    return f"The memory takes {size:.1f} kB, a step {_pace(state):.0f} ms where this was run."


def _pace(state: RunState) -> float:
    """Milliseconds a step, scoring left out."""
    last = state["records"][-1]
    return 1000 * last["train_seconds"] / max(1, last["step"])
