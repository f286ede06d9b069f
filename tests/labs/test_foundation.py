"""The runner, the lab, its settings line and its kept results, without any training."""

import asyncio
import base64
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from forgetlab import ForgetlabError
from forgetlab.experiments import results
from forgetlab.labs.kit.base import Lab
from forgetlab.labs.kit.runner import Runner, pick_driver
from forgetlab.labs.kit.settings import from_line, to_line
from forgetlab.teaching import compat


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def in_another_thread():
    """Calls a function in a thread beside the block; an error in it is raised at the block's end."""

    @contextmanager
    def beside(action, *arguments):
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(action, *arguments)
            yield
            done.result(20)

    return beside


def wait_for(reached) -> None:
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Journal:
    """What a runner reported, in order."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.closed: list[str] = []

    def counting(self, name: str, to: int):
        def make():
            try:
                for i in range(to):
                    yield f"{name}{i}"
            finally:
                self.closed.append(name)

        return make

    def runner(self, driver) -> Runner:
        return Runner(self.events.append, lambda why: self.events.append(("end", why)), driver)


def test_run_to_the_end() -> None:
    journal = Journal()
    runner = journal.runner("inline")
    runner.start(journal.counting("a", 3))
    assert journal.events == ["a0", "a1", "a2", ("end", "done")]
    assert journal.closed == ["a"]
    assert not runner.running


def test_a_thread_gives_way_and_the_newest_wins() -> None:
    journal = Journal()

    async def drive() -> None:
        runner = journal.runner("thread")
        runner.start(journal.counting("a", 1000))
        while len(journal.events) < 3:
            await asyncio.sleep(0.001)
        for name in "bcd":  # five quick moves cost one run, not five
            runner.start(journal.counting(name, 2))
        while ("end", "done") not in journal.events:
            await asyncio.sleep(0.001)

    asyncio.run(drive())
    after = journal.events[journal.events.index("d0") :]
    assert after == ["d0", "d1", ("end", "done")]
    assert ("end", "stopped") not in journal.events  # another run is shown by now
    assert journal.closed[0] == "a"  # each was closed before the next began, if it began at all
    assert journal.closed[-1] == "d"


def test_stop_keeps_what_was_reached() -> None:
    journal = Journal()

    async def drive() -> None:
        runner = journal.runner("thread")
        runner.start(journal.counting("a", 1000))
        while len(journal.events) < 3:
            await asyncio.sleep(0.001)
        runner.stop()
        await asyncio.sleep(0.05)
        assert not runner.running

    asyncio.run(drive())
    assert journal.events[-1] == ("end", "stopped")
    assert journal.events[:3] == ["a0", "a1", "a2"]


@pytest.mark.parametrize("pieces", [0, 2])
def test_a_run_in_a_thread_of_its_own_is_broken_off_within_a_piece(pieces: int) -> None:
    journal = Journal()
    at_work, closed = threading.Event(), []

    def endless():
        try:
            yield from range(pieces)
            at_work.set()
            while True:  # a piece that never comes to its end
                sum(range(100))
        finally:
            closed.append(threading.get_ident())

    runner = journal.runner("thread")
    for _ in range(20):
        journal.events.clear()
        at_work.clear()
        runner.start(endless)
        assert at_work.wait(10)
        assert runner.phase == ("running" if pieces else "preparing")
        runner.stop()
        runner.stop()  # a second one changes nothing
        wait_for(lambda: not runner.running)
        assert journal.events == [*range(pieces), ("end", "stopped")]
    at_work.clear()
    runner.start(endless)
    assert at_work.wait(10)
    journal.events.clear()
    runner.start(journal.counting("a", 2))  # takes its place, without a word
    wait_for(lambda: not runner.running)
    assert journal.events == ["a0", "a1", ("end", "done")]
    assert len(closed) == 21
    assert threading.get_ident() not in closed


def test_a_run_has_ended_before_python_does() -> None:
    """A thread that is killed within torch aborts the process; a kernel that is shut down would say so."""
    code = """
import threading
from forgetlab.labs.kit.runner import Runner
at_work = threading.Event()
def endless():
    try:
        at_work.set()
        while True:
            sum(range(100))
        yield
    finally:
        print("closed")
