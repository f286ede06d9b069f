"""What all of the labs' figures look like."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from forgetlab.plots.style import FAINT, INK


def blank(height: float, source: str = "") -> tuple[Figure, Text]:
    """A figure as wide as a page, `height` inches high, and the words in its corner: where what it shows comes from."""
    figure = Figure(figsize=(6.4, height), facecolor="white", layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    return figure, figure.suptitle(source, x=0.995, ha="right", fontsize=11, color=FAINT, style="italic")


def titled(ax: Axes, title: str) -> None:
    """Set the title of a pair of axes."""
    ax.set_title(title, loc="left", fontsize=13, color=INK)


def dress(ax: Axes, title: str = "", across: str = "", up: str = "") -> None:
    """Title, labels and colours of a pair of axes."""
    titled(ax, title)
    ax.set_xlabel(across, fontsize=12, color=INK)
    ax.set_ylabel(up, fontsize=12, color=INK)
    ax.tick_params(labelsize=11, color=FAINT, labelcolor=INK)
    ax.spines[["top", "right"]].set_visible(False)
