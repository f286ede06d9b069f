"""Conflict: what one step does to both tasks when their gradients meet at an angle, and two remedies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from forgetlab.labs.kit.base import Lab, Settings, State
from forgetlab.labs.kit.figure import blank, dress
from forgetlab.labs.kit.instant import instant
from forgetlab.labs.kit.runner import Driver
from forgetlab.labs.kit.shown import Change
from forgetlab.plots.drawing import moves
from forgetlab.plots.style import COLORS, HALO, INK, number
from forgetlab.simulators import interference
from forgetlab.teaching import compat

NAMES = {"plain": "plain", "agem": "A-GEM", "pcgrad": "PCGrad", "joint": "joint"}
# where two arrows coincide both are seen: the wide one lies below
LOOKS: dict[str, dict[str, Any]] = {
    "plain": {"color": COLORS[1], "lw": 6, "ls": "-"},
    "agem": {"color": COLORS[2], "lw": 2, "ls": "--"},
    "pcgrad": {"color": COLORS[3], "lw": 5, "ls": "-"},
    "joint": {"color": INK, "lw": 2, "ls": ":"},
}
OLD: Any = {"color": COLORS[0]}
NEW: Any = {"color": COLORS[1], "hatch": "///", "edgecolor": "white"}
NOTHING = 5e-7  # states are rounded to six digits


def show(driver: Driver | None = None) -> Lab:
    """The lab as a widget: angle between the gradients, curvature of the losses, learning rate. Instant."""
    return instant(
        "conflict",
        work,
        View,
        training={
            "angle": compat.slider("angle φ (degrees)", 120, 0, 180, 5, live=True),
            "curvature": compat.slider("curvature", 1.0, 0.0, 4.0, 0.25, live=True),
            "rate": compat.log_slider("learning rate η", 10**-0.5, 0.01, 10**0.5, per_decade=8, live=True),
        },
        presets={
            "agree": {"angle": 45},
            "at right angles": {"angle": 90},
            "conflict": {"angle": 120},
            "opposed": {"angle": 180},
        },
        intro="Both gradients have length 1. A step goes against the update; which loss falls, and which rises?",
        driver=driver,
        head=lambda state, _: [
            Change(f"{task} loss, plain step", said(state[f"change_{task}"]["plain"])) for task in ("old", "new")
        ],
    )


def work(settings: Settings) -> Iterator[State]:
    """One state: the arrows, the change of both losses for each update, the break-even rate (None: no limit)."""
    found = interference(settings["angle"], settings["curvature"], settings["rate"])
    even = float(found.break_even)
    state = {
        "gradient_old": found.gradient_old.round(6).tolist(),
        "updates": {name: found.updates[name].round(6).tolist() for name in NAMES},
        "change_old": {name: round(float(found.change_old[name]), 6) for name in NAMES},
        "change_new": {name: round(float(found.change_new[name]), 6) for name in NAMES},
        "break_even": round(even, 6) if np.isfinite(even) else None,
    }
    old, new = ({name: said(state[key][name]) for name in NAMES} for key in ("change_old", "change_new"))
    parts = "; ".join(f"{label}: old {old[name]}, new {new[name]}" for name, label in NAMES.items())
    yield state | {"message": f"Change of the losses. {parts}. {told(state['break_even'])}"}


def said(change: float) -> str:
    """A change with its sign."""
    return "±0" if abs(change) < NOTHING else f"{change:+.2g}".replace("-", "−")


def told(break_even: float | None) -> str:
    """What the break-even rate means, in words."""
    if break_even is None:
        return "The plain step harms the old task at no rate."
    if break_even < NOTHING:
        return "The plain step harms the old task at any rate."
    return f"The plain step harms the old task above η = {number(break_even)}."


class View:
    """The figure: the arrows, and the change of the old and the new loss as bars. Its artists are kept and moved."""

    def __init__(self) -> None:
        self.figure, _ = blank(6.8, "simulated")
        arrows, bars = self.figure.subplots(2, 1, height_ratios=(1, 1))
        dress(arrows, "gradients and updates", "weight 1", "weight 2")
        dress(bars, "change of the loss", "← falls    rises →")
        arrows.set(xlim=(-1.2, 2.2), ylim=(-0.2, 1.5), xticks=(-1, 0, 1, 2), yticks=(0, 1), aspect="equal")
        shown = {"old": ("gradient, old task", {**OLD, "lw": 2.5, "ls": "-"})} | {
            name: (f"{label} = new gradient" if name == "plain" else label, LOOKS[name])
            for name, label in NAMES.items()
        }
        head: Any = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 16}
        self.arrows = {
            name: arrows.annotate("", (1, 0), (0, 0), arrowprops={**head, **look}) for name, (_, look) in shown.items()
        }
        handles = [Line2D([], [], label=label, **look) for label, look in shown.values()]
        rows = np.arange(len(NAMES))
        self.bars_old = bars.barh(rows - 0.2, np.zeros(4), 0.36, label="old loss", **OLD)
        self.bars_new = bars.barh(rows + 0.2, np.zeros(4), 0.36, label="new loss", **NEW)
        self.words = [bars.text(0, 0, "", va="center", fontsize=11, color=INK, path_effects=HALO) for _ in range(8)]
        bars.set_yticks(rows, list(NAMES.values()))
        bars.set_ylim(3.6, -0.6)
        bars.set(xlim=(-1.6, 1.6), xticks=[0])  # the longest bar has length 1
        bars.axvline(0, color=INK, lw=1)
        style: Any = {"fontsize": 11, "labelcolor": INK, "frameon": False, "ncols": 3, "title_fontsize": 12}
        handles += [self.bars_old, self.bars_new]
        legend = self.figure.legend(handles=handles, loc="outside lower center", title=" ", **style)
        legend.get_title().set_color(INK)
        moves(legend, *self.arrows.values(), *self.bars_old, *self.bars_new, *self.words)
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine(None)  # places are settled: the next pictures take less time

    def draw(self, state: State) -> Figure:
        """Show a state."""
        self.figure.legends[0].get_title().set_text(told(state["break_even"]))
        for name, arrow in self.arrows.items():
            arrow.xy = state["gradient_old"] if name == "old" else state["updates"][name]
            arrow.set_visible(max(map(abs, arrow.xy)) > NOTHING)
        changes = [*state["change_old"].values(), *state["change_new"].values()]
        reach = max(1e-6, *map(abs, changes))
        bars = [*self.bars_old, *self.bars_new]
        for bar, word, change in zip(bars, self.words, changes, strict=True):
            bar.set_width(change / reach)
            word.set_position((change / reach + (0.02 if change >= 0 else -0.02), bar.get_y() + 0.18))
            word.set(text=said(change), ha="left" if change >= 0 else "right")
        return self.figure
