"""The grids, what is recorded at their points, and what a lab in a kernel makes of it."""

from __future__ import annotations

import os
import random
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from math import log10
from pathlib import Path
from typing import Any

import pytest
import torch

from forgetlab import ForgetlabError, labs
from forgetlab.experiments import results
from forgetlab.labs import grids, records
from forgetlab.labs import write as writing
from forgetlab.labs.kit import remedy
from forgetlab.labs.kit.base import Lab
from forgetlab.labs.kit.settings import from_line, to_line
from forgetlab.labs.kit.shown import Result
from tests.labs.conftest import SHIPPED
from tests.labs.test_every_picture import seen


@cache
def opened(name: str) -> Lab[Any]:
    return labs.show(name, driver="inline")


def as_said(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: float(f"{value:g}") if isinstance(value, float) else value for name, value in settings.items()}


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(results, "shipped_folder", SHIPPED)
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path))


def test_the_values_of_a_grid_are_a_controls_own() -> None:
    """A slider's stops; beside them what it opens at and what a preset moves it to."""
    for name, products in grids.GRIDS.items():
        lab = opened(name)
        for axis, values in [pair for axes in products for pair in axes.items()]:
            control = lab.training[axis]
            known = {lab._start[axis], *(change.get(axis) for change in lab._presets.values())}
            for value in values:
                if hasattr(control, "options"):
                    assert value in control.options, (name, axis, value)
                elif value not in known:
                    assert type(value) is type(control.value)
                    place = (log10(value) if hasattr(control, "base") else value) - control.min
                    stop = control.min + round(place / control.step) * control.step
                    exact = 10**stop if hasattr(control, "base") else stop
                    assert control.min <= stop <= control.max
                    assert as_said({axis: exact}) == {axis: value}, (name, axis)


def test_a_lab_can_stand_at_every_point_of_its_grid_and_say_it_in_a_line() -> None:
    for name in grids.GRIDS:
        lab, points = opened(name), grids.settings(name)
        assert points[0] == lab._start
        assert len({str(point) for point in points}) == len(points)
        for point in random.Random(0).sample(points, min(12, len(points))):
            lab._controls.move(point)
            assert lab.settings() == point
            assert from_line(name, lab.line.value, lab.training) == point
        lab._controls.move(points[0])


def test_every_lab_has_a_grid_with_all_its_presets_and_view_controls_show_what_they_can() -> None:
    instant = {name for name in labs.LABS if opened(name).instant}
    assert {*grids.GRIDS} == {*labs.LABS} - instant - {"own"}
    for name in grids.GRIDS:
        lab, points = opened(name), grids.settings(name)
        assert [p for p in lab._presets.values() if as_said({**lab._start, **p}) not in points] == [], name
        for axis, values in grids.VIEWS.get(name, {}).items():
            assert set(values) <= set(lab.view[axis].options)
    assert {*grids.VIEWS} <= {*grids.GRIDS}


def test_browsers_that_differ_in_the_last_digit_find_the_same_run(shipped: None) -> None:
    lab = labs.show("watch", driver="inline")
    for value in (1.7782794100389228e-4, 1.7782794100389230e-4):
        lab._controls.move({"lr": value})
        assert lab.settings()["lr"] == 1.77828e-4
        assert from_line("watch", lab.line.value, lab.training) == lab.settings()


def test_what_is_recorded_are_the_points_of_the_grid(shipped: None) -> None:
    for name in writing.RECORDED:
        stored = records.read(name)
        assert [settings for settings, _ in stored] == grids.settings(name), f"{name}: make records"
        settings, state = stored[-1]
        assert records.find(name, settings) == state
        assert records.find(name, {**settings, "seed": 99}) is None
        assert state["settings"] == settings
    assert records.read("cloud") == []


def test_a_move_to_a_point_of_the_grid_shows_it_at_once_and_train_runs_it(
    shipped: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lab, "train", lambda lab: pytest.fail("it was trained"))
    for name in grids.GRIDS:
        lab = opened(name)
        for point, state in random.Random(1).choices(records.read(name), k=1):
            lab.apply(point)
            assert (lab.source, lab.state) == ("cached", state), name
            assert "kept result" in lab.message.value
    trained: list[str] = []
    monkeypatch.setattr(Lab, "train", lambda lab: trained.append(to_line(lab.name, lab.settings())))
    lab.buttons["Train"].click()
    lab.line.value = "forgetlab 1 anchor: beta=0.0316228, seed=9"
    assert len(trained) == 2
    assert "seed=9" in trained[1]


@pytest.mark.parametrize("name", writing.RECORDED)
def test_what_is_trimmed_changes_no_picture_and_no_word(name: str, shipped: None) -> None:
    lab, (settings, state) = opened(name), random.Random(2).choice(records.read(name))
    whole: dict[str, Any] = {**state, "progress": "…"}
    if "records" in state:
        poison = {**dict.fromkeys(records.UNUSED, "not to be looked at"), "tallies": {}}  # of a run: see below
        whole["records"] = [{**record, **poison} for record in state["records"]]
    assert {**records.trimmed(whole), "settings": settings} == state
    assert pictured(lab, settings, whole) == pictured(lab, settings, state)


