"""Dreams: the model's past self writes texts before the fine-tune, and those are replayed in place of old data."""

from __future__ import annotations

from textwrap import shorten
from typing import TypedDict

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from forgetlab.experiments.recipes import Recipe
from forgetlab.labs.kit import remedy
from forgetlab.labs.kit.base import Lab, Settings
from forgetlab.labs.kit.benches import RunState
from forgetlab.labs.kit.curves import Panel
from forgetlab.labs.kit.quests import Quest, achieved
from forgetlab.labs.kit.runner import Driver
from forgetlab.labs.kit.so_far import Point, SoFar, reached
from forgetlab.models.loading import load
from forgetlab.plots.narrow import height_share
from forgetlab.plots.style import COLORS, INK
from forgetlab.remedies.replay.generative import AT_ONCE
from forgetlab.sources.world import fluency
from forgetlab.tasks.writing import write
from forgetlab.teaching import compat

SHOWN = 5
WIDEST, LETTER = 62, 0.1  # characters that fit across, each of so many inches at most
LINE, ABOVE = 0.2, 0.35  # inches of a line, and of the title above


class Dreamt(TypedDict):
    """The first texts with whether each is in the language; the share of fluent ones, how many differ, of how many."""

    dreams: list[tuple[str, bool]]
    fluency: float
    different: int
    looked_at: int


class Dreams(RunState, Dreamt):
    """A run that replays them."""


QUESTS = (
    Quest(
        "Learn 0.9 and keep 90 %.",
        "A writer that leaves out its least likely words.",
        lambda runs: achieved(runs[-1], 0.9, 0.9),
        ({"top_p": 0.9},),
    ),
    Quest(
        "Bad dreams that help all the same: less than half fluent, 80 % kept.",
        "How hot may a fever be?",
        lambda runs: runs[-1]["fluency"] < 0.5 and achieved(runs[-1], 0, 0.8),
        ({"temperature": 2.0},),
    ),
    Quest(
        "Dream the same again and again: fewer than half of the texts differ.",
        "Cold, and only the likeliest words.",
        lambda runs: runs[-1]["different"] < 0.5 * runs[-1]["looked_at"],
        ({"temperature": 0.1, "top_p": 0.5},),
    ),
)


def show(driver: Driver | None = None) -> Lab[RunState]:
    """The lab as a widget: share of dreams, temperature and top-p of the writer, number of texts, seed."""
    return remedy.lab(
        "dreams",
        recipe,
        training={
            "ratio": compat.slider("replay ratio", 0.25, 0.0, 0.9, 0.05),
            "temperature": compat.slider("temperature", 1.0, 0.1, 4.0, 0.1),
            "top_p": compat.slider("top-p", 1.0, 0.05, 1.0, 0.05),
            "size": compat.slider("dreamed texts", 200, 20, 400, 20),
            "seed": compat.slider("seed", 0, 0, 9, 1),
        },
        presets={
            "as it learned": {"temperature": 1.0, "top_p": 1.0},
            "feverish": {"temperature": 3.0, "top_p": 1.0},
            "always the same": {"temperature": 0.1, "top_p": 0.5},
        },
        intro=(
            "A small GPT of the same language writes what the past may have looked like, and the old BERT labels it. "
            "No old text is kept. What if the dreams are bad?"
        ),
        before=dream,
        top=(Panel("dreams", "dreamed texts", ""), paint),
        so_far=SoFar("all runs: the dreams", "fluency of the dreams (share)", "share", lambda s, c: [point(s, c)]),
        tell=lambda state, settings: told(state),
        driver=driver,
        quests=QUESTS,
    )


def recipe(settings: Settings) -> Recipe:
    """The run that the controls describe."""
    names = ("ratio", "size", "temperature", "top_p")
    return remedy.recipe("generative:" + ",".join(f"{name}={settings[name]:g}" for name in names), settings["seed"])


def dream(settings: Settings) -> Dreamt:
    """The first texts of those that the run replays: same writer, same seed."""
    how = {"temperature": settings["temperature"], "top_p": settings["top_p"]}
    texts = write(load("tiny-gpt", device="cpu"), min(AT_ONCE, settings["size"]), seed=settings["seed"], **how)
    first = [(text, fluency([text]) == 1) for text in texts[:SHOWN]]
    return {"dreams": first, "fluency": fluency(texts), "different": len(set(texts)), "looked_at": len(texts)}


def paint(ax: Axes, state: Dreamt) -> None:
    """A few dreams, each marked as in the language or not."""
    for artist in list(ax.texts):
        artist.remove()
    ax.set_axis_off()
    ax.set(xlim=(0, 1), ylim=(0, 1))
    figure, spec = ax.get_figure(), ax.get_subplotspec()
    assert isinstance(figure, Figure)
    assert spec is not None
    across, up = figure.get_size_inches() * (len(spec.colspan) / spec.get_gridspec().ncols, height_share(spec))
    wide, lines = min(WIDEST, int(across / LETTER)), min(SHOWN, max(2, int((up - ABOVE) / LINE)))
    for i, (text, good) in enumerate(state["dreams"][:lines]):
        y = 0.95 - i / lines
        mark = ax.text(0, y, "✓" if good else "✗", color=COLORS[1] if good else COLORS[0], fontsize=13, va="top")
        words = shorten(text, wide, placeholder=" …") or "(nothing)"
        for artist in (mark, ax.text(0.035, y, words, fontsize=11, color=INK, va="top")):
            artist.set_in_layout(False)  # a long text would make all panels narrower
    ax.set_title(f"dreams: {told(state)}", loc="left", fontsize=11, color=INK)


def point(state: Dreams, settings: Settings) -> Point | None:
    """What a run reached, at the fluency of its dreams."""
    return reached(
        state["fluency"], f"T={settings['temperature']:g}, p={settings['top_p']:g}", state["tasks"], state["records"]
    )


def told(state: Dreamt) -> str:
    """The dreams in numbers."""
    count = state["looked_at"]
    return f"{state['fluency']:.0%} of sentences in the language; {state['different']} of {count} texts differ."
