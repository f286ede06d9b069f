"""A lab's settings: its controls, and one line of text that can be copied and pasted back. None of it is ever run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import ipywidgets as widgets

from forgetlab.errors import ForgetlabError, unknown
from forgetlab.teaching import compat

Settings = dict[str, Any]
VERSION = 1
LONGEST = 2000


class Controls:
    """A lab's training controls by name, and the line that says their settings; a user moves them, or the lab."""

    def __init__(self, lab: str, training: Mapping[str, widgets.Widget]) -> None:
        self.lab, self.training = lab, dict(training)
        self.line = compat.text("settings", to_line(lab, self.settings()))
        self._mover: int | None = None  # the thread in which the lab moves them, while it does

    def settings(self) -> Settings:
        """Their values, with as many digits as the line shows: browsers differ in the last ones of a slider's stop."""
        values = {name: control.value for name, control in self.training.items()}
        return {name: as_said(own) for name, own in values.items()}

    def move(self, values: Settings) -> None:
        """Set some of them. Raises what a control does of a value that it cannot have; the line is right even so."""
        try:
            with self._moving():
                for name, value in values.items():
                    self.training[name].value = value
        finally:
            self.show()

    def show(self) -> None:
        """Say their settings in the line."""
        with self._moving():
            self.line.value = to_line(self.lab, self.settings())

    @property
    def moved_by_lab(self) -> bool:
        """Whether it is the lab that moves them, in the thread that asks."""
        return self._mover == get_ident()

    @contextmanager
    def _moving(self) -> Iterator[None]:
        before, self._mover = self._mover, get_ident()
        try:
            yield
        finally:
            self._mover = before


def as_said(value: Any) -> Any:
    """A value with no more digits than a settings line shows of it, six."""
    return float(f"{value:g}") if isinstance(value, float) else value


def to_line(lab: str, settings: Mapping[str, Any]) -> str:
    """ "forgetlab 1 watch: lr=0.001, steps=100"."""
    shown = ", ".join(f"{name}={_shown(value)}" for name, value in settings.items())
    return f"forgetlab {VERSION} {lab}: {shown}"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str) and (not value or value != value.strip() or set(value) & set(',"\n')):
        return json.dumps(value, ensure_ascii=False)  # in quotes, so that the line can be cut at its commas
    return str(value)


def from_line(lab: str, line: str, controls: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a line, as values that the lab's controls take.

    controls: {name: widget}; numbers must lie between its min and max, words among its options. Names that the line
    leaves out keep their value. Raises ForgetlabError for a line that is cut, of another lab or version, or that
    holds an unknown name or a value out of range. A text that holds a comma stands in double quotes, as in JSON.
    """
    line = line.strip()
    if len(line) > LONGEST:
        raise ForgetlabError(f"A settings line has at most {LONGEST} characters, this one has {len(line):,}.")
    head = re.fullmatch(r"forgetlab (\d+) ([\w-]+):(.*)", line)
    if not head:
        raise ForgetlabError(f"A settings line begins with “forgetlab {VERSION} {lab}:”; this one does not.")
    if int(head[1]) != VERSION:
        raise ForgetlabError(f"This settings line is of version {head[1]}; this forgetlab reads version {VERSION}.")
    if head[2] != lab:
        raise ForgetlabError(f"This settings line is of the lab “{head[2]}”, not of “{lab}”.")
    found = {}
    parts = re.findall(r'[^,"]*(?:"(?:[^"\\]|\\.)*"?[^,"]*)*', head[3])
    for part in filter(None, (part.strip() for part in parts)):
        name, equals, text = (piece.strip() for piece in part.partition("="))
        if name not in controls:
            raise ForgetlabError(f"{unknown('setting', name, controls)}.")
        if not equals or not text:
            raise ForgetlabError(f"The settings line is cut: {name} has no value.")
        found[name] = _value(name, text, controls[name])
    return found


def _value(name: str, text: str, control: Any) -> Any:
    if text.startswith('"'):
        try:
            text = str(json.loads(text))
        except ValueError:
            raise ForgetlabError(f"The settings line is cut: {name} has no closing quote.") from None
    if hasattr(control, "options"):
        if text not in control.options:
            raise ForgetlabError(f"{unknown(name, text, control.options)}.")
        return text
    if isinstance(control.value, bool):
        if text not in ("True", "False"):
            raise ForgetlabError(f"{name} is True or False, got “{text}”.")
        return text == "True"
    if isinstance(control.value, str):
        return text
    try:
        value = int(text) if isinstance(control.value, int) else float(text)
    except ValueError:
        raise ForgetlabError(f"{name} must be a number, got “{text}”.") from None
    low, high = ends(control)
    margin = 1e-6 * max(abs(low), abs(high))  # a line shows six digits
    if not low - margin <= value <= high + margin:
        raise ForgetlabError(f"{name} lies between {low:g} and {high:g}, got {text}.")
    return value if isinstance(value, int) else min(max(value, low), high)


def ends(control: Any) -> tuple[float, float]:
    """The lowest and the highest value of a slider."""
    base = getattr(control, "base", None)  # a log slider has exponents as its ends
    return (control.min, control.max) if base is None else (base**control.min, base**control.max)