Runner(print, print, "thread").start(endless)
assert at_work.wait(10)"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout.split(), ended.stderr) == (0, ["closed", "stopped"], "")


def test_a_page_is_answered_while_a_piece_is_worked() -> None:
    """What touches the picture waits for no piece, so a slider of the view moves it meanwhile."""
    lab = make_lab()
    lab.train()
    at_work, go_on = threading.Event(), threading.Event()

    def slow(settings):
        at_work.set()
        assert go_on.wait(10)
        yield from squares(settings)

    lab._work, lab._runner.driver = slow, "thread"
    lab.training["n"].value = 8
    assert at_work.wait(10)
    lab.view["shift"].value = 4
    assert alt(lab) == "live: up to 9, 0 old, shift 4"
    assert "Not of the present settings: live, n=3, rate=0.1" in lab.picture.value
    assert lab._runner.phase == "preparing"
    go_on.set()
    wait_for(lambda: "64 reached" in lab.message.value)
    assert alt(lab) == "live: up to 64, 1 old, shift 4"


def test_an_interrupt_between_two_pieces_is_not_lost() -> None:
    """A kernel that is not at a message ignores SIGINT."""
    journal = Journal()

    async def drive() -> None:
        runner = journal.runner("thread")
        runner.start(journal.counting("a", 1000))
        while len(journal.events) < 3:
            await asyncio.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)  # while the run has given way to this
        await asyncio.sleep(0.05)
        assert not runner.running

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        asyncio.run(drive())
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert journal.events[-1] == ("end", "stopped")


def test_a_run_in_another_thread_is_put_away_first() -> None:
    """Kernels may run callbacks in more than one thread: two runs never work at the same time."""
    journal, inside, most = Journal(), [0], [0]

    def make(name: str, to: int):
        def work():
            for i in range(to):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                threading.Event().wait(0.002)
                inside[0] -= 1
                yield f"{name}{i}"

        return work

    runner = journal.runner("inline")
    threads = [threading.Thread(target=runner.start, args=(make(name, 20),)) for name in "abc"]
    for thread in threads:
        thread.start()
        threading.Event().wait(0.01)
    for thread in threads:
        thread.join()
    assert most[0] == 1
    assert journal.events[-1] == ("end", "done")
    assert [e for e in journal.events if e == ("end", "done")] == [("end", "done")]


@pytest.mark.parametrize(
    ("error", "told"),
    [(ForgetlabError("no such thing"), "error: no such thing"), (ValueError("x"), "error: ValueError: x")],
)
def test_an_error_is_told_and_the_next_run_is_right(error: Exception, told: str) -> None:
    journal = Journal()

    def failing():
        yield "before"
        raise error

    def at_once():
        raise error

    runner = journal.runner("inline")
    for make in (failing, at_once):
        runner.start(make)
        assert journal.events[-1] == ("end", told)
        assert not runner.running
    runner.start(journal.counting("a", 1))
    assert journal.events[-2:] == ["a0", ("end", "done")]


def test_an_interrupt_keeps_the_part() -> None:
    journal = Journal()

    def interrupted():
        yield "first"
        raise KeyboardInterrupt

    runner = journal.runner("inline")
    runner.start(interrupted)
    assert journal.events == ["first", ("end", "stopped")]
    runner.start(journal.counting("a", 1))
    assert journal.events[-1] == ("end", "done")


def test_an_interrupt_while_another_thread_may_have_its_turn_keeps_the_part(monkeypatch) -> None:
    journal = Journal()
    runner = journal.runner("inline")

    def interrupted(seconds):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("forgetlab.labs.kit.runner.time.sleep", interrupted)
        runner.start(journal.counting("a", 3))
    assert journal.events == ["a0", ("end", "stopped")]
    assert journal.closed == ["a"]


