"""Figures as PNG, several times a second: a lab redraws at every move of a slider.

Three things make a second picture of a figure cheap. It is drawn once, where `savefig` draws it twice; it is laid out
anew only where its words have other lengths, or one reaches past an axis; and of a figure whose moving parts are named
by `moves`, all else is kept as a picture for as long as its limits, ticks and words stay the same.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from PIL import Image
from PIL.PngImagePlugin import PngInfo

NEAR = 0.9  # share of an axis beyond which half a number does not fit

_LAID_OUT: WeakKeyDictionary[Figure, list[Any]] = WeakKeyDictionary()
_BACKGROUNDS: WeakKeyDictionary[Figure, tuple[list[Any], Any]] = WeakKeyDictionary()


def moves(*artists: Artist) -> None:
    """Name the parts of a figure that change from one picture to the next; they are drawn above all else.

    The others may change their words, their places and the limits of their axes, which costs a whole picture, but
    not their colour or style.
    """
    for artist in artists:
        artist.set_animated(True)


def png(figure: Figure, alt: str | None = None) -> bytes:
    """The figure as a PNG, 704 px wide as labs make it. alt: its description, kept in the file."""
    canvas = figure.canvas if isinstance(figure.canvas, FigureCanvasAgg) else FigureCanvasAgg(figure)
    moving = [artist for artist in _parts(figure) if artist.get_animated()]
    still = _still(figure)
    kept, background = _BACKGROUNDS.get(figure, (None, None))
    if moving and kept == still:
        canvas.restore_region(background)
    else:
        _draw(figure, canvas)
        if moving:
            _BACKGROUNDS[figure] = _still(figure), canvas.copy_from_bbox(figure.bbox)
    for artist in sorted(moving, key=lambda artist: artist.get_zorder()):
        figure.draw_artist(artist)
    picture = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")
    notes = PngInfo()
    if alt:
        notes.add_itxt("Description", alt)
    file = io.BytesIO()
    picture.save(file, "png", pnginfo=notes, compress_level=4)
    return file.getvalue()


def forget(figure: Figure) -> None:
    """Lay the figure out anew at its next picture, and keep nothing of the last."""
    _LAID_OUT.pop(figure, None)
    _BACKGROUNDS.pop(figure, None)


def _draw(figure: Figure, canvas: FigureCanvasAgg) -> None:
    """Draw what does not move; the layout is kept where all words have the length that they had."""
    lengths, engine = _lengths(_still(figure)), figure.get_layout_engine()
    kept = _LAID_OUT.get(figure) == lengths
    if kept:
        figure.set_layout_engine("none")
    try:
        with _words_stay(figure.axes if kept else ()):
            canvas.draw()
    finally:
        figure.set_layout_engine(engine)
    _LAID_OUT[figure] = lengths


@contextmanager
def _words_stay(axes: Iterable[Any]) -> Iterator[None]:
    """Titles and labels stay where the last layout put them: to look for their places is a third of a picture."""
    before = [(ax, ax._autotitlepos, ax.xaxis._autolabelpos, ax.yaxis._autolabelpos) for ax in axes]
    try:
        for ax, *_ in before:
            ax._autotitlepos = ax.xaxis._autolabelpos = ax.yaxis._autolabelpos = False
        yield
    finally:
        for ax, title, across, up in before:
            ax._autotitlepos, ax.xaxis._autolabelpos, ax.yaxis._autolabelpos = title, across, up


def _parts(figure: Figure) -> Iterable[Artist]:
    yield from (*figure.legends, *figure.texts)
    for ax in figure.axes:
        yield from (*ax.lines, *ax.texts, *ax.patches, *ax.collections)


def _still(figure: Figure) -> list[Any]:
    """What decides how the parts that do not move look: words, limits, and the numbers at the axes."""
    legends = [legend for legend in figure.legends if not legend.get_animated()]
    found: list[Any] = [[text.get_text() for legend in legends for text in (legend.get_title(), *legend.get_texts())]]
    found.append([text.get_text() for text in figure.texts if not text.get_animated()])
    for ax in figure.axes:
        ticks = [axis.get_major_formatter().format_ticks([*axis.get_majorticklocs()]) for axis in (ax.xaxis, ax.yaxis)]
        ticks.append(_at_end(ax))
        words = [ax.get_title(loc="left"), ax.get_title(), ax.get_xlabel(), ax.get_ylabel()]
        rest = [_place(artist) for artist in (*ax.lines, *ax.texts, *ax.patches, *ax.collections)]
        where = [ax.get_xlim(), ax.get_ylim(), ax.get_xscale(), ax.get_yscale(), ax.get_visible()]
        found.append({"words": words, "ticks": ticks, "where": where, "rest": rest})
    return found


def _at_end(ax: Axes) -> list[str]:
    """The number at the x axis, if there is one, that stands so near its right end that it reaches past it."""
    places = [*ax.xaxis.get_majorticklocs()]
    words = ax.xaxis.get_major_formatter().format_ticks(places)
    to_share = ax.transData - ax.transAxes
    shares = [to_share.transform((x, ax.get_ylim()[0]))[0] for x in places]
    return [word for word, share in zip(words, shares, strict=True) if NEAR < share < 1 + 1e-6]


def _place(artist: Artist) -> Any:
    """Where an artist that does not move stands, and what it says."""
    if artist.get_animated():
        return None
    match artist:
        case Line2D():
            what: Any = np.asarray(artist.get_xydata()).tobytes()
        case Text():
            what = artist.get_text(), artist.get_position()
        case Patch():
            what = [
                np.asarray(v).tobytes() for v in (artist.get_path().vertices, artist.get_patch_transform().get_matrix())
            ]
        case _:
            what = None
    return id(artist), artist.get_visible(), what


def _lengths(still: list[Any]) -> list[Any]:
    """What the layout depends on: the words around the axes, and how long the numbers at them are."""
    legends, _, *axes = still
    return [
        legends,
        *((ax["words"], [max(map(len, t), default=0) for t in ax["ticks"]], ax["where"][-1]) for ax in axes),
    ]
