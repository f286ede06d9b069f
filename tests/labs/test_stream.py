"""A stream of tasks as a user meets it, on a model small enough to train in a blink."""

import re
from functools import cache
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from forgetlab.experiments.sequences import SequenceRecord
from forgetlab.labs import stream
from forgetlab.labs.kit.base import Lab
from forgetlab.labs.kit.questions import REMEDIES, question
from forgetlab.labs.kit.shown import Result
from tests.conftest import small_model

# one model and one set of tasks for all tests: encoding the texts takes longer than the training here
shared_model, shared_question = cache(small_model), cache(question)


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(stream, "load", lambda name, **_: shared_model())
    monkeypatch.setattr(stream, "question", shared_question)
    monkeypatch.setattr(stream, "STEPS", 4)


def alt(lab: Lab) -> str:
    return unescape(re.search('alt="([^"]*)"', lab.picture.value)[1])


def test_it_opens_trains_and_tells_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    joints = []
    run_joint = stream.run_joint
    monkeypatch.setattr(stream, "run_joint", lambda *a, **k: joints.append(k["seed"]) or run_joint(*a, **k))
    lab = stream.show(driver="inline")
    lab.training["length"].value = 3
    state = lab.state
    R, joint = state["R"], state["joint"]
    assert [len(R), *map(len, R), len(joint)] == [3, 3, 3, 3, 3]
    found = stream.summary(state)
    assert found["average"] == pytest.approx([R[0][0], (R[1][0] + R[1][1]) / 2, sum(R[2]) / 3])
    last = (max(R[0][0], R[1][0]) - R[2][0] + max(R[0][1], R[1][1]) - R[2][1]) / 2
    assert found["forgetting"] == pytest.approx([R[0][0] - R[1][0], last])
    assert found["joint"] == pytest.approx([joint[0], sum(joint[:2]) / 2, sum(joint) / 3])
    assert f"A model that learned all together: {sum(joint) / 3:.2f}." in alt(lab)
    assert alt(lab) == state["message"]
    assert stream.lines(state)["forgetting"]["in turn"][0] == [8, 12]
    lab.training["method"].value = "replay"
    assert (lab.state["R"] != R, lab.state["joint"], joints) == (True, joint, [0])  # the bound is that of before
    assert len(lab._shown.old) == 1
    other = stream.show(driver="inline")
    other.line.value = lab.line.value
    assert other.settings() == {"length": 3, "method": "replay", "seed": 0}
    assert other.source == "cached"


def test_progress_counts_the_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = stream.show(driver="inline")
    said: list[str] = []
    on_state = lab._runner._on_item
    monkeypatch.setattr(lab._runner, "_on_item", lambda state: said.append(state["progress"]) or on_state(state))
    lab.training["length"].value = 3
    end, names = ": step 4 of 4, on cpu", ("register", "place", "people")
    ends = [f"task {i} of 3, {name}{end}" for i, name in enumerate(names, start=1)]
    assert list(dict.fromkeys(words for words in said if words.endswith(end))) == ends


@pytest.mark.parametrize("method", [name for name in REMEDIES if name not in ("none", "replay")])
def test_every_method_goes_through_a_stream(method: str) -> None:
    lab = stream.show(driver="inline")
    lab.apply({"length": 3, "method": method})
    assert len(lab.state["R"]) == 3
    assert f"method: {method}" in lab.message.value


def test_a_stopped_stream_and_a_diverged_one_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverging(*_: Any, **__: Any) -> Any:
        for status in ("running", "diverged"):
            run: Any = SimpleNamespace(step=2, status=status, message="the loss is no longer finite")
            yield SequenceRecord(0, 2, [0.5, 0.4], [], [0.2, 0.3], run)

    monkeypatch.setattr(stream, "run_sequence", diverging)
    lab = stream.show(driver="inline")
    lab.training["length"].value = 2
    assert alt(lab) == "Diverged: the loss is no longer finite."
    assert "Diverged" in lab.message.value
    assert [row[1:] for row in lab.state["curve"]] == [[0.5, 0.4]]
    half = {key: lab.state[key] for key in ("names", "method", "curve", "R", "joint", "settings")}
    lab._shown.result = Result(half, "live")
    lab._redraw()
    assert alt(lab) == "0 of 2 tasks learned (method: none)."
