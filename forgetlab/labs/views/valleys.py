"""The picture of the two valleys: one loss as filled contours, the other as lines, and trajectories above them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from forgetlab.labs.kit.curves import MARKERS
from forgetlab.labs.kit.figure import blank, dress
from forgetlab.plots.style import COLORS, DASHES, HALO, INK

LABEL: Any = {"textcoords": "offset points", "path_effects": HALO, "weight": "bold", "fontsize": 13, "color": INK}


def picture(state: Mapping[str, Any], filled: str, lined: str, shown: Collection[str], source: str) -> Figure:
    """The plane as far as it is computed.

    state: "loss" {task: rows, each a loss (nats; None: not finite) for every x}, "xs", "ys", "points" {name: (x, y)},
    "paths" {run: [(x, y, distance from the plane)]}, of which any may be missing but the paths.
    filled, lined: tasks. shown: names of the runs that are drawn.
    """
    figure, _ = blank(6.2, source)
    ax = figure.add_subplot()
    title = f"filled: loss of {filled}; lines: {lined} (nats)"
    dress(ax, title, "along old → new (unit of the weights)", "towards joint")
    ax.spines[:].set_visible(True)
    rows = len(state.get("loss", {}).get(filled, []))
    if rows > 1:
        values = {name: np.ma.masked_invalid(np.array(grid, float)) for name, grid in state["loss"].items()}
        place = state["xs"], state["ys"][:rows]
        levels = {name: _levels(values[name], 12 if name == filled else 7) for name in (filled, lined)}
        cloud = ax.contourf(*place, values[filled], levels[filled], cmap="cividis_r", extend="both")
        digits = {name: _digits(own) for name, own in levels.items()}
        bar = figure.colorbar(cloud, ax=ax, shrink=0.8, format=lambda value, _: f"{value:.{digits[filled]}g}")
        bar.ax.tick_params(labelsize=11)
        lines = ax.contour(*place, values[lined], levels[lined], colors=INK, linewidths=1, linestyles=":")
        for words in ax.clabel(lines, fmt=lambda value: f"{value:.{digits[lined]}g}", fontsize=11) or []:
            words.set_path_effects([*HALO])
    for i, (name, path) in enumerate(state["paths"].items()):
        if name in shown:
            x, y, _ = zip(*path, strict=True)
            look: Any = {"color": COLORS[i], "ls": DASHES[i], "marker": MARKERS[i], "mec": "white", "ms": 7, "lw": 2}
            ax.plot(x, y, label=name, path_effects=HALO, zorder=4, **look)
    for name, point in state.get("points", {}).items():
        ax.plot(*point, "*", ms=16, color="white", mec=INK, zorder=5)
        ax.annotate(name, point, (8, 8), zorder=6, **LABEL)
    if state["paths"]:
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=12, frameon=False)
    else:
        words = state.get("message") or ("stopped at " if "stopped" in state else "") + state.get("progress", "")
        ax.text(0.5, 0.5, words, ha="center", fontsize=12, wrap=True, color=INK, transform=ax.transAxes)
    return figure


def _levels(values: Any, count: int) -> Any:
    """Levels with as many grid points between each two: a loss rises from a flat valley to steep walls."""
    known = values.compressed()
    found = np.unique(np.quantile(known, np.linspace(0, 1, count + 2)[1:-1])) if known.size else np.zeros(0)
    return found if found.size > 1 else np.arange(count)


def _digits(levels: Any) -> int:
    """How many digits tell the levels apart: a run that hardly moved sees losses that hardly differ."""
    return next((n for n in range(2, 6) if len({f"{level:.{n}g}" for level in levels}) == len(levels)), 6)