def test_the_driver_is_picked_by_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_driver() == "inline"

    async def inside() -> str:
        return pick_driver()

    assert asyncio.run(inside()) == "thread"
    monkeypatch.setitem(__import__("sys").modules, "google.colab", object())

    async def on_colab() -> str:
        return pick_driver()

    assert asyncio.run(on_colab()) == "inline"
    monkeypatch.setenv("FORGETLAB_DRIVER", "inline")
    assert pick_driver() == "inline"
    monkeypatch.setenv("FORGETLAB_DRIVER", "inlin")
    with pytest.raises(ForgetlabError, match="did you mean 'inline'"):
        pick_driver()


# -- the lab ----------------------------------------------------------------------------------------


def squares(settings):
    """Counts up to n, or fails where asked."""
    if settings["n"] == 13:
        raise ForgetlabError("13 is not to be counted to")
    for i in range(settings["n"] + 1):
        yield {"values": [k * k for k in range(i + 1)], "message": f"{i * i} reached"}


def figure_of(state, old, settings, source):
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot(state["values"])
    return figure, f"{source}: up to {state['values'][-1]}, {len(old)} old, shift {settings.get('shift')}"


def make_lab(**options) -> Lab:
    return Lab(
        "squares",
        options.pop("work", squares),
        figure_of,
        training={"n": compat.slider("n", 3, 1, 20, 1), "rate": compat.log_slider("rate", 0.1, 1e-3, 10.0)},
        view={"shift": compat.slider("shift", 0, 0, 5, 1, live=True)},
        presets={"nine": {"n": 9}},
        driver="inline",
        **options,
    )


def alt(lab: Lab) -> str:
    return re.search('alt="([^"]*)"', lab.picture.value)[1]


def test_a_lab_trains_draws_and_keeps(own_cache: Path) -> None:
    lab = make_lab()
    assert "Press Train" in lab.message.value
    lab.buttons["Train"].click()
    assert alt(lab) == "live: up to 9, 0 old, shift 0"
    assert "9 reached" in lab.message.value
    png = base64.b64decode(re.search('base64,([^"]*)"', lab.picture.value)[1])
    assert png.startswith(b"\x89PNG")
    lab.training["n"].value = 4
    assert alt(lab) == "live: up to 16, 1 old, shift 0"
    lab.view["shift"].value = 2  # redraws, computes nothing
    assert alt(lab) == "live: up to 16, 1 old, shift 2"
    lab.training["n"].value = 3
    assert alt(lab).startswith("cached: up to 9")
    lab.buttons["nine"].click()
    assert alt(lab).startswith("live: up to 81")
    lab.buttons["Reset"].click()
    assert alt(lab) == "cached: up to 9, 0 old, shift 2"
    assert alt(make_lab()) == "cached: up to 9, 0 old, shift 0"  # another lab opens on what was kept
    assert len(list(own_cache.glob("*.json"))) == 3


def test_words_that_hang_on_the_view_follow_it() -> None:
    def words(state, settings) -> str:
        return f"{state['values'][-1]} seen from {settings['shift']}, n is {settings['n']}"

    lab = make_lab(words=words)
    lab.view["shift"].value = 1
    assert "Press Train" in lab.message.value  # nothing to say yet
    lab.buttons["Train"].click()
    assert "9 seen from 1, n is 3" in lab.message.value
    lab.view["shift"].value = 4
    assert "9 seen from 4, n is 3" in lab.message.value
    again = make_lab(words=words)
    again.view["shift"].value = 5
    assert "A kept result; Train runs it again. 9 seen from 5, n is 3" in again.message.value
    plain = make_lab()
    plain.view["shift"].value = 5
    assert "A kept result; Train runs it again. 9 reached" in plain.message.value


def test_an_error_stays_when_the_view_moves() -> None:
    lab = make_lab()
    lab.buttons["Train"].click()
    lab.training["n"].value = 13
    assert "13 is not to be counted to" in lab.message.value
    lab.view["shift"].value = 2
    assert "13 is not to be counted to" in lab.message.value
    lab.training["n"].value = 4
    assert "16 reached" in lab.message.value

    def fails(state, old, settings, source):
        if settings["shift"] == 3:
            raise ForgetlabError("no picture of 3")
        return figure_of(state, old, settings, source)

    lab._shown._draw = fails
    lab.view["shift"].value = 3
    assert "no picture of 3" in lab.message.value


