"""What a lab shows: results and their pictures, each with the settings and the source that it belongs to."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any, Generic, NamedTuple, TypeVar

import ipywidgets as widgets
from matplotlib.figure import Figure

from forgetlab import plots
from forgetlab.labs.kit.settings import Settings, to_line
from forgetlab.plots.narrow import fit
from forgetlab.teaching import page

State = dict[str, Any]  # plain values, with "progress" on the way and "message" at the end
S = TypeVar("S", bound=Mapping[str, Any])  # a lab's own kind of it
Draw = Callable[[S, Sequence[S], Settings, str], tuple[Figure | str, str]]
OLD_RUNS = 4
REDRAW_SECONDS = 0.3
FAINT = 0.35  # opacity of a picture that is not what the controls ask for
QUIET = "font-size:12px;color:var(--jp-ui-font-color2, #6b6b6b)"


class Change(NamedTuple):
    """A number that a run changed. note: what to compare it with."""

    name: str
    change: str
    note: str = ""


Head = Callable[[S, Settings], Sequence[Change]]


@dataclass(frozen=True)
class Result(Generic[S]):
    """A state with its "settings", and where it comes from: "live", "cached" or "simulated"."""

    state: S
    source: str

    @property
    def settings(self) -> Settings:
        """What it is the result of."""
        found: Settings = self.state["settings"]
        return found


@dataclass(frozen=True)
class Picture:
    """A result as it was drawn. shown: safe HTML; still: {mime type: content} for a page without a kernel."""

    of: Result[Any]
    shown: str
    still: dict[str, str]


class Shown(Generic[S]):
    """The latest result of a lab, its picture (of the latest one that could be drawn), and earlier runs."""

    def __init__(
        self,
        name: str,
        draw: Draw[S],
        words: Callable[[S, Settings], str] | None,
        view: Mapping[str, widgets.Widget],
        head: Head[S] | None = None,
    ) -> None:
        self._name, self._draw, self._words, self._view, self._head = name, draw, words, view, head
        self._drawn_at = self._draw_seconds = 0.0
        self.place = page.Place()
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.result: Result[S] | None = None
        self.picture: Picture | None = None
        self.old: list[S] = []

    def take(self, result: Result[S]) -> None:
        """Make it the latest; one of other settings before it is an earlier run from now on."""
        last, self.result = self.result, result
        if last is not None and last.settings != result.settings and result.source != "simulated":
            others = [state for state in self.old if state["settings"] != last.settings]
            self.old = [*others, last.state][-OLD_RUNS:]

    def due(self) -> bool:
        """Whether to draw the latest result: the first of its run, else so that drawing takes a quarter of the time."""
        if self.picture is None or self.result is None or self.picture.of.settings is not self.result.settings:
            return True
        return time.perf_counter() - self._drawn_at > max(REDRAW_SECONDS, 3 * self._draw_seconds)

    def draw(self) -> None:
        """Make the latest result's picture. Raises what the lab's own drawing does; the picture before it stays."""
        if (result := self.result) is None:
            return
        begin = time.perf_counter()
        old = [state for state in self.old if state["settings"] != result.settings]
        seen = {**self._seen(result), "place": self.place}
        drawn, alt = self._draw(result.state, old, seen, result.source)
        self.picture = pictured(result, drawn, alt, self.place)
        if self._head:
            changed = headed(self._head(result.state, seen), result.source if self.place.across else "")
            self.picture = replace(self.picture, shown=changed + self.picture.shown)
        self._drawn_at = time.perf_counter()
        self._draw_seconds = self._drawn_at - begin

    def put(self, result: Result[S]) -> None:
        """Take a result and draw it; where it cannot be drawn or told, all stays as it was and the error is raised."""
        before = self.result, self.picture, self.old
        try:
            self.take(result)
            self.told()
            self.draw()
        except Exception:
            self.result, self.picture, self.old = before
            raise

    def told(self) -> str:
        """What the latest state says, seen with the present view; "" where it has nothing to say yet."""
        if self.result is None or not self.result.state.get("message"):
            return ""
        state = self.result.state
        return self._words(state, self._seen(self.result)) if self._words else str(state["message"])

    def caption(self, settings: Settings, waiting: bool) -> str:
        """What the picture is of, where that is not what `settings` ask for or a run has yet to show its own."""
        if self.picture is None:
            return ""
        own = self.picture.of
        was = f"{own.source}, {to_line(self._name, own.settings).partition(': ')[2]}"
        if own.settings != settings:
            return f"Not of the present settings: {was}"
        return f"From before this run: {was}" if waiting else ""

    def html(self, settings: Settings, waiting: bool) -> str:
        """The picture; faint, below its caption, where it has one."""
        if self.picture is None:
            return ""
        if not (caption := self.caption(settings, waiting)):
            return self.picture.shown
        words = f'<div style="line-height:1.4;max-width:640px;overflow-wrap:anywhere">{escape(caption)}</div>'
        return f'{words}<div style="opacity:{FAINT}">{self.picture.shown}</div>'

    def still(self, settings: Settings, waiting: bool) -> dict[str, str]:
        """{mime type: content} of the picture, which must be there, for a page without a kernel."""
        assert self.picture is not None
        caption = self.caption(settings, waiting)
        words = self.picture.still["text/plain"]
        return {**self.picture.still, "text/plain": f"{words} ({caption})" if caption else words}

    def _seen(self, result: Result[S]) -> Settings:
        """A result's settings, and the values of the view controls."""
        return {**result.settings, **{name: control.value for name, control in self._view.items()}}


