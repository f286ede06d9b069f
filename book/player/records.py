"""What a page needs to play a lab: its controls, presets and recorded runs, each drawn by the lab itself.

Equal marks and panels are stored once; a run names its panels by number and its settings by the controls' stops.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from html import unescape
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ipywidgets as widgets
from matplotlib.figure import Figure

from book.player.drawing import drawing
from forgetlab import labs
from forgetlab.labs import records as kept
from forgetlab.labs.grids import VIEWS
from forgetlab.labs.kit import shown
from forgetlab.labs.kit.base import Lab, Settings, State
from forgetlab.labs.kit.settings import VERSION as LINE_VERSION
from forgetlab.labs.kit.settings import as_said, ends
from forgetlab.plots.style import COLORS, FAINT, INK
from forgetlab.teaching import page

VERSION = 1  # of what is written here; player.js reads no other
INLINE = re.compile(r'<img[^>]*src="data:image/png;base64,"[^>]*>')  # where a figure stood
INKS = {INK: "ink", FAINT: "faint", "#fff": "ground", "#e4e4e4": "grid"}


class Once:
    """Values, each stored once. `number(value)`: its place."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[str, int] = {}

    def number(self, value: Any) -> int:
        key = json.dumps(value, sort_keys=True)
        if key not in self._places:
            self._places[key] = len(self.values)
            self.values.append(value)
        return self._places[key]


def written(name: str, folder: Path) -> bool:
    """Write folder/NAME.js; False where the lab has no recorded run and computes nothing in the page."""
    found = playable(name)
    if not (found["simulated"] or found["runs"]):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    start = f"((globalThis.forgetlab ??= {{}}).records ??= {{}})[{json.dumps(name)}] = "
    (folder / f"{name}.js").write_text(f"{start}{text};\n", encoding="utf-8")
    return True


def playable(name: str) -> dict[str, Any]:
    """A lab as plain values."""
    lab = labs.show(name, driver="inline")
    found: dict[str, Any] = {
        "version": VERSION,
        "line": LINE_VERSION,
        "lab": name,
        "intro": _intro(lab),
        "simulated": lab.instant,
        "presets": lab._presets,
    }
    drawn = [] if lab.instant else [*_drawn(lab, kept.read(name))]
    found["controls"] = controls = _controls(lab, [settings for settings, _ in drawn])
    marks, panels, legends, pages, runs = Once(), Once(), Once(), Once(), []
    for settings, made in drawn:
        at = [one["values"].index(settings[one["name"]]) for one in controls]
        shown_panels = [{**panel, "marks": [marks.number(mark) for mark in panel["marks"]]} for panel in made["panels"]]
        run = {"at": at, "words": made["words"], "panels": [panels.number(panel) for panel in shown_panels]}
        if "legend" in made:
            run["legend"] = legends.number(made["legend"])
        if "html" in made:
            run["html"] = pages.number(made["html"])
        runs.append(run)
    stored = {"panels": panels, "marks": marks, "legends": legends, "pages": pages}
    return found | {"runs": runs, **{name: once.values for name, once in stored.items()}}


def opening(name: str) -> dict[str, Any] | None:
    """The drawing that a lab opens on; None where nothing is recorded."""
    lab = labs.show(name, driver="inline")
    if lab.state is None:
        return None
    return _drawing(lab, lab.state, {**lab.settings(), **{key: one.value for key, one in lab.view.items()}})


def _drawn(lab: Lab[Any], recorded: Sequence[tuple[Settings, State]]) -> Iterator[tuple[Settings, dict[str, Any]]]:
    """(settings of a run and of the view, drawing)."""
    views = [dict(zip(_views(lab), values, strict=True)) for values in product(*_views(lab).values())]
    for settings, state in recorded:
        for view in views:
            seen = {**settings, **view}
            yield (
                {name: as_said(value) for name, value in seen.items()},
                _drawing(lab, state | {"settings": settings}, seen),
            )


def _views(lab: Lab[Any]) -> dict[str, Sequence[Any]]:
    """The values of its view controls that the book shows: those of VIEWS, else the opening one."""
    shown_ones = VIEWS.get(lab.name, {})
    return {name: shown_ones.get(name, (control.value,)) for name, control in lab.view.items()}


def _drawing(lab: Lab[Any], state: State, seen: Settings) -> dict[str, Any]:
    """What the lab shows of a state, with no earlier runs: its words, and panels or HTML with the panels in it."""
    figures: list[Figure] = []

    def keep(figure: Figure, alt: str) -> str:
        figures.append(figure)
        return ""

    own = lab._shown
    with patch.object(shown, "encoded", keep):  # a figure within HTML is read like the others
        made, _ = own._draw(state, [], {**seen, "place": page.Place()}, "")
    words = own._words(state, seen) if own._words else state.get("message", "")
    if isinstance(made, Figure):
        return {"words": str(words), **drawing(made)}
    found: dict[str, Any] = {"words": str(words), "html": _in_the_pages_colours(INLINE.sub("", made)), "panels": []}
    return found | (drawing(figures[0]) if figures else {})


def _in_the_pages_colours(html: str) -> str:
    """Colours as the style sheet's own, which are others in the dark."""
    for color in COLORS:
        html = html.replace(color, f"var(--fl-{color[1:]})")
    for color, name in INKS.items():
        html = re.sub(rf"{color}(?![0-9a-f])", f"var(--fl-{name})", html)
    return html


def _controls(lab: Lab[Any], played: Sequence[Settings]) -> list[dict[str, Any]]:
    """The controls, training ones first. values: where they stop, which is where a run was recorded."""
    made = []
    for name, control in {**lab.training, **lab.view}.items():
        one: dict[str, Any] = {"name": name, "label": control.description, "kind": _kind(control)}
        one["value"] = control.value
        if name in lab.view:
            one["view"] = True
        if one["kind"] == "choice":
            one |= {"options": list(control.options), "values": list(control.options)}
        elif one["kind"] == "slider":
            one |= {"range": _range(control), "whole": isinstance(control.value, int)}
        if not lab.instant:
            values = {settings[name] for settings in played}
            one["values"] = [value for value in one.get("options") or sorted(values) if value in values]
        made.append(one)
    return made


def _intro(lab: Lab[Any]) -> str:
    """The line above the controls, "" where there is none."""
    first = lab.children[0]
    return unescape(re.sub("<[^>]*>", "", first.value)) if isinstance(first, widgets.HTML) else ""


def _kind(control: Any) -> str:
    if hasattr(control, "options"):
        return "choice"
    return "slider" if hasattr(control, "max") else "text"


def _range(control: Any) -> list[Any]:
    """[min, max, step, log]: with log, step is of the exponent."""
    return [*ends(control), control.step, hasattr(control, "base")]
