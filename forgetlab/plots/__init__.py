"""Figures from results: labelled, colour-blind-safe, with alt text made from the numbers."""

from forgetlab.plots.drawing import png
from forgetlab.plots.figures import FIGURES, alt_text, curves, drift, trade_off
from forgetlab.plots.style import COLORS, DASHES, FAINT, INK, number

__all__ = [
    "COLORS",
    "DASHES",
    "FAINT",
    "FIGURES",
    "INK",
    "alt_text",
    "curves",
    "drift",
    "number",
    "png",
    "trade_off",
]
