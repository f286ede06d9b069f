"""Showing a figure in a notebook so that it survives without a kernel and can be read without eyes."""

from __future__ import annotations

import base64

from matplotlib.figure import Figure

from forgetlab.plots import png


def show(figure: Figure, alt: str) -> None:
    """Display a figure as a PNG with its alt text, also as the cell's plain text.

    Works with IPython 7.34, whose Image takes no alt text.
    """
    from IPython.display import display

    bundle = {"image/png": base64.b64encode(png(figure, alt)).decode(), "text/plain": alt}
    display(bundle, raw=True, metadata={"image/png": {"alt": alt}})
