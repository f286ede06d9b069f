"""A lab in any order of events: moves, presets, settings lines, runs that end, stop, fail or are superseded, damage.

What is drawn is read from the picture itself, which says whose work it shows; the work leaves a token of its own.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from forgetlab import ForgetlabError
from forgetlab.experiments import results
from forgetlab.labs.kit import runner
from forgetlab.labs.kit.base import Lab
from forgetlab.labs.kit.settings import to_line
from forgetlab.teaching import compat
from tests.conftest import often

NUMBERS = st.integers(1, 8)
NO_PICTURE, FAILS = 5, 6  # of the view; numbers that cannot be counted to
PIECES = 4
# what happens before the first piece (0) or after a later one, and what the run itself does there
BETWEEN = st.sampled_from(["", "stop", "view", "train", "move", "reset", "preset", "line"])
WITHIN = st.sampled_from(["", "", "", "interrupt", "error", "view"])


class AnyOrder(RuleBasedStateMachine):
    """One lab at a time over one cache. `truth`: (source, token) of whatever the lab was last given to show."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.patch = pytest.MonkeyPatch()
        self.patch.setenv("FORGETLAB_CACHE", str(self.folder / "cache"))
        self.patch.setattr(results, "shipped_folder", lambda: self.folder / "none")
        self.patch.setattr(runner.time, "sleep", self.between)
        self.get = results.get
        self.patch.setattr(results, "get", self.recalled)
        self.tokens: list[dict[str, Any]] = []  # the settings that each work was called with
        self.truth: tuple[str, int] | None = None
        self.drawn = True  # whether the last drawing went well
        self.plan: dict[int, tuple[str, str]] = {}
        self.pieces = 0

    @initialize()
    def opens(self) -> None:
        self.open()

    def teardown(self) -> None:
        try:
            if hasattr(self, "lab"):
                self.a_good_run()
        finally:
            self.patch.undo()
            shutil.rmtree(self.folder)

    # -- a lab that tells on itself ----------------------------------------------------------------

    def work(self, settings: dict[str, Any]) -> Any:
        token = len(self.tokens)
        self.tokens.append(dict(settings))
        for i in range(PIECES):
            within = self.plan.get(i, ("", ""))[1]
            if within == "interrupt":
                raise KeyboardInterrupt
            if within == "error" or (settings["n"] == FAILS and i == 2):
                raise ForgetlabError("not to be counted to")
            if within == "view":  # a page's move, while a piece is worked
                self.move_view()
            state = {"token": token, "of": dict(settings), "at": i, "progress": f"piece {i}"}
            self.truth = ("live", token)
            yield {**state, "message": "counted"} if i == PIECES - 1 else state

    def draw(self, state: Any, old: Any, settings: dict[str, Any], source: str) -> tuple[str, str]:
        self.drawn = False
        if settings["shift"] == NO_PICTURE:
            raise ForgetlabError("no picture")
        before = [run["token"] for run in old]
        said = {"source": source, "token": state["token"], "of": state["of"], "at": state["at"], "old": before}
        self.drawn = True
        return f"<pre>{json.dumps(said)}</pre>", "a picture"

    def recalled(self, name: str, under: dict[str, Any]) -> Any:
        found = self.get(name, under)
        whole = isinstance(found, dict) and set(found) >= {"token", "of", "at"}
        if whole and self.shift.value != NO_PICTURE:  # else it cannot be drawn, and counts as none
            self.truth = ("cached", found["token"])
        return found

    def between(self, seconds: float) -> None:
        """Between two pieces a page's messages are taken."""
        self.pieces += 1
        action = self.plan.pop(self.pieces, ("", ""))[0]
        if action:
            self.act(action)

    def act(self, action: str) -> None:
        match action:
            case "stop":
                self.lab.buttons["Stop"].click()
            case "view":
                self.move_view()
            case "train":
                self.lab.buttons["Train"].click()
            case "move":
                self.lab.training["n"].value = 1 + self.lab.training["n"].value % 8
            case "reset":
                self.truth = None
                self.lab.buttons["Reset"].click()
            case "preset":
                self.lab.buttons["four"].click()
            case "line":
                self.lab.line.value = "forgetlab 1 any: n=2, word=b"

    def move_view(self) -> None:
        self.shift.value = (self.shift.value + 1) % (NO_PICTURE + 1)

    def plan_for(self, where: int, between: str, within: str) -> None:
        self.pieces, self.plan = 0, {where: (between, within)}

    # -- what a user does --------------------------------------------------------------------------

    @rule(checks=st.booleans())
    def open(self, checks: bool = False) -> None:
        self.plan, self.truth = {}, None
        self.shift = compat.slider("shift", 0, 0, NO_PICTURE, 1)
        self.checks = checks
        self.lab = Lab(
            "any",
            self.work,
            self.draw,
            training={"n": compat.slider("n", 3, 1, 8, 1), "word": compat.choice("word", "a", ("a", "b"))},
            view={"shift": self.shift},
            check=self.check if checks else None,
            presets={"four": {"n": 4, "word": "a"}, "wrong": {"n": 2, "word": "neither"}},
            driver="inline",
        )

    def check(self, settings: dict[str, Any]) -> None:
        if settings["n"] == FAILS:
            raise ForgetlabError("not to be counted to")

    @rule(n=NUMBERS, where=st.integers(0, PIECES), between=BETWEEN, within=WITHIN)
    def move(self, n: int, where: int, between: str, within: str) -> None:
        self.plan_for(where, between, within)
        self.lab.training["n"].value = n

    @rule(word=st.sampled_from("ab"))
    def choose(self, word: str) -> None:
        self.plan = {}
        self.lab.training["word"].value = word

    @rule(where=st.integers(0, PIECES), between=BETWEEN, within=WITHIN)
    def train(self, where: int, between: str, within: str) -> None:
        self.plan_for(where, between, within)
        self.lab.buttons["Train"].click()

    @rule(shift=st.integers(0, NO_PICTURE))
    def view(self, shift: int) -> None:
        self.shift.value = shift

    @rule(label=st.sampled_from(["Stop", "Reset", "four", "wrong"]))
    def press(self, label: str) -> None:
        self.plan = {}
        if label == "Reset":
            self.act("reset")
        else:
            self.lab.buttons[label].click()

    @rule(line=st.sampled_from(["n=7", "n=7, word=b", "n=6", "n=99", "m=1", "word=", "n=1" + " " * 3000]))
    def paste(self, line: str) -> None:
        self.plan = {}
        self.lab.line.value = f"forgetlab 1 any: {line}"

    @precondition(lambda self: self.tokens)
    @rule(content=st.sampled_from([{}, [], {"token": 1, "at": 2}, {"message": "so it says"}]))
    def damage(self, content: Any) -> None:
        """What is kept is whole as a file, but nothing that this lab can show."""
        for settings in self.tokens:
            results.put("lab-any", settings, content)

    @rule()
    def a_good_run(self) -> None:
        """From any state, Train at settings that work gives a live picture, and no error stays."""
        self.plan = {}
        self.shift.value = 0
        self.lab.training["n"].value = 3
        self.lab.buttons["Train"].click()
        seen = self.picture()
        assert seen
        assert (seen["source"], seen["at"], seen["of"]["n"]) == ("live", PIECES - 1, 3)
        assert self.says == "counted"
        assert self.caption == ""

    # -- what always holds -------------------------------------------------------------------------

    @property
    def says(self) -> str:
        return unescape(re.sub("<[^>]*>", "", self.lab.message.value))

    @property
    def caption(self) -> str:
        found = re.match("<div [^>]*>([^<]*)</div><div style=.opacity", self.lab.picture.value)
        return unescape(found[1]) if found else ""

    def picture(self) -> dict[str, Any]:
        found = re.search("<pre>(.*)</pre>", self.lab.picture.value)
        return json.loads(found[1]) if found else {}

    @precondition(lambda self: hasattr(self, "lab"))
    @invariant()
    def labels_are_right(self) -> None:
        lab, seen = self.lab, self.picture()
        assert lab._runner.phase == "idle"
        assert "…" not in self.says
        assert lab.line.value == to_line("any", lab.settings())
        assert (lab.state is None) == (self.truth is None)
        if lab.state is not None:
            assert (lab.source, lab.state["token"]) == self.truth
        if not seen:
            assert lab.state is None or not self.drawn
            return
        assert seen["of"] == self.tokens[seen["token"]]
        assert seen["token"] not in seen["old"]
        settings = [json.dumps(self.tokens[token]) for token in (seen["token"], *seen["old"])]
        assert len(set(settings)) == len(settings)  # an earlier run is drawn once, and never as the present one
        if self.drawn:
            assert (seen["source"], seen["token"]) == self.truth
        if seen["of"] == lab.settings():
            assert self.caption == ""
        else:
            own = to_line("any", seen["of"]).partition(": ")[2]
            assert self.caption == f"Not of the present settings: {seen['source']}, {own}"


AnyOrder.TestCase.settings = profile(max_examples=often(30), stateful_step_count=20)
test_a_lab_in_any_order = AnyOrder.TestCase