def test_a_picture_that_waits_is_told_of_a_stop() -> None:
    def stops(settings):
        yield {"values": [0]}
        raise KeyboardInterrupt

    seen = []

    def draw(state, *_):
        seen.append("stopped" in state)
        return Figure(figsize=(2, 1)), "a picture"

    lab = Lab("waits", stops, draw, training={"n": compat.slider("n", 3, 1, 20, 1)}, driver="inline")
    lab.buttons["Train"].click()
    assert seen == [False, True]
    assert "Stopped; what was reached stays." in lab.message.value


def test_a_stopped_run_that_has_words_says_that_it_was_stopped() -> None:
    def stops(settings):
        yield {"message": "ten of twenty"}
        raise KeyboardInterrupt

    picture = Figure(figsize=(2, 1)), "a picture"
    controls = {"n": compat.slider("n", 3, 1, 20, 1)}
    lab = Lab("words", stops, lambda *_: picture, training=controls, driver="inline")
    lab.buttons["Train"].click()
    assert "Stopped; what was reached stays. ten of twenty" in lab.message.value


def test_an_error_leaves_a_lab_usable() -> None:
    lab = make_lab()
    lab.training["n"].value = 13
    assert "13 is not to be counted to" in lab.message.value
    lab.training["n"].value = 5
    assert "25 reached" in lab.message.value


def test_two_labs_do_not_talk() -> None:
    one, two = make_lab(), make_lab()
    one.training["n"].value = 7
    assert two.training["n"].value == 3
    assert two.state is None


def test_a_kept_result_is_not_drawn_over_by_the_run_it_ends(in_another_thread) -> None:
    """A kernel may handle a move in one thread while a piece is worked in another one."""
    lab = make_lab()
    lab.train()  # n = 3 is kept
    at_work, go_on = threading.Event(), threading.Event()

    def slow(settings):
        for state in squares(settings):
            at_work.set()
            assert go_on.wait(10)
            yield state

    lab._work = slow
    with in_another_thread(lab.apply, {"n": 15}):
        assert at_work.wait(10)
        with in_another_thread(setattr, lab.training["n"], "value", 3):
            go_on.set()
    assert alt(lab).startswith("cached: up to 9")
    assert "A kept result; Train runs it again. 9 reached" in lab.message.value
    assert "stopped" not in lab.state
    assert not lab._runner.running


def test_a_move_is_not_lost_while_another_thread_moves_controls(in_another_thread) -> None:
    lab = make_lab()
    moving, go_on = threading.Event(), threading.Event()

    def hold(change):
        moving.set()
        assert go_on.wait(10)

    lab.training["n"].observe(hold, "value")
    with in_another_thread(lab.apply, {"n": 9}):
        assert moving.wait(10)
        with in_another_thread(setattr, lab.training["rate"], "value", 1.0):
            go_on.set()
    assert lab.state["settings"] == {"n": 9, "rate": 1.0}


def test_a_run_stopped_before_it_began_leaves_the_earlier_one_as_it_was() -> None:
    lab = make_lab()
    lab.train()

    def endless(settings):
        while True:
            sum(range(100))
        yield

    lab._work, lab._runner.driver = endless, "thread"
    lab.training["n"].value = 8
    lab.buttons["Stop"].click()
    words = "Stopped before anything was reached. What is shown below is an earlier run."
    wait_for(lambda: words in lab.message.value)
    assert alt(lab).startswith("live: up to 9")
    assert "stopped" not in lab.state


