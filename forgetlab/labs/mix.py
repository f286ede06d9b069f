"""Mix in the past: some of each batch comes from a memory of old examples."""

from __future__ import annotations

from forgetlab.experiments.recipes import Recipe
from forgetlab.labs.kit import remedy
from forgetlab.labs.kit.base import Lab, Settings
from forgetlab.labs.kit.benches import RunState
from forgetlab.labs.kit.runner import Driver
from forgetlab.labs.kit.so_far import Point, SoFar, reached
from forgetlab.teaching import compat


def show(driver: Driver | None = None) -> Lab[RunState]:
    """The lab as a widget: share of old examples, memory size, how the memory is chosen, seed."""
    return remedy.lab(
        "mix",
        recipe,
        training={
            "ratio": compat.slider("replay ratio", 0.25, 0.0, 0.9, 0.05),
            "memory": compat.log_slider("memory (texts)", 100.0, 10.0, 1000.0, per_decade=2),
            "sampling": compat.choice("memory keeps", "reservoir", ["reservoir", "balanced"]),
            "seed": compat.slider("seed", 0, 0, 9, 1),
        },
        presets={
            "a handful": {"ratio": 0.25, "memory": 10.0},
            "half, from 100": {"ratio": 0.5, "memory": 100.0},
            "nearly all old": {"ratio": 0.9, "memory": 1000.0},
        },
        intro=(
            "A share of each batch (the ratio) is drawn from a memory of old texts, so many of each old task. "
            "The batch keeps its size: more of the past is less of the new."
        ),
        so_far=SoFar("all runs: memory", "memory (kB)", "share", lambda s, c: [point(s, c)], log=True),
        tell=cost,
        driver=driver,
    )


def recipe(settings: Settings) -> Recipe:
    """The run that the controls describe."""
    spec = f"replay:ratio={settings['ratio']:g},memory={round(settings['memory'])},sampling={settings['sampling']}"
    return remedy.recipe(spec, settings["seed"])


def point(state: RunState, settings: Settings) -> Point | None:
    """What a run reached, at the size of its memory; with ratio 0 there is no memory, and no point."""
    size = state["records"][0]["costs"]["bytes"] / 1000
    return (
        reached(size, f"{settings['ratio']:.0%}, {_pace(state):.0f} ms/step", state["tasks"], state["records"])
        if size
        else None
    )


def cost(state: RunState, settings: Settings) -> str:
    """Memory and time in words."""
    size = state["records"][0]["costs"]["bytes"] / 1000
    return f"The memory takes {size:.1f} kB, a step {_pace(state):.0f} ms where this was run."


def _pace(state: RunState) -> float:
    """Milliseconds a step, scoring left out."""
    last = state["records"][-1]
    return 1000 * last["train_seconds"] / max(1, last["step"])
