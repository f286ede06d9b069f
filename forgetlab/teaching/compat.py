"""Widgets from what ipywidgets 7.7.1 and 8.1 share, each with a visible label; no Output, Accordion, Tab or Stack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from inspect import signature
from typing import Any
from weakref import WeakMethod, proxy

import ipywidgets as widgets

from forgetlab.teaching import page

LABELLED: Any = {"description_width": "auto"}  # the page's style sheet sets labels above
WIDE: Any = {"flex": "1 1 auto", "width": "220px", "min_width": "170px", "max_width": "340px"}


def _layout(**more: str) -> widgets.Layout:
    return widgets.Layout(**{**WIDE, **more})


def slider(label: str, value: float, low: float, high: float, step: float, *, live: bool = False) -> widgets.Widget:
    """A slider with its value beside it. live: report while it is dragged (redraws only), else on release."""
    whole = all(isinstance(x, int) for x in (value, low, high, step))
    kind = widgets.IntSlider if whole else widgets.FloatSlider
    options: dict[str, Any] = {} if whole else {"readout_format": ".3"}  # 0.2; with "g" it were 0.200
    return kind(
        value=value,
        min=low,
        max=high,
        step=step,
        description=label,
        continuous_update=live,
        style=LABELLED,
        layout=_layout(),
        **options,
    )


def log_slider(
    label: str, value: float, low: float, high: float, *, per_decade: int = 4, live: bool = False
) -> widgets.Widget:
    """A slider over powers of ten. low, high: its ends, above 0. live: as for `slider`."""
    from math import log10

    return widgets.FloatLogSlider(
        value=value,
        base=10,
        min=log10(low),
        max=log10(high),
        step=1 / per_decade,
        description=label,
        continuous_update=live,
        readout_format=".3r" if high >= 1000 else ".3" if high >= 100 else ".2",  # r: 1000 rather than 1e+3
        style=LABELLED,
        layout=_layout(),
    )


def choice(label: str, value: str, options: Sequence[str]) -> widgets.Widget:
    """One of some words."""
    return widgets.Dropdown(options=list(options), value=value, description=label, style=LABELLED, layout=_layout())


def stops(label: str, value: str, options: Sequence[str], *, live: bool = False) -> widgets.Widget:
    """A slider over some words in order. live: as for `slider`."""
    return widgets.SelectionSlider(
        options=list(options),
        value=value,
        description=label,
        continuous_update=live,
        style=LABELLED,
        layout=_layout(),
    )


def text(label: str, value: str = "", *, rows: int = 1) -> widgets.Widget:
    """A line of text, or a box of several rows."""
    kind, more = (widgets.Text, {}) if rows == 1 else (widgets.Textarea, {"rows": rows})
    options: Any = {"continuous_update": False, "style": LABELLED, **more}
    return kind(value=value, description=label, layout=_layout(width="auto", max_width="640px"), **options)


def button(label: str, action: Callable[[], None], *, primary: bool = False) -> widgets.Button:
    """A button that calls `action`."""
    made = widgets.Button(description=label, button_style="primary" if primary else "", layout={"width": "auto"})
    made.on_click(lambda _: action())
    return made


def weakly(method: Callable[..., Any]) -> Callable[..., Any]:
    """Calls a bound method for as long as its object is there: a widget's callbacks do not keep a lab alive."""
    reference = WeakMethod(method)

    def call(*arguments: Any) -> Any:
        bound = reference()
        return None if bound is None else bound(*arguments)

    return call


def on_page(widget: widgets.Widget, shown: bool) -> None:
    """Let a page's messages keep a widget alive, once it is shown; before that only whoever made it does.

    ipywidgets holds every widget that was ever made: a lab that is made again and again would fill the memory.
    """
    handle = widget._handle_msg
    _registry()[widget.model_id] = widget if shown else proxy(widget)
    widget.comm.on_msg(handle if shown else weakly(handle))


def answer_while_busy(widget: widgets.Widget) -> None:
    """Handle a page's messages in the thread that it asks for, so that they are answered while a cell computes.

    From 7.4 on ipykernel gives them to the thread that last published on the widget: at first the one of the cells.
    """
    for part in _parts(widget):
        route = getattr(part.comm, "_reply_subshell_for", None)
        if route is not None and [*signature(route).parameters] == ["data", "default"]:
            part.comm._reply_subshell_for = _as_asked


def _as_asked(data: Any, default: Any) -> Any:
    """The thread that the message itself names."""
    return default


def close(widget: widgets.Widget) -> None:
    """Close a widget, and all that it is made of."""
    for part in _parts(widget):
        widgets.Widget.close(part)


def _parts(widget: widgets.Widget) -> list[widgets.Widget]:
    """A widget's children, layout and style, theirs too, and at last itself."""
    own = (*getattr(widget, "children", ()), getattr(widget, "layout", None), getattr(widget, "style", None))
    return [*(part for one in own if one is not None for part in _parts(one)), widget]


def _registry() -> dict[str, Any]:
    """Every open widget by its id: of ipywidgets 8, or of 7."""
    return getattr(widgets.widget, "_instances", None) or widgets.Widget.widgets


def row(*children: widgets.Widget, gap: str = "0") -> widgets.Box:
    """Side by side, below each other where the page is narrow."""
    how = {"display": "flex", "flex_flow": "row wrap", "align_items": "flex-start", "grid_gap": gap}
    return widgets.Box(children, layout=widgets.Layout(**how))


def beside(left: Sequence[widgets.Widget], right: Sequence[widgets.Widget], many: bool = False) -> widgets.Box:
    """Controls, the last of them a line, and to the right what they change; below each other on a small page."""
    hand, seen = column(*left), column(*right)
    left[-1].add_class(page.LINE)
    for box, name in ((hand, page.HAND), (seen, page.SEEN), *([(hand, page.MANY)] if many else [])):
        box.add_class(name)
    made = column(hand, seen)
    made.add_class(page.BODY)
    return made


def column(*children: widgets.Widget) -> widgets.VBox:
    """One below the other."""
    return widgets.VBox(children)


def note(words: str = "") -> widgets.HTML:
    """A line of plain words, read out by screen readers when it changes."""
    made = widgets.HTML(said(words))
    made.add_class(page.SAYS)
    return made


def said(words: str, kind: str = "") -> str:
    """The HTML of a note. kind: of `page.SIGNS`, where it is a verdict."""
    if kind:
        return page.judged(kind, words)
    return f'<div style="line-height:1.4;max-width:640px">{escape(words)}</div>'
