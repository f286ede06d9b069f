"""Watch it forget: fine-tune a tiny BERT on sentiment and see what its other skills do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from matplotlib.figure import Figure

from forgetlab.experiments.recipes import Recipe
from forgetlab.labs.kit.base import Lab, Settings
from forgetlab.labs.kit.benches import Benches, RunState, head, score_lines, score_panels, told
from forgetlab.labs.kit.curves import Curves
from forgetlab.labs.kit.quests import Quest, achieved, last
from forgetlab.labs.kit.runner import Driver
from forgetlab.metrics.schema import PlainRecord
from forgetlab.teaching import compat

WATCH = ("masked-lm", "entities", "acceptability")

QUESTS = (
    Quest(
        "Learn sentiment to 0.8 and keep 80 % of the old.",
        "A slower rate forgets less; three times less is enough.",
        lambda runs: achieved(runs[-1], 0.8, 0.8),
        ({"lr": 10**-3.5},),
    ),
    Quest(
        "Forget without learning anything: perplexity above 1,000, accuracy below 0.6.",
        "Try the highest rates.",
        lambda runs: last(runs[-1], 1, "perplexity") > 1000 and not achieved(runs[-1], 0.6),
        ({"lr": 0.01},),
    ),
    Quest(
        "Learn nothing and keep everything (95 %).",
        "Slow and short.",
        lambda runs: achieved(runs[-1], 0, 0.95) and not achieved(runs[-1], 0.6),
        ({"lr": 1e-4},),
    ),
)


def show(driver: Driver | None = None) -> Lab[RunState]:
    """The lab as a widget: learning rate, steps, similarity of the new task's texts, seed."""
    benches, view = Benches(), lru_cache(maxsize=1)(Curves)  # a figure for as long as the panels are the same

    def work(settings: Settings) -> Iterator[RunState]:
        return benches.run(recipe(settings))

    def draw(state: RunState, old: Sequence[RunState], settings: Settings, source: str) -> tuple[Figure, str]:
        now, *before = [_renamed(one) for one in (state, *old)]
        lines, *faint = [score_lines(one["tasks"], one["records"], "score") for one in (now, *before)]
        return view(tuple(score_panels(now["tasks"]))).draw(lines, faint, source), told(state)

    return Lab(
        "watch",
        work,
        draw,
        training={
            "lr": compat.log_slider("learning rate", 1e-3, 1e-5, 1e-1),
            "steps": compat.slider("steps", 100, 20, 300, 20),
            "similarity": compat.slider("similarity", 1.0, 0.0, 1.0, 0.25),
            "seed": compat.slider("seed", 0, 0, 9, 1),
        },
        presets={"gentle": {"lr": 1e-4}, "usual": {"lr": 1e-3}, "violent": {"lr": 1e-2}},
        intro="A tiny BERT learns to tell good reviews from bad ones. What happens to what it knew?",
        head=head,
        driver=driver,
        quests=QUESTS,
    )


def recipe(settings: Settings) -> Recipe:
    """The run that the sliders describe."""
    return Recipe(
        new="sentiment",
        watch=WATCH,
        lr=settings["lr"],
        steps=settings["steps"],
        similarity=settings["similarity"],
        seed=settings["seed"],
        every=max(5, settings["steps"] // 10),
        limit=128,
    )


def _renamed(state: RunState) -> RunState:
    """At another point of the similarity dial the new task has another name (sentiment@0.5): one panel for all."""
    names = [task["name"].partition("@")[0] for task in state["tasks"]]
    back = dict(zip(names, (task["name"] for task in state["tasks"]), strict=True))
    records: list[PlainRecord] = [
        {**r, "scores": {short: r["scores"][full] for short, full in back.items()}} for r in state["records"]
    ]
    return {
        **state,
        "records": records,
        "tasks": [{**t, "name": n} for t, n in zip(state["tasks"], names, strict=True)],
    }
