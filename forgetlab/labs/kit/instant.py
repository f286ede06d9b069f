"""What the simulations share: they are fast enough to compute at every move, and one state makes the picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Protocol

import ipywidgets as widgets
from matplotlib.figure import Figure

from forgetlab.labs.kit.base import Lab, Settings, State
from forgetlab.labs.kit.runner import Driver
from forgetlab.labs.kit.shown import Head


class View(Protocol):
    """A figure whose artists are kept and moved."""

    def draw(self, state: State) -> Figure: ...


def instant(
    name: str,
    work: Callable[[Settings], Iterator[State]],
    make_view: Callable[[], View],
    *,
    training: Mapping[str, widgets.Widget],
    presets: Mapping[str, Settings],
    intro: str,
    driver: Driver | None,
    head: Head[State],
) -> Lab:
    """A lab of a simulation. work: as for Lab; its states hold "message". make_view: called at the first picture."""
    view = cache(make_view)

    def draw(state: State, old: Sequence[State], settings: Settings, source: str) -> tuple[Figure, str]:
        return view().draw(state), state["message"]

    common: Any = {"training": training, "presets": presets, "intro": intro, "driver": driver}
    return Lab(name, work, draw, head=head, instant=True, **common)
