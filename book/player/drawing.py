"""A Matplotlib figure as plain panels, which player.js draws: its artists are read, nothing is rendered.

A panel is {"title", "x", "y", "marks", ...} and an axis {"label", "log", "limits", "ticks"}; marks.py has the marks.
"""

from __future__ import annotations

import re
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import FixedLocator, NullLocator

from book.player.marks import Mark, bars, collections, images, legend_look, lines, rounded, texts

Panel = dict[str, Any]
PIXELS = 72  # that an inch of a figure's height becomes
NUMBER = re.compile(r"[-−+]?[\d.,·]*k?(e[-+]?\d+)?[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]*")
COLORBAR = "<colorbar>"


def drawing(figure: Figure) -> dict[str, Any]:
    """{"panels": [...], "legend": {...}} of a figure, the panels in the order of its axes."""
    found: dict[str, Any] = {"panels": [panel(ax) for ax in figure.axes if ax.get_label() != COLORBAR]}
    if figure.legends:
        found["legend"] = _legend(figure.legends[0])
        for one in found["panels"]:
            _named(one["marks"], found["legend"]["entries"])
    return found


def panel(ax: Axes) -> Panel:
    """One pair of axes."""
    made: Panel = {"title": _unescaped(ax.get_title(loc="left") or ax.get_title())} | _size(ax)
    if not ax.axison:
        return made | {"marks": [], "lines": _words(ax)}
    made |= {"x": _axis(ax, "x"), "y": _axis(ax, "y")}
    if not ax.axes.get_visible():
        return made | {"marks": []}
    if ax.get_aspect() != "auto":
        made["equal"] = True
    if (found := [*images(ax), *collections(ax)]) and any(
        mark["kind"] == "area" or mark.get("image") for mark in found
    ):
        made["fixed"] = True  # colours that stand on a picture stay as they are, in the dark too
    made["marks"] = [*found, *bars(ax), *lines(ax), *texts(ax)]
    if ramps := [mark.pop("ramp") for mark in made["marks"] if "ramp" in mark]:
        made["ramp"] = ramps[0]
    if (own := ax.get_legend()) is not None:
        made["legend"] = _legend(own)
        _named(made["marks"], made["legend"]["entries"])
    return made


def _size(ax: Axes) -> dict[str, Any]:
    """How high it is, in px, and whether it is as wide as the figure."""
    figure, spec = ax.get_figure(), ax.get_subplotspec()
    if figure is None or spec is None:
        return {"high": 180}
    rows, ratios = spec.rowspan, spec.get_gridspec().get_height_ratios()
    high = figure.get_figheight() * sum(ratios[rows.start : rows.stop]) / sum(ratios)
    wide = len(spec.colspan) == spec.get_gridspec().ncols
    return {"high": round(PIXELS * high), **({"wide": True} if wide else {})}


def _axis(ax: Axes, name: str) -> dict[str, Any]:
    axis = ax.xaxis if name == "x" else ax.yaxis
    low, high = ax.get_xlim() if name == "x" else ax.get_ylim()
    scale = axis.get_scale()
    made: dict[str, Any] = {"label": _unescaped(axis.get_label_text()), "log": scale == "log"}
    made["limits"] = [rounded(low), rounded(high)]
    if scale == "symlog":
        made["symlog"] = True
    places = [float(place) for place in axis.get_majorticklocs()]
    words = axis.get_major_formatter().format_ticks(places)
    told = isinstance(axis.get_major_locator(), FixedLocator | NullLocator)
    if told or not all(NUMBER.fullmatch(_plain(word)) for word in words):
        inside = sorted((low, high))
        ticks = [(rounded(place), _plain(word)) for place, word in zip(places, words, strict=True)]
        made["ticks"] = [[place, word] for place, word in ticks if inside[0] <= place <= inside[1]]
    return made


def _words(ax: Axes) -> list[list[dict[str, Any]]]:
    """The texts of axes that are switched off, in lines from the top."""
    rows: dict[float, list[Mark]] = {}
    for text in texts(ax):
        rows.setdefault(round(text["y"], 2), []).append(text)
    return [
        [{key: text[key] for key in ("text", "color", "large") if key in text} for text in sorted(row, key=_across)]
        for _, row in sorted(rows.items(), reverse=True)
    ]


def _across(text: Mark) -> float:
    return float(text["x"])


def _legend(legend: Legend) -> dict[str, Any]:
    """{"title", "entries": [a look with its label]}."""
    pairs = zip(legend.legend_handles, legend.get_texts(), strict=True)
    entries = [{"label": _unescaped(text.get_text()), **legend_look(handle)} for handle, text in pairs]
    return {"title": _unescaped(legend.get_title().get_text().strip()), "entries": entries}


def _named(marks: list[Mark], entries: list[dict[str, Any]]) -> None:
    """Give marks the label of the legend's entry that looks like them."""
    for mark in marks:
        if mark.get("label") or mark["kind"] in ("text", "rule"):
            continue
        same = [one["label"] for one in entries if all(one.get(k) == mark.get(k) for k in ("color", "dash", "marker"))]
        mark["label"] = same[0] if same else ""


def _plain(word: str) -> str:
    return re.sub(r"[$\s]|\\mathdefault|[{}]", "", word) if "\\math" in word else word.strip()


def _unescaped(words: str) -> str:
    return words.replace(r"\$", "$")
