"""The panel of all runs so far: what each reached, against what it kept or what it cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator
from matplotlib.transforms import Bbox

from forgetlab.labs.kit.base import Settings
from forgetlab.labs.kit.benches import RunState
from forgetlab.metrics.schema import PlainRecord, TaskFacts
from forgetlab.plots import sides
from forgetlab.plots.style import COLORS, INK

MARKS = {"new score": ("o", COLORS[2]), "old kept": ("^", COLORS[3])}


@dataclass(frozen=True)
class Point:
    """One run in the panel of all runs so far: its place across, and what it reached (keys of MARKS)."""

    x: float
    y: tuple[tuple[str, float], ...]
    label: str


@dataclass(frozen=True)
class SoFar:
    """The panel of all runs so far. of(state, settings): this run's point first, then others that come with it."""

    title: str
    across: str
    up: str
    of: Callable[[Any, Settings], Iterable[Point | None]]
    log: bool = False  # the axis across
    share: bool = True  # whether up are shares; else a perplexity of the new task, better further up


def ends(tasks: Sequence[TaskFacts], records: Sequence[PlainRecord]) -> tuple[float, float] | None:
    """(kept share of the watched tasks, new score) at the end of a run, as `plots.trade_off` has them.

    None where the run is not there or not at its end, or where a score is no number.
    """
    if not records or records[-1]["status"] in ("running", "diverged"):
        return None
    lost, new = sides.end(tasks, records)
    return (1 - lost, new) if isfinite(lost) and isfinite(new) else None


def reached(x: float, label: str, tasks: Sequence[TaskFacts], records: Sequence[PlainRecord]) -> Point | None:
    """A point with both marks: the new task's score and the kept share of the old ones."""
    found = ends(tasks, records)
    return found and Point(x, (("new score", found[1]), ("old kept", found[0])), label)


def trade_off(state: RunState, label: str, without: str) -> list[Point | None]:
    """Points for the kept share of the old tasks across, the new score up: of a run, and of the one without."""
    found: list[Point | None] = []
    for records, name in ((state["records"], label), (state["plain"], without)):
        end = ends(state["tasks"], records)
        found.append(end and Point(end[0], (("new score", end[1]),), name))
    return found


def scatter(ax: Axes, points: Sequence[Point], so_far: SoFar, present: Point | None) -> None:
    """Draw the points anew, the present run's one filled.

    points: newer ones last. A label that finds no free place within the axes, newer ones first, is left out.
    """
    for artist in [*ax.lines, *ax.texts]:
        artist.remove()
    both = len({mark for point in points for mark, _ in point.y}) > 1
    ax.set_xlabel(so_far.across + "\n● new score   ▲ old kept" * both, fontsize=12, color=INK)
    for point in points:
        for mark, y in point.y:
            marker, color = MARKS[mark]
            filled = point == present
            ax.plot(point.x, y, marker, ms=10 if filled else 7, color=color, mfc=color if filled else "white")
    if not points:
        return
    xs, ys = [p.x for p in points], [y for p in points for _, y in p.y]
    if so_far.log:
        ax.set(xscale="log", xlim=(min(xs) / 3, max(xs) * 3))
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(xs) < 6 * min(xs) else (1,)))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}" if value < 1000 else f"{value / 1000:g}k")
        ax.xaxis.set_minor_formatter(lambda value, _: "")
    else:
        ax.set_xlim(min(0.5, *xs) - 0.08, 1.05)
    if so_far.share:
        ax.set_ylim(min(0.5, *ys) - 0.08, 1.12)  # down to a guess at least
    else:
        ax.set_ylim(max(ys) * 1.5, min(ys) / 2)  # a low perplexity is the better one
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(ys) < 60 * min(ys) else (1,)))
    to_share = ax.transData + ax.transAxes.inverted()
    places = [to_share.transform((point.x, y)) for point in points for _, y in point.y]
    taken = [Bbox.from_bounds(u - 0.03, v - 0.04, 0.06, 0.08) for u, v in places]
    for point in reversed(points):
        u, v = to_share.transform((point.x, point.y[0][1]))
        text = ax.text(0, 0, point.label, transform=ax.transAxes, ha="center", va="center", fontsize=11, color=INK)
        w, h = text.get_window_extent().width / ax.bbox.width + 0.02, 0.1  # as shares of the axes
        around = [(u - w / 2, v + 0.05), (u - w / 2, v - 0.05 - h), (u - w - 0.04, v - h / 2), (u + 0.04, v - h / 2)]
        around += [(u - w / 2, v + 0.13), (u - w / 2, v - 0.13 - h)]  # past a mark just above or below
        for x, y in around:
            place = Bbox.from_bounds(min(max(x, 0), 1 - w), y, w, h)
            if 0 <= y <= 1 - h and not place.count_overlaps(taken):
                taken.append(place)
                text.set_position(((place.x0 + place.x1) / 2, (place.y0 + place.y1) / 2))
                break
        else:
            text.remove()
