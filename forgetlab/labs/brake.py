"""Safety brake: stop when an old score has fallen too far, and put the weights from before the fall back."""

from __future__ import annotations

from forgetlab.experiments.recipes import Recipe
from forgetlab.labs.kit import remedy
from forgetlab.labs.kit.base import Lab, Settings
from forgetlab.labs.kit.benches import RunState, score_lines
from forgetlab.labs.kit.curves import Lines, Points
from forgetlab.labs.kit.quests import Quest, achieved
from forgetlab.labs.kit.runner import Driver
from forgetlab.teaching import compat

LIMIT, BACK = "allowed", "weights put back"

QUESTS = (
    Quest(
        "Learn 0.8 and keep 90 %.",
        "The brake waits for a fall: fall slower.",
        lambda runs: achieved(runs[-1], 0.8, 0.9),
        ({"lr": 10**-3.5},),
    ),
    Quest(
        "A run that the brake lets go to its end.",
        "Slower still.",
        lambda runs: runs[-1]["records"][-1]["status"] == "done",
        ({"lr": 1e-4},),
    ),
    Quest(
        "A limit so loose that more than 15 % is lost though the brake stops the run.",
        "Allow three quarters.",
        lambda runs: runs[-1]["records"][-1]["status"] == "stopped" and not achieved(runs[-1], 0, 0.85),
        ({"drop": 0.75},),
    ),
)


def show(driver: Driver | None = None) -> Lab[RunState]:
    """The lab as a widget: allowed drop, patience, learning rate, seed."""
    return remedy.lab(
        "brake",
        recipe,
        training={
            "drop": compat.slider("allowed drop", 0.25, 0.0, 0.9, 0.05),
            "patience": compat.slider("patience", 1, 1, 5, 1),
            "lr": compat.log_slider("learning rate", 1e-3, 1e-5, 1e-1),
            "seed": compat.slider("seed", 0, 0, 9, 1),
        },
        presets={
            "strict": {"drop": 0.05, "patience": 1},
            "patient": {"drop": 0.25, "patience": 3},
            "slow and strict": {"drop": 0.05, "patience": 1, "lr": 1e-4},
        },
        intro=(
            "The brake looks at the old scores every 5 steps. Once one has lost more than the allowed share of itself, "
            "for “patience” looks in a row, the run ends and the last good weights come back."
        ),
        lines=marks,
        driver=driver,
        quests=QUESTS,
    )


def recipe(settings: Settings) -> Recipe:
    """The run that the controls describe."""
    spec = f"safety-brake:drop={settings['drop']:g},patience={settings['patience']}"
    return remedy.recipe(spec, settings["seed"], lr=settings["lr"], every=5)


def marks(state: RunState, settings: Settings) -> Lines:
    """What each old score may fall to; and the scores of the weights that were put back, from the stop on."""
    found: dict[str, dict[str, Points]] = {}
    kept = 1 - settings["drop"]
    for i, task in enumerate(state["tasks"]):
        steps, values = score_lines([task], state["records"], remedy.THIS)[task["name"]][remedy.THIS]
        ends = [record["step"] for record in state["records"] + state["plain"]]
        own = found.setdefault(task["name"], {})
        if i and values[0] is not None:
            level = values[0] * kept if task["higher_is_better"] else values[0] / kept
            own[LIMIT] = ([0, max(ends)], [level, level])
        if state["records"][-1]["status"] == "stopped":
            own[BACK] = ([steps[-1], max(ends)], [values[-1], values[-1]])
    return found
