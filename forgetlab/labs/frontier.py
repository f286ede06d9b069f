"""All remedies on one plot: what each keeps of the old and learns of the new, and a challenge on both axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.figure import Figure

from forgetlab.errors import ForgetlabError
from forgetlab.experiments import frontier, results
from forgetlab.experiments.recipes import Recipe
from forgetlab.labs.kit.base import Lab, Settings
from forgetlab.labs.kit.benches import Benches
from forgetlab.labs.kit.quests import Quest
from forgetlab.labs.kit.runner import Driver
from forgetlab.labs.kit.shown import Change
from forgetlab.labs.views.frontier import Frontier, OwnRun, Plot
from forgetlab.plots.narrow import BROAD
from forgetlab.plots.style import number
from forgetlab.remedies.by_name import METHODS, with_strength
from forgetlab.sources.shipped import carried
from forgetlab.teaching import compat
from forgetlab.teaching.page import Place

__all__ = ["dots", "show"]

NEW, OLD = "sentiment", ("masked-lm", "entities", "acceptability")
SLOW = ("multitask", "pcgrad", "agem")
OPENING: dict[str, Any] = {"remedy": "replay", "strength": 1.0, "lr": 1e-3, "steps": 200, "seed": 0}

QUESTS = (
    Quest(
        "Keep 90 % and learn 0.85.",
        "Hold each weight by what it does to the outputs (mas), ten times as hard.",
        lambda runs: (runs[-1]["run"]["kept"] or 0) >= 0.9 and (runs[-1]["run"]["new"] or 0) >= 0.85,
        ({"remedy": "mas", "strength": 10.0},),
    ),
    Quest(
        "Keep everything (99 %) and learn more than 0.6.",
        "Add weights of the new task's own.",
        lambda runs: (runs[-1]["run"]["kept"] or 0) >= 0.99 and (runs[-1]["run"]["new"] or 0) > 0.6,
        ({"remedy": "columns"},),
    ),
)


def show(driver: Driver | None = None) -> Lab[Frontier]:
    """The lab as a widget: remedy, strength, learning rate, steps, seed; view: the budget and the target."""
    benches, league, plots = Benches(), dict[str, OwnRun](), dict[str, Plot]()

    def work(settings: Settings) -> Iterator[Frontier]:
        return _work(benches, settings)

    def draw(state: Frontier, old: Sequence[Frontier], settings: Settings, source: str) -> tuple[Figure, str]:
        if not old:  # the lab was just opened, or reset
            league.clear()
        if state["run"] and "message" in state:  # one under way, or stopped by hand, is no match for finished ones
            key = str(state.get("settings"))
            league.pop(key, None)
            league[key] = state["run"]  # the newest comes last
        if "plot" not in plots or plots["plot"].dots != state["dots"]:
            plots["plot"] = Plot(state["dots"])
        corner = settings["budget"] / 100, settings["target"] / 100
        return plots["plot"].draw(list(league.values()), *corner, source, a_line(settings["place"]))

    return Lab(
        "frontier",
        work,
        draw,
        training={
            "remedy": compat.choice("remedy", OPENING["remedy"], [name for name in METHODS if name not in SLOW]),
            "strength": compat.log_slider("strength (× usual)", OPENING["strength"], 0.01, 100),
            "lr": compat.log_slider("learning rate", OPENING["lr"], 1e-4, 1e-1),
            "steps": compat.slider("steps", OPENING["steps"], 20, 200, 20),
            "seed": compat.slider("seed", OPENING["seed"], 0, 9, 1),
        },
        view={
            "budget": compat.slider("may forget (%)", 10, 0, 60, 1, live=True),
            "target": compat.slider("must learn (%)", 95, 50, 100, 1, live=True),
        },
        head=head,
        presets={
            "EWC": {"remedy": "ewc", "strength": 1.0, "lr": 1e-3},
            "distillation": {"remedy": "lwf", "strength": 1.0, "lr": 1e-3},
            "adapters": {"remedy": "adapters", "strength": 1.0, "lr": 3e-3},
        },
        intro="Challenge: land in the shaded corner. Each dot is a remedy after 200 steps, at the best of its "
        "strengths (small: the others). Choose a remedy, turn its strength, press Train: your run is a star. PCGrad, "
        "multi-task and A-GEM are among the dots only: they take three to five times as long.",
        driver=driver,
        quests=QUESTS,
    )


def a_line(place: Place) -> int:
    """How many of the front stand in a line below the picture; 0: one, in full."""
    return 0 if not place.room else 1 if place.room[0] >= BROAD else 2


def dots() -> list[frontier.Dot]:
    """What the benchmark measured: its own file, else what the lab's opening result holds."""
    try:
        return frontier.read_benchmark(carried("benchmarks/results") / "remedies.json")
    except ForgetlabError:
        return (results.get("lab-frontier", OPENING) or {}).get("dots", [])


def head(state: Frontier, settings: Settings) -> list[Change]:
    """What the run keeps and learns, beside what was asked for."""
    run = state["run"]
    if not run or run["kept"] is None or run["new"] is None:
        return []
    wanted = f"wanted: {100 - settings['budget']} %", f"wanted: {settings['target'] / 100:.2f}"
    kept = f"{100 * run['kept']:.0f} %"
    new = number(run["new"], "share")
    return [Change("kept of the old", kept, wanted[0]), Change(f"{NEW} accuracy", new, wanted[1])]


def _work(benches: Benches, settings: Settings) -> Iterator[Frontier]:
    spec = with_strength(settings["remedy"], settings["strength"])
    common: Any = {name: settings[name] for name in ("lr", "steps", "seed")}
    measured = dots()
    recipe = Recipe(new=NEW, watch=OLD, methods=spec, every=max(1, common["steps"] // 5), limit=128, **common)
    for now in benches.run(recipe):
        last = now["records"][-1]
        run = OwnRun(spec=spec, step=last["step"], lr=recipe.lr, seed=recipe.seed, kept=None, new=None)
        if (end := frontier.shares(now["records"], now["tasks"])) is not None:
            run |= {"kept": round(end[0], 4), "new": round(last["scores"][NEW]["accuracy"], 4)}
        state: Frontier = {"dots": measured, "run": run, "progress": f"{spec}: {now['progress']}"}
        if "message" in now:
            state["message"] = f"{spec}: {now['message']}"
            if run["kept"] is not None:
                state["message"] += f" It keeps {run['kept']:.0%} of the old scores."
        yield state
