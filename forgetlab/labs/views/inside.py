"""The picture of "Inside the change": bars of the drift and three panels of curves; artists are kept and moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from matplotlib.figure import Figure

from forgetlab.labs.kit.benches import RunState
from forgetlab.labs.kit.curves import Curves, Lines, Panel
from forgetlab.labs.kit.figure import titled
from forgetlab.plots.style import COLORS, INK, number

DEPTHS = ("embeddings", "layer 0", "layer 1", "layer 2")
LAYERS = (*DEPTHS, "lm head")
SHARE = (-0.03, 1.05)
PANELS = (
    Panel("weights", "1 weights moved", ""),
    Panel("features", "", "share", limits=SHARE),
    Panel("outputs", "3 outputs on general text", "nats"),
    Panel("rare", "mass on rare words", "share", limits=SHARE),
)
CURVES = {  # of each panel {key in the state: label}
    "features": {"frozen": "probe fitted before", "refit": "probe fitted anew", "cka": "CKA with before"},
    "outputs": {"kl": "KL(before‖after)", "entropy": "entropy"},
    "rare": {"rare": "everywhere", "right": "where one is right"},
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
        self._curves = Curves(PANELS, high=3.4, apart=True)
        self._weights = self._curves.axes("weights")
        self._weights.set_xlabel("distance ‖θ − θ₀‖")
        self._bars = self._weights.barh(range(len(LAYERS)), [0.0] * len(LAYERS), zorder=3)
        self._weights.set(yticks=range(len(LAYERS)), ylim=(len(LAYERS) - 0.5, -0.5))
        self._values = [self._weights.text(0, i, "", fontsize=11, va="center", color=INK) for i in range(len(LAYERS))]

    def draw(self, state: Inside, old: Sequence[Inside], layer: str, source: str) -> Figure:
        """Move the artists to a state; earlier runs stand faintly behind."""
        moved = [state["records"][-1]["drift_per_layer"][name] for name in LAYERS]
        self._weights.set_xlim(0, 1.35 * max(*(value or 0.0 for value in moved), 1e-6))
        for bar, value, words, name in zip(self._bars, moved, self._values, LAYERS, strict=True):
            bar.set(width=value or 0.0, color=COLORS[0] if name == layer else COLORS[4])
            words.set(x=value or 0.0, text=f" {number(value)}")
        self._weights.set_yticklabels([f"▸ {name}" if name == layer else name for name in LAYERS])
        titled(self._curves.axes("features"), f"2 features, {layer}")
        depth = DEPTHS.index(layer)
        return self._curves.draw(_lines(state, depth), [_lines(run, depth) for run in old], source)


def _lines(state: Inside, depth: int) -> Lines:
    """The curves of a run; what a diverged model scores means nothing."""
    steps = [record["step"] for record in state["records"]]
    gone = [record["status"] == "diverged" for record in state["records"]]

    def values(key: str) -> list[float | None]:
        found: list[Any] = [one[key] for one in state["inside"]]  # type: ignore[literal-required]
        own = [value[depth] if isinstance(value, list) else value for value in found]
        return [None if lost else value for value, lost in zip(own, gone, strict=True)]

    return {panel: {label: (steps, values(key)) for key, label in keys.items()} for panel, keys in CURVES.items()}
