"""The picture of "Inside the change": bars of the drift and three panels of curves; artists are kept and moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from forgetlab.labs.kit.benches import RunState
from forgetlab.labs.kit.curves import MARKERS
from forgetlab.labs.kit.figure import blank, dress, titled
from forgetlab.plots.style import COLORS, DASHES, FAINT, INK, number

DEPTHS = ("embeddings", "layer 0", "layer 1", "layer 2")
LAYERS = (*DEPTHS, "lm head")
PANELS: dict[str, tuple[str, str, dict[str, str]]] = {  # title, unit, {key in the state: label}
    "features": (
        "",
        "share",
        {"frozen": "probe fitted before", "refit": "probe fitted anew", "cka": "CKA with before"},
    ),
    "outputs": ("3 outputs on general text", "nats", {"kl": "KL(before‖after)", "entropy": "entropy"}),
    "rare": ("mass on rare words", "share", {"rare": "everywhere", "right": "where one is right"}),
}


class Change(TypedDict):
    """Features (at every depth) and outputs against those before; None stands for nan."""

    cka: list[float | None]
    frozen: list[float | None]
    refit: list[float | None]
    kl: float | None
    entropy: float | None
    rare: float | None
    right: float | None


class Inside(RunState):
    """A run with the change at each record."""

    inside: list[Change]


class View:
    """A figure of its own for each lab."""

    def __init__(self) -> None:
        self.figure, self._source = blank(7.4)
        self._weights, *others = self.figure.subplots(2, 2).flat
        self._panels: dict[str, Axes] = dict(zip(PANELS, others, strict=True))
        self._bars = self._weights.barh(range(len(LAYERS)), [0.0] * len(LAYERS))
        self._weights.set(yticks=range(len(LAYERS)), ylim=(len(LAYERS) - 0.5, -0.5))
        self._values = [self._weights.text(0, i, "", fontsize=11, va="center", color=INK) for i in range(len(LAYERS))]
        dress(self._weights, "1 weights moved", "distance ‖θ − θ₀‖")
        for name, ax in self._panels.items():
            title, unit, _ = PANELS[name]
            dress(ax, title, "step", unit)
        self._lines: dict[tuple[str, str, int], Line2D] = {}

    def draw(self, state: Inside, old: Sequence[Inside], layer: str, source: str) -> Figure:
        """Move the artists to a state; earlier runs stand faintly behind."""
        self._source.set_text(source + ("   (faint: earlier runs)" if old else ""))
        self.figure.set_layout_engine("none" if self._lines else "constrained")  # laying out takes half of a redraw
        moved = [state["records"][-1]["drift_per_layer"][name] for name in LAYERS]
        self._weights.set_xlim(0, 1.35 * max(*(value or 0.0 for value in moved), 1e-6))
        for bar, value, words, name in zip(self._bars, moved, self._values, LAYERS, strict=True):
            bar.set(width=value or 0.0, color=COLORS[0] if name == layer else COLORS[4])
            words.set(x=value or 0.0, text=f" {number(value)}")
        self._weights.set_yticklabels([f"▸ {name}" if name == layer else name for name in LAYERS])
        for line in self._lines.values():
            line.set_visible(False)
        for age, run in enumerate([state, *old]):
            for panel, (_, _, lines) in PANELS.items():
                for i, (key, label) in enumerate(lines.items()):
                    line = self._line(panel, key, age, i, label)
                    line.set_data(*_points(run, key, DEPTHS.index(layer)))
                    line.set_visible(True)
        for name, ax in self._panels.items():
            ys = np.concatenate([line.get_ydata() for line in ax.lines if line.get_visible()])
            top = 1.0 if PANELS[name][1] == "share" else max(1.0, *ys[np.isfinite(ys)])
            ax.set_ylim(-0.03 * top, 1.05 * top)
            ax.set_xlim(0, max(run["records"][-1]["step"] for run in (state, *old)) + 1)
            if not ax.get_legend():
                ax.legend(fontsize=11, labelcolor=INK, frameon=False, loc="upper center", bbox_to_anchor=(0.45, -0.22))
        titled(self._panels["features"], f"2 features, {layer}")
        return self.figure

    def _line(self, panel: str, key: str, age: int, i: int, label: str) -> Line2D:
        if (panel, key, age) not in self._lines:
            look: dict[str, Any] = {"color": COLORS[i], "ls": DASHES[i], "marker": MARKERS[i], "ms": 5, "lw": 2}
            if age:
                look |= {"color": FAINT, "alpha": 0.3, "lw": 1.2, "ms": 0, "zorder": 1, "label": "_"}
            else:
                look["label"] = label
            (self._lines[panel, key, age],) = self._panels[panel].plot([], [], **look)
        return self._lines[panel, key, age]


def _points(state: Inside, key: str, depth: int) -> tuple[Any, Any]:
    """(steps, values) of a line; what a diverged model scores means nothing."""
    steps, values = [], []
    for record, found in zip(state["records"], state["inside"], strict=True):
        value: Any = found[key]  # type: ignore[literal-required]
        steps.append(record["step"])
        own = value[depth] if isinstance(value, list) else value
        values.append(None if record["status"] == "diverged" else own)
    return np.array(steps, float), np.array(values, float)
