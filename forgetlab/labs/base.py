"""What every lab shares: controls make settings, settings make work, and the work's latest state makes a picture.

A lab holds no logic of its own subject: `work` computes, `draw` makes a figure. States are plain values (JSON), so
that a result can be kept, shipped and drawn again.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from html import escape, unescape
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure

from forgetlab import compat, plots, results
from forgetlab.errors import ForgetlabError, in_words
from forgetlab.labs.runner import Driver, Runner
from forgetlab.labs.settings import from_line, to_line
from forgetlab.notebook import Living

Settings = dict[str, Any]
State = dict[str, Any]
Draw = Callable[[State, Sequence[State], Settings, str], tuple[Figure | str, str]]
REDRAW_SECONDS = 0.3
OLD_RUNS = 4


class Lab(Living):
    """A lab as a widget.

    name: stands in its settings line and names its results. work(settings): an iterator of growing states, each of
    plain values; the last one is kept. draw(state, old states, settings, source) → (figure or safe HTML, alt text).
    training: controls that change the work, by name; view: controls that only change the picture. With `instant`
    work is fast (a simulation): it runs at every move, and there are no Train and Stop buttons.
    check(settings): with it, a move only checks the settings (it raises what is wrong) and Train begins the work.
    filed(settings): what a result is kept under, where that is more than the settings (such as the state of a file).
    words(state, settings): what a finished state says, where that hangs on the view; else it is the state's "message".
    presets: {label: settings to change}. intro: one line above. driver: see Runner.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Settings], Iterator[State]],
        draw: Draw,
        *,
        training: Mapping[str, widgets.Widget],
        view: Mapping[str, widgets.Widget] | None = None,
        check: Callable[[Settings], None] | None = None,
        filed: Callable[[Settings], Settings] = dict,
        words: Callable[[State, Settings], str] | None = None,
        presets: Mapping[str, Settings] | None = None,
        intro: str = "",
        instant: bool = False,
        driver: Driver | None = None,
    ) -> None:
        self.name = name
        self.instant = instant
        self.training, self.view = dict(training), dict(view or {})
        self.state: State | None = None
        self.source = "simulated" if instant else "live"
        self.old: list[State] = []
        self._work, self._draw, self._check, self._filed, self._words = work, draw, check, filed, words
        self._opening, self._told = "", False  # what stands before a result's words; whether they are what is said
        self._start = self.settings()
        self._quiet = False  # set while the lab itself moves its controls, in a turn of the runner's
        self._begun = False  # whether the run under way has shown anything yet
        self._said_unwritable = False
        self._last_drawn = self._draw_seconds = 0.0
        self._still: dict[str, str] = {}  # the picture by mime type
        self._runner: Runner[State] = Runner(self._on_state, self._on_end, "inline" if instant else driver)
        self.picture = widgets.HTML()
        self.message = compat.note()
        self.line = compat.text("settings", to_line(name, self._start))
        self.buttons: dict[str, widgets.Button] = {}
        if not instant:
            self.buttons["Train"] = compat.button("Train", partial(self._guarded, self.train), primary=True)
            self.buttons["Stop"] = compat.button("Stop", self._runner.stop)
        self.buttons["Reset"] = compat.button("Reset", partial(self._guarded, self.reset))
        for label, change in (presets or {}).items():
            self.buttons[label] = compat.button(label, partial(self._guarded, partial(self.apply, change)))
        for control in self.training.values():
            control.observe(self._on_training, "value")
        for control in self.view.values():
            control.observe(self._on_view, "value")
        self.line.observe(self._on_line, "value")
        parts = [compat.note(intro)] if intro else []
        parts += [compat.row(*self.training.values(), *self.view.values()), compat.row(*self.buttons.values())]
        super().__init__([*parts, self.message, self.picture, self.line])
        self._open()

    # -- what a user does ---------------------------------------------------------------------------

    def settings(self) -> Settings:
        """The values of the training controls."""
        return {name: control.value for name, control in self.training.items()}

    def train(self) -> None:
        """Run the work for the present settings, whatever was computed before."""
        self._runner.drop()
        with self._runner.turn:
            settings = self.settings()
            self._show_line()
            if self.state is not None and self.state.get("settings") != settings and not self.instant:
                self.old = [*self.old, self.state][-OLD_RUNS:]
            self._say("" if self.instant else "preparing the training …")
            self.source = "simulated" if self.instant else "live"
            self._begun, self._last_drawn = False, 0.0  # the first state is shown at once
        self._runner.start(lambda: ({**state, "settings": settings} for state in self._work(settings)))

    def reset(self) -> None:
        """The settings that the lab opened with; old runs are forgotten."""
        self._runner.drop()
        with self._runner.turn:
            self._move(self._start)
            self.state, self.old = None, []
            self.picture.value = ""
        self._open()

    def apply(self, change: Settings) -> None:
        """Move several controls at once, then compute once."""
        self._move(change)
        self._compute()

    def still(self) -> dict[str, str]:
        """The picture and its words, for a notebook without a kernel."""
        said = unescape(re.sub("<[^>]*>", "", str(self.message.value)))
        return self._still if self.picture.value else {"text/plain": f"{self.name}: {said}"}

    # -- what follows from it -----------------------------------------------------------------------

    def _open(self) -> None:
        """Show what is stored for the present settings, or say how to begin."""
        self._show_line()
        if self.instant:
            self.train()
        elif not self._recall():
            self._say("Press Train, or move a slider.")

    def _compute(self) -> None:
        if self._check is not None:
            with self._runner.turn:
                self._show_line()
                self._check(self.settings())
                if not self._runner.running and not self._recall():
                    self._say("Press Train.")
            return
        self._runner.drop()
        if self.instant or not self._recall():
            self.train()

    def _recall(self) -> bool:
        """Draw the stored result of the present settings; False where there is none."""
        with self._runner.turn:
            found = results.get(f"lab-{self.name}", self._filed(self.settings()))
            if not isinstance(found, dict):
                return False
            if self.state is not None and self.state.get("settings") != self.settings():
                self.old = [*self.old, self.state][-OLD_RUNS:]
            self.state, self.source = {**found, "settings": self.settings()}, "cached"
            self._redraw()
            self._show_line()
            self._say_result("A kept result; Train runs it again.")
            return True

    def _on_state(self, state: State) -> None:
        self.state, self._begun = state, True
        wait = max(REDRAW_SECONDS, 3 * self._draw_seconds)  # drawing takes a quarter of the time at most
        if self.instant or time.perf_counter() - self._last_drawn > wait:
            if self.instant:
                self._say(str(state.get("message", "")))
            self._redraw()
            if not self.instant:
                self._say(str(state.get("progress", "training …")))

    def _on_end(self, why: str) -> None:
        if why.startswith("error"):
            self._say_error(why)
            return
        if self.instant:
            return
        if self.state is None or not self._begun:
            self._say_error("Stopped before anything was reached.")
            return
        if why == "stopped":
            self.state = {**self.state, "stopped": True}  # where a picture waits for more, it says so
        self._redraw()
        if why == "done":
            kept = {name: value for name, value in self.state.items() if name not in ("settings", "progress")}
            trouble = results.put(f"lab-{self.name}", self._filed(self.state["settings"]), kept)
            if trouble and not self._said_unwritable:
                self._said_unwritable = True
                self._say(f"{self._result() or 'Done.'} ({trouble})")
                return
        opening = {"done": "", "stopped": "Stopped; what was reached stays."}[why]
        if self.state.get("message"):
            self._say_result(opening)
        else:
            self._say(opening or "Done.")

    def _redraw(self) -> None:
        if self.state is None:
            return
        begin = time.perf_counter()
        try:
            view = {name: control.value for name, control in self.view.items()}
            old = [state for state in self.old if state.get("settings") != self.state.get("settings")]
            drawn, alt = self._draw(self.state, old, {**self.state.get("settings", {}), **view}, self.source)
            if isinstance(drawn, str):
                shown = f'<div role="group" aria-label="{escape(alt)}" style="max-width:704px">{drawn}</div>'
                self._still = {"text/plain": alt, "text/html": shown}
            else:
                png = encoded(drawn, alt)
                shown = image(png, alt)
                self._still = {"text/plain": alt, "image/png": png}
        except Exception as error:  # a lab must show it: the kernel would only log it
            self._say(in_words(error))
            return
        self.picture.value = shown
        self._last_drawn = time.perf_counter()
        self._draw_seconds = self._last_drawn - begin

    def _on_training(self, change: Any) -> None:
        if not self._is_own_move():
            self._guarded(self._compute)

    def _on_view(self, change: Any) -> None:
        with self._runner.turn:
            told, shown = self._told, self.message.value
            self._redraw()
            if told and self.message.value == shown and not self._runner.running:  # else it went wrong, and stays said
                self._say_result(self._opening)

    def _on_line(self, change: Any) -> None:
        if self._is_own_move():
            return
        try:
            wanted = from_line(self.name, change["new"], self.training)
        except ForgetlabError as error:
            self._show_line()
            self._say(f"{error} Nothing was changed.")
            return
        self._guarded(partial(self.apply, wanted))

    def _is_own_move(self) -> bool:
        """Whether the lab itself moves the control; a user's move in another thread waits until it has."""
        with self._runner.turn:
            return self._quiet

    def _move(self, values: Settings) -> None:
        with self._runner.turn:
            self._quiet = True
            try:
                for name, value in values.items():
                    self.training[name].value = value
            finally:
                self._quiet = False
            self._show_line()

    def _show_line(self) -> None:
        with self._runner.turn:
            before, self._quiet = self._quiet, True
            self.line.value = to_line(self.name, self.settings())
            self._quiet = before

    def _say(self, words: str) -> None:
        self._told = False
        self.message.value = compat.said(words)

    def _result(self) -> str:
        """What the state says, seen with the present view; "" where it has nothing to say yet."""
        if self.state is None or not self.state.get("message"):
            return ""
        view = {name: control.value for name, control in self.view.items()}
        seen = {**self.state.get("settings", {}), **view}
        return self._words(self.state, seen) if self._words else str(self.state["message"])

    def _say_result(self, opening: str = "") -> None:
        self._say(f"{opening} {self._result()}".strip())
        self._opening, self._told = opening, True

    def _say_error(self, words: str) -> None:
        """Say what went wrong, and that a picture which stays is not of the present settings."""
        stale = self.picture.value and self.state is not None and self.state.get("settings") != self.settings()
        self._say(f"{words} What is shown below is an earlier run." if stale else words)

    def _guarded(self, action: Callable[[], None]) -> None:
        """Errors of a callback are lost in a notebook: say them in the lab instead."""
        try:
            action()
        except Exception as error:
            self._say_error(in_words(error))


def encoded(figure: Figure, alt: str) -> str:
    """A figure as a PNG in base64."""
    return base64.b64encode(plots.png(figure, alt)).decode()


def image(png: str, alt: str) -> str:
    """A PNG in base64 as an HTML image."""
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{png}" style="width:100%;max-width:704px">'
