"""Figures for small screens; colours against the formulas of WCAG 2.1 and of CSS filters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from forgetlab.labs.conflict import LOOKS as STEPS
from forgetlab.labs.views.frontier import LOOKS as FAMILIES
from forgetlab.labs.views.quadrants import LOOKS as GROUPS
from forgetlab.plots.narrow import fit
from forgetlab.plots.style import COLORS, FAINT, INK
from forgetlab.teaching.page import INVERTED, SIGNS


def contrast(one: Any, other: Any) -> float:
    """https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio"""

    def luminance(color: Any) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
        return float(np.dot((0.2126, 0.7152, 0.0722), linear))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def darkened(color: Any) -> Any:
    """What the page's style sheet makes of it: https://www.w3.org/TR/filter-effects-1/, invert and hue-rotate."""
    keep, cos = np.array([[0.213, 0.715, 0.072]] * 3), -1  # sin 180° is 0
    turn = keep + cos * (np.eye(3) - keep)
    return np.clip(turn @ (INVERTED + np.array(color) * (1 - 2 * INVERTED)), 0, 1)


def test_the_contrast_of_known_pairs() -> None:
    assert contrast((1, 1, 1), (0, 0, 0)) == pytest.approx(21)
    assert contrast(to_rgb("#767676"), (1, 1, 1)) == pytest.approx(4.54, abs=0.005)
    assert darkened((0, 0, 0)) == pytest.approx([0.93] * 3)
    assert darkened((1, 1, 1)) == pytest.approx([0.07] * 3)


MEANT = {*COLORS, *(color for color, _ in FAMILIES.values())}
MEANT |= {look["color"] for looks in (GROUPS, STEPS) for look in looks.values()}


@pytest.mark.parametrize("color", sorted(MEANT))
def test_colours_that_mean_something_stand_out_on_white_and_on_dark(color: str) -> None:
    white = to_rgb("white")
    assert contrast(to_rgb(color), white) >= 3
    assert contrast(darkened(to_rgb(color)), darkened(white)) >= 3


@pytest.mark.parametrize("kind", SIGNS)
def test_the_signs_of_verdicts_stand_out_on_light_and_dark_pages(kind: str) -> None:
    _, color = SIGNS[kind]
    assert contrast(to_rgb(color), (1, 1, 1)) >= 3
    assert contrast(to_rgb(color), to_rgb("#111111")) >= 3


@pytest.mark.parametrize("color", [INK, FAINT])
def test_words_can_be_read_on_white_and_on_dark(color: str) -> None:
    assert contrast(to_rgb(color), (1, 1, 1)) >= 4.5
    assert contrast(darkened(to_rgb(color)), darkened((1, 1, 1))) >= 4.5


def places(figure: Figure) -> list[list[float]]:
    return [[*ax.get_position().bounds] for ax in figure.axes]


def test_panels_stand_in_one_column_and_go_back() -> None:
    figure = Figure(figsize=(6.4, 5.2), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2)
    for i, place in enumerate((grid[0, :], grid[1, 0], grid[1, 1])):
        figure.add_subplot(place).set(
            title="a long title of many words, longer than a small page is wide", xlabel=str(i)
        )
    figure.draw_without_rendering()
    made, size = places(figure), figure.get_size_inches().tolist()
    fit(figure, True)
    lefts, bottoms, widths, _ = np.array(places(figure)).T
    assert np.ptp(lefts) < 0.01
    assert min(widths) > 0.6
    assert list(bottoms) == sorted(bottoms, reverse=True)
    assert min(-np.diff(bottoms)) > 0.2
    fit(figure, False)
    assert figure.get_size_inches().tolist() == size
    assert np.allclose(places(figure), made, atol=0.03)  # titles still break where they must
