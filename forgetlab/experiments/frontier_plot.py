"""The figure of the frontier: what each method keeps of the old against what it learns of the new."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from forgetlab.experiments.frontier import Dot, dots, mean, spread
from forgetlab.experiments.recommendation import evidence
from forgetlab.metrics.retention import pareto
from forgetlab.metrics.schema import Results
from forgetlab.plots.style import COLORS, FAINT, HALO, INK, dress, plain, wrapped
from forgetlab.remedies.by_name import family
from forgetlab.training.method import Family

LOOKS = dict(zip(get_args(Family), zip(COLORS, "os^DvPX", strict=False), strict=False))
NOTE: Any = {"textcoords": "offset points", "fontsize": 12, "weight": "bold", "color": INK, "path_effects": HALO}
LINE = 0.2  # inches of a line of text below
LISTED = 8  # dots of the front that are named


def frontier(results: Results, *, source: str = "live") -> Figure:
    """A dot a method, the mean over seeds with its deviation; small: strengths that were tried at one seed.

    The line joins the dots that no other one beats, which are named below. Dashed: results["keep"], if it is there.
    """
    found = [dot for dot in dots(results["runs"], results["tasks"]) if dot["kept"]]
    tried = [(one["methods"], one["ends"]) for one in results.get("search", []) if one["ends"]]
    front = _front(found)
    rows = _rows(found, front)
    below, height = LINE * len(rows) + 0.75, 3.9
    figure = Figure(figsize=(6.4, height + below), facecolor="white", dpi=110)
    FigureCanvasAgg(figure)
    total = height + below
    ax = figure.add_axes((0.115, below / total, 0.865, (height - 0.45) / total))
    figure.text(0.99, 1 - 0.06 / total, source, ha="right", va="top", fontsize=11, color=FAINT, style="italic")
    figure.text(0.02, (below - 0.6) / total, "\n".join(rows), va="top", fontsize=11, color=INK, linespacing=1.3)
    means = [_means(dot) for dot in found]
    left = min([0.9, *(x for x, _ in means), *(ends[0] for _, ends in tried)])
    if (keep := results.get("keep")) is not None and keep > 0:
        ax.axvspan(keep, 1.1, color="#e6f0e0", lw=0, zorder=0)
        ax.axvline(keep, color=INK, lw=1.2, ls="--", zorder=1)
    ax.plot([means[i][0] for i in front], [means[i][1] for i in front], color=INK, lw=1, alpha=0.6, zorder=2)
    shown = []
    for name, (color, marker) in LOOKS.items():
        small = [ends for methods, ends in tried if family(methods) == name]
        ax.plot([x for x, _ in small], [y for _, y in small], marker, color=color, ms=4, alpha=0.4, mew=0, zorder=2)
        own = [dot for dot in found if dot["family"] == name]
        for dot in own:
            (x, y), (dx, dy) = _means(dot), (spread(dot, "kept"), spread(dot, "new"))
            style: Any = {"fmt": marker, "color": color, "ms": 9, "mec": "white", "lw": 1.2, "capsize": 2}
            ax.errorbar(x, y, dy or None, dx or None, zorder=4, **style)
        if own or small:
            shown.append(
                Line2D([], [], color=color, marker=marker, ls="", ms=8, label="no remedy" if name == "none" else name)
            )
    for place, i in enumerate(front[::-1][:LISTED], start=1):
        ax.annotate(str(place), means[i], (6, 4), zorder=6, **NOTE)  # no dot is up there
    room = 0.05 * (1.02 - left)
    ax.set(xlim=(left - room, 1 + room), ylim=(-0.05, 1.05))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    up = f"share learned of {wrapped(results['new'], 24)[0]}"
    dress(ax, "↗ best corner: keeps the old, learns the new", "share kept of the old scores", up, few=False)
    ax.legend(handles=shown, loc="best", fontsize=11, labelcolor=INK, framealpha=0.8, edgecolor="none")
    return figure


def alt_text(results: Results) -> str:
    """The figure in words: the dots that no other one beats, with their numbers."""
    found = [dot for dot in dots(results["runs"], results["tasks"]) if dot["kept"]]
    front = [found[i] for i in _front(found)[::-1]]
    named = "; ".join(f"{dot['spec']} {evidence(dot)}" for dot in front[:LISTED])
    return f"Share kept of the old scores and share learned of {results['new']}. No method beats: {named}."


def _front(found: Sequence[Dot]) -> list[int]:
    return pareto([_means(dot) for dot in found])


def _rows(found: Sequence[Dot], front: Sequence[int]) -> list[str]:
    rows = ["No method beats these on both axes:"]
    for place, i in enumerate(front[::-1][:LISTED], start=1):
        dot = found[i]
        first, *more = wrapped(f"{dot['spec']} {evidence(dot).replace(' of the new task', '')}", 76)
        rows += [f"{place}  {first}", *(f"    {line}" for line in more)]
    if len(front) > LISTED:
        rows.append(f"and {len(front) - LISTED} more, which keep less")
    return [plain(row) for row in rows]


def _means(dot: Dot) -> tuple[float, float]:
    return mean(dot, "kept"), mean(dot, "new")
