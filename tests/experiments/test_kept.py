"""What is kept is believed only where it is whole: runs, their sweep.json, the cache; one process at a time."""

from __future__ import annotations

import errno
import gzip
import json
import os
import platform
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forgetlab.errors import ForgetlabError
from forgetlab.experiments import locks, report, results, sweeps
from forgetlab.experiments.locks import locked
from forgetlab.experiments.sweeps import RunFolder
from tests.conftest import FailingDisk
from tests.experiments.test_sweeps import QUICK, RECIPES, Fake, made, swept

ROOT = Path(__file__).parents[2]
SMALL = ["--steps=2", "--every=1", "--batch=4", "--limit=8", "--methods=none,l2sp", "--seeds=2", "--processes=1"]


def files(out: Path) -> list[Path]:
    return [out / "runs" / f"{recipe.key()}.json" for recipe in RECIPES]


# -- runs -------------------------------------------------------------------------------------------


def test_a_number_changed_by_hand_is_computed_again(tmp_path: Path) -> None:
    first = swept(tmp_path, Fake())(RECIPES)
    file = files(tmp_path)[1]
    text = file.read_text()
    changed = text.replace('"loss": 0.43333', '"loss": 0.13333')
    assert changed != text
    file.write_text(changed)
    again = Fake()
    sweep = swept(tmp_path, again, resume=True)
    assert sweep(RECIPES) == first
    assert again.asked == [RECIPES[1]]
    assert sweep.kept.damaged == [file.name]


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Cut short, one bit turned, a piece doubled, or other bytes altogether."""
    place = chance.randrange(len(content))
    kind = chance.randrange(4)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]
    if kind == 2:
        return content[:place] + content[place // 2 :]
    return chance.randbytes(place)


def test_no_damage_ever_gives_another_number(tmp_path: Path) -> None:
    """Any file of a folder damaged in any way: the numbers of a resume are those that were computed."""
    first = swept(tmp_path, Fake())(RECIPES)
    whole = {path: path.read_bytes() for path in (tmp_path / "runs").iterdir()}
    chance = random.Random(0)
    again_computed = 0
    for _ in range(50):
        for path in chance.sample(sorted(whole), chance.randint(1, 3)):
            path.write_bytes(damaged(whole[path], chance))
        fake = Fake()
        assert swept(tmp_path, fake, resume=True)(RECIPES) == first
        again_computed += len(fake.asked)
        for path, content in whole.items():
            path.write_bytes(content)
    assert 30 < again_computed < 150  # what was whole was taken up


@pytest.mark.parametrize("content", ["", "{", "null", '{"forgetlab": "0.1.0"}', None])
def test_a_lost_sweep_json_is_made_anew_from_the_runs(content: str | None, tmp_path: Path) -> None:
    first = swept(tmp_path, Fake())(RECIPES[:3])
    manifest = tmp_path / "runs" / "sweep.json"
    manifest.unlink() if content is None else manifest.write_text(content)
    report.check_folder(tmp_path)
    with pytest.raises(ForgetlabError, match="3 finished runs of an interrupted comparison: go on with --resume"):
        RunFolder(tmp_path, QUICK, resume=False)
    with pytest.raises(ForgetlabError, match=r"another recipe \(lr was 0.001, now 0.5\)"):
        RunFolder(tmp_path, replace(QUICK, lr=0.5), resume=True)
    again = Fake()
    sweep = swept(tmp_path, again, resume=True)
    assert sweep(RECIPES)[:3] == first
    assert again.asked == RECIPES[3:]
    sweep.kept.finish()
    assert results.read_json(manifest) == {**sweeps.identity(QUICK), "finished": True}


def test_runs_made_from_another_model_are_not_taken_though_the_sweep_json_is_lost(tmp_path: Path) -> None:
    """The key of a run names a model's folder, not what lies there: another vocabulary is another model."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "vocab.txt").write_text("a b")
    recipe = replace(QUICK, model=str(model))
    RunFolder(tmp_path / "out", recipe, resume=False).put(made(recipe))
    assert RunFolder(tmp_path / "out", recipe, resume=True).get(recipe) == json.loads(json.dumps(made(recipe)))
    (model / "vocab.txt").write_text("a c")
    with pytest.raises(ForgetlabError, match=f"{model / 'vocab.txt'} has changed"):
        RunFolder(tmp_path / "out", recipe, resume=True)
    (tmp_path / "out" / "runs" / "sweep.json").unlink()
    with pytest.raises(ForgetlabError, match="the data has changed"):
        RunFolder(tmp_path / "out", recipe, resume=True)


