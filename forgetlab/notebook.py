"""What notebooks show, so that it survives without a kernel and can be read without eyes."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions, version
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure

from forgetlab import compat

WIDGET = "application/vnd.jupyter.widget-view+json"
NAMED = ("torch", "numpy", "transformers", "ipywidgets")


def setup(before: Mapping[str, str] | None = None) -> None:
    """Print the versions and the device that the lesson runs with.

    before: {package: version} as it was before the set-up; what changed since is printed too.
    """
    import torch
    import transformers

    from forgetlab import __version__

    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    print(f"forgetlab {__version__}, torch {torch.__version__}, transformers {transformers.__version__}, on {device}")
    after = {d.name: d.version for d in distributions()}
    if before is not None and after != before:
        print(changes(before, after))


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """What an installation did to {package: version}, in words."""
    added = [f"{name} {found}" for name, found in after.items() if name not in before]
    other = [f"{name} {was} → {after.get(name, 'gone')}" for name, was in before.items() if after.get(name) != was]
    kept = [f"{name} {version(name)}" for name in NAMED if name in before]
    if other:
        return f"Added: {', '.join(added)}. Replaced: {', '.join(other)}. Restart the kernel before you go on."
    return f"Added: {', '.join(added)}. Nothing was replaced: {', '.join(kept)} and all others are what they were."


def show(figure: Figure, alt: str) -> None:
    """Display a figure as a PNG with its alt text, also as the cell's plain text.

    Works with IPython 7.34, whose Image takes no alt text.
    """
    from IPython.display import display

    from forgetlab.plots import png

    bundle = {"image/png": base64.b64encode(png(figure, alt)).decode(), "text/plain": alt}
    display(bundle, raw=True, metadata={"image/png": {"alt": alt}})


class Living(widgets.VBox):
    """A widget that is also something without a kernel: a picture or words stand beside it in the notebook.

    A page that runs shows the widget; one that only reads (a code host, a book) shows what `still` returns.
    """

    _ipython_display_ = None  # ipywidgets 7 would show the widget alone

    def __init__(self, children: Sequence[widgets.Widget] = ()) -> None:
        super().__init__(children)
        compat.on_page(self, False)

    def close(self) -> None:
        """Free it and all its widgets; a page then shows nothing of it."""
        compat.close(self)

    def still(self) -> dict[str, str]:
        """{mime type: content} of what is shown without a kernel; "text/plain" is among them."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        compat.on_page(self, True)
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return {**self.still(), WIDGET: view}
