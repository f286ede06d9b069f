"""What every lab shares: controls make settings, settings make work, and the work's latest state makes a picture.

A lab holds no logic of its own subject: `work` computes, `draw` makes a figure. States are plain values (JSON), so
that a result can be kept, shipped and drawn again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from html import unescape
from typing import Any, Generic, cast

import ipywidgets as widgets

from forgetlab.errors import ForgetlabError, in_words
from forgetlab.experiments import results
from forgetlab.labs.kit.notice import Notice
from forgetlab.labs.kit.quests import Quest, Quests
from forgetlab.labs.kit.runner import Driver, Runner
from forgetlab.labs.kit.settings import Controls, Settings, from_line
from forgetlab.labs.kit.shown import Draw, Head, Result, S, Shown, State
from forgetlab.teaching import compat, page
from forgetlab.teaching.notebook import Living

__all__ = ["Lab", "Settings", "State"]
MANY = 7  # more controls than that stand two in a row


class Lab(Living, Generic[S]):
    """A lab as a widget.

    name: stands in its settings line and names its results. work(settings): an iterator of growing states, each of
    plain values; the last one is kept. draw(state, old states, settings, source) → (figure or safe HTML, alt text).
    training: controls that change the work, by name; view: controls that only change the picture. With `instant`
    work is fast (a simulation): it runs at every move, and there are no Train and Stop buttons.
    check(settings): with it, a move only checks the settings (it raises what is wrong) and Train begins the work.
    filed(settings): what a result is kept under, where that is more than the settings (such as the state of a file).
    words(state, settings): what a finished state says, where that hangs on the view; else it is the state's "message".
    head(state, settings): the numbers that a run changed, (name, change) each, to stand large above the picture.
    presets: {label: settings to change}. intro: one line above. driver: see Runner. quests: aims that runs tick off.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Settings], Iterator[S]],
        draw: Draw[S],
        *,
        training: Mapping[str, widgets.Widget],
        view: Mapping[str, widgets.Widget] | None = None,
        check: Callable[[Settings], None] | None = None,
        filed: Callable[[Settings], Settings] = dict,
        words: Callable[[S, Settings], str] | None = None,
        head: Head[S] | None = None,
        presets: Mapping[str, Settings] | None = None,
        intro: str = "",
        instant: bool = False,
        quests: Sequence[Quest] = (),
        driver: Driver | None = None,
    ) -> None:
        self.name, self.instant = name, instant
        self._work, self._check, self._filed = work, check, filed
        self._controls, self.view = Controls(name, training), dict(view or {})
        self.training, self.line, self.settings = self._controls.training, self._controls.line, self._controls.settings
        self._start, self._presets = self.settings(), dict(presets or {})
        self._shown, self._notice, self.quests = Shown(name, draw, words, self.view, head), Notice(), Quests(quests)
        self.message, self.picture, self.width = self._notice.widget, widgets.HTML(), page.width()
        self._runner: Runner[S] = Runner(self._on_state, self._on_end, "inline" if instant else driver)
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
        controls = [*self.training.values(), *self.view.values()]
        left = [
            compat.row(*controls, gap="2px 14px"),
            compat.row(*self.buttons.values()),
            *self.quests.parts,
            self.line,
        ]
        self._many = len(controls) > MANY
        body = compat.beside(left, [self.message, self.picture], self._many)
        super().__init__([*([compat.note(intro)] if intro else []), body, self.width])
        self._guarded(self._open)

    # -- what a user does ---------------------------------------------------------------------------

    @property
    def state(self) -> S | None:
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
            if not self.instant:
                self._notice.say("preparing the training …")
                self._show_labels(waiting=True)
        self._runner.start(lambda: (cast(S, {**state, "settings": settings}) for state in self._work(settings)))

    def stop(self) -> None:
        """End the run under way; what was reached stays."""
        with self._notice.turn:
            if self._runner.running:
                self._notice.say("stopping …")
            self._runner.stop()

    def reset(self) -> None:
        """The settings that the lab opened with; old runs are forgotten."""
        self._runner.drop()
        with self._runner.turn:
            self._shown.clear()
            self._controls.move(self._start)
        self._open()

    def apply(self, change: Settings) -> None:
        """Move several controls at once, then compute once."""
        with self._runner.turn:
            self._controls.move(change)
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

    def _on_training(self, change: Any) -> None:
        if not self._controls.moved_by_lab:
            self._guarded(self._compute)

    def _on_view(self, change: Any) -> None:
        with self._runner.turn:
            opening = self._notice.opening
            if self._redraw() and opening is not None and not self._runner.running:  # what went wrong stays said
                self._guarded(partial(self._tell, opening))

    def _on_width(self, change: Any) -> None:
        with self._runner.turn:
            if (place := page.Place.of(change["new"], self._many)) != self._shown.place:
                self._shown.place = place
                for _ in range(2):  # legends choose their columns by the width that the first gives the figure
                    self._redraw()

    def _on_line(self, change: Any) -> None:
        if self._controls.moved_by_lab:
            return
        try:
            wanted = from_line(self.name, change["new"], self.training)
        except ForgetlabError as error:
            self._show_labels()
            self._notice.say(f"{error} Nothing was changed.", kind="wrong")
            return
        self._guarded(partial(self.apply, wanted))

    def _open(self) -> None:
        """Show what is stored for the present settings, or say how to begin."""
        self._show_labels()
        if self.instant:
            self.train()
        elif (none := self._recall()) is not None:
            self._notice.say(f"{none}Press Train, or move a slider.")

    def _compute(self) -> None:
        if self._check is not None:
            with self._runner.turn:
                self._show_labels()
                self._check(self.settings())
                if not self._runner.running and (none := self._recall()) is not None:
                    self._notice.say(f"{none}Press Train.")
            return
        self._runner.drop()
        if self.instant or self._recall() is not None:
            self.train()
        elif self.state is not None:
            self.quests.see(self.state)

    def _recall(self) -> str | None:
        """Draw the stored result of the present settings. Else: why there is none, "" where none was stored."""
        with self._runner.turn:
            settings = self.settings()
            under = self._filed(settings)
            try:
                found = results.get(f"lab-{self.name}", under)
                if not isinstance(found, dict):
                    return ""
                self._shown.put(Result(cast(S, {**found, "settings": settings}), "cached"))
            except Exception as error:  # whatever a damaged file holds, a lab must open
                return f"The kept result of these settings is damaged ({in_words(error)}) and counts as none. "
            self._show_labels()
            self._tell("A kept result; Train runs it again.")
            return None

    # -- what a run reaches -------------------------------------------------------------------------

    def _on_state(self, state: S) -> None:
        self._shown.take(Result(state, "simulated" if self.instant else "live"))
        if not (self.instant or self._shown.due()) or not self._redraw():
            return
        words = state.get("message", "") if self.instant else state.get("progress", "training …")
        with self._notice.turn:
            if self._runner.phase != "stopping":
                self._notice.say(str(words))

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
            self._shown.result = result = replace(result, state=cast(S, {**result.state, "stopped": True}))
        trouble = ""
        if why == "done":
            kept = {name: value for name, value in result.state.items() if name not in ("settings", "progress")}
            trouble = results.put(f"lab-{self.name}", self._filed(result.settings), kept)
            self.quests.see(result.state)
        opening = "Stopped; what was reached stays." if why == "stopped" else ""
        with self._notice.turn:
            if self._redraw():
                self._tell(opening)
                self._notice.warn(trouble)
            else:
                self._notice.opening = opening

    # -- what is shown and said ---------------------------------------------------------------------

    def _redraw(self) -> bool:
        """Draw the latest result. False where that went wrong: then it is said, and the picture before it stays."""
        if self._shown.result is None:
            return True
        try:
            self._shown.draw()
        except Exception as error:  # a lab must show it: the kernel would only log it
            self._notice.say(in_words(error), self._notice.opening, "wrong")  # until a picture is right again
            return False
        finally:
            self._show_labels()
        return True

    def _show_labels(self, waiting: bool = False) -> None:
        """The controls' settings as a line; the picture, with a caption where it is not of them."""
        with self._runner.turn:
            self._controls.show()
            waiting = waiting or self._runner.phase == "preparing"
            self.picture.value = self._shown.html(self.settings(), waiting)

    def _tell(self, opening: str) -> None:
        self._notice.say(f"{opening} {self._shown.told()}".strip() or "Done.", opening)

    def _say_error(self, words: str) -> None:
        """Say what went wrong, and that a picture which stays is not of the present settings."""
        stale = self._shown.caption(self.settings(), waiting=False)
        with self._notice.turn:
            self._notice.say(f"{words} What is shown below is an earlier run." if stale else words, kind="wrong")
        self._show_labels()

    def _guarded(self, action: Callable[[], None]) -> None:
        """Errors of a callback are lost in a notebook: say them in the lab instead."""
        try:
            action()
        except Exception as error:
            self._say_error(in_words(error))
