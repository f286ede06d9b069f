"""Curves that grow: a figure whose artists are kept and moved, which is several times faster than a new one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator
from matplotlib.transforms import ScaledTranslation

from forgetlab.labs.kit.figure import blank, dress
from forgetlab.plots.drawing import forget, moves
from forgetlab.plots.style import COLORS, DASHES, FAINT, FEW, INK, at_log, number

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SIDE_BY_SIDE = 26  # letters of labels that fit below a panel in one line
UNDER = -36  # pt: from a panel to its legend, past the numbers and the label of its axis
Points = tuple[Sequence[float], Sequence[float | None]]
Lines = Mapping[str, Mapping[str, Points]]  # {panel: {label: (x, y)}}


@dataclass(frozen=True)
class Panel:
    """A pair of axes. key: its name in the lines; unit: label of the y axis; log: a log scale; floor: a dashed line."""

    key: str
    title: str
    unit: str
    log: bool = False
    floor: float | None = None
    limits: tuple[float, float] | None = None


class Curves:
    """A figure with a panel for each quantity; `draw` moves its lines and returns it.

    panels: from left to right, two in a row. across: label of the x axes. high: inches of a row. apart: each panel has
    looks of its own, and a legend below it, as different quantities want it; else a label looks the same in all panels.
    """

    def __init__(self, panels: Sequence[Panel], across: str = "step", high: float = 2.5, apart: bool = False) -> None:
        self.panels, self._apart = tuple(panels), apart
        rows = (len(panels) + 1) // 2
        self.figure, self._source = blank(high * rows + 0.6)
        self._axes: dict[str, Axes] = {}
        self._lines: dict[tuple[str, str, int], Line2D] = {}
        self._labels: dict[str, list[str]] = {}  # of each panel, or of all
        grid = self.figure.add_gridspec(rows, 2)
        odd = len(panels) % 2
        for i, panel in enumerate(panels):
            ax = self.figure.add_subplot(grid[0, :] if odd and i == 0 else grid[divmod(i + odd, 2)])
            dress(ax, panel.title, across, panel.unit)
            ax.grid(color="#e4e4e4", lw=0.8)
            if panel.log:
                ax.set_yscale("log")
                ax.yaxis.set_major_formatter(at_log)
                ax.yaxis.set_minor_formatter(lambda value, _: "")
            if panel.floor:
                ax.axhline(panel.floor, color=FAINT, ls=(0, (2, 2)), lw=1.5)
                place: Any = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right"}
                ax.annotate(
                    f"floor {number(panel.floor)}",
                    (1, panel.floor),
                    (-2, -3 if panel.log else 3),  # no curve lies below a floor
                    va="top" if panel.log else "bottom",
                    color=FAINT,
                    fontsize=11,
                    **place,
                )
            self._axes[panel.key] = ax

    def axes(self, key: str) -> Axes:
        """The axes of a panel, for what is not a line."""
        return self._axes[key]

    def draw(self, lines: Lines, old: Sequence[Lines] = (), source: str = "live") -> Figure:
        """Show these lines, and those of earlier runs faintly behind them. A missing value (None) is a gap."""
        self._source.set_text(source + ("   (faint: earlier runs)" if old else ""))
        shown = set()
        for age, run in enumerate([lines, *old]):
            for panel in self.panels:
                for label, (x, y) in run.get(panel.key, {}).items():
                    values, line = np.asarray(y, float), self._line(panel.key, label, age)
                    line.set_data(np.asarray(x, float), values)
                    line.set_markevery(0.15 if len(values) > 1 else None)  # else a point alone would have no marker
                    if np.isfinite(values).any():  # Matplotlib cannot space markers along nothing
                        shown.add((panel.key, label, age))
        for key, line in self._lines.items():
            line.set_visible(key in shown)
        for panel in self.panels:
            self._fit(panel, [line for key, line in self._lines.items() if key[0] == panel.key and line.get_visible()])
        if self._apart:
            for name, ax in self._axes.items():
                self._legend(ax, name, list(lines.get(name, {})))
        else:
            self._legend(self.figure, "", list(dict.fromkeys(label for panel in lines.values() for label in panel)))
        return self.figure

    def _line(self, panel: str, label: str, age: int) -> Line2D:
        key = (panel, label, age)
        if key not in self._lines:
            look = self._look(panel if self._apart else "", label)
            if age:
                look |= {"color": FAINT, "alpha": max(0.15, 0.5 - 0.1 * age), "lw": 1.2, "ms": 0, "zorder": 1}
            (self._lines[key],) = self._axes[panel].plot([], [], **look)
            moves(self._lines[key])
        return self._lines[key]

    def _look(self, panel: str, label: str) -> dict[str, Any]:
        labels = self._labels.setdefault(panel, [])
        if label not in labels:
            labels.append(label)
        i = labels.index(label)
        looks: dict[str, Any] = {"color": COLORS[i % len(COLORS)], "ls": DASHES[i % len(DASHES)]}
        return looks | {"marker": MARKERS[i % len(MARKERS)], "ms": 5, "lw": 2.0, "markevery": 0.15, "zorder": 3}

    def _fit(self, panel: Panel, lines: Sequence[Line2D]) -> None:
        ax = self._axes[panel.key]
        x = np.concatenate([np.asarray(line.get_xdata(), float) for line in lines] or [np.zeros(0)])
        y = np.concatenate([np.asarray(line.get_ydata(), float) for line in lines] or [np.zeros(0)])
        x, y = x[np.isfinite(x)], y[np.isfinite(y)]
        if len(x):
            margin = 0.03 * (x.max() - x.min()) or 1.0  # around a point alone, steps that can be read
            ax.set_xlim(x.min() - margin, x.max() + margin)
        if panel.limits:
            ax.set_ylim(*panel.limits)
        elif len(y) and panel.log:
            low, high = min([y.min(), *([panel.floor] if panel.floor else [])]), y.max()
            top = max(high * 1.15, low * 1.5)
            room = (top / low) ** 0.18 if panel.floor else 1.15  # for the word below the floor
            ax.set_ylim(low / room, top)
            # between two powers of ten there would be no number to read
            ax.yaxis.set_major_locator(
                FEW() if top < 4 * low else LogLocator(subs=(1, 2, 5) if top < 60 * low else (1,))
            )
        elif len(y):
            margin = max(0.06 * (y.max() - y.min()), 0.02 * max(1e-9, abs(y).max()), 1e-9)
            ax.set_ylim(y.min() - margin, y.max() + margin)

    def _legend(self, where: Figure | Axes, panel: str, labels: Sequence[str]) -> None:
        """Below the figure, or below a panel."""
        found = where.legends[:1] if isinstance(where, Figure) else [where.get_legend()]
        before, columns = found[0] if found else None, min(3, len(labels))
        if isinstance(where, Axes) and (spec := where.get_subplotspec()):
            share = len(spec.colspan) / spec.get_gridspec().ncols
            longest = sum(sorted(map(len, labels))[-2:])
            columns = 2 if longest <= SIDE_BY_SIDE * share * self.figure.get_figwidth() / 3.2 else 1
        same = before is not None and [text.get_text() for text in before.get_texts()] == list(labels)
        if before and same and (isinstance(where, Figure) or before._ncols == columns):  # type: ignore[attr-defined]
            return
        if before:
            before.remove()
            forget(self.figure)
        if len(labels) < 2:
            return
        handles = [Line2D([], [], label=one, **{**self._look(panel, one), "markevery": None}) for one in labels]
        style: Any = {"handles": handles, "fontsize": 11, "labelcolor": INK, "frameon": False}
        if isinstance(where, Figure):
            where.legend(loc="outside lower center", ncols=columns, **style)
        else:
            close: Any = {"columnspacing": 1.0, "handlelength": 1.6, "handletextpad": 0.5}
            below = where.transAxes + ScaledTranslation(0, UNDER / 72, where.figure.dpi_scale_trans)
            style |= {"loc": "upper center", "bbox_to_anchor": (0.42, 0), "bbox_transform": below, "borderaxespad": 0}
            where.legend(ncols=columns, **close, **style)
