"""Figures: take results (plain dicts), return a matplotlib Figure, never train.

Results: the dict of a comparison ("tasks" and "runs" are read) or the list of record dicts of one run.
source: "live", "cached" or "simulated", written in the corner. All raise ForgetlabError if nothing was run.
Figures are 6.4 in wide, with letters that can be read on a 360 px screen too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox

from forgetlab.errors import one_of
from forgetlab.metrics.retention import higher_is_better, scale
from forgetlab.metrics.schema import PlainRecord, Results, TaskFacts
from forgetlab.plots.sides import Line, Side, read
from forgetlab.plots.style import FAINT, FEW, HALO, INK, SMALL, UNITS, at_log, dress, number, plain, wrapped

Drawn = Results | Sequence[PlainRecord]

# where a name may stand: distance from its dot in pixels and direction, near places first
AROUND = [(r, u, v) for r in (16, 36, 60, 88) for v in (0, 1, -1) for u in (1, -1, 0) if u or v]


def curves(results: Drawn, *, source: str = "live") -> Figure:
    """One panel for each task, the new one first: its metric against the step, one line a method.

    With several seeds the line is their mean, the band reaches from the lowest to the highest; seeds that do
    not all have a value at the same steps are a thin line each. A missing value is a gap behind a ×.
    """
    tasks, sides = read(results)
    rows, odd = (len(tasks) + 1) // 2, len(tasks) % 2  # an odd one out, the new task, has a row of its own
    seeds = max(len(side.lines[0]) for side in sides)
    key = f"line: mean of {seeds} seeds (thin: one seed); band: lowest to highest" if seeds > 1 else None
    figure = _figure(2.7 * rows + 0.3, source, sides, key)
    grid = figure.add_gridspec(rows, 2)
    for i, task in enumerate(tasks):
        wide = odd and i == 0
        ax = figure.add_subplot(grid[0, :] if wide else grid[divmod(i + odd, 2)])
        title = wrapped(f"{'watched' if i else 'new'}: {task['name']}", 50 if wide else 24)
        dress(ax, "\n".join(title), "step", UNITS.get(task["metric"], task["metric"]))
        last = max(1, *(steps[-1] for side in sides for steps, _ in side.lines[i]))
        ax.set_xlim(-0.03 * last, 1.03 * last)
        for side in sides:
            _draw(ax, side.lines[i], side.look)
        _scale(ax, task)
    return figure


def trade_off(results: Drawn, *, source: str = "live") -> Figure:
    """One point a method: what it forgets (across) and the new task's score (up) at the end of the run.

    Forgetting is 1 − the kept share (`metrics.retention.kept`), the mean over the watched tasks. A task that starts
    within its error of a guesser has nothing to lose and is left out.
    Points are means over seeds, bars their standard deviation. Diverged runs are left out, and that is said.
    """
    (new, *_), sides = read(results)
    drawn = [side for side in sides if len(side.ends)]
    figure = _figure(4.9, source)
    ax = figure.add_subplot()
    across = ["forgetting: share lost of what is watched"]
    across += [f"no point: {side.label}" for side in sides if not len(side.ends)]
    up = [*wrapped(f"new: {new['name']}", 32), UNITS.get(new["metric"], new["metric"])]
    dress(ax, "↖ best corner: learns much, forgets little", "\n".join(across), "\n".join(up))
    for side in drawn:
        style = side.look | {"linestyle": "none", "ms": 11, "mec": "white", "capsize": 3}
        (x, y), (dx, dy) = side.ends.mean(axis=0), side.spread
        ax.errorbar(x, y, xerr=dx or None, yerr=dy or None, **style)
    _scale(ax, {**new, "floor": None})
    if not higher_is_better(new):
        ax.invert_yaxis()  # up stays better
    right = max([0.1, *(side.ends.max(axis=0)[0] for side in drawn)])
    ax.set_xlim(-0.06 * right, 1.08 * right)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    _write_names(figure, ax, drawn)
    return figure


def drift(results: Drawn, *, source: str = "live") -> Figure:
    """‖θ − θ₀‖ of each layer at the end, in the unit of the weights: a dot a method, the mean over seeds.

    The line through a dot goes from the lowest seed to the highest. Diverged runs have none: see the legend.
    """
    _, sides = read(results)
    layers = [plain(layer) for layer in sides[0].drifts]
    figure = _figure(max(0.26, 0.1 * len(sides) + 0.14) * len(layers) + 1.2, source, sides)
    ax = figure.add_subplot()
    dress(ax, "how far each layer moved", "drift ‖θ − θ₀‖ (unit of the weights)", "")
    for i in range(0, len(layers), 2):
        ax.axhspan(i - 0.5, i + 0.5, color="#f3f3f3", zorder=0)
    drawn = [side for side in sides if len(side.ends)]
    for k, side in enumerate(drawn):
        place = np.arange(len(layers)) + (0.7 / len(drawn)) * (k - (len(drawn) - 1) / 2)
        moved = np.array(list(side.drifts.values()))
        ax.hlines(place, moved.min(axis=1), moved.max(axis=1), color=side.look["color"], lw=1.5)
        ax.plot(moved.mean(axis=1), place, ms=7, clip_on=False, **side.look | {"linestyle": "none"})
    ax.set_yticks(range(len(layers)), layers)
    ax.set(ylim=(len(layers) - 0.5, -0.5), xlim=(0, None))
    return figure


FIGURES = {"curves": curves, "trade_off": trade_off, "drift": drift}


def alt_text(figure_kind: str, results: Drawn) -> str:
    """What a figure ("curves", "trade_off" or "drift") shows, in one or two sentences with the numbers."""
    one_of("figure", figure_kind, FIGURES)
    tasks, sides = read(results)
    if figure_kind == "curves":  # "none", which comes first, and of the others the one that forgets least
        well = sorted((side for side in sides[1:] if len(side.ends)), key=lambda side: side.ends[:, 0].mean())
        return " ".join([_story(tasks, sides[0]), *(_story(tasks, side, _rank(side, sides)) for side in well[:1])])
    told = []
    for side in sides:
        text = "diverged"
        if len(side.ends) and figure_kind == "drift":
            (low, least), *_, (high, most) = sorted((float(np.mean(by)), layer) for layer, by in side.drifts.items())
            text = f"{most} {number(high)}, {least} {number(low)}"
        elif len(side.ends):
            lost, end = side.ends.mean(axis=0)
            text = f"{number(end, scale(tasks[0]))}, {lost:.0%} forgotten"
        told.append(f"{side.who}: {text}")
    what = f"{tasks[0]['name']} ({tasks[0]['metric']}) and share of the watched tasks forgotten"
    return f"{'Layers that moved most and least' if figure_kind == 'drift' else what}. {'; '.join(told)}."


def _story(tasks: Sequence[TaskFacts], side: Side, remark: str = "") -> str:
    told = []
    for task, lines in zip(tasks, side.lines, strict=True):
        before, after = np.mean([values[[0, -1]] for _, values in lines], axis=0)
        start, end = number(before, scale(task)), number(after, scale(task))
        text = f"{'rises' if after > before else 'falls'} from {start} to {end}"
        if not np.isfinite(after):
            text = f"starts at {start} and diverges"
        elif scale(task) == "ratio" and after > before:
            text += f" (×{number(after / before)})"
        told.append(f"{task['name']} ({task['metric']}) {text if start != end else f'stays at {end}'}")
    watched = f" while {' and '.join(told[1:])}" if told[1:] else ""
    return f"{side.who}{remark}, {told[0]}{watched}."


def _rank(best: Side, sides: Sequence[Side]) -> str:
    """How the one of sides[1:] that forgets least stands among all, in whole per cent, as they are told."""
    if len(best.lines) == 1:
        return ""  # nothing is watched
    own, *others = (
        round(100 * side.ends[:, 0].mean()) for side in (best, *(s for s in sides if s is not best)) if len(side.ends)
    )
    if all(lost > own for lost in others):
        return " (forgets least)"
    return " (none forgets less)" if min(others) == own else " (forgets least of the others)"


def _figure(height: float, source: str, sides: Sequence[Side] = (), key: str | None = None) -> Figure:
    """An empty figure on the Agg canvas: the source in the corner, a legend of the sides (if any) below."""
    widest = max((len(side.label) for side in sides), default=0)
    columns = max(1, min(3, 50 // (widest + 7)))
    height += 0.25 * -(-len(sides) // columns) + (0.25 if key else 0)
    figure = Figure(figsize=(6.4, height), facecolor="white", layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    figure.suptitle(source, x=0.995, ha="right", fontsize=11, color=FAINT, style="italic")
    if widest:
        lines = [Line2D([], [], label=plain(side.label), lw=2, ms=7, **side.look) for side in sides]
        style: Any = {"fontsize": 12, "title_fontsize": 11, "labelcolor": INK, "frameon": False}
        legend = figure.legend(handles=lines, ncols=columns, title=key, loc="outside lower center", **style)
        legend.get_title().set_color(FAINT)
    return figure


def _draw(ax: Axes, lines: list[Line], look: Mapping[str, Any]) -> None:
    """One method in one panel."""
    (steps, _), values, color = lines[0], [y for _, y in lines], look["color"]
    if len(lines) > 1 and len({tuple(x) for x, _ in lines}) == 1 and np.isfinite(values).all():
        ax.fill_between(steps, np.min(values, axis=0), np.max(values, axis=0), color=color, alpha=0.15, lw=0)
        lines = [(steps, np.mean(values, axis=0))]
    for x, y in lines:
        ax.plot(x, y, lw=2.2 if len(lines) == 1 else 1.2, ms=6, markevery=max(1, len(x) // 6), **look)
        for i in np.flatnonzero(np.isfinite(y[:-1]) & ~np.isfinite(y[1:])):
            ax.plot(x[i], y[i], "x", color=INK, ms=10, mew=2.5, zorder=5)
            left = x[i] > np.mean(ax.get_xlim())  # the words stand on the side that has room
            place: Any = {"xytext": (-9, 0), "ha": "right"} if left else {"xytext": (9, 0), "ha": "left"}
            ax.annotate("diverged", (x[i], y[i]), va="center", path_effects=HALO, **place, **SMALL)


def _scale(ax: Axes, task: TaskFacts) -> None:
    """The y axis of a metric: log with its floor for a perplexity; 0.2 or more across for a score."""
    low, high = ax.dataLim.intervaly
    if not np.isfinite([low, high]).all():
        return  # no run has a value
    if scale(task) != "ratio":
        margin = max(0.06 * (high - low), 0.1 - (high - low) / 2)
        ax.set_ylim(max(low - margin, -0.03), min(high + margin, 1.03))
        return
    ax.set_yscale("log")
    if floor := task.get("floor"):
        low = min(low, floor)
        ax.axhline(floor, color=FAINT, ls=(0, (2, 2)), lw=1.5)
        place: Any = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "top"}
        ax.annotate(f"floor {number(floor)}", (1, floor), (-2, -3), **place, **SMALL | {"color": FAINT})
    ratio = max(high / low, 1.1)
    ax.set_ylim(low / ratio ** (0.2 if floor else 0.06), low * ratio**1.06)
    ax.yaxis.set_major_locator(FEW() if ratio < 4 else LogLocator(subs=(1, 2, 5) if ratio < 60 else (1,)))
    ax.yaxis.set_major_formatter(at_log)
    ax.yaxis.set_minor_locator(NullLocator())


def _write_names(figure: Figure, ax: Axes, sides: Sequence[Side]) -> None:
    """Each name beside its dot, at the nearest place clear of the other names and of all dots and bars."""
    figure.draw_without_rendering()  # settles the layout, so that places on the page are known
    paths = [s.ends.mean(axis=0) + np.outer((-1, 0, 1), s.spread) for s in sides]  # from end to end of the bars
    taken = [Bbox([ends.min(axis=0) - 9, ends.max(axis=0) + 9]) for ends in map(ax.transData.transform, paths)]
    line = {"arrowstyle": "-", "color": FAINT, "shrinkB": 7}
    for side, (_, dot, _) in zip(sides, paths, strict=True):
        name = "\n".join(wrapped(plain(side.label), 18))
        note = ax.annotate(name, dot, (0, 0), va="bottom", arrowprops=line, **SMALL)
        note.set_in_layout(False)
        (w, h), (x, y) = note.get_window_extent().size, ax.transData.transform(dot)
        places: list[tuple[int, int, Bbox]] = []
        for r, u, v in AROUND:
            place = Bbox.from_bounds(x + r * u + w * (u - 1) / 2, y + r * v + h * (v - 1) / 2, w, h)
            outside = ax.bbox.count_contains(place.get_points()) < 2
            places.append((place.count_overlaps(taken) + 3 * outside, len(places), place))
        best = min(places)[2]
        note.set_position(((best.x0 - x) * 72 / figure.dpi, (best.y0 - y) * 72 / figure.dpi))
        taken.append(best)