def pictured(lab: Lab[Any], settings: dict[str, Any], state: dict[str, Any]) -> Any:
    """Picture, its description and the words of a state in the opening view."""
    view = {**lab._shown._seen(Result({**state, "settings": settings}, "cached")), "place": lab._shown.place}
    drawn, alt = lab._shown._draw(state, [], view, "cached")
    words = lab._shown._words(state, view) if lab._shown._words else state.get("message")
    return drawn if isinstance(drawn, str) else seen(drawn), alt, words


def test_numbers_are_rounded_and_all_else_is_left() -> None:
    given: dict[str, Any] = {"a": (1.23456789, 2, None, "x"), "b": {"c": 1e-12 / 3, "d": True}}
    assert records.rounded(given) == {"a": [1.2346, 2, None, "x"], "b": {"c": 3.3333e-13, "d": True}}


def untimed(value: Any) -> Any:
    """Without what a run took."""
    if isinstance(value, dict):
        return {key: untimed(own) for key, own in value.items() if key != "train_seconds"}
    if isinstance(value, list):
        return [untimed(own) for own in value]
    return re.sub(r"\d+ ms", "", value) if isinstance(value, str) else value


@pytest.mark.slow
def test_a_record_is_bit_for_bit_what_a_live_run_gives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a machine that gives a first one of them; another one's sums round otherwise (see test_shipped).

    And what was trimmed of it changes no picture.
    """
    cheap = [("watch", {"steps": 20}), ("matrix", {"steps": 10}), ("stream", {"length": 2}), ("pull", {"lam": 1.0})]
    points = [(name, {**grids.opens_with(name), **change}) for name, change in cheap]
    if os.environ.get("FORGETLAB_LONG"):
        chance = random.Random()
        points += [(name, chance.choice(grids.settings(name))) for name in chance.sample([*grids.GRIDS], 10)]
    with monkeypatch.context() as patch:
        patch.setattr(results, "shipped_folder", SHIPPED)
        stored = [records.find(*point) for point in points]
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as they were recorded
    try:
        for (name, settings), kept in zip(points, stored, strict=True):
            assert kept is not None
            lab = labs.show(name, driver="inline")
            *_, live = lab._work(dict(settings))
            own = {**records.trimmed(live), "settings": settings}
            if (name, settings) == points[0] and untimed(own) != untimed(kept):
                pytest.skip("not the kind of machine that recorded them")
            assert untimed(own) == untimed(kept), (name, settings)
            assert pictured(lab, settings, records.rounded(live)) == pictured(lab, settings, own)
    finally:
        torch.set_num_threads(threads)


def test_recording_goes_on_where_it_was_killed_and_ships_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(results, "shipped_folder", lambda: tmp_path / "records")
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(writing, "ProcessPoolExecutor", lambda processes, **_: ThreadPoolExecutor(1))
    monkeypatch.setitem(grids.GRIDS, "freeze", ({"width": (4, 16), "seed": (0, 1)},))
    points = grids.settings("freeze")
    assert len(points) == 5
    small, original = {"steps": 2, "every": 2, "batch_size": 8, "limit": 16}, remedy.recipe
    monkeypatch.setattr(remedy, "recipe", lambda *which, **more: replace(original(*which, **more), **small))
    lab, asked = writing.lab("freeze"), list[dict[str, Any]]()
    work = lab._work

    def dies_at_the_third(settings: dict[str, Any]) -> Any:
        asked.append(settings)
        if len(asked) == 3:
            raise KeyboardInterrupt
        yield from work(settings)

    monkeypatch.setattr(lab, "_work", dies_at_the_third)
    results.record("lab-freeze", [(points[0], {"message": "stale"})])
    with pytest.raises(KeyboardInterrupt):
        writing.write(["freeze"])
    assert records.read("freeze") == []
    del asked[2]  # which came to nothing
    writing.write(["freeze"])
    assert sorted(map(str, asked)) == sorted(map(str, points))
    assert [settings for settings, _ in records.read("freeze")] == points
    assert all("tallies" not in record for _, state in records.read("freeze") for record in state["records"])
    without = results.recorded("plain")
    assert [settings["seed"] for settings, _ in without] == [0, 1]
    assert records.read("freeze")[0][1]["plain"] == without[0][1]
    before = {path.name: path.read_bytes() for path in (tmp_path / "records").iterdir()}
    writing.write(["freeze"])
    assert {path.name: path.read_bytes() for path in (tmp_path / "records").iterdir()} == before
    with pytest.raises(ForgetlabError, match="unknown recorded lab 'clod'"):
        writing.write(["clod"])
    writing.lab.cache_clear()
