"""A lab never labels a picture with what it is not; and what it holds goes with it."""

from __future__ import annotations

import gc
import json
import re
import threading
import tracemalloc
import weakref
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from forgetlab import ForgetlabError, labs
from forgetlab.experiments import results
from forgetlab.labs.kit.base import Lab
from forgetlab.labs.kit.runner import Runner
from forgetlab.teaching import compat
from tests.labs.test_foundation import alt, make_lab, squares


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def caption(lab: Lab) -> str:
    """What stands above a picture that is not what the controls ask for."""
    found = re.match("<div [^>]*>([^<]*)</div><div style=.opacity", lab.picture.value)
    return unescape(found[1]) if found else ""


def stopped_at_once(settings: Any) -> Any:
    yield from ()
    raise KeyboardInterrupt


def test_a_kept_picture_is_not_live_after_a_run_that_reached_nothing() -> None:
    make_lab().train()
    lab = make_lab()
    lab._work = stopped_at_once
    lab.buttons["Train"].click()
    lab.view["shift"].value = 2
    assert alt(lab) == "cached: up to 9, 0 old, shift 2"
    assert lab.source == "cached"
    lab.training["n"].value = 7
    lab.view["shift"].value = 3
    assert alt(lab) == "cached: up to 9, 0 old, shift 3"
    assert caption(lab) == "Not of the present settings: cached, n=3, rate=0.1"
    assert "What is shown below is an earlier run." in lab.message.value
    assert lab.line.value == "forgetlab 1 squares: n=7, rate=0.1"
    lab.buttons["Reset"].click()
    assert (alt(lab), caption(lab)) == ("cached: up to 9, 0 old, shift 3", "")


def test_while_a_run_is_prepared_the_picture_says_what_it_is_of() -> None:
    seen = []

    def work(settings: Any) -> Any:
        seen.append((caption(lab), alt(lab), lab.still()["text/plain"]))
        lab.view["shift"].value += 1  # drawn anew meanwhile
        seen.append((caption(lab), alt(lab), ""))
        yield from squares(settings)

    make_lab().train()
    lab = make_lab(work=work)
    lab.buttons["Train"].click()
    lab.training["n"].value = 5
    was = "cached, n=3, rate=0.1"
    of_it = f"cached: up to 9, 0 old, shift 0 (From before this run: {was})"
    assert seen[0] == (f"From before this run: {was}", "cached: up to 9, 0 old, shift 0", of_it)
    assert seen[1][:2] == (f"From before this run: {was}", "cached: up to 9, 0 old, shift 1")
    assert seen[2][0] == "Not of the present settings: live, n=3, rate=0.1"
    assert seen[3][:2] == (seen[2][0], "live: up to 9, 0 old, shift 2")
    assert (alt(lab), caption(lab)) == ("live: up to 25, 1 old, shift 2", "")


def test_a_move_that_only_checks_leaves_a_picture_with_its_own_settings() -> None:
    lab = make_lab(check=lambda settings: None)
    lab.buttons["Train"].click()
    lab.training["n"].value = 8
    assert "Press Train." in lab.message.value
    assert (alt(lab)[:13], caption(lab)) == ("live: up to 9", "Not of the present settings: live, n=3, rate=0.1")
    lab.training["n"].value = 3
    assert (alt(lab)[:15], caption(lab)) == ("cached: up to 9", "")


def test_a_picture_that_cannot_be_drawn_leaves_the_one_before_with_its_own_labels() -> None:
    def draw(state: Any, old: Any, settings: Any, source: str) -> Any:
        if settings["n"] == 6 and settings["shift"] == 0:
            raise ForgetlabError("no picture of 6")
        return f"{source} {state['values'][-1]}", "a picture"

    controls = {"n": compat.slider("n", 3, 1, 20, 1)}
    view = {"shift": compat.slider("shift", 0, 0, 5, 1)}
    lab = Lab("drawn", squares, draw, training=controls, view=view, driver="inline")
    lab.train()
    lab.training["n"].value = 6
    assert "no picture of 6" in lab.message.value
    assert caption(lab) == "Not of the present settings: live, n=3"
    assert "live 9" in lab.picture.value
    lab.view["shift"].value = 1
    assert (caption(lab), "live 36" in lab.picture.value) == ("", True)
    assert "36 reached" in lab.message.value


