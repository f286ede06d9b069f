"""A gentler path: how fast each layer learns, and when."""

from __future__ import annotations

from forgetlab.experiments.recipes import Recipe
from forgetlab.labs.kit import remedy
from forgetlab.labs.kit.base import Lab, Settings
from forgetlab.labs.kit.benches import RunState
from forgetlab.labs.kit.curves import Lines, Panel
from forgetlab.labs.kit.quests import Quest, achieved
from forgetlab.labs.kit.runner import Driver
from forgetlab.teaching import compat

SCHEDULES = {
    "none": "",
    "warm-up": "+warmup:share={share:g}",
    "warm-up and cosine": "+warmup:share={share:g}+cosine",
    "slanted triangular": "+slanted-triangular:cut={share:g}",
}

QUESTS = (
    Quest(
        "Learn 0.75 and keep 90 %.",
        "Let the rate fall as smoothly as it rose.",
        lambda runs: achieved(runs[-1], 0.75, 0.9),
        ({"schedule": "warm-up and cosine"},),
    ),
    Quest(
        "Learn more than 0.92, whatever it costs.",
        "All layers alike.",
        lambda runs: achieved(runs[-1], 0.92),
        ({"factor": 1.0, "schedule": "warm-up and cosine"},),
    ),
    Quest(
        "So gentle that nothing is learned (below 0.55).",
        "Low layers stand still where the factor is high.",
        lambda runs: not achieved(runs[-1], 0.55),
        ({"factor": 2.6},),
    ),
)


def show(driver: Driver | None = None) -> Lab[RunState]:
    """The lab as a widget: factor between layers, schedule, its warm-up share, steps between unfreezings, seed."""
    return remedy.lab(
        "path",
        recipe,
        training={
            "factor": compat.slider("factor per layer", 1.5, 1.0, 5.0, 0.1),
            "schedule": compat.choice("schedule", "slanted triangular", list(SCHEDULES)),
            "share": compat.slider("warm-up share", 0.2, 0.05, 0.5, 0.05),
            "unfreeze": compat.slider("unfreeze every", 0, 0, 50, 5),
            "seed": compat.slider("seed", 0, 0, 9, 1),
        },
        presets={
            "usual": {"factor": 1.0, "schedule": "none", "unfreeze": 0},
            "rates by layer": {"factor": 1.5, "schedule": "none", "unfreeze": 0},
            "ULMFiT": {"factor": 2.6, "schedule": "slanted triangular", "share": 0.1, "unfreeze": 20},
        },
        intro=(
            "Each layer learns “factor” times slower than the one above it. The warm-up share is that of the schedule. "
            "Unfreeze every n steps: one layer more, from the top (0: all from the start). Rate of the heads: 0.002."
        ),
        panels=[Panel("rates", "learning rate (gap: frozen)", "learning rate", log=True)],
        lines=rates,
        driver=driver,
        quests=QUESTS,
    )


def recipe(settings: Settings) -> Recipe:
    """The run that the controls describe."""
    spec = f"layerwise-rates:factor={settings['factor']:g}" + SCHEDULES[settings["schedule"]].format(**settings)
    if settings["unfreeze"]:
        spec += f"+gradual-unfreezing:every={settings['unfreeze']}"
    return remedy.recipe(spec, settings["seed"], lr=2e-3, steps=120, every=6)


def rates(state: RunState, settings: Settings) -> Lines:
    """The rate of each layer's last step before each record; none where the layer has not moved yet."""
    after = state["records"][1:]
    if not after:
        return {}
    count = len(after[0]["lr"]) - 2  # the groups of LayerwiseRates: heads, the layers from the top, embeddings
    names = ["heads", *(f"layer {i}" for i in reversed(range(count))), "embeddings"]
    steps = [record["step"] for record in after]
    return {
        "rates": {
            name: (steps, [r["lr"][i] if r["drift_per_layer"].get(name, 1) else None for r in after])
            for i, name in enumerate(names)
        }
    }