def pictured(of: Result[Any], drawn: Figure | str, alt: str, place: page.Place) -> Picture:
    """A figure, or safe HTML, as a picture for a place. alt: its description."""
    if isinstance(drawn, str):
        style = f'class="{page.DRAWN}" style="max-width:{place.wide}px"'
        shown = f'<div role="group" aria-label="{escape(alt)}" {style}>{drawn}</div>'
        return Picture(of, shown, {"text/plain": alt, "text/html": shown})
    fit(drawn, place.narrow, place.room)
    png = encoded(drawn, alt)
    return Picture(of, image(png, alt, place.shown(drawn)), {"text/plain": alt, "image/png": png})


def within(figure: Figure, alt: str, settings: Settings, share: float = 1.0) -> str:
    """A figure as a part of a page, laid out for its place. share: of the height of a place beside controls."""
    place = settings.get("place", page.Place())
    fit(figure, place.narrow, place.room and (place.room[0], share * place.room[1]))
    return image(encoded(figure, alt), alt, place.shown(figure))


def headed(changes: Sequence[Change], source: str) -> str:
    """What a run changed, large, above its picture; and where that is from, if the picture does not say it itself."""
    each = "".join(
        f'<div style="line-height:1.15;white-space:nowrap"><div style="{QUIET}">{escape(name)}</div>'
        f'<div style="font-size:20px">{escape(change)}</div><div style="{QUIET}">{escape(note)}</div></div>'
        for name, change, note in changes
    )
    end = f'<div style="{QUIET};font-style:italic;margin-left:auto">{escape(source)}</div>'
    return f'<div style="display:flex;flex-wrap:wrap;gap:2px 20px;max-width:{page.LARGEST}px">{each}{end}</div>'


def encoded(figure: Figure, alt: str) -> str:
    """A figure as a PNG in base64."""
    return base64.b64encode(plots.png(figure, alt)).decode()


def image(png: str, alt: str, width: int) -> str:
    """A PNG in base64, `width` px wide, as an HTML image that is never larger."""
    source = f"data:image/png;base64,{png}"
    return f'<img class="{page.DRAWN}" alt="{escape(alt)}" src="{source}" style="width:100%;max-width:{width}px">'
