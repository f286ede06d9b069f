"""How figures look: colours, line styles, numbers and names at the axes."""

from __future__ import annotations

import math
import re
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator

UNITS = {"f1": "F1", "perplexity": "perplexity (choices)", "fluency": "fluency (share)", "accuracy": "accuracy (share)"}
INK, FAINT = "#222222", "#666666"
# Six of petroff10 (matplotlib 3.9 lacks it), and three in place of those below a contrast of 3:1 on white: the ones
# farthest from all others, to colour-blind eyes too. The first look is kept for "none".
COLORS = ("#bd1f01", "#3f90da", "#832db6", "#e76300", "#717581", "#a96b59", "#183060", "#601800", "#006060")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (9, 2)))
SMALL: Any = {"fontsize": 11.5, "color": INK, "textcoords": "offset points"}
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
HALO = [withStroke(linewidth=3, foreground="white")]  # words over lines
FEW = partial(MaxNLocator, 5, steps=[1, 2, 2.5, 5, 10])  # ticks


@FuncFormatter
def powers_of_ten(value: float, place: int | None = None) -> str:
    """10⁻³ at an axis in plain letters: Matplotlib's own way, a formula for each tick, takes half of a redraw."""
    return "10" + str(round(math.log10(value))).translate(RAISED)


@FuncFormatter
def at_log(value: float, place: int | None = None) -> str:
    """A number at a log axis: 10,000, and from there on 10⁵ or 2·10⁵ rather than 1e+05."""
    if not value or 1e-4 <= value < 1e5:
        return f"{value:,g}"
    power = math.floor(math.log10(value) + 1e-9)
    lead = f"{value / 10.0**power:g}"
    return ("" if lead == "1" else f"{lead}·") + "10" + str(power).translate(RAISED)


def number(value: float | None, scale: str = "ratio") -> str:
    """A value as people write it: three digits on the scale "ratio" (a perplexity), else two decimals; "–" for None."""
    if value is None or not np.isfinite(value):
        return "–"
    if scale != "ratio":
        return f"{round(value, 2) + 0:.2f}".replace("-", "−")  # + 0: no "−0.00"
    if value == 0 or 0.001 <= abs(value) < 999.5:
        return f"{value:#.3g}".rstrip(".")
    return f"{value:,.0f}" if 1 < abs(value) < 1e6 else f"{value:.1e}"


def wrapped(name: str, width: int) -> list[str]:
    """A name in lines of at most `width` letters, broken before a "+", ",", "_" or blank where it can be."""
    lines = [""]
    for piece in re.findall(rf"[^+,_ ]{{1,{width}}}|[+,_ ][^+,_ ]{{0,{width - 1}}}", name):
        if lines[-1] and len(lines[-1] + piece) > width:
            lines.append("")
        lines[-1] += piece
    return [line.strip() for line in lines]


def plain(text: str) -> str:
    """Words as they are: a $ in a file's name starts no formula."""
    return text.replace("$", r"\$")


def dress(ax: Axes, title: str, across: str, up: str, few: bool = True) -> None:
    """Titles, and colours: with a dark style of the reader's there would be white letters on white. few: numbers."""
    for axis in (ax.xaxis, ax.yaxis) if few else ():
        axis.set_major_locator(FEW())
    ax.set_title(plain(title), loc="left", fontsize=13, color=INK)
    ax.set_xlabel(plain(across), fontsize=13, color=INK)
    ax.set_ylabel(plain(up), fontsize=13, color=INK)
    ax.tick_params(labelsize=12, color=FAINT, labelcolor=INK)
    ax.grid(color="#e4e4e4", lw=0.8)
    ax.set(facecolor="white", axisbelow=True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(FAINT)