def test_the_settings_line_round_trip() -> None:
    lab = make_lab()
    assert lab.line.value == "forgetlab 1 squares: n=3, rate=0.1"
    lab.line.value = "forgetlab 1 squares: n=6, rate=0.01"
    assert lab.settings() == {"n": 6, "rate": 0.01}
    assert "36 reached" in lab.message.value
    other = make_lab()
    other.line.value = lab.line.value
    assert other.settings() == lab.settings()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "begins with"),
        ("hello", "begins with"),
        ("forgetlab 2 squares: n=3", "of version 2"),
        ("forgetlab 1 watch: n=3", "of the lab “watch”"),
        ("forgetlab 1 squares: m=3", "unknown setting 'm'"),
        ("forgetlab 1 squares: n=", "is cut"),
        ("forgetlab 1 squares: n=99", "between 1 and 20"),
        ("forgetlab 1 squares: n=3.5", "must be a number"),
        ("forgetlab 1 squares: rate=nan", "between 0.001 and 10"),
        ("forgetlab 1 squares: rate=1e999", "between 0.001 and 10"),
        ("forgetlab 1 squares: n=__import__('os').system('true')", "must be a number"),
        ("forgetlab 1 squares: " + "n=3, " * 1000, "at most 2000 characters"),
    ],
)
def test_a_bad_settings_line_changes_nothing(line: str, message: str) -> None:
    lab = make_lab()
    before = lab.line.value
    lab.line.value = line
    if line:
        assert message in lab.message.value.replace("&#x27;", "'")
        assert "Nothing was changed" in lab.message.value
    assert lab.settings() == {"n": 3, "rate": 0.1}
    assert lab.line.value == before
    assert lab.state is None


def test_every_line_a_lab_writes_can_be_read() -> None:
    controls = {
        "rate": compat.log_slider("rate", 1e-3, 1e-5, 1e-1),
        "n": compat.slider("n", 1, 0, 9, 1),
        "share": compat.slider("share", 0.5, 0.0, 1.0, 0.05),
        "kind": compat.choice("kind", "a", ["a", "b c"]),
    }
    for exponent in range(-20, -3):
        controls["rate"].value = 10 ** (exponent / 4)
        settings = {name: control.value for name, control in controls.items()}
        read = from_line("lab", to_line("lab", settings), controls)
        assert read["rate"] == pytest.approx(settings["rate"], rel=1e-5)
        assert {k: v for k, v in read.items() if k != "rate"} == {k: v for k, v in settings.items() if k != "rate"}


def test_instant_labs_run_at_every_move() -> None:
    lab = make_lab(instant=True)
    assert alt(lab) == "simulated: up to 9, 0 old, shift 0"
    assert "Train" not in lab.buttons
    lab.training["n"].value = 4
    assert alt(lab) == "simulated: up to 16, 0 old, shift 0"


# -- kept results -----------------------------------------------------------------------------------


def test_results_are_kept_by_everything_that_defines_them(own_cache: Path) -> None:
    assert results.get("a", {"x": 1}) is None
    assert results.put("a", {"x": 1}, {"y": [1, 2]}) == ""
    assert results.get("a", {"x": 1}) == {"y": [1, 2]}
    assert results.get("a", {"x": 2}) is None
    assert results.get("b", {"x": 1}) is None
    assert [path.name[0] for path in own_cache.iterdir()] == ["a"]  # no draft is left


@pytest.mark.parametrize("content", ["", "{", "[]", '{"other": 1}', "\x00"])
def test_a_corrupted_file_is_computed_anew(content: str, own_cache: Path) -> None:
    results.put("lab-squares", {"n": 3, "rate": 0.1}, {"values": [1]})
    (file,) = own_cache.glob("*.json")
    file.write_text(content)
    lab = make_lab()
    assert lab.state is None
    lab.buttons["Train"].click()
    assert json.loads(file.read_text())["result"]["values"] == [0, 1, 4, 9]


def test_a_cache_that_cannot_be_written_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path / "file" / "below"))
    lab = make_lab()
    lab.buttons["Train"].click()
    assert "could not be kept" in lab.message.value
    assert alt(lab).startswith("live: up to 9")
    lab.buttons["Train"].click()
    assert "could not be kept" not in lab.message.value


def test_a_result_that_is_not_finite_is_not_kept() -> None:
    assert "could not be kept" in results.put("a", {}, {"y": float("nan")})
    assert results.get("a", {}) is None


def test_the_cache_makes_room(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "CACHE_BYTES", 2000)
    for i in range(10):
        results.put("a", {"x": i}, "z" * 400)
    assert sum(path.stat().st_size for path in own_cache.iterdir()) <= 2000
    assert results.get("a", {"x": 9}) == "z" * 400  # the newest stays
