"""The figure of the real importance scatter, and its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from forgetlab.importance.groups import KINDS
from forgetlab.labs.kit.figure import blank, dress, titled
from forgetlab.labs.kit.shown import OLD_RUNS, Settings, State
from forgetlab.labs.views.quadrants import LOOKS, Scatter, percent
from forgetlab.metrics.retention import scale
from forgetlab.plots.drawing import moves
from forgetlab.plots.style import COLORS, FAINT, INK, UNITS, at_log, number

Groups = Mapping[str, tuple[float, float]]  # {group: (share of the weights, RMS change)}
ALL = "all layers"
LAYERS = ("embeddings", "layer 0", "layer 1", "layer 2")
TOPS = {"1 %": 0.01, "5 %": 0.05, "10 %": 0.1, "20 %": 0.2, "50 %": 0.5}
SHARES = {"0 %": 0.0, "1 %": 0.01, "2 %": 0.02, "5 %": 0.05, "10 %": 0.1, "20 %": 0.2, "50 %": 0.5}
ORDERS = ("most important", "random", "least important")
HATCHES = {"old-critical": "//", "new-critical": "..", "shared": "xx", "slack": ""}


class View:
    """The figure: dots, how far each group moved, the curve of weights put back. Its artists are kept and moved."""

    def __init__(self) -> None:
        self.shown: State | None = None
        self.figure, self.source = blank(7.4)
        grid = self.figure.add_gridspec(2, 2, height_ratios=(1.5, 1))
        self.scatter = Scatter(self.figure.add_subplot(grid[0, :]), "Fisher; 0: edge")
        self.back_from = self.scatter.ax.axvline(1, color=COLORS[3], lw=2, ls=":", label="put back from here on")
        self.waiting = self.scatter.ax.text(
            0.5, 0.5, "", transform=self.scatter.ax.transAxes, ha="center", fontsize=13, color=INK
        )
        self.moves, self.curve = (self.figure.add_subplot(grid[1, i]) for i in range(2))
        for ax, title, across in (
            (self.moves, "how far they moved", "RMS change of a weight"),
            (self.curve, "old task, put back", "weights put back (%)"),
        ):
            dress(ax, title, across)
        rows = np.arange(len(LOOKS))
        self.bars = self.moves.barh(rows, np.zeros(len(rows)), 0.7, edgecolor="white")
        for bar, name in zip(self.bars, LOOKS, strict=True):
            bar.set(facecolor=LOOKS[name]["color"], hatch=HATCHES[name])
        self.sizes = [self.moves.text(0, i, "", va="center", fontsize=11, color=INK) for i in range(len(rows))]
        self.moves.set_yticks(rows, list(LOOKS))
        self.moves.set_ylim(3.6, -0.6)
        self.moves.set_xticks([0])
        self.curve.set_xticks(range(len(SHARES)), [share.split()[0] for share in SHARES])
        self.curve.set_xlim(-0.3, len(SHARES) - 0.7)
        looks: Any = (
            {"color": COLORS[0], "marker": "o", "ls": "-"},
            {"color": COLORS[1], "marker": "s", "ls": "--"},
            {"color": COLORS[4], "marker": "^", "ls": ":"},
        )
        self.lines = {
            order: self.curve.plot([], [], lw=2, ms=6, label=order, **look)[0]
            for order, look in zip(ORDERS, looks, strict=True)
        }
        self.faint = [self.curve.plot([], [], color=FAINT, alpha=0.4, lw=1.2)[0] for _ in range(OLD_RUNS)]
        self.before = self.curve.axhline(1, color=INK, lw=1.2, ls=(0, (6, 3)), label="before")
        self.chosen = self.curve.axvline(0, color=COLORS[3], lw=2, ls=":")
        style: Any = {"fontsize": 11, "labelcolor": INK, "frameon": False, "ncols": 3, "columnspacing": 1.5}
        self.figure.legend(loc="outside lower center", **style)
        moves(self.back_from, self.waiting, *self.bars, *self.sizes, *self.lines.values(), *self.faint)
        moves(self.before, self.chosen)

    def draw(self, state: State, old: Sequence[State], settings: Settings, source: str) -> Figure:
        """Show a state, however far it has come."""
        anew = state is not self.shown
        if anew:
            self.figure.set_layout_engine("constrained")
        old = [run for run in old if run["old"] == state["old"] and "put back" in run]
        self.source.set_text(source + ("   (faint: earlier runs)" if old else ""))
        waiting = "stopped before anything was measured" if "stopped" in state else "after the fine-tune"
        self.waiting.set_text("" if "tables" in state else waiting)
        if "diverged" in state:
            self.waiting.set_text("diverged: there is no Fisher")
        self.back_from.set_visible("tables" in state and SHARES[settings["k"]] > 0)
        self._dots(state, settings)
        self._moves(state, settings)
        self._curve(state, old, settings)
        if anew:  # moves of the view then keep the places, which takes less time
            self.figure.draw_without_rendering()
            self.figure.set_layout_engine(None)
            self.shown = state
        return self.figure

    def _dots(self, state: State, settings: Settings) -> None:
        dots = np.array(state.get("dots", []), float).reshape(-1, 3)
        points = 10 ** np.nan_to_num(dots[:, :2], nan=-np.inf)  # None: an importance of 0, which stands on the edge
        ends = np.array([[0.1, 0.1], [1, 1]])
        if (positive := (points > 0).all(axis=1)).any():
            logs = np.log10(points[positive])
            ends = 10 ** np.array([np.floor(np.quantile(logs, 0.05, axis=0)), np.ceil(logs.max(axis=0))])
        own = np.ones(len(dots), bool) if settings["layer"] == ALL else dots[:, 2] == LAYERS.index(settings["layer"])
        words, cuts, drawn = dict.fromkeys(LOOKS, ""), [np.nan, np.nan], ""
        if "tables" in state:
            groups, count = groups_of(state, settings)
            words = {name: f"{name} {percent(share)}" for name, (share, _) in groups.items()}
            cuts = state["tables"][settings["top"]]["cuts"]
            drawn = f": {own.sum():,} of {count:,} weights drawn"
            self.back_from.set_xdata([state["put back from"][settings["k"]]] * 2)
        titled(self.scatter.ax, settings["layer"] + drawn)
        self.scatter.draw(points[own, 0], points[own, 1], cuts, words, ends.T.tolist())

    def _moves(self, state: State, settings: Settings) -> None:
        groups = groups_of(state, settings)[0] if "tables" in state else {}
        rms = [groups[name][1] if groups else 0.0 for name in LOOKS]
        widest = max(rms) or 1.0
        self.moves.set_xlim(0, 1.6 * widest)
        for bar, word, value in zip(self.bars, self.sizes, rms, strict=True):
            bar.set_width(value)
            word.set(x=value + 0.05 * widest, text=number(value) if groups else "")

    def _curve(self, state: State, old: Sequence[State], settings: Settings) -> None:
        self.curve.set_ylabel(UNITS[state["metric"]], fontsize=12, color=INK)
        start = state.get("before", [None])[0]
        self.before.set_ydata(np.array([start] * 2, float))
        self.chosen.set_xdata([list(SHARES).index(settings["k"])] * 2)
        values = [start]
        for i, line in enumerate(self.faint):
            curve = old[i]["put back"][ORDERS[0]] if i < len(old) else []
            line.set_data(range(len(curve)), np.array(curve, float))
            values += curve
        for order, line in self.lines.items():
            curve = state.get("put back", {}).get(order, [])
            line.set_data(range(len(curve)), np.array(curve, float))
            values += curve
        known = [value for value in values if value is not None]
        if scale(state) != "ratio":
            self.curve.set(yscale="linear", ylim=(-0.03, 1.05))
        elif known:
            self.curve.set(yscale="log", ylim=(min(known) / 1.15, max(known) * 1.15))
            self.curve.yaxis.set_major_formatter(at_log)
            self.curve.yaxis.set_minor_formatter(lambda value, _: "")


def groups_of(state: State, settings: Settings) -> tuple[Groups, int]:
    """For each group its share of the chosen layer's weights and the RMS of their changes; the layer's weights."""
    table = state["tables"][settings["top"]]
    chosen = range(len(LAYERS)) if settings["layer"] == ALL else [LAYERS.index(settings["layer"])]
    count, moved = (np.array(table[key])[chosen].sum(axis=0) for key in ("count", "moved"))
    rms = np.sqrt(moved / np.maximum(count, 1))
    shares = count / count.sum()
    return dict(zip(KINDS, zip(shares.tolist(), rms.tolist(), strict=True), strict=True)), int(count.sum())


def told(state: State, k: str) -> str:
    """What the fine-tune did to the old task, and what putting back a share of the weights did."""
    if "diverged" in state:
        return f"Diverged: {state['diverged']}. There is no Fisher to take, and nothing to put back."
    if "after" not in state:
        return "Nothing is measured yet."
    before, after = (number(state[when][0], scale(state)) for when in ("before", "after"))
    text = f"Learning sentiment takes {state['old']} ({state['metric']}) from {before} to {after}."
    curves, place = state.get("put back", {order: [] for order in ORDERS}), list(SHARES).index(k)
    if min(map(len, curves.values())) <= place or not SHARES[k]:
        return text
    most, chance, least = (number(curves[order][place], scale(state)) for order in ORDERS)
    new = [number(score, "score") for score in (state["after"][1], state["new put back"][place])]
    return (
        f"{text} With the {k} of the weights that matter most to it put back it is {most} "
        f"(sentiment {new[0]} → {new[1]}), with {k} at random {chance}, with the least important {k} {least}."
    )


def described(state: State, settings: Settings) -> str:
    """The picture in words."""
    text = told(state, settings["k"])
    if "tables" not in state:
        return text
    groups, _ = groups_of(state, settings)
    parts = ", ".join(f"{name} {percent(share)} (moved {number(rms)})" for name, (share, rms) in groups.items())
    return f"{text} {settings['layer'].capitalize()}, the top {settings['top']} critical: {parts}."
