"""What notebooks show, so that it survives without a kernel and can be read without eyes."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distributions, requires, version
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import ipywidgets as widgets
from matplotlib.figure import Figure

from forgetlab.teaching import compat, page

__all__ = ["gpu", "network", "setup", "show"]

WIDGET = "application/vnd.jupyter.widget-view+json"
NAMED = ("torch", "numpy", "transformers", "ipywidgets")


def setup(before: Mapping[str, str] | None = None) -> None:
    """Print the versions that the lesson runs with, on the CPU, and the GPU if there is one.

    before: {package: version} as it was before the set-up; what changed since is printed too.
    """
    import torch
    import transformers

    from forgetlab import __version__

    if words := too_old():
        print(words)
    print(f"forgetlab {__version__}, torch {torch.__version__}, transformers {transformers.__version__}, on cpu")
    if card := gpu():
        print(f"GPU: {card}. The labs leave it alone: for models as small as theirs the cpu answers first.")
    after = {d.name: d.version for d in distributions()}
    if before is not None and after != before:
        print(changes(before, after))
        print('A table that lessons quote: from forgetlab.teaching import results; results("remedies")')


def too_old() -> str:
    """What forgetlab needs and this machine has in an older version, or not at all, in words; "" where nothing is.

    The set-up cell installs forgetlab alone, so that pip says nothing of it.
    """
    from packaging.requirements import Requirement

    lacking = []
    try:
        needed = [Requirement(one) for one in requires("forgetlab") or []]
    except PackageNotFoundError:  # a folder on the path
        return ""
    for one in needed:
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            try:
                if not one.specifier.contains(found := version(one.name), prereleases=True):
                    lacking.append(f'"{one.name}{one.specifier}" (here {found})')
            except PackageNotFoundError:
                lacking.append(f'"{one.name}{one.specifier}" (here none)')
    if not lacking:
        return ""
    return f"forgetlab needs {', '.join(lacking)}: install that with pip and restart the kernel before you go on."


def gpu() -> str:
    """The name of the GPU that torch can use, or ""."""
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return "Apple MPS" if torch.backends.mps.is_available() else ""


def network(seconds: float = 3.0) -> bool:
    """Whether the hub answers within so many seconds. HF_HUB_OFFLINE=1 says no unasked; HF_ENDPOINT is heeded."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=seconds).close()
    except HTTPError:
        return True  # a refusal is an answer
    except (OSError, ValueError):
        return False
    return True


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

    from forgetlab.plots.drawing import png

    bundle = {"image/png": base64.b64encode(png(figure, alt)).decode(), "text/plain": alt}
    display(bundle, raw=True, metadata={"image/png": {"alt": alt}})


class Living(widgets.VBox):
    """A widget that is also something without a kernel: a picture or words stand beside it in the notebook.

    A page that runs shows the widget; one that only reads (a code host, a book) shows what `still` returns.
    """

    _ipython_display_ = None  # ipywidgets 7 would show the widget alone

    def __init__(self, children: Sequence[widgets.Widget] = ()) -> None:
        super().__init__([*children, page.sheet()])
        self.add_class(page.OURS)
        compat.on_page(self, False)
        compat.answer_while_busy(self)

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
