"""A figure for the room that a page has: in one column on a small screen, else as wide and high as there is place.

Its words keep their size: a smaller figure has fewer inches and fewer numbers at its axes, not smaller letters.
"""

from __future__ import annotations

import math
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
ROWS, BROAD = 2, 8.0  # of panels in a broad room, and the inches that make it one
IN_A_ROW, FLAT = 4, 2.6  # so many panels stand in one row of a room that is so much wider than high
FIRST = 0.7  # of a row's height has the first panel where there are more rows

Size = tuple[float, float]  # inches across and up
# size and places of the axes, as a figure was made; and what it was laid out for
_MADE: WeakKeyDictionary[Figure, tuple[Any, list[tuple[Axes, SubplotSpec]]]] = WeakKeyDictionary()
_LABELS: WeakKeyDictionary[Axes, str] = WeakKeyDictionary()  # those up an axis that are shown without their unit
_FITTED: WeakKeyDictionary[Figure, bool | Size] = WeakKeyDictionary()


def fit(figure: Figure, narrow: bool, room: Size | None = None) -> None:
    """Lay a figure out in one column (narrow), within a room, or as it was made (neither).

    figure: on the Agg canvas, its axes in a grid, 6.4 in wide. To be called again after every change of it.
    """
    wanted = True if narrow else room or False
    if wanted != _FITTED.get(figure, False):
        if figure not in _MADE:
            places = [(ax, spec) for ax in figure.axes if (spec := ax.get_subplotspec())]
            _MADE[figure] = figure.get_size_inches().copy(), places
        size, places = _MADE[figure]
        for ax, spec in places:
            ax.set_subplotspec(spec)
        figure.set_size_inches(size)
        source = figure.get_suptitle() and figure._suptitle  # type: ignore[attr-defined]
        if source:  # it stands above the figure there, by the numbers
            source.set_visible(narrow or not room)
        if narrow:
            _one_column(figure, places)
        elif room:
            _within(figure, places, room)
        _FITTED[figure] = wanted
        if wanted:
            _words_fit(figure)
        _settle(figure)
        _units_fit(figure, places)
    elif wanted:
        _words_fit(figure)


def _one_column(figure: Figure, places: list[tuple[Axes, SubplotSpec]]) -> None:
    heights = [height_share(spec) for _, spec in places]
    column = figure.add_gridspec(len(places), 1, height_ratios=heights)
    for i, (ax, _) in enumerate(places):
        ax.set_subplotspec(column[i])
        for words in (ax.xaxis.label, *(child for child in ax.get_children() if isinstance(child, Text))):
            words.set_wrap(True)
    height = figure.get_figheight() * sum(heights)
    figure.set_size_inches(COLUMN, height if sum(heights) < 1.01 else LOWER * height)


def _within(figure: Figure, places: list[tuple[Axes, SubplotSpec]], room: Size) -> None:
    """As wide as the room and at most as high.

    In a broad one stacked panels stand side by side, as do four in a flat one, a first one of three has the left half,
    and there are two rows at most, of which the first panel takes what is over.
    """
    across, up = figure.get_size_inches()
    figure.set_size_inches(room[0], min(room[1], up * room[0] / across))
    grid, count, top = places[0][1].get_gridspec(), len(places), places[0][1]
    if room[0] < BROAD:
        if grid.nrows > ROWS:
            made = figure.add_gridspec(grid.nrows, grid.ncols, height_ratios=[FIRST, *[1] * (grid.nrows - 1)])
            for ax, spec in places:
                ax.set_subplotspec(made[spec.rowspan.start, spec.colspan.start : spec.colspan.stop])
    elif grid.ncols == 1 < count or (count == IN_A_ROW and room[0] > FLAT * room[1]):
        ratios = grid.get_height_ratios() if grid.ncols == 1 else None
        made = figure.add_gridspec(1, count, width_ratios=ratios)
        for i, (ax, _) in enumerate(places):
            ax.set_subplotspec(made[i])
    elif count == 3 and len(top.colspan) == grid.ncols == 2:
        made = figure.add_gridspec(2, 2)
        for (ax, _), spec in zip(places, (made[:, 0], made[0, 1], made[1, 1]), strict=True):
            ax.set_subplotspec(spec)
    elif grid.nrows > ROWS:
        columns = math.ceil(count / ROWS)
        over = ROWS * columns - count
        made = figure.add_gridspec(ROWS, columns)
        for i, (ax, _) in enumerate(places):
            ax.set_subplotspec(made[0, : over + 1] if i == 0 else made[divmod(i + over, columns)])


def height_share(spec: SubplotSpec) -> float:
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


def _units_fit(figure: Figure, places: list[tuple[Axes, SubplotSpec]]) -> None:
    """Leave out the unit in brackets of a label that is longer than its axis."""
    for ax, _ in places:
        label = ax.yaxis.label
        if ax in _LABELS:
            label.set_text(_LABELS.pop(ax))
        if label.get_window_extent().height > 1.1 * ax.bbox.height:
            _LABELS[ax] = label.get_text()
            label.set_text(_LABELS[ax].partition(" (")[0])
            forget(figure)


def _words_fit(figure: Figure) -> None:
    """Break the titles of legends into lines, and give legends that are too wide fewer columns."""
    letters = LETTERS * figure.get_figwidth() / COLUMN
    for legend in list(figure.legends):
        title = legend.get_title()
        if len(title.get_text()) > letters:
            title.set_text("\n".join(wrapped(title.get_text().replace("\n", " "), int(letters))))
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