def test_the_first_state_of_a_run_is_drawn_at_once_though_the_view_was_moved_before_it() -> None:
    def work(settings: Any) -> Any:
        lab.view["shift"].value = settings["n"]
        for state in squares(settings):
            yield state
            assert lab.picture.value
            seen.append(alt(lab))
            if settings["n"] == 5 and len(state["values"]) == 3:
                raise ForgetlabError("no further")

    seen: list[str] = []
    lab = make_lab(work=work)
    lab.train()
    seen.clear()
    lab.training["n"].value = 5
    assert seen[0] == "live: up to 0, 1 old, shift 5"
    assert "no further" in lab.message.value
    assert alt(lab) == "live: up to 4, 1 old, shift 5"


def test_a_driver_that_is_not_there_is_said_and_leaves_nothing_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = make_lab()
    lab._runner.driver = None
    monkeypatch.setenv("FORGETLAB_DRIVER", "inlin")
    lab.buttons["Train"].click()
    assert "did you mean 'inline'" in unescape(lab.message.value)
    assert lab._runner.phase == "idle"
    monkeypatch.setenv("FORGETLAB_DRIVER", "inline")
    lab.buttons["Train"].click()
    assert "9 reached" in lab.message.value


def test_stop_is_acknowledged_while_a_piece_is_worked() -> None:
    at_work, go_on = threading.Event(), threading.Event()

    def slow(settings: Any) -> Any:
        for state in squares(settings):
            yield {**state, "progress": "under way"}
            at_work.set()
            assert go_on.wait(10)

    lab = make_lab(work=slow)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(lab.train)
        assert at_work.wait(10)
        lab.buttons["Stop"].click()
        assert ("stopping …" in lab.message.value, lab._runner.phase) == (True, "stopping")
        go_on.set()
        done.result(10)
    assert "Stopped; what was reached stays." in lab.message.value
    assert lab._runner.phase == "idle"
    lab.buttons["Stop"].click()  # nothing is under way
    assert "Stopped; what was reached stays." in lab.message.value


def test_the_phases_of_a_run() -> None:
    seen: list[str] = []
    runner: Runner[int] = Runner(lambda item: seen.append(runner.phase), lambda why: seen.append(why), "inline")

    def work() -> Any:
        seen.append(runner.phase)
        yield 1
        seen.append(runner.phase)
        runner.stop()
        seen.append(runner.phase)
        yield 2

    runner.start(work)
    assert seen == ["preparing", "running", "running", "stopping", "stopping", "stopped"]
    assert runner.phase == "idle"


# -- kept results that are damaged -------------------------------------------------------------------

