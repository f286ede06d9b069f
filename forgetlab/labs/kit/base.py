"""What every lab shares: controls make settings, settings make work, and the work's latest state makes a picture.

A lab holds no logic of its own subject: `work` computes, `draw` makes a figure. States are plain values (JSON), so
that a result can be kept, shipped and drawn again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from html import unescape
from threading import Lock
from typing import Any

import ipywidgets as widgets

from forgetlab.errors import ForgetlabError, in_words
from forgetlab.experiments import results
from forgetlab.labs.kit.runner import Driver, Runner
from forgetlab.labs.kit.settings import from_line, to_line
from forgetlab.labs.kit.shown import Draw, Result, Settings, Shown, State
from forgetlab.teaching import compat, page
from forgetlab.teaching.notebook import Living

REDRAW_SECONDS = 0.3


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
        self._work, self._check, self._filed = work, check, filed
        self._shown = Shown(name, draw, words, self.view)
        self._presets = dict(presets or {})
        self._start = self.settings()
        self._opening: str | None = None  # what stands before the result's words; None: something else is said
        self._telling = Lock()  # held while it is said how a run stands, never while one works
        self._quiet = False  # set while the lab itself moves its controls, in a turn of the runner's
        self._said_unwritable = False
        self._last_drawn = self._draw_seconds = 0.0
        self._runner: Runner[State] = Runner(self._on_state, self._on_end, "inline" if instant else driver)
        self.picture = widgets.HTML()
        self.message = compat.note()
        self.line = compat.text("settings", to_line(name, self._start))
        self.width = page.width()
        press = compat.weakly(self._press)
        labels = [*([] if instant else ["Train", "Stop"]), "Reset", *self._presets]
        self.buttons = {
            label: compat.button(label, partial(press, label), primary=label == "Train") for label in labels
        }
        for control in self.training.values():
            control.observe(compat.weakly(self._on_training), "value")
        for control in self.view.values():
            control.observe(compat.weakly(self._on_view), "value")
        self.line.observe(compat.weakly(self._on_line), "value")
        self.width.observe(compat.weakly(self._on_width), "value")
        parts = [compat.note(intro)] if intro else []
        parts += [compat.row(*self.training.values(), *self.view.values(), gap="2px 14px")]
        parts += [compat.row(*self.buttons.values()), self.message, self.picture, self.line]
        super().__init__([*parts, self.width])
        if not instant:
            compat.answer_while_busy(self.buttons["Stop"], spare=True)
        self._guarded(self._open)

    # -- what a user does ---------------------------------------------------------------------------

    def settings(self) -> Settings:
        """The values of the training controls."""
        return {name: control.value for name, control in self.training.items()}

    @property
    def state(self) -> State | None:
        """The latest state, with its "settings"."""
        return self._shown.result.state if self._shown.result else None

    @property
    def source(self) -> str:
        """Where the latest state comes from: "live", "cached" or "simulated"; "" where there is none."""
        return self._shown.result.source if self._shown.result else ""

    def train(self) -> None:
        """Run the work for the present settings, whatever was computed before."""
        self._runner.drop()
        with self._runner.turn:
            settings = self.settings()
            self._last_drawn = 0.0  # the first state is shown at once
            if not self.instant:
                self._say("preparing the training …")
                self._show_labels(waiting=True)
        self._runner.start(lambda: ({**state, "settings": settings} for state in self._work(settings)))

    def stop(self) -> None:
        """End the run under way at its next piece; what was reached stays."""
        with self._telling:
            if self._runner.running:
                self._say("stopping …")
            self._runner.stop()

    def reset(self) -> None:
        """The settings that the lab opened with; old runs are forgotten."""
        self._runner.drop()
        with self._runner.turn:
            self._shown.clear()
            self._move(self._start)
        self._open()

    def apply(self, change: Settings) -> None:
        """Move several controls at once, then compute once."""
        self._move(change)
        self._compute()

    def still(self) -> dict[str, str]:
        """The picture and its words, for a notebook without a kernel."""
        if self._shown.picture:
            return self._shown.still(self.settings(), self._runner.phase == "preparing")
        said = unescape(re.sub("<[^>]*>", "", str(self.message.value)))
        return {"text/plain": f"{self.name}: {said}"}

    def close(self) -> None:
        """End the run under way, and free the lab and its widgets."""
        if (runner := getattr(self, "_runner", None)) is not None:
            runner.drop()
        super().close()

    # -- what follows from it -----------------------------------------------------------------------

    def _press(self, label: str) -> None:
        actions = {"Train": self.train, "Stop": self.stop, "Reset": self.reset}
        self._guarded(actions.get(label) or partial(self.apply, self._presets[label]))

    def _open(self) -> None:
        """Show what is stored for the present settings, or say how to begin."""
        self._show_labels()
        if self.instant:
            self.train()
        elif (none := self._recall()) is not None:
            self._say(f"{none}Press Train, or move a slider.")

    def _compute(self) -> None:
        if self._check is not None:
            with self._runner.turn:
                self._show_labels()
                self._check(self.settings())
                if not self._runner.running and (none := self._recall()) is not None:
                    self._say(f"{none}Press Train.")
            return
        self._runner.drop()
        if self.instant or self._recall() is not None:
            self.train()

    def _recall(self) -> str | None:
        """Draw the stored result of the present settings. Else: why there is none, "" where none was stored."""
        with self._runner.turn:
            settings = self.settings()
            under = self._filed(settings)
            try:
                found = results.get(f"lab-{self.name}", under)
                if not isinstance(found, dict):
                    return ""
                self._shown.put(Result({**found, "settings": settings}, "cached"))
            except Exception as error:  # whatever a damaged file holds, a lab must open
                return f"The kept result of these settings is damaged ({in_words(error)}) and counts as none. "
            self._show_labels()
            self._say_result("A kept result; Train runs it again.")
            return None

    def _on_state(self, state: State) -> None:
        self._shown.take(Result(state, "simulated" if self.instant else "live"))
        wait = max(REDRAW_SECONDS, 3 * self._draw_seconds)  # drawing takes a quarter of the time at most
        if self.instant or time.perf_counter() - self._last_drawn > wait:
            words = state.get("message", "") if self.instant else state.get("progress", "training …")
            begin = time.perf_counter()
            drawn = self._redraw()
            self._last_drawn = time.perf_counter()
            self._draw_seconds = self._last_drawn - begin
            if drawn:
                with self._telling:
                    if self._runner.phase != "stopping":
                        self._say(str(words))

    def _on_end(self, why: str) -> None:
        if why.startswith("error"):
            if self._runner.begun:
                self._redraw()  # what was reached
            self._say_error(why)
        elif not self._runner.begun:
            self._say_error("Stopped before anything was reached.")
        elif not self.instant:
            self._guarded(partial(self._finish, why))

    def _finish(self, why: str) -> None:
        """Keep and show what a run that is done, or stopped, has reached."""
        result = self._shown.result
        assert result is not None
        if why == "stopped":  # where a picture waits for more, it says so
            self._shown.result = result = replace(result, state={**result.state, "stopped": True})
        state, trouble = result.state, ""
        if why == "done":
            kept = {name: value for name, value in state.items() if name not in ("settings", "progress")}
            trouble = results.put(f"lab-{self.name}", self._filed(state["settings"]), kept)
        opening = "Stopped; what was reached stays." if why == "stopped" else ""
        with self._telling:
            if not self._redraw():
                self._opening = opening
            elif trouble and not self._said_unwritable:
                self._said_unwritable = True
                self._say(f"{self._shown.told() or 'Done.'} ({trouble})")
            else:
                self._say_result(opening)

    def _redraw(self) -> bool:
        """Draw the latest result. False where that went wrong: then it is said, and the picture before it stays."""
        if self._shown.result is None:
            return True
        try:
            self._shown.draw()
        except Exception as error:  # a lab must show it: the kernel would only log it
            self.message.value = compat.said(in_words(error))  # until a picture is right again
            return False
        finally:
            self._show_labels()
        return True

    def _on_training(self, change: Any) -> None:
        if not self._is_own_move():
            self._guarded(self._compute)

    def _on_view(self, change: Any) -> None:
        with self._runner.turn:
            opening = self._opening
            if self._redraw() and opening is not None and not self._runner.running:  # what went wrong stays said
                self._guarded(partial(self._say_result, opening))

    def _on_width(self, change: Any) -> None:
        with self._runner.turn:
            self._shown.narrow = change["new"] < page.NARROW
            self._redraw()

    def _on_line(self, change: Any) -> None:
        if self._is_own_move():
            return
        try:
            wanted = from_line(self.name, change["new"], self.training)
        except ForgetlabError as error:
            self._show_labels()
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

    def _show_labels(self, waiting: bool = False) -> None:
        """The controls' settings as a line; the picture, with a caption where it is not of them."""
        with self._runner.turn:
            self._show_line()
            waiting = waiting or self._runner.phase == "preparing"
            self.picture.value = self._shown.html(self.settings(), waiting)

    def _say(self, words: str) -> None:
        self._opening = None
        self.message.value = compat.said(words)

    def _say_result(self, opening: str = "") -> None:
        self._say(f"{opening} {self._shown.told()}".strip() or "Done.")
        self._opening = opening

    def _say_error(self, words: str) -> None:
        """Say what went wrong, and that a picture which stays is not of the present settings."""
        stale = self._shown.caption(self.settings(), waiting=False)
        with self._telling:
            self._say(f"{words} What is shown below is an earlier run." if stale else words)
        self._show_labels()

    def _guarded(self, action: Callable[[], None]) -> None:
        """Errors of a callback are lost in a notebook: say them in the lab instead."""
        try:
            action()
        except Exception as error:
            self._say_error(in_words(error))
