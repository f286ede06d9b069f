"""Where two models differ, as pictures: how far each matrix moved, and what its layers' features still hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from forgetlab.errors import ForgetlabError
from forgetlab.plots.style import COLORS, FAINT, INK, dress, number, plain, wrapped

OWN = ("embeddings", "head", "other")  # the matrices that only one row has: in one column
REST = "its own"
LINES = {  # of the features' panels: label, colour, style, marker
    "before": ("probe, before", COLORS[4], ":", "s"),
    "refitted": ("probe fitted anew", COLORS[1], "--", "o"),
    "frozen": ("probe fitted before", COLORS[0], "-", "D"),
    "cka": ("CKA with before", COLORS[2], "-.", "^"),
}
Found = Mapping[str, Any]  # what `diff.where.where` gives


def drift_map(found: Found, *, source: str = "live") -> Figure:
    """Rows: layers, the lowest below. Columns: kinds of matrix. Each cell: ‖θ − θ₀‖ in % of ‖θ₀‖.

    Raises ForgetlabError where nothing was compared.
    """
    columns, cells = drift_cells(found)
    rows = found["layers"]
    figure = _figure(0.36 * len(rows) + 1.7, source)
    ax = figure.add_subplot()
    shades = colormaps["cividis_r"]
    top = max(np.nanmax(cells), 1e-12)
    # the square root tells small moves apart beside large ones
    image = ax.imshow(np.sqrt(cells / top), cmap=shades, vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(cells):
        if np.isfinite(value):
            r, g, b, _ = shades(np.sqrt(value / top))
            ink = "white" if 0.299 * r + 0.587 * g + 0.114 * b < 0.5 else "black"
            ax.text(j, i, percent(value), ha="center", va="center", fontsize=11.5, color=ink)
    assert image is not None
    dress(ax, "how far the weights moved, % of their norm before", "", "", few=False)
    ax.set_yticks(range(len(rows)), [plain(row) for row in rows])
    ax.set_xticks(range(len(columns)), [column.replace("attention", "attn").replace(" ", "\n") for column in columns])
    ax.set_ylim(-0.5, len(rows) - 0.5)  # the first layer below, as in the drawing of a network
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return figure


def by_depth(found: Found, *, source: str = "live") -> Figure:
    """A panel for each task: CKA of its tokens' hidden states with before, and accuracy of probes, by depth.

    Raises ForgetlabError where no task has texts.
    """
    names = list(found["cka"])
    if not names:
        raise ForgetlabError("there is nothing to draw: no task has texts that were compared")
    rows = (len(names) + 1) // 2
    figure = _figure(2.5 * rows + 0.6, source)
    grid = figure.add_gridspec(rows, min(2, len(names)))
    for i, name in enumerate(names):
        ax = figure.add_subplot(grid[divmod(i, 2)])
        lines = {**found["probes"].get(name, {}), "cka": found["cka"][name]}
        _panel(ax, name, [(LINES[key], lines[key]) for key in LINES if key in lines], found["depths"])
    shown = {key for name in names for key in (*found["probes"].get(name, {}), "cka")}
    handles = [Line2D([], [], **_look(*LINES[key])) for key in LINES if key in shown]
    figure.legend(handles=handles, ncols=2, loc="outside lower center", fontsize=12, labelcolor=INK, frameon=False)
    return figure


def drift_words(found: Found) -> str:
    """What `drift_map` shows: what moved most and least."""
    moved = sorted(
        ((value, f"{layer} {kind}") for layer, kind, value in _triples(found)), key=lambda pair: pair[0], reverse=True
    )
    if not moved:
        return "No weights were compared."
    most = ", ".join(f"{name} {percent(value)} %" for value, name in moved[:3])
    value, name = moved[-1]
    return f"Weights moved most, in % of their norm before: {most}; least: {name} {percent(value)} %."


def depth_words(found: Found) -> str:
    """What `by_depth` shows, at the last layer."""
    told = []
    for name, cka in found["cka"].items():
        text = f"{name}: CKA {number(cka[-1], 'share')}"
        if name in found["probes"]:
            before, frozen, anew = (
                number(found["probes"][name][k][-1], "share") for k in ("before", "frozen", "refitted")
            )
            text += f", a probe reads {before} before, {frozen} after, {anew} when fitted anew"
        told.append(text)
    return f"Features of the last layer, after against before. {'; '.join(told)}."


def percent(share: float) -> str:
    """A share in per cent, in two digits: 0.123 → 12, 0.0042 → 0.42."""
    value = 100 * share
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.995 or not value else f"{value:.1g}"


def _triples(found: Found) -> list[tuple[str, str, float]]:
    cells = zip(found["layers"], found["relative"], strict=True)
    return [
        (layer, REST if kind in OWN else kind, value)
        for layer, row in cells
        for kind, value in zip(found["kinds"], row, strict=True)
        if value is not None
    ]


def drift_cells(found: Found) -> tuple[list[str], np.ndarray]:
    kinds = [kind for kind in found["kinds"] if kind not in OWN]
    columns = [*kinds, *([REST] if set(OWN) & set(found["kinds"]) else [])]
    cells = np.full((len(found["layers"]), len(columns)), np.nan)
    for layer, column, value in _triples(found):
        cells[found["layers"].index(layer), columns.index(column)] = value
    if not np.isfinite(cells).any():
        raise ForgetlabError("there is nothing to draw: no weights were compared")
    return columns, cells


def _panel(ax: Axes, name: str, lines: Sequence[tuple[Any, Sequence[float | None]]], depths: Sequence[str]) -> None:
    dress(ax, "\n".join(wrapped(name, 26)), "", "CKA, accuracy", few=False)
    places = range(len(depths))
    for look, values in lines:
        ax.plot(places, [np.nan if v is None else v for v in values], clip_on=False, **_look(*look))
    step = max(1, (len(depths) - 1) // 5)
    shown = [i for i in places if i == 0 or (i - 1) % step == 0]
    ax.set_xticks(shown, ["emb." if i == 0 else depths[i].removeprefix("layer ") for i in shown])
    ax.set_xlabel("layer", fontsize=13, color=INK)
    ax.set_ylim(-0.05, 1.05)


def _look(label: str, color: str, style: str, marker: str) -> dict[str, Any]:
    return {"label": label, "color": color, "ls": style, "marker": marker, "ms": 6, "lw": 2.2}


def _figure(height: float, source: str) -> Figure:
    figure = Figure(figsize=(6.4, height), facecolor="white", layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    figure.suptitle(source, x=0.995, ha="right", fontsize=11, color=FAINT, style="italic")
    return figure