def test_a_folder_of_damaged_files_alone_is_no_dead_end(tmp_path: Path) -> None:
    swept(tmp_path, Fake())(RECIPES)
    for path in (tmp_path / "runs").iterdir():
        path.write_text("")
    report.check_folder(tmp_path)
    for resume in (True, False):
        fake = Fake()
        assert len(swept(tmp_path, fake, resume=resume)(RECIPES)) == len(fake.asked) == 4
        for path in (tmp_path / "runs").iterdir():
            path.write_text("")
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ForgetlabError, match="choose another folder"):
        report.check_folder(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_disk_that_refuses_at_any_write_costs_no_finished_run(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each operation on the disk in its turn fails; the resume takes up every run that was there before it."""
    disk = FailingDisk(code)
    monkeypatch.setattr(results.os, "fsync", disk.failing(os.fsync))
    monkeypatch.setattr(Path, "replace", disk.failing(Path.replace))
    monkeypatch.setattr(Path, "open", disk.failing(Path.open))
    expected = swept(tmp_path / "whole", Fake())(RECIPES)
    total = disk.operations
    assert total > 20
    errors: list[str] = []
    for disk.fails_at in range(total):
        out, disk.operations = tmp_path / str(disk.fails_at), 0
        landed: list[str] = []
        try:
            swept(out, Fake(), on_run=lambda run, landed=landed: landed.append(run["key"]))(RECIPES)
        except ForgetlabError as error:
            errors.append(str(error))
        disk.operations = total + 1
        again = Fake()
        assert swept(out, again, resume=True)(RECIPES) == expected
        assert not {recipe.key() for recipe in again.asked} & set(landed)
    assert all(os.strerror(code) in error for error in errors)
    assert len(errors) >= 15  # reading, and syncing a folder, may fail without harm


def test_a_folder_that_may_not_be_written_and_a_file_in_its_place_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ForgetlabError, match="cannot write to .*file.runs: "),
        sweeps.opened(tmp_path / "file", QUICK, False),
    ):
        pass
    with (
        pytest.raises(ForgetlabError, match="cannot write to /proc/new/runs"),
        sweeps.opened(Path("/proc/new"), QUICK, False),
    ):  # not even root may
        pass
    (tmp_path / "out" / "runs" / "lock").mkdir(parents=True)
    with (
        pytest.raises(ForgetlabError, match="cannot write to .*File exists"),
        sweeps.opened(tmp_path / "out", QUICK, False),
    ):
        pass


# -- one process at a time --------------------------------------------------------------------------


@pytest.fixture
def ended() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_lock_is_held_by_one_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "lock"
    with locked(path):
        with pytest.raises(ForgetlabError, match=rf"in use by process {os.getpid()} on .*if it no longer runs, delete"):
            locked(path).__enter__()
        assert path.is_file()
    assert not (tmp_path / "a").exists()
    (tmp_path / "a").mkdir()
    with pytest.raises(KeyError), locked(path):
        raise KeyError
    assert (tmp_path / "a").exists()  # it was there before
    assert not (tmp_path / "a" / "b").exists()


@pytest.mark.parametrize("case", ["dead", "number given anew", "empty", "damaged", "of another program"])
def test_the_lock_of_a_dead_process_is_taken_over(
    case: str, tmp_path: Path, ended: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PAUSE", 0.001)
    mine = {"pid": os.getpid(), "host": platform.node(), "born": locks._born(os.getpid())}
    content = {
        "dead": json.dumps({**mine, "pid": ended}),
        "number given anew": json.dumps({**mine, "born": "an earlier boot/123"}),
        "empty": "",
        "damaged": '{"pid": 12, "ho',
        "of another program": '{"pid": -1, "host": "here", "born": ""}',
    }
    path = tmp_path / "lock"
    path.write_text(content[case])
    with locked(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_without_proc_a_process_that_runs_is_told_from_one_that_ended(
    tmp_path: Path, ended: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_born", lambda pid: None)
    path = tmp_path / "lock"
    for pid, taken in ((ended, True), (os.getppid(), False), (1, False), (2**40, True)):
        path.write_text(json.dumps({"pid": pid, "host": platform.node(), "born": None}))
        if taken:
            with locked(path):
                pass
        else:
            with pytest.raises(ForgetlabError, match=f"in use by process {pid}"):
                locked(path).__enter__()


def test_a_lock_of_another_machine_stays(tmp_path: Path, ended: int) -> None:
    path = tmp_path / "lock"
    path.write_text(json.dumps({"pid": ended, "host": "elsewhere", "born": None}))
    with pytest.raises(ForgetlabError, match="on elsewhere"):
        locked(path).__enter__()
    assert path.exists()


def test_a_lock_that_another_process_took_meanwhile_is_not_pushed_aside(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("of the process that was faster")
    locks._push_aside(path, "stale")
    assert path.read_text() == "of the process that was faster"
    assert [one.name for one in tmp_path.iterdir()] == ["lock"]


RACE = """
import sys, time
from pathlib import Path
from forgetlab.errors import ForgetlabError
from forgetlab.experiments.locks import locked
path, log = Path(sys.argv[1]), Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
entered = 0
while entered < 7:
    try:
        with locked(path):
            inside = path.with_name("inside")
            inside.mkdir()  # fails where another one is inside
            time.sleep(0.001)
            inside.rmdir()
            with log.open("a") as file:
                file.write("x")
            entered += 1
            if entered == 4:
                path.write_text('{"pid": 4194303, "host": "%s", "born": "long ago"}' % __import__("platform").node())
    except ForgetlabError as error:
        assert "in use by process" in str(error), error
        time.sleep(0.001)
"""


def test_of_several_processes_one_is_inside_at_any_time(tmp_path: Path) -> None:
    """Three at once; now and then a stale lock is left for the others to take over."""
    (tmp_path / "race.py").write_text(RACE)
    command = [sys.executable, str(tmp_path / "race.py"), str(tmp_path / "lock"), str(tmp_path / "log")]
    own = {**os.environ, "PYTHONPATH": str(ROOT)}
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own) for _ in range(3)
    ]
    for racer in racers:
        assert racer.stdout is not None
        racer.stdout.readline()
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.close()
    for racer in racers:
        assert racer.wait(60) == 0
        racer.stdout.close()  # type: ignore[union-attr]
    assert len((tmp_path / "log").read_text()) == 21
    assert not (tmp_path / "inside").exists()


@pytest.fixture
def under_way(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A comparison in tmp_path/out with one run finished and many to come."""
    long = [*SMALL, "--seeds", "500", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-m", "forgetlab", "compare", *long],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for _ in range(600):
            if sweeps.files_of_runs(tmp_path / "out" / "runs") or process.poll() is not None:
                break
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there, a process is ended without a word")
def test_two_comparisons_into_one_folder_and_an_end_that_the_system_asks_for(
    tmp_path: Path, under_way: subprocess.Popen[str]
) -> None:
    from forgetlab.__main__ import main

    command = ["compare", *SMALL, "--out", str(tmp_path / "out")]
    for more in ([], ["--resume"]):
        assert main([*command, *more]) == 2  # the second one is refused at once
    assert under_way.poll() is None
    before = {path: path.read_bytes() for path in sweeps.files_of_runs(tmp_path / "out" / "runs")}
    under_way.send_signal(signal.SIGTERM)
    _, error = under_way.communicate(timeout=60)
    assert under_way.returncode == 128 + signal.SIGTERM
    kept = sweeps.whole(tmp_path / "out" / "runs")
    assert f"stopped; {len(kept)} finished run" in error
    assert "the same command with --resume goes on from there" in error
    assert all(path.read_bytes() == content for path, content in before.items())
    assert not (tmp_path / "out" / "runs" / "lock").exists()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the program forks")
@pytest.mark.parametrize(("what", "rounds"), [("compare", 1), ("trainer", 2)])
def test_killed_at_random_moments_and_resumed_gives_the_same_bits(what: str, rounds: int) -> None:
    """A run or two of each; `make crash` makes many."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.crashing", what, str(rounds)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{rounds} runs, " in done.stdout
    assert ", 0 kills" not in done.stdout


# -- the cache --------------------------------------------------------------------------------------


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_kept_result_is_the_one_that_was_put_there_or_none(own_cache: Path) -> None:
    settings, result = {"x": (1, 2)}, {"y": [0.1, 0.25], "told": "ü"}
    assert results.put("a", settings, result) == ""
    (file,) = own_cache.iterdir()
    whole, chance, none = file.read_bytes(), random.Random(0), 0
    for _ in range(300):
        file.write_bytes(damaged(whole, chance))
        found = results.get("a", settings)
        assert found in (None, result)
        none += found is None
    assert none > 250  # a bit turned in a blank may do no harm
    for foreign in ("[" * 100_000, '{"result": 1}', '{"settings": {"x": [1, 2]}, "result": 1}'):
        file.write_text(foreign)
        assert results.get("a", settings) is None
    file.unlink()
    file.mkdir()
    assert results.get("a", settings) is None


def test_the_result_of_other_settings_under_this_name_is_none(own_cache: Path) -> None:
    for name, settings in (("a", {"x": 1}), ("a", {"x": 2}), ("b", {"x": 1})):
        results.put(name, settings, [name, settings])
    wanted = own_cache / f"{results.key('a', {'x': 1})}.json"
    for other in (results.key("a", {"x": 2}), results.key("b", {"x": 1})):
        wanted.write_bytes((own_cache / f"{other}.json").read_bytes())
        assert results.get("a", {"x": 1}) is None


RUNS: list[tuple[dict[str, Any], Any]] = [({"x": 1.5, "a": ["ü"]}, {"y": [0.25, None]}), ({"x": 2, "a": []}, [True])]


@pytest.fixture
def own_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> Path:
    """Where RUNS of "lab" are recorded."""
    monkeypatch.setattr(results, "shipped_folder", lambda: tmp_path / "records")
    return results.record("lab", RUNS)


def test_recorded_results_are_found_by_their_settings_and_come_first(own_records: Path) -> None:
    assert results.recorded("lab") == RUNS
    results.put("lab", RUNS[0][0], "of the cache")
    for settings, result in RUNS:
        assert results.get("lab", dict(reversed(settings.items()))) == result
    results.get("lab", RUNS[1][0]).append("a caller's own")
    assert results.get("lab", RUNS[1][0]) == [True]
    for name, settings in (("lab", {"x": 1.5}), ("lab", {**RUNS[0][0], "x": 1.25}), ("another", RUNS[0][0])):
        assert results.get(name, settings) is None
    assert results.recorded("another") == []


def test_the_same_runs_are_recorded_in_the_same_bytes_and_others_take_their_place(own_records: Path) -> None:
    before = own_records.read_bytes()
    assert results.record("lab", RUNS).read_bytes() == before
    results.record("lab", RUNS[:1])
    assert (results.recorded("lab"), results.get("lab", RUNS[1][0])) == (RUNS[:1], None)
    with pytest.raises(ValueError, match="JSON"):
        results.record("lab", [({}, float("nan"))])
    assert results.recorded("lab") == RUNS[:1]


def test_damaged_records_count_as_none(own_records: Path) -> None:
    whole, chance, none = own_records.read_bytes(), random.Random(0), 0
    for _ in range(300):
        own_records.write_bytes(damaged(whole, chance))
        results._read.cache_clear()
        found = results.recorded("lab")
        assert found in ([], RUNS)
        none += not found
    assert none > 250  # a bit turned in the gzip header may do no harm
    changed = gzip.decompress(whole).replace(b"0.25", b"0.95")
    for foreign in (gzip.compress(changed), gzip.compress(b"[" * 100_000), gzip.compress(b"\xff"), b"", b"{}"):
        own_records.write_bytes(foreign)
        results._read.cache_clear()
        assert results.get("lab", RUNS[0][0]) is None
    own_records.unlink()
    own_records.mkdir()
    assert results.get("lab", RUNS[0][0]) is None


@pytest.mark.parametrize("what", ["NUMBERS", "_data"])
def test_results_of_other_numbers_or_data_count_as_none(
    what: str, own_records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results.put("kept", {}, 1)
    assert (len(results.recorded("lab")), results.get("kept", {})) == (2, 1)
    monkeypatch.setattr(results, what, results.NUMBERS + 1 if what == "NUMBERS" else lambda: "another")
    results._read.cache_clear()  # as in another process
    assert (results.recorded("lab"), results.get("kept", {})) == ([], None)


def test_a_release_that_changes_no_number_keeps_what_there_is(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = results.key("a", {})
    monkeypatch.setattr("forgetlab.__version__", "99.0")
    assert results.key("a", {}) == before


def test_a_draft_that_a_killed_process_left_makes_room(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "CACHE_BYTES", 1000)
    own_cache.mkdir()
    draft = own_cache / f".0123abcd{results.DRAFT}"
    draft.write_text("z" * 2000)
    os.utime(draft, (1, 1))
    results.put("a", {}, "z")
    assert not draft.exists()
    assert results.get("a", {}) == "z"
