"""The pictures of a diff: what was lost and how sure that is, items, words and places, and checkpoints of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from forgetlab.diff.schema import ChangeFound, Diff, PartFound, TaskFound
from forgetlab.diff.told import along, amount
from forgetlab.plots.style import COLORS, FAINT, INK, dress, plain, wrapped

LOST, GAINED = COLORS[0], COLORS[1]
MARKERS = "osD^vP"
MOST = 6  # AFTERs whose marks can be told apart
ACROSS = {
    "points": "loss, in points of the score (right: worse)",
    "ratio": "perplexity, times what it was (right: worse)",
}


def loss_figure(found: Diff) -> Figure:
    """The loss of every task with its 95 % interval, what was allowed, and the smallest that could have been shown."""
    afters = found["afters"][:MOST]
    scales = [s for s in ACROSS if any(_scale(task) == s for task in afters[0]["tasks"])]
    counts = [sum(_scale(task) == s for task in afters[0]["tasks"]) for s in scales]
    each = 0.26 * len(afters) + 0.2
    figure = _figure(each * sum(counts) + 1.0 * len(scales) + 0.9)
    grid = figure.subplots(len(scales), 1, squeeze=False, gridspec_kw={"height_ratios": [n + 0.2 for n in counts]})
    for ax, scale in zip(grid[:, 0], scales, strict=True):
        tasks = [[task for task in after["tasks"] if _scale(task) == scale] for after in afters]
        _forest(ax, tasks, scale)
    drawn = [task for after in afters for task in after["tasks"]]
    marks = [Line2D([], [], color=INK, marker="o", lw=2, ms=7, label="loss, 95 % interval")]
    if any(_finite(task["change"]["smallest"]) for task in drawn):
        text = "smallest loss that could have been shown"
        marks.append(Line2D([], [], color=FAINT, marker="|", lw=0, ms=13, mew=2, label=text))
    if any(task["allowed"] is not None for task in drawn):
        marks.append(Line2D([], [], color=INK, marker="|", lw=0, ms=13, mew=3.5, label="allowed"))
    if len(afters) > 1:
        looks = [Line2D([], [], color=COLORS[k], marker=MARKERS[k], lw=2, ms=7, label=plain(_short(a["name"])))
                 for k, a in enumerate(afters)]  # fmt: skip
        marks = [*looks, *marks[1:]]
    _legend(figure, marks)
    return figure


def _forest(ax: Axes, tasks: Sequence[Sequence[TaskFound]], scale: str) -> None:
    names = ["\n".join(wrapped(plain(_name(task)), 20)) for task in tasks[0]]
    dress(ax, "", ACROSS[scale], "", few=False)
    ax.axvline(0, color=INK, lw=1)
    for k, own in enumerate(tasks):
        for i, task in enumerate(own):
            place, change = i + (k - (len(tasks) - 1) / 2) * 0.55 / len(tasks), task["change"]
            color = COLORS[k] if len(tasks) > 1 else INK
            ends = [end for end in (change["low"], change["high"]) if _finite(end)]
            if len(ends) == 2:
                ax.plot(ends, [place] * 2, color=color, lw=2, solid_capstyle="butt")
            if _finite(change["loss"]):
                ax.plot([change["loss"]], [place], MARKERS[k], color=color, ms=7)
            if _finite(change["smallest"]):
                ax.plot([change["smallest"]], [place], "|", color=FAINT, ms=13, mew=2)
            if task["allowed"] is not None:
                ax.plot([task["allowed"]], [place], "|", color=INK, ms=13, mew=3.5)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    low, high = ax.dataLim.intervalx
    room = 0.08 * max(high - low, 0.02)
    ax.set_xlim(min(low, 0) - room, max(high, 0) + room)
    _factors(ax, scale)


def _factors(ax: Axes, scale: str) -> None:
    if scale != "ratio":
        ax.xaxis.set_major_locator(MaxNLocator(5))
        return
    ticks = factors(*ax.get_xlim())
    ax.set_xticks([math.log(factor) for factor in ticks], [f"×{factor:g}" for factor in ticks])


def factors(low: float, high: float) -> list[float]:
    """Round factors for an axis in nats from `low` to `high`, three or more, 1 among them if it is there.

    >>> factors(-0.05, 0.45), factors(-0.1, 3.0)
    ([1.0, 1.2, 1.4], [1.0, 2.0, 5.0, 10.0, 20.0])
    """
    low, high = math.exp(max(low, -30.0)), math.exp(min(high, 30.0))
    if high / low > 4:
        every = [lead * 10.0**power for power in range(-13, 14) for lead in (1, 2, 5)]
        found = [factor for factor in every if low <= factor <= high]
        return found if len(found) <= 6 else [f for f in found if math.log10(f) % 1 < 1e-9][:: 1 + len(found) // 18]
    steps = [0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001]
    step = next((s for s in steps if math.floor(high / s) - math.ceil(low / s) >= 2), steps[-1])
    return [round(step * k, 3) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def flips_figure(found: Diff) -> Figure | None:
    """Of each task the shares of its items that were lost and gained, and what guessing explains; None without any."""
    rows = [(after["name"], task) for after in found["afters"] for task in after["tasks"] if task["flips"]]
    if not rows:
        return None
    figure = _figure(0.42 * len(rows) + 1.7)
    ax = figure.subplots()
    dress(ax, "", "share of the items: lost to the left, gained to the right", "", few=False)
    for i, (_, task) in enumerate(rows):
        flips: Any = task["flips"]
        n = flips["both"] + flips["lost"] + flips["gained"] + flips["neither"]
        for side, sign, color in (("lost", -1, LOST), ("gained", 1, GAINED)):
            share, guessed = (100 * sign * flips[key] / n for key in (side, f"{side}_by_guessing"))
            ax.barh(i, share, 0.6, color=color)
            ax.barh(i, guessed, 0.6, color=color, hatch="////", edgecolor="white", lw=0)
            ax.annotate(f"{flips[side]}", (share, i), (4 * sign, 0), textcoords="offset points", va="center",
                        ha="left" if sign > 0 else "right", fontsize=11.5, color=INK)  # fmt: skip
    ax.axvline(0, color=INK, lw=1)
    several = len(found["afters"]) > 1
    names = [f"{_name(task)}, {_short(name)}" if several else _name(task) for name, task in rows]
    ax.set_yticks(range(len(rows)), ["\n".join(wrapped(plain(name), 22)) for name in names])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    low, high = ax.dataLim.intervalx
    widest = max(abs(low), abs(high), 1.0) * 1.2
    ax.set_xlim(-widest, widest)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{abs(share):g} %"))
    hatched = Patch(facecolor=FAINT, hatch="////", edgecolor="white", lw=0, label="what guessing alone explains")
    _legend(figure, [Patch(color=LOST, label="lost"), Patch(color=GAINED, label="gained"), hatched])
    return figure


def parts_figure(found: Diff) -> Figure | None:
    """How much each class of words and each quarter of the texts got worse, of every perplexity; None without one."""
    tasks = [(a["name"], t) for a in found["afters"][:MOST] for t in a["tasks"] if t["by_token_class"]]
    if not tasks:
        return None
    kinds: list[tuple[str, Callable[[TaskFound], list[PartFound]]]] = [
        ("by class of word", lambda task: task["by_token_class"]),
        ("by place in the text", lambda task: task["by_position"]),
    ]
    rows = sum(max(len(of(task)) for _, task in tasks) for _, of in kinds)
    figure = _figure((0.22 * len(tasks) + 0.18) * rows + 2.2)
    heights = [max(len(of(task)) for _, task in tasks) for _, of in kinds]
    axes = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": heights})
    several = len({name for name, _ in tasks}) > 1
    for ax, (title, of) in zip(axes, kinds, strict=True):
        dress(ax, title, ACROSS["ratio"] if ax is axes[-1] else "", "", few=False)
        names = list(dict.fromkeys(part["name"] for _, task in tasks for part in of(task)))
        ax.axvline(0, color=INK, lw=1)
        for k, (_, task) in enumerate(tasks):
            look = {"color": COLORS[k % len(COLORS)]}
            for part in of(task):
                place = names.index(part["name"]) + (k - (len(tasks) - 1) / 2) * 0.6 / len(tasks)
                _mark(ax, part["change"], place, MARKERS[k % len(MARKERS)], look)
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.5, -0.5)
        _factors(ax, "ratio")
    marks = [
        Line2D([], [], color=COLORS[k % len(COLORS)], marker=MARKERS[k % len(MARKERS)], lw=2, ms=7,
               label=plain(f"{_name(task)}, {_short(name)}" if several else _name(task)))
        for k, (name, task) in enumerate(tasks)
    ]  # fmt: skip
    _legend(figure, marks)
    return figure


def _mark(ax: Axes, change: ChangeFound, place: float, marker: str, look: dict[str, Any]) -> None:
    low, high = change["low"], change["high"]
    if _finite(low) and _finite(high):
        ax.plot([low, high], [place] * 2, lw=2, solid_capstyle="butt", **look)
    if _finite(change["loss"]):
        ax.plot([change["loss"]], [place], marker, ms=7, **look)


def curves_figure(found: Diff) -> Figure | None:
    """Every task's loss along the checkpoints of a run, with 95 % intervals; None where there are none."""
    steps = along(found)
    if steps is None:
        return None
    count = len(found["afters"][0]["tasks"])
    figure = _figure(2.5 * -(-count // 2) + 0.4)
    axes = figure.subplots(-(-count // 2), min(2, count), squeeze=False).flat
    for i, ax in enumerate(axes):
        if i >= count:
            ax.set_visible(False)
            continue
        tasks = [after["tasks"][i] for after in found["afters"]]
        scale = _scale(tasks[0])
        dress(
            ax, "\n".join(wrapped(_name(tasks[0]), 24)), "step", "times before" if scale == "ratio" else "loss, points"
        )
        changes = [task["change"] for task in tasks]
        values = [0.0, *(_number(change["loss"]) for change in changes)]
        ax.axhline(0, color=INK, lw=1)
        ends = [(_number(c["low"]), _number(c["high"])) for c in changes]
        ax.fill_between(
            [0, *steps], [0, *(a for a, _ in ends)], [0, *(b for _, b in ends)], color=COLORS[1], alpha=0.2, lw=0
        )
        ax.plot([0, *steps], values, "o-", color=COLORS[1], lw=2.2, ms=6)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        if scale == "ratio":
            ticks = factors(*ax.get_ylim())
            ax.set_yticks([math.log(factor) for factor in ticks], [f"×{factor:g}" for factor in ticks])
    return figure


def alt_text(found: Diff) -> str:
    """What the losses are, in words."""
    told = []
    for after in found["afters"]:
        tasks = [
            f"{t['facts']['name']} {amount(t['change']['loss'], _scale(t))} ({t['verdict']})" for t in after["tasks"]
        ]
        told.append(f"{after['name']}: {', '.join(tasks)}")
    return f"Loss of each task from {found['before']}. {'; '.join(told)}."


def _name(task: TaskFound) -> str:
    return f"new: {task['facts']['name']}" if task["role"] == "new" else task["facts"]["name"]


def _scale(task: TaskFound) -> str:
    return task["facts"].get("scale", "points")


def _short(name: str) -> str:
    name = name.rstrip("/").rpartition("/")[2]
    return name if len(name) <= 30 else f"…{name[-29:]}"


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _number(value: float | None) -> float:
    return math.nan if value is None or not math.isfinite(value) else value


def _figure(height: float) -> Figure:
    figure = Figure(figsize=(6.4, height), facecolor="white", layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    return figure


def _legend(figure: Figure, marks: Sequence[Any]) -> None:
    widest = max(len(str(mark.get_label())) for mark in marks)
    columns = max(1, min(3, 56 // (widest + 6)))
    style: Any = {"fontsize": 11.5, "labelcolor": INK, "frameon": False}
    figure.legend(handles=list(marks), ncols=columns, loc="outside lower center", **style)
