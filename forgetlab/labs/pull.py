"""Pull back: hold the weights, or the outputs, near what they were, at any strength λ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forgetlab.experiments.recipes import Recipe
from forgetlab.labs.kit import remedy
from forgetlab.labs.kit.base import Lab, Settings
from forgetlab.labs.kit.benches import RunState
from forgetlab.labs.kit.quests import Quest, achieved
from forgetlab.labs.kit.runner import Driver
from forgetlab.labs.kit.so_far import Point, SoFar, trade_off
from forgetlab.labs.kit.so_far import ends as so_far_ends
from forgetlab.teaching import compat

_FISHER = "lam={lam:g},estimator={estimator},examples={samples}"
METHODS = {
    "L2-SP": "l2sp:lam={lam:g}",
    "EWC": f"ewc:{_FISHER}",
    "EWC proximal": f"ewc:{_FISHER},proximal=1",
    "online EWC": f"online-ewc:{_FISHER}",
    "SI": "si:lam={lam:g}",
    "MAS": "mas:lam={lam:g},examples={samples}",
    "LwF": "lwf:lam={lam:g}",
}

QUESTS = (
    Quest(
        "Find a pull that keeps 95 % and still learns 0.9.",
        "Hold the outputs, not the weights: LwF, λ below 1.",
        lambda runs: achieved(runs[-1], 0.9, 0.95),
        ({"method": "LwF", "lam": 10**-0.5},),
    ),
    Quest(
        "Make EWC do worse than L2-SP: a run of each, EWC learning less and keeping less.",
        "EWC’s λ is too weak.",
        lambda runs: worse(runs, "EWC", "L2-SP"),
        ({"method": "L2-SP", "lam": 10**-2.5}, {"method": "EWC", "lam": 1.0}),
    ),
    Quest(
        "Pull so hard that EWC learns nothing (below 0.6).",
        "Two powers of ten more.",
        lambda runs: runs[-1]["settings"]["method"] == "EWC" and not achieved(runs[-1], 0.6),
        ({"lam": 1e4},),
    ),
)


def show(driver: Driver | None = None) -> Lab[RunState]:
    """The lab as a widget: λ, method, Fisher estimator, samples, seed."""
    return remedy.lab(
        "pull",
        recipe,
        training={
            "lam": compat.log_slider("λ", 100.0, 1e-4, 1e6, per_decade=2),
            "method": compat.choice("method", "EWC", list(METHODS)),
            "estimator": compat.choice(
                "Fisher estimator", "auto", ["auto", "exact", "sample", "empirical", "gnb", "batched"]
            ),
            "samples": compat.slider("samples", 100, 20, 400, 20),
            "seed": compat.slider("seed", 0, 0, 9, 1),
        },
        presets={
            "L2-SP": {"method": "L2-SP", "lam": 0.01},
            "EWC": {"method": "EWC", "lam": 100.0, "estimator": "auto"},
            "EWC, batched shortcut": {"method": "EWC", "lam": 100.0, "estimator": "batched"},
            "LwF": {"method": "LwF", "lam": 1.0},
        },
        intro=(
            "A pull on the weights (or, with LwF, on the outputs) keeps what the model knew. Too weak, it forgets; "
            "too strong, it learns nothing. Samples count for EWC and MAS, the Fisher estimator for EWC."
        ),
        so_far=SoFar("all runs: old and new", "old skills kept (share)", "new: accuracy", points),
        driver=driver,
        quests=QUESTS,
    )


def recipe(settings: Settings) -> Recipe:
    """The run that the controls describe."""
    return remedy.recipe(METHODS[settings["method"]].format(**settings), settings["seed"])


def worse(runs: Sequence[Mapping[str, Any]], one: str, other: str) -> bool:
    """Whether some run of one method learned no more and kept less than some run of the other."""
    ends = [(run["settings"]["method"], so_far_ends(run["tasks"], run["records"])) for run in runs]
    return any(a == one and b == other and x and y and x[0] < y[0] and x[1] <= y[1] for a, x in ends for b, y in ends)


def points(state: RunState, settings: Settings) -> list[Point | None]:
    """Where a run stands between old and new, and where the one without a pull does."""
    strength = f"{settings['lam']:.3g}".replace("e+0", "e")  # 1e6 rather than 1e+06
    return trade_off(state, f"{settings['method']} λ={strength}", "λ=0")
