"""What a repair found, for people: lines for the terminal, HTML with a figure for the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from forgetlab.diff.repair.found import ROUNDING, RepairFound, Unseen, budget, in_words
from forgetlab.experiments.report import figure_html, filled
from forgetlab.metrics.retention import higher_is_better, scale
from forgetlab.plots.drawing import png
from forgetlab.plots.style import COLORS, FAINT, FEW, HALO, INK, at_log, dress, number

HEAD = ("task", "metric", "before", "after", "repaired", "against after", "against before")
NAMED = (0.0, 0.5, 1.0)  # α that are written at their points


def repair_lines(found: RepairFound) -> list[str]:
    """What was chosen, in sentences, and a table of the scores on texts that the choice did not see."""
    rows = [HEAD, *(cells(one, i == 0) for i, one in enumerate(found["tasks"]))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*filled(said(found)), *table]


def repair_html(found: RepairFound) -> str:
    """The same as HTML, with the figure."""
    head, *rows = [HEAD, *(cells(one, i == 0) for i, one in enumerate(found["tasks"]))]
    lines = [
        f"<th scope=row>{escape(name)}</th>" + "".join(f"<td>{escape(c)}</td>" for c in rest) for name, *rest in rows
    ]
    lines.insert(0, "".join(f"<th scope=col>{cell}</th>" for cell in head))
    table = f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
    words, picture = "".join(f"<p>{escape(line[:1].upper() + line[1:])}.</p>" for line in said(found)), ""
    if all(math.isfinite(one[key]) for one in found["looks"] for key in ("new", "old")):
        alt = alt_text(found)
        picture = figure_html(png(figure(found), alt), alt)
    return f"{words}{picture}{table}"


def said(found: RepairFound) -> list[str]:
    """What was chosen, on what, and what it came to; or why nothing was."""
    new, few = found["tasks"][0], sorted({one["chosen_on"] for one in found["tasks"]})
    name, allowed = new["facts"]["name"], budget(found["within"], new["facts"])
    first = f"no repair of {found['after']}: {found['reason']}"
    if (chosen := found["chosen"]) is not None:
        first = (
            f"repair of {found['after']}: θ_before + α (θ_after − θ_before) with {in_words(chosen)}; of "
            f"{len(found['looks'])} points tried it loses least of the old with {name} within {allowed} of AFTER"
        )
    on = " to ".join(str(n) for n in dict.fromkeys((few[0], few[-1])))
    lines = [
        first,
        f"chosen on {on} test texts of each task; the scores are of the others, which no choice has seen",
    ]
    if chosen is not None and new["to_after"][0] > found["within"] + ROUNDING:
        lines.append(f"on those {name} loses {budget(new['to_after'][0], new['facts'])}, more than the budget")
    return lines


def figure(found: RepairFound) -> Figure:
    """Old share kept against the new score along α on the choosing texts, with the budget and what was chosen."""
    new, looks = found["tasks"][0]["facts"], [one for one in found["looks"] if not one["layers"]]
    across, up = [one["scores"][new["name"]] for one in looks], [1 - one["old"] for one in looks]
    made = Figure(figsize=(6.4, 4.6), facecolor="white", layout="constrained", dpi=110)
    FigureCanvasAgg(made)
    ax = made.add_subplot()
    ax.plot(across, up, "-o", color=COLORS[1], lw=2, ms=6, label="one α for all weights")
    words: Any = {"textcoords": "offset points", "fontsize": 11.5, "color": INK, "path_effects": HALO}
    for one, x, y in zip(looks, across, up, strict=True):
        if one["alpha"] in NAMED:
            ax.annotate(
                _point(one["alpha"]), (x, y), (8, -14 if one["alpha"] == 0 else 4), **words, annotation_clip=True
            )
    edge = _within(across[-1], found)
    ax.axvline(edge, color=FAINT, ls="--", lw=1.5, label=f"budget: {budget(found['within'], new)}")
    if chosen := found["chosen"]:
        label = "chosen: α by layer" if chosen["layers"] else f"chosen: α = {chosen['alpha']:g}"
        ax.plot(chosen["scores"][new["name"]], 1 - chosen["old"], "D", color=COLORS[0], ms=11, mec="white", label=label)
    better = "" if higher_is_better(new) else ", lower is better"
    dress(
        ax,
        "what is kept of the old, and of the new",
        f"{new['name']}: {new['metric']}{better}",
        "old share kept (1: all)",
    )
    ax.margins(0.12)
    if scale(new) == "ratio":  # before may be decades away: the quarter of the way that ends at after
        shown = max(looks[0]["new"] / 4, 4 * found["within"])
        ax.set_xscale("log")
        ax.set_xlim(across[-1] * math.exp(-shown / 8), across[-1] * math.exp(shown))
        ax.xaxis.set_major_locator(FEW() if shown < 1.4 else LogLocator(subs=(1, 2, 5) if shown < 4 else (1,)))
        ax.xaxis.set_major_formatter(at_log)
        ax.xaxis.set_minor_locator(NullLocator())
    if not higher_is_better(new):
        ax.invert_xaxis()
    made.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=11.5, labelcolor=INK)
    return made


def alt_text(found: RepairFound) -> str:
    """What the figure shows, in two sentences with the numbers."""
    new, chosen = found["tasks"][0]["facts"], found["chosen"]
    ends = [one for one in found["looks"] if one["alpha"] in (0, 1) and not one["layers"]] + (
        [chosen] if chosen else []
    )
    scores = [number(one["scores"][new["name"]], scale(new)) for one in ends]
    told = [
        f"at {in_words(one)} {new['name']} {score} and {100 - 100 * one['old']:.0f} % kept"
        for one, score in zip(ends, scores, strict=True)
    ]
    word = f"{in_words(chosen)} is chosen" if chosen else "None is chosen"
    return f"What is kept of the old against the new score between before and after: {'; '.join(told)}. {word}."


def cells(one: Unseen, new: bool) -> tuple[str, ...]:
    """A task's line in the table."""
    facts, form = one["facts"], scale(one["facts"])
    scores = [number(one[when], form) for when in ("before", "after", "repaired")]
    name = f"{facts['name']} ({'new' if new else 'old'}, {one['scored_on']} texts)"
    return name, facts["metric"], *scores, _change(one, "to_after"), _change(one, "to_before")


def _change(one: Unseen, to: str) -> str:
    """A loss as a change of the score: points, or the factor of a perplexity, with its 95 % interval."""
    ends: Sequence[float] = one[to]  # type: ignore[literal-required]
    if not ends:
        return "–"
    if scale(one["facts"]) == "ratio":
        middle, low, high = (number(math.exp(end)) for end in ends)
        return f"×{middle} ({low} to {high})"
    points = [-ends[0], -ends[2], -ends[1]] if higher_is_better(one["facts"]) else ends
    middle, low, high = (f"{round(end, 3) + 0:+.3f}".replace("-", "−") for end in points)
    return f"{middle} ({low} to {high})"


def _within(after: float, found: RepairFound) -> float:
    """The score at which the budget ends."""
    facts = found["tasks"][0]["facts"]
    if scale(facts) == "ratio":
        return after * math.exp(found["within"])
    return after - found["within"] if higher_is_better(facts) else after + found["within"]


def _point(alpha: float) -> str:
    return {0.0: "before", 1.0: "after"}.get(alpha, f"α = {alpha:g}")
