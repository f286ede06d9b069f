"""Weights as dots: importance to the old task across, to the new one up, cut into four groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from forgetlab.labs.kit.figure import dress
from forgetlab.plots.drawing import moves
from forgetlab.plots.style import COLORS, HALO, INK, powers_of_ten

Limits = Sequence[tuple[float, float]]

# colour and marker of each group, in the order that they are shown in, and the corner that its name stands in
LOOKS: dict[str, dict[str, Any]] = {
    "old-critical": {"color": COLORS[0], "marker": "o"},
    "new-critical": {"color": COLORS[1], "marker": "s"},
    "shared": {"color": COLORS[2], "marker": "D"},
    "slack": {"color": COLORS[4], "marker": "x"},
}
CORNERS = {"old-critical": (1, 0), "new-critical": (0, 1), "shared": (1, 1), "slack": (0, 0)}


class Scatter:
    """Dots on log-log axes that are kept and moved. unit: of an importance, for the labels of the axes."""

    def __init__(self, ax: Axes, unit: str, title: str = "") -> None:
        self.ax = ax
        ax.set(xscale="log", yscale="log")
        dress(ax, title, f"importance to the old task ({unit})", f"to the new task ({unit})")
        ax.minorticks_off()
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(powers_of_ten)
        look: Any = {"ls": "none", "ms": 3.5, "alpha": 0.5}
        self.dots = {name: ax.plot([], [], **LOOKS[name], **look)[0] for name in LOOKS}
        self.cut_old = ax.axvline(1, color=INK, lw=1.2, ls="--")
        self.cut_new = ax.axhline(1, color=INK, lw=1.2, ls="--")
        self.words = {}
        for name, (right, top) in CORNERS.items():
            place: Any = {"ha": "right" if right else "left", "va": "top" if top else "bottom", "fontsize": 12}
            x, y = 0.985 if right else 0.015, 0.98 if top else 0.02
            self.words[name] = ax.text(x, y, "", transform=ax.transAxes, color=INK, path_effects=HALO, **place)
        moves(*self.dots.values(), self.cut_old, self.cut_new, *self.words.values())

    def draw(self, old: ArrayLike, new: ArrayLike, cuts: ArrayLike, words: Mapping[str, str], limits: Limits) -> None:
        """old, new: (n,) importances; those outside the limits ((low, high) of old and new) stand on the edge.

        cuts: above them a weight is critical to the old and to the new task. words: to write in each group's corner.
        """
        old, new, cuts = np.asarray(old, float), np.asarray(new, float), np.asarray(cuts, float)
        for_old, for_new = old > cuts[0], new > cuts[1]
        x, y = (np.clip(v, low, high) for v, (low, high) in zip((old, new), limits, strict=True))
        chosen = (for_old & ~for_new, for_new & ~for_old, for_old & for_new, ~(for_old | for_new))
        for name, own in zip(LOOKS, chosen, strict=True):
            self.dots[name].set_data(x[own], y[own])
            self.words[name].set_text(words[name])
        self.cut_old.set_xdata([cuts[0]] * 2)
        self.cut_new.set_ydata([cuts[1]] * 2)
        self.ax.set(xlim=limits[0], ylim=limits[1])


def percent(share: float) -> str:
    """0.123 → "12 %", with a decimal below 10 %."""
    return f"{share:.0%}".replace("%", " %") if share >= 0.0995 else f"{share:.1%}".replace("%", " %")
