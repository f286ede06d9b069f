"""A figure for a small screen: its panels one below the other, its words as large as before."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.legend import Legend
from matplotlib.text import Text

from forgetlab.plots.drawing import forget
from forgetlab.plots.style import wrapped

COLUMN, LOWER = 4.2, 0.85  # inches across; how high panels that stood side by side are, as a share of what they were
LETTERS = 40  # in a line of a legend's title

# size and places of the axes, as a figure was made
_MADE: WeakKeyDictionary[Figure, tuple[Any, list[tuple[Axes, SubplotSpec]]]] = WeakKeyDictionary()


def fit(figure: Figure, narrow: bool) -> None:
    """Lay a figure out in one column, or (narrow=False) as it was made.

    figure: on the Agg canvas, its axes in a grid, 6.4 in wide. To be called again after every change of it.
    """
    if narrow and figure not in _MADE:
        places = [(ax, spec) for ax in figure.axes if (spec := ax.get_subplotspec())]
        _MADE[figure] = figure.get_size_inches().copy(), places
        heights = [_height(spec) for _, spec in places]
        column = figure.add_gridspec(len(places), 1, height_ratios=heights)
        for i, (ax, _) in enumerate(places):
            ax.set_subplotspec(column[i])
            for words in (ax.xaxis.label, *(child for child in ax.get_children() if isinstance(child, Text))):
                words.set_wrap(True)
        height = figure.get_figheight() * sum(heights)
        figure.set_size_inches(COLUMN, height if sum(heights) < 1.01 else LOWER * height)
        _words_fit(figure)
        _settle(figure)
    elif narrow:
        _words_fit(figure)
    elif figure in _MADE:
        size, places = _MADE.pop(figure)
        for ax, spec in places:
            ax.set_subplotspec(spec)
        figure.set_size_inches(size)
        _settle(figure)


def _height(spec: SubplotSpec) -> float:
    """The share of the figure's height that an axes has."""
    ratios = np.asarray(spec.get_gridspec().get_height_ratios(), float)
    return float(ratios[spec.rowspan.start : spec.rowspan.stop].sum() / ratios.sum())


def _settle(figure: Figure) -> None:
    """Find the places anew, also where a lab has found them once and keeps them."""
    engine = figure.get_layout_engine()
    figure.set_layout_engine("constrained")
    figure.draw_without_rendering()
    figure.set_layout_engine(engine)
    forget(figure)


def _words_fit(figure: Figure) -> None:
    """Break the titles of legends into lines, and give legends that are too wide fewer columns."""
    for legend in list(figure.legends):
        title = legend.get_title()
        if len(title.get_text()) > LETTERS:
            title.set_text("\n".join(wrapped(title.get_text().replace("\n", " "), LETTERS)))
        for columns in (2, 1):
            if legend.get_window_extent().width <= figure.bbox.width:
                break
            legend = _in_columns(figure, legend, columns)


def _in_columns(figure: Figure, legend: Legend, columns: int) -> Legend:
    title, words = legend.get_title(), legend.get_texts()
    look: Any = {"fontsize": words[0].get_fontsize(), "labelcolor": words[0].get_color(), "frameon": False}
    if title.get_text():
        look |= {"title": title.get_text(), "title_fontsize": title.get_fontsize()}
    handles: Any = [*legend.legend_handles]
    legend.remove()
    made = figure.legend(
        handles, [text.get_text() for text in words], loc="outside lower center", ncols=columns, **look
    )
    made.get_title().set_color(title.get_color())
    made.set_animated(legend.get_animated())
    return made
