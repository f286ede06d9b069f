"""The transfer matrix as a user meets it, on a model small enough to train in a blink."""

import re
from functools import cache
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from forgetlab import ForgetlabError
from forgetlab.experiments.sequences import SequenceRecord
from forgetlab.labs import matrix
from forgetlab.labs.kit.base import Lab
from forgetlab.labs.kit.questions import QUESTIONS, question
from forgetlab.labs.views.matrix import View
from tests.conftest import small_model

# one model and one set of tasks for all tests: encoding the texts takes longer than the training here
shared_model, shared_question = cache(small_model), cache(question)
GOLDEN = [[0.9, 0.1, 0.1], [0.95, 0.8, 0.1], [0.7, 0.75, 0.85]]


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(matrix, "load", lambda name, **_: shared_model())
    monkeypatch.setattr(matrix, "question", shared_question)


def open_lab() -> Lab:
    lab = matrix.show(driver="inline")
    lab.apply({"steps": 10})
    return lab


def alt(lab: Lab) -> str:
    return unescape(re.search('alt="([^"]*)"', lab.picture.value)[1])


def record(R: list[list[float]], status: str = "done") -> SequenceRecord:
    run: Any = SimpleNamespace(step=10, status=status, message="the loss is no longer finite" * (status != "done"))
    return SequenceRecord(len(R) - 1, 10 * len(R), R[-1], R, [0.2, 0.3, 0.5], run)


def test_it_opens_trains_and_tells_its_numbers() -> None:
    lab = open_lab()
    state = lab.state
    R, start = state["R"], state["start"]
    assert [len(R), *map(len, R)] == [3, 3, 3, 3]
    assert [row[0] for row in state["curve"]] == list(range(31))
    assert [state["curve"][k][1:] for k in (0, 10, 20, 30)] == [start, *R]
    expected = {
        "ACC": sum(R[2]) / 3,
        "BWT": (R[2][0] - R[0][0] + R[2][1] - R[1][1]) / 2,
        "FWT": (R[0][1] - start[1] + R[1][2] - start[2]) / 2,
        "F": (max(R[0][0], R[1][0]) - R[2][0] + max(R[0][1], R[1][1]) - R[2][1]) / 2,
    }
    assert state["measures"] == pytest.approx(expected)
    assert f"register {R[0][0]:.2f} → {R[2][0]:.2f}" in alt(lab)
    assert alt(lab) == state["message"]
    lab.training["method"].value = "replay"
    assert lab.state["R"] != R
    lab.training["method"].value = "none"
    assert (lab.source, lab.state["R"]) == ("cached", R)


def test_the_settings_line_round_trip() -> None:
    lab, other = open_lab(), matrix.show(driver="inline")
    lab.buttons["BWT and F differ"].click()
    assert lab.settings()["order"] == "long → short → people"
    assert lab.state["names"] == ["acceptability, long", "acceptability, short", "people"]
    other.line.value = lab.line.value
    assert other.settings() == lab.settings()
    assert other.state["R"] == lab.state["R"]


def test_the_golden_matrix() -> None:
    state = matrix.told(record(GOLDEN), ["a", "b", "c"], 10, [[0, 0.2, 0.3, 0.5], [30, 0.7, 0.75, 0.85]])
    assert state["measures"]["BWT"] == pytest.approx(-0.125)
    assert state["measures"]["F"] == pytest.approx(0.15)
    assert "F is not −BWT: a was best after b (0.95)." in matrix.sentence(state)
    view = View()
    view.draw(state, [], "live")
    shown = [text.get_text() for ax in view.figure.axes for text in ax.texts]
    assert " ".join(shown[:12]) == "0.20 0.30 0.50 0.90 0.10 0.10 0.95 0.80 0.10 0.70 0.75 0.85"
    assert {"ACC = 0.77", "BWT = −0.13", "F = 0.15"} <= set(shown)
    assert [tick.get_text() for tick in view.figure.axes[0].get_yticklabels()] == ["before all", "a", "b", "c"]
    partial = matrix.told(record(GOLDEN[:2]), ["a", "b", "c"], 10, [[0, 0.2, 0.3, 0.5]])
    view.draw(partial, [state], "cached")
    shown = [text.get_text() for ax in view.figure.axes for text in ax.texts]
    assert shown[9:12] == ["·"] * 3
    assert "BWT = –" in shown
    assert matrix.sentence(partial) == "2 of 3 tasks learned so far."


def test_a_diverged_sequence_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        matrix, "run_sequence", lambda *_, **__: iter([record(GOLDEN[:1]), record(GOLDEN[:1], "diverged")])
    )
    lab = open_lab()
    assert "Diverged" in lab.message.value
    assert alt(lab).startswith("Diverged")
    assert lab.state["measures"] is None


@pytest.mark.parametrize("name", list(QUESTIONS))
def test_every_question_has_a_known_chance(name: str) -> None:
    asked = shared_question(name)
    assert name == asked.name
    assert asked.train is not None
    for examples in (asked.train, asked.test):
        counts = [examples.labels.count(label) for label in sorted(set(examples.labels))]
        assert max(counts) - min(counts) <= 1
        assert len(examples) >= 96
    assert not set(asked.train.texts) & set(asked.test.texts)


def test_answers_are_right() -> None:
    for text, answer in zip(question("pronoun").test.texts, question("pronoun").test.labels, strict=True):
        assert (answer == "yes") == bool(re.search(r"\b(he|she|it|they|him|her|them|his|their)\b", text))
    for text, answer in zip(question("sentences").test.texts, question("sentences").test.labels, strict=True):
        assert min(3, len(re.findall(r"\.", text))) == int(answer)
    lengths = {
        name: [len(t.split()) for t in question(f"acceptability, {name}").test.texts] for name in ("short", "long")
    }
    assert max(lengths["short"]) < min(lengths["long"])
    with pytest.raises(ForgetlabError, match="unknown question 'plase'; did you mean 'place'"):
        question("plase")
