"""Quests: each is reached by the runs that it names, and not by the run that its lab opens with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from forgetlab import labs
from forgetlab.experiments import results
from forgetlab.labs import records
from forgetlab.labs.kit.base import Lab
from forgetlab.labs.kit.quests import Quest, Quests
from forgetlab.teaching import compat
from tests.labs.conftest import SHIPPED

TRAINED = [name for name in labs.LABS if name not in ("cloud", "conflict", "dynamics")]  # those are simulated


def quests(name: str) -> tuple[Quest, ...]:
    return tuple(import_module(f"forgetlab.labs.{name}").QUESTS)


EACH = [pytest.param(name, quest, id=f"{name}: {quest.aim}") for name in TRAINED for quest in quests(name)]


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "shipped_folder", SHIPPED)


def run(name: str, opening: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any] | None:
    """The recorded run of a lab with these of its settings changed."""
    return records.find(name, {**opening, **change})


@pytest.mark.parametrize("name", TRAINED)
def test_every_lab_that_trains_has_two_or_three(name: str) -> None:
    own = quests(name)
    assert 2 <= len(own) <= 3
    assert len({quest.aim for quest in own}) == len(own)


@pytest.mark.parametrize("name", TRAINED)
def test_the_recorded_runs_reach_what_they_are_named_for_and_the_opening_does_not(name: str, shipped: None) -> None:
    lab = labs.show(name, driver="inline")
    assert (lab.source, lab.quests.done) == ("cached", set())
    opening = lab.settings()
    known = {control: lab.training[control] for quest in quests(name) for change in quest.by for control in change}
    first = run(name, opening, {})
    assert first is not None
    for quest in quests(name):
        assert not quest.done([first])
        states = [run(name, opening, change) for change in quest.by]
        if None not in states:  # else the long test makes them
            assert quest.done(states), quest.aim  # type: ignore[arg-type]
            assert not quest.done(states[:-1] or [first])  # type: ignore[arg-type]
    assert known
    lab.close()


@pytest.mark.slow
def test_a_real_run_ticks_a_quest_off(shipped: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path))
    made_by_a_run("matrix", quests("matrix")[0])


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("FORGETLAB_LONG"), reason="trains for minutes: set FORGETLAB_LONG=1")
@pytest.mark.parametrize(("name", "quest"), EACH)
def test_every_quest_is_reached_by_real_runs(
    name: str, quest: Quest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path))  # and nothing shipped: all is trained
    made_by_a_run(name, quest)


def made_by_a_run(name: str, quest: Quest) -> None:
    lab: Lab[Any] = labs.show(name, driver="inline")
    opening = lab.settings()
    for change in quest.by:
        assert quest.aim not in lab.quests.done
        with lab._runner.turn:
            lab._controls.move({**opening, **change})
        lab.train()
        assert lab.source == "live"
    assert quest.aim in lab.quests.done
    lab.close()


AIMS = (
    Quest("five", "Count on.", lambda runs: runs[-1]["n"] == 5, ({"n": 5},)),
    Quest("twice the same", "Again.", lambda runs: [run["n"] for run in runs[-2:]] == [1, 1], ({"n": 1}, {"n": 1})),
)


def test_a_quest_stays_done_and_hints_come_after_three_runs() -> None:
    made = Quests(AIMS)
    assert made.button.description == "Quests 0/2 ▸"
    assert made.list.layout.display == "none"
    made.button.click()
    assert made.button.description == "Quests 0/2 ▾"
    assert made.list.layout.display is None
    for n in (1, 5):
        made.see({"n": n})
    assert made.done == {"five"}
    assert "Hint" not in made.list.value
    made.see({"n": 1})
    assert made.list.value.count("✓") == made.list.value.count("○") == 1
    assert "Hint: Again." in made.list.value
    assert "Count on." not in made.list.value
    made.see({"n": 1})
    assert made.button.description == "Quests 2/2 ▾"
    assert "Hint" not in made.list.value


def test_finished_runs_are_seen_live_and_kept_and_others_are_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path))

    def work(settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield {"n": settings["n"]}
        if settings["n"] == 7:
            raise KeyboardInterrupt
        yield {"n": settings["n"], "message": "done"}

    def make() -> Lab[Any]:
        controls = {"n": compat.slider("n", 3, 1, 9, 1)}
        seven = Quest("seven", "", lambda runs: runs[-1]["n"] == 7, ({"n": 7},))
        return Lab("counted", work, lambda *_: ("", ""), training=controls, quests=(*AIMS, seven), driver="inline")

    lab = make()
    lab.training["n"].value = 7  # stopped: no finished run
    assert lab.quests.done == set()
    lab.training["n"].value = 5
    assert lab.quests.done == {"five"}
    lab.buttons["Reset"].click()
    assert lab.quests.done == {"five"}
    again = make()
    again.training["n"].value = 5  # kept
    assert (again.source, again.quests.done) == ("cached", {"five"})