DEEP = '{"result": ' + '{"a": ' * 100_000 + "1" + "}" * 100_001
DAMAGED = {  # a file as it is, or a result that is whole as a file
    "deep": DEEP,
    "no field": {"message": "so it says"},
    "wrong type": {"values": 7, "message": "so it says"},
    "nothing": {"values": [], "message": ["x"]},
    "null": {"values": None},
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_result_counts_as_none(how: str, own_cache: Path) -> None:
    def damage() -> None:
        content = DAMAGED[how]
        if isinstance(content, str):
            file.write_text(content)
        else:
            results.put("lab-squares", {"n": 3, "rate": 0.1}, content)

    make_lab().train()
    (file,) = own_cache.glob("*.json")
    damage()
    lab = make_lab()
    assert (how == "deep") or "counts as none" in lab.message.value
    assert "Press Train" in lab.message.value
    assert (lab.state, lab.source, lab.picture.value) == (None, "", "")
    lab.view["shift"].value = 1
    assert "error" not in lab.message.value.replace("damaged (error", "")
    lab.buttons["Train"].click()
    assert "9 reached" in lab.message.value
    lab.training["n"].value = 4
    damage()
    lab.training["n"].value = 3  # computed anew
    assert alt(lab) == "live: up to 9, 1 old, shift 1"
    assert json.loads(file.read_text())["result"]["values"] == [0, 1, 4, 9]


@pytest.mark.parametrize("name", [name for name in labs.LABS if name not in ("cloud", "conflict", "dynamics")])
def test_every_lab_opens_on_damaged_results(name: str, own_cache: Path) -> None:
    plain = labs.show(name, driver="inline")
    for content in ({}, {"tasks": [], "records": []}, {"tasks": 1, "records": {}, "message": 3, "dots": [{}]}):
        results.put(f"lab-{name}", plain._filed(plain.settings()), content)
        lab = labs.show(name, driver="inline")
        assert "Press Train" in lab.message.value
        assert "counts as none" in lab.message.value
        assert lab.picture.value == ""
        lab.close()


# -- what a lab holds --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["dropped", "closed", "shown and closed"])
def test_a_lab_that_is_gone_leaves_nothing(how: str) -> None:
    make_lab().train()  # to be opened on; it is a picture that takes the memory

    def one() -> weakref.ref[Lab]:
        lab = make_lab()
        if "shown" in how:
            lab._repr_mimebundle_()
        if "closed" in how:
            lab.close()
        return weakref.ref(lab)

    one()
    gc.collect()
    registry, tracing = compat._registry(), tracemalloc.is_tracing()
    before = len(registry)
    tracemalloc.start()
    try:
        begin = tracemalloc.get_traced_memory()[0]
        gone = [one() for _ in range(5)]
        gc.collect()
        left = (tracemalloc.get_traced_memory()[0] - begin) / 5
    finally:
        if not tracing:
            tracemalloc.stop()
    assert [lab() for lab in gone] == [None] * 5
    assert len(registry) == before
    assert left < 50_000


@pytest.mark.parametrize("name", labs.LABS)
def test_every_lab_that_is_dropped_is_gone(name: str) -> None:
    lab = weakref.ref(labs.show(name, driver="inline"))
    gc.collect()
    assert lab() is None


def test_a_lab_on_a_page_stays() -> None:
    lab = make_lab()
    lab._repr_mimebundle_()
    control, message = lab.training["n"], lab.message
    kept = weakref.ref(lab)
    del lab
    gc.collect()
    control.value = 4  # moved on the page
    assert "16 reached" in message.value
    kept().close()  # type: ignore[union-attr]


# -- which thread of a kernel answers ---------------------------------------------------------------


class Comm:
    """As ipykernel 7.4 has it: the thread of the last publish, whatever the page asks for."""

    def _reply_subshell_for(self, data: Any, default: Any) -> Any:
        return None


def test_a_page_is_answered_in_the_thread_that_it_asks_for() -> None:
    part = SimpleNamespace(comm=Comm())
    whole = SimpleNamespace(comm=Comm(), children=(part,))
    assert part.comm._reply_subshell_for({}, "asked") is None
    compat.answer_while_busy(whole)
    assert [one.comm._reply_subshell_for({}, "asked") for one in (whole, part)] == ["asked"] * 2


def test_another_kernel_answers_as_it_does() -> None:
    class Other(Comm):
        def _reply_subshell_for(self, message: Any) -> Any:  # type: ignore[override]
            return "its own"

    changed, without = SimpleNamespace(comm=Other()), SimpleNamespace(comm=SimpleNamespace())
    for part in (changed, without, SimpleNamespace(comm=None)):
        compat.answer_while_busy(part)
    assert changed.comm._reply_subshell_for({}) == "its own"
    assert not hasattr(without.comm, "_reply_subshell_for")


def test_every_part_of_a_lab_answers_so() -> None:
    lab = make_lab()
    parts = compat._parts(lab)
    assert {lab, lab.message, lab.picture, *lab.buttons.values(), *lab.training.values()} <= set(parts)
    assert len(set(parts)) == len(parts)
