"""Freeze and add: the model stays as it is, and only new weights learn."""

from __future__ import annotations

from forgetlab.experiments.recipes import Recipe
from forgetlab.labs.kit import remedy
from forgetlab.labs.kit.base import Lab, Settings
from forgetlab.labs.kit.benches import RunState
from forgetlab.labs.kit.quests import Quest, achieved
from forgetlab.labs.kit.runner import Driver
from forgetlab.labs.kit.so_far import Point, SoFar, reached
from forgetlab.teaching import compat

SHARED = {"the new task": 0, "all tasks": 1}
KINDS = {
    "frozen": "frozen",
    "adapters": "adapters:width={width},shared={shared}",
    "LoRA": "lora:r={width},shared={shared}",
    "columns": "columns:width={width}",
}

QUESTS = (
    Quest(
        "Learn 0.75 with LoRA and lose nothing.",
        "A rank of a hundred, for the new task alone.",
        lambda runs: runs[-1]["settings"]["kind"] == "LoRA" and achieved(runs[-1], 0.75, 0.999),
        ({"kind": "LoRA", "width": 128},),
    ),
    Quest(
        "Freeze every old weight and forget more than a third all the same.",
        "Who else uses what is added?",
        lambda runs: not achieved(runs[-1], 0, 2 / 3),
        ({"used": "all tasks"},),
    ),
    Quest(
        "Train fewer than 1,000 weights.",
        "What is the least that can be trained?",
        lambda runs: runs[-1]["records"][0]["costs"]["trained_parameters"] < 1000,
        ({"kind": "frozen"},),
    ),
)


def show(driver: Driver | None = None) -> Lab[RunState]:
    """The lab as a widget: kind of addition, its width or rank, learning rate, which tasks use it, seed."""
    return remedy.lab(
        "freeze",
        recipe,
        training={
            "kind": compat.choice("kind", "adapters", list(KINDS)),
            "width": compat.slider("width or rank", 64, 1, 128, 1),
            "lr": compat.log_slider("learning rate", 2e-3, 2e-4, 2e-2),
            "used": compat.choice("used by", "the new task", list(SHARED)),
            "seed": compat.slider("seed", 0, 0, 9, 1),
        },
        presets={
            "head only": {"kind": "frozen", "used": "the new task"},
            "adapters": {"kind": "adapters", "width": 64, "used": "the new task"},
            "LoRA for all tasks": {"kind": "LoRA", "width": 16, "used": "all tasks"},
            "columns": {"kind": "columns", "width": 64, "used": "the new task"},
        },
        intro=(
            "Every old weight is frozen. “Frozen” trains the new head only; the others add weights. Used by the new "
            "task alone, they cannot touch the old ones; adapters and LoRA can also be put in the way of all tasks."
        ),
        so_far=SoFar("all runs: weights", "weights trained", "share", points, log=True),
        tell=cost,
        driver=driver,
        quests=QUESTS,
    )


def recipe(settings: Settings) -> Recipe:
    """The run that the controls describe."""
    spec = KINDS[settings["kind"]].format(width=settings["width"], shared=SHARED[settings["used"]])
    return remedy.recipe(spec, settings["seed"], lr=settings["lr"], steps=250, every=25)


def points(state: RunState, settings: Settings) -> list[Point | None]:
    """What a run reached with the weights it trained, and what training all of them does."""
    size = "" if settings["kind"] == "frozen" else f" {settings['width']}"
    pairs = ((state["records"], settings["kind"] + size), (state["plain"], "all weights"))
    return [
        reached(records[0]["costs"]["trained_parameters"], label, state["tasks"], records)
        for records, label in pairs
        if records
    ]


def cost(state: RunState, settings: Settings) -> str:
    """Weights trained and added, in words."""
    costs = state["records"][0]["costs"]
    trained, added = costs["trained_parameters"], costs["added_parameters"]
    return f"Trained: {trained:,.0f} weights, {added:,.0f} of them added, the rest the new head."
