"""The picture of "The transfer matrix": R with its numbers, the four measures, every score along the steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from forgetlab.labs.kit.base import State
from forgetlab.labs.kit.curves import MARKERS
from forgetlab.labs.kit.figure import blank, dress, titled
from forgetlab.plots.style import COLORS, DASHES, FAINT, INK, number

T = 3
WORDS = {
    "ACC": "mean of the last row",
    "BWT": "last row − diagonal",
    "FWT": "above diagonal − start",
    "F": "best so far − last row",
}


class View:
    """A figure of its own for each lab; its artists are kept and moved."""

    def __init__(self) -> None:
        self.figure, self._source = blank(6.8)
        grid = self.figure.add_gridspec(2, 2, width_ratios=(1.9, 1))
        self._matrix, side = self.figure.add_subplot(grid[0, 0]), self.figure.add_subplot(grid[0, 1])
        self._curves = self.figure.add_subplot(grid[1, :])
        style: Any = {"ha": "center", "va": "center", "fontsize": 14}
        self._image = self._matrix.imshow(np.full((T + 1, T), np.nan), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        self._cells = [[self._matrix.text(j, i, "", **style) for j in range(T)] for i in range(T + 1)]
        for i in range(T):  # the diagonal: the task just learned
            self._matrix.add_patch(Rectangle((i - 0.47, i + 0.53), 0.94, 0.94, fill=False, ec=COLORS[0], lw=2.5))
        titled(self._matrix, "R: score on task (column)\nafter learning (row)")
        self._matrix.tick_params(labelsize=11, length=0, labelcolor=INK)
        self._matrix.spines[:].set_visible(False)
        side.axis("off")
        self._measures = {}
        for i, (name, words) in enumerate(WORDS.items()):
            self._measures[name] = side.text(0, 0.98 - 0.26 * i, "", fontsize=14, color=INK, va="top")
            below: Any = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "top"}
            side.annotate(words, (0, 0.98 - 0.26 * i), (0, -16), fontsize=11, color=FAINT, **below)
        ax = self._curves
        ax.set(ylim=(-0.03, 1.05))
        dress(ax, "the same, step by step", "step", "accuracy (share)")
        self._borders = [ax.axvline(0, color=FAINT, lw=1, ls=(0, (2, 2))) for _ in range(T - 1)]
        self._lines: dict[tuple[int, int], Line2D] = {}
        self._names: list[str] = []

    def draw(self, state: State, old: Sequence[State], source: str) -> Figure:
        """Show a state; earlier runs of the same order stand faintly behind the curves."""
        names, rows = state["names"], [state["start"], *state["R"]]
        same, self._names = names == self._names, names
        self.figure.set_layout_engine("none" if same else "constrained")  # laying out takes half of a redraw
        self._source.set_text(source + ("   (faint: earlier runs)" if old else ""))
        self._image.set_data(np.array(rows + [[np.nan] * T] * (T + 1 - len(rows))))
        for i, line in enumerate(self._cells):
            for j, cell in enumerate(line):
                value = rows[i][j] if i < len(rows) else None
                cell.set(text="·" if value is None else number(value, "share"))
                cell.set_color("white" if value is not None and value > 0.55 else INK)
        short = [name.replace(", ", ",\n") for name in names]
        self._matrix.set_xticks(range(T), short)
        self._matrix.set_yticks(range(T + 1), ["before all", *short])
        for name, words in self._measures.items():
            value = state["measures"][name] if state["measures"] else None
            words.set_text(f"{name} = {number(value, 'share')}")
        for k, border in enumerate(self._borders):
            border.set_xdata([(k + 1) * state["steps"]] * 2)
        for shown in self._lines.values():
            shown.set_visible(False)
        for age, run in enumerate([state, *old]):
            x, *scores = np.array(run["curve"], float).T
            for j, y in enumerate(scores):
                curve = self._line(j, age)
                curve.set(data=(x, y), visible=True, label=names[j] if age == 0 else "_")
        self._curves.set_xlim(0, 1.02 * T * max(run["steps"] for run in (state, *old)))
        if not same:
            for legend in [*self.figure.legends]:
                legend.remove()
            style: Any = {"fontsize": 11, "labelcolor": INK, "frameon": False, "ncols": T}
            self.figure.legend(*self._curves.get_legend_handles_labels(), loc="outside lower center", **style)
        return self.figure

    def _line(self, j: int, age: int) -> Line2D:
        if (j, age) not in self._lines:
            look: dict[str, Any] = {"color": COLORS[j], "ls": DASHES[j], "marker": MARKERS[j], "ms": 5, "lw": 2}
            if age:
                look |= {"color": FAINT, "alpha": 0.3, "ms": 0, "lw": 1.2, "zorder": 1}
            (self._lines[j, age],) = self._curves.plot([], [], **look)
        return self._lines[j, age]
