"""Alignment-style tuning: a GPT learns a new style while a KL term holds its predictions near those before."""

from __future__ import annotations

from forgetlab.experiments.recipes import Recipe
from forgetlab.labs.kit import remedy
from forgetlab.labs.kit.base import Lab, Settings
from forgetlab.labs.kit.benches import RunState
from forgetlab.labs.kit.quests import Quest, last, times
from forgetlab.labs.kit.runner import Driver
from forgetlab.labs.kit.so_far import Point, SoFar, trade_off
from forgetlab.teaching import compat

QUESTS = (
    Quest(
        "The new style below 10 while the old language gets at most twice as hard.",
        "A little looser.",
        lambda runs: last(runs[-1], 0, "perplexity") < 10 and times(runs[-1], 1) <= 2,
        ({"beta": 10**-0.5},),
    ),
    Quest(
        "Hold so tight that the new style stays above 100.",
        "A hundred times tighter.",
        lambda runs: last(runs[-1], 0, "perplexity") > 100,
        ({"beta": 100.0},),
    ),
)


def show(driver: Driver | None = None) -> Lab[RunState]:
    """The lab as a widget: β, learning rate, seed."""
    return remedy.lab(
        "anchor",
        recipe,
        training={
            "beta": compat.log_slider("β", 1.0, 1e-2, 1e2, per_decade=2),
            "lr": compat.log_slider("learning rate", 1e-3, 1e-5, 1e-2),
            "seed": compat.slider("seed", 0, 0, 9, 1),
        },
        presets={"loose": {"beta": 0.1}, "balanced": {"beta": 1.0}, "tight": {"beta": 10.0}},
        intro=(
            "A tiny GPT is tuned on legal notices. L + β KL(now ‖ before): the term is measured on the new texts only. "
            "Does it also hold what is not in them?"
        ),
        so_far=SoFar(
            "all runs: old and new",
            "old skills kept (share)",
            "new: perplexity",
            points,
            share=False,
        ),
        driver=driver,
        quests=QUESTS,
    )


def recipe(settings: Settings) -> Recipe:
    """The run that the controls describe."""
    return remedy.recipe(
        f"kl-anchor:beta={settings['beta']:g}",
        settings["seed"],
        model="tiny-gpt",
        new="causal-lm:notices",
        watch=("causal-lm", "cloze"),
        lr=settings["lr"],
    )


def points(state: RunState, settings: Settings) -> list[Point | None]:
    """Where a run stands between old and new, and where the one without the anchor does."""
    return trade_off(state, f"β={settings['beta']:.3g}", "β=0")
