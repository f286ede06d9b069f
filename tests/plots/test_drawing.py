"""A picture that is made of a kept one is the picture that would be drawn anew."""

from __future__ import annotations

import io
import itertools
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from forgetlab.labs import cloud, conflict, dynamics
from forgetlab.labs.kit.base import Lab
from forgetlab.labs.kit.curves import Curves, Panel
from forgetlab.plots import drawing
from forgetlab.plots.drawing import moves, png


def pixels(figure: Figure) -> Any:
    return np.asarray(Image.open(io.BytesIO(png(figure))))


def anew(figure: Figure) -> Any:
    """Nothing kept: the figure drawn from its first artist on."""
    drawing._BACKGROUNDS.clear()
    return pixels(figure)


@pytest.fixture
def figure() -> Figure:
    figure = Figure(figsize=(3, 2), layout="constrained")
    ax = figure.subplots()
    ax.set(xlim=(0, 1), ylim=(0, 1))
    return figure


def test_a_moved_part_leaves_nothing_behind(figure: Figure) -> None:
    (line,) = figure.axes[0].plot([0, 1], [0, 1])
    moves(line)
    first = pixels(figure)
    line.set_ydata([1, 0])
    second = pixels(figure)
    assert (first != second).any()
    line.set_ydata([0, 1])
    assert (pixels(figure) == first).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda ax: ax.set_title("other"),
        lambda ax: ax.set_xlabel("across"),
        lambda ax: ax.set_xlim(0, 2),
        lambda ax: ax.set_yscale("symlog"),
        lambda ax: ax.set_xticks([0.5]),
        lambda ax: ax.lines[1].set_ydata([0.9, 0.9]),
        lambda ax: ax.lines[1].remove(),
        lambda ax: ax.texts[0].set_text("other"),
        lambda ax: ax.texts[0].set_position((0.5, 0.1)),
        lambda ax: ax.patches[0].set_width(0.3),
        lambda ax: ax.axvline(0.3),
        lambda ax: ax.set_visible(False),
        lambda ax: ax.figure.suptitle("above"),
        lambda ax: ax.figure.legend(handles=ax.lines[:1], labels=["a line"]),
    ],
)
def test_what_changes_without_being_named_is_seen(figure: Figure, change: Any) -> None:
    ax = figure.axes[0]
    moves(*ax.plot([0, 1], [0, 1]))
    ax.plot([0, 1], [0.2, 0.2])
    ax.text(0.5, 0.5, "words")
    ax.barh([0.8], [0.6], 0.1)
    before = pixels(figure)
    change(ax)
    after = pixels(figure)
    assert (before != after).any()
    assert (after == anew(figure)).all()


@pytest.mark.parametrize("show", [cloud.show, conflict.show, dynamics.show])
def test_every_move_of_a_simulation_draws_what_a_new_picture_would(show: Any) -> None:
    lab: Lab = show(driver="inline")
    figure = lab._shown._draw(lab.state, [], {}, "simulated")[0]
    for control in lab.training.values():
        for value in (control.min, control.max):
            control.value = value
            kept = pixels(figure)
            assert (kept == anew(figure)).all()


def test_curves_that_grow() -> None:
    view = Curves(
        [Panel("a", "new: a", "share", limits=(0, 1)), Panel("b", "watched: b", "choices", log=True, floor=2)]
    )
    old = {"a": {"score": ([0, 20], [0.1, 0.9])}, "b": {"score": ([0, 20], [3.0, 40.0])}}
    steps = list(range(0, 30, 5))
    for n, earlier in itertools.product(range(1, len(steps) + 1), ([], [old])):
        run = {key: {"score": (steps[:n], [2.5 + step for step in steps[:n]])} for key in "ab"}
        figure = view.draw(run, earlier)
        kept = pixels(figure)
        assert (kept == anew(figure)).all()


@pytest.mark.parametrize("last", [60, 80, 90, 95, 100])
def test_the_last_number_at_an_axis_stays_on_the_page_as_curves_grow(last: int) -> None:
    """Numbers outside the limits are never drawn, yet are as long as the one that is to come."""
    view = Curves([Panel(key, key, "share", limits=(0, 1)) for key in "ab"])
    for end in (last, 100):
        figure = view.draw({key: {"score": ([0, end], [0.1, 0.9])} for key in "ab"})
        png(figure)
        for ax in figure.axes:
            shown = [
                t.label1 for t in ax.xaxis.get_major_ticks() if ax.get_xlim()[0] <= t.get_loc() <= ax.get_xlim()[1]
            ]
            assert max(label.get_window_extent().x1 for label in shown) <= figure.bbox.x1


def test_a_point_alone_is_seen_among_steps_that_can_be_read() -> None:
    view = Curves([Panel("a", "", "", limits=(0, 1))])
    empty = pixels(view.draw({"a": {"score": ([], [])}}))
    figure = view.draw({"a": {"score": ([24], [0.5])}})
    drawn = pixels(figure)
    (ax,) = figure.axes
    x, y = ax.transData.transform((24, 0.5)).round().astype(int)
    assert (drawn[-y, x] != empty[-y, x]).any()
    assert ax.xaxis.get_major_formatter().get_offset() == ""
