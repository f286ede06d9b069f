"""The command as a user runs it: a process, its exit status, what it prints and what it leaves."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from forgetlab.__main__ import METHODS_APART, main

pytestmark = pytest.mark.slow
QUICK = ["--steps", "4", "--every", "2", "--batch", "8", "--limit", "16", "--seeds", "2", "--device", "cpu"]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "forgetlab", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


Called = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Called:
    """The command in tmp_path as `run` gives it, without a new process, which would load torch for five seconds."""
    monkeypatch.chdir(tmp_path)

    def called(*arguments: str) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # it would stand on stderr
            status = main([*arguments])
        return subprocess.CompletedProcess(arguments, status, *capfd.readouterr())

    return called


def test_compare_on_the_embedded_world(tmp_path: Path) -> None:
    done = run("compare", "--methods", "none,l2sp:lam=0.3;beta=0.01+replay", *QUICK, "--out", "report", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    results = json.loads((tmp_path / "report" / "results.json").read_text())
    assert len(results["runs"]) == 4
    assert [r["records"][-1]["status"] for r in results["runs"]] == ["done"] * 4
    assert [row["method"] for row in results["summary"]] == ["none", "l2sp:lam=0.3,beta=0.01+replay"]
    assert results["summary"][0]["seeds"] == 2
    assert {p.name for p in tmp_path.iterdir()} == {"report"}
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("<img") == 4
    assert results["recommendation"][0] in done.stdout.replace("\n  ", " ")
    assert len([*(tmp_path / "report" / "runs").glob("*.json")]) == 5
    assert "http://" not in page


def test_measure_is_one_method(tmp_path: Path, call: Called) -> None:
    done = call("measure", "--method", "frozen", *QUICK, "--model", "tiny-gpt", "--new", "sentiment")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "forgetlab-report/results.json").read_text())["summary"][0]["method"] == "frozen"


def test_pretrain_on_own_text_and_compare(tmp_path: Path, call: Called) -> None:
    for name, words in (("old", "the fox ran over the hill"), ("new", "notice of the lease is given in writing")):
        passages = (f"{words} {i} times and {i * 7 % 31} more ." for i in range(160))
        (tmp_path / f"{name}.txt").write_text("\n\n".join(passages))
    done = call("pretrain", "--text", "old.txt", "--steps", "30", "--out", "gpt")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "gpt" / "model.safetensors").is_file()
    arguments = [
        "--model",
        "./gpt",
        "--new",
        "new.txt",
        "--watch",
        "old.txt",
        "--methods",
        "none,replay",
        "--lr",
        "3e-3",
    ]
    done = call("compare", *arguments, *QUICK, "--steps", "40")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "forgetlab-report/results.json").read_text())["summary"]
    kept = {row["method"]: row["tasks"]["old"]["change"] for row in rows}
    assert kept["none"] > 1.2 * kept["replay"]


def test_lists(call: Called) -> None:
    models, tasks = call("models"), call("tasks")
    assert (models.returncode, tasks.returncode) == (0, 0)
    assert "tiny-bert" in models.stdout
    assert "entailment" in tasks.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "--model", "tiny-brt"], "did you mean 'tiny-bert'"),
        (["compare", "--new", "absent.csv"], "absent.csv"),
        (["compare", "--methods", "l2ps"], "did you mean 'l2sp'"),
        (["compare", "--methods", "l2sp:lam=-1"], "lam must be a number of 0 or more, got -1"),
        (["compare", "--lr", "-1"], "lr must be a number above 0, got -1.0"),
        (["compare", "--lr", "nan"], "lr must be a number above 0, got nan"),
        (["compare", "--batch", "5000"], "larger than the 2000 training examples"),
        (["compare", "--steps", "0"], "steps must be a whole number above 0"),
        (["compare", "--every", "0"], "every must be a whole number above 0"),
        (["compare", "--limit", "0"], "limit must be a whole number above 0"),
        (
            ["compare", "--new", "register", "--watch", "register"],
            "two tasks have the same name: register is the new task and watched too",
        ),
        (["compare", "--seeds", "0"], "--seeds must be 1 or more"),
        (["compare", "--out", "busy"], "busy"),
        (["compare", "--new", "broken.csv"], "broken.csv"),
        (["compare", "--new", "empty.csv"], "empty.csv is empty"),
        (["compare", "--model", "someone/model"], "could not be fetched"),
        (["compare", "--budget", "soon"], "--budget must be a time such as 90s, 10m or 1.5h, got 'soon'"),
        (["compare", "--budget", "1s", *QUICK], "--budget 1.0 s is too small: loading takes "),
        (["compare", "--keep", "1.5"], "--keep must be between 0 and 1, got 1.5"),
        (["compare", "--keep", "nan"], "--keep must be between 0 and 1, got nan"),
        (["compare", "--processes", "0"], "--processes must be a whole number above 0, got 0"),
        (["compare", "--processes", "2", "--cluster", "tcp://x:1"], "exclude each other"),
        (["compare", "--out", "/proc/forgetlab"], "/proc"),
        (["pretrain", "--out", "x"], "say what to train"),
        (["pretrain", "--text", "empty.csv", "--out", "x"], "empty.csv is empty"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(
    tmp_path: Path, call: Called, arguments: list[str], message: str
) -> None:
    alone = {"someone/model", "1s", "--text"} & {*arguments}  # of a process: the environment, loading, its exit status
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / "precious.txt").write_text("mine")
    (tmp_path / "broken.csv").write_bytes(b"PK\x03\x04\x00\x00")
    (tmp_path / "empty.csv").write_text("")
    before = sorted(p.name for p in tmp_path.rglob("*"))
    done = run(*arguments, cwd=tmp_path) if alone else call(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("forgetlab: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


REFUSED_EARLY = {
    "compare --new empty.csv": "empty.csv is empty",
    "compare --watch broken.csv": "broken.csv looks like a zip archive",
    "compare --new reviews.csv --label nocolumn": "unknown column 'nocolumn'; known: label, text",
    "compare --new reviews.csv:text=9": "unknown column '9'",
    "compare --watch few.txt": "few.txt: 1 different text: expected at least 4 to split, or a file of its own",
    "compare --new reviews.csv:limit=x": "limit must be a whole number above 0, got 'x'",
    "compare --new reviews.csv:test=empty.csv": "empty.csv is empty",
    "compare --methods none,l2ps:lam=1": "unknown method 'l2ps'; did you mean 'l2sp'?",
    "forecast --method l2ps": "unknown method 'l2ps'; did you mean 'l2sp'?",
    "forecast --new empty.csv": "empty.csv is empty",
    "forecast --steps 8": "no longer than its trial of 8",
    "forecast --past nowhere": "nowhere holds no finished run of tiny-bert",
    "diff tiny-bert tiny-gpt": "tiny-gpt is of another architecture: its model_type is 'gpt2', BEFORE's 'bert'",
    "diff tiny-bert other --watch empty.csv": "empty.csv is empty",
    "pretrain --text empty.csv --out x": "empty.csv is empty",
    "pretrain --text reviews.csv --out x": "a language model needs more text: 51 passages given, 100 or more expected",
}


def test_what_is_refused_waits_for_no_torch(tmp_path: Path) -> None:
    (tmp_path / "broken.csv").write_bytes(b"PK\x03\x04\x00\x00")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "few.txt").write_text("one text")
    rows = (f"it is {word} number {i},{label}" for i in range(30) for word, label in (("good", "+"), ("bad", "-")))
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label", *rows]))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
    code = """if True:
        import sys
        sys.modules["torch"] = sys.modules["numpy"] = None  # to import one of them is an error
        from forgetlab.__main__ import main
        for command in sys.stdin.read().splitlines():
            print(main(command.split()))
    """
    done = subprocess.run(
        [sys.executable, "-c", code], input="\n".join(REFUSED_EARLY), cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.split() == ["2"] * len(REFUSED_EARLY), done.stderr
    for said, expected in zip(done.stderr.splitlines(), REFUSED_EARLY.values(), strict=True):
        assert expected in said


LATER = {
    "compare --methods none,l2sp:lam=-1": "lam must be a number of 0 or more, got -1",
    "measure --method ewc:lamm=1": "unknown setting of ewc 'lamm'; did you mean 'lam'?",
    "forecast --method replay:ratio=7": "ratio must be",
}


def test_a_remedys_settings_take_torch_and_no_transformers() -> None:
    code = """if True:
        import sys
        sys.modules["transformers"] = None  # to import it is an error
        from forgetlab.__main__ import main
        for command in sys.stdin.read().splitlines():
            print(main(command.split()))
    """
    done = subprocess.run([sys.executable, "-c", code], input="\n".join(LATER), capture_output=True, text=True)
    assert done.stdout.split() == ["2"] * len(LATER), done.stderr
    for said, expected in zip(done.stderr.splitlines(), LATER.values(), strict=True):
        assert expected in said


def runs_in(folder: Path) -> list[Path]:
    return [path for path in (folder / "runs").glob("*.json") if path.name != "sweep.json"]


def timeless(value: object) -> object:
    """Results but for what a clock says."""
    if isinstance(value, dict):
        timed = ("seconds", "train_seconds", "setup_seconds", "seconds_per_step", "command")
        return {key: timeless(v) for key, v in value.items() if key not in timed}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def test_an_interrupted_comparison_goes_on_where_it_stopped(tmp_path: Path, call: Called) -> None:
    """Ctrl-C after the first run, then kill -9 after the second: the rest gives what an undisturbed one gives."""
    arguments = ["compare", "--methods", "none,l2sp", *QUICK, "--steps", "160", "--every", "160"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    out = tmp_path / "cut"
    for how, more, status in ((signal.SIGINT, [], 130), (signal.SIGKILL, ["--resume"], -9)):
        before = len(runs_in(out))
        command = [sys.executable, "-m", "forgetlab", *arguments, "--out", "cut", *more]
        process = subprocess.Popen(  # of a suite that a shell runs by "&" a child would not hear of Ctrl-C
            command,
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        while process.poll() is None and len(runs_in(out)) == before:
            time.sleep(0.01)
        process.send_signal(how)
        error = process.communicate()[1]
        assert process.returncode == status
        if how == signal.SIGINT:
            assert "stopped; 1 finished run in cut/runs: the same command with --resume goes on" in error
            assert error.count("\n") == 1
    refused = call(*arguments, "--out", "cut")
    assert refused.returncode == 2
    assert "2 finished runs of an interrupted comparison: go on with --resume" in refused.stderr
    other = call(*arguments, "--lr", "0.5", "--out", "cut", "--resume")
    assert "holds runs of another recipe (lr was 0.001, now 0.5)" in other.stderr
    kept = {path: path.stat().st_mtime_ns for path in runs_in(out)}
    (broken, whole) = kept
    broken.write_text("{")
    done = call(*arguments, "--out", "cut", "--resume")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"computed again: {broken.name}") == 1
    assert whole.stat().st_mtime_ns == kept[whole]
    call(*arguments, "--out", "whole")
    cut, undisturbed = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("cut", "whole"))
    assert any("damaged in" in note for note in cut["notes"])
    assert timeless({**cut, "notes": []}) == timeless({**undisturbed, "notes": []})


def test_a_budget_is_searched_and_taken_up_again(tmp_path: Path, call: Called) -> None:
    arguments = ["compare", "--methods", "l2sp,frozen", *QUICK, "--keep", "0.9", "--out", "report"]
    done = call(*arguments, "--budget", "1m")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "report" / "results.json").read_text())
    assert {row["method"].partition(":")[0] for row in results["summary"]} == {"none", "l2sp", "frozen"}
    assert {row["seeds"] for row in results["summary"]} == {2}
    tried = [one["methods"] for one in results["search"]]
    assert len(set(tried)) == len(tried) >= 4
    assert all(one.startswith("l2sp:strength=") for one in tried)
    assert results["keep"] == 0.9
    assert (tmp_path / "report" / "frontier.png").is_file()
    stamps = {path: path.stat().st_mtime_ns for path in runs_in(tmp_path / "report")}
    again = call(*arguments, "--budget", "1m", "--resume")
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in runs_in(tmp_path / "report")} == stamps
    assert timeless(json.loads((tmp_path / "report" / "results.json").read_text())) == timeless(results)


def test_all_leaves_out_what_does_not_fit(tmp_path: Path, call: Called) -> None:
    """Nothing is there to be replayed: the riddles have no training side."""
    limits = ["--steps", "1", "--batch", "4", "--limit", "8", "--seeds", "1", "--device", "cpu"]
    done = call("compare", "--model", "tiny-gpt", "--watch", "cloze", "--methods", "all", *limits)
    assert done.returncode == 0, done.stderr
    assert "note: replay does not fit here and was left out: " in done.stdout
    methods = {row["method"] for row in json.loads((tmp_path / "forgetlab-report/results.json").read_text())["summary"]}
    assert {"none", "l2sp", "adapters"} <= methods  # frozen would leave nothing to train
    assert "replay" not in methods


def test_a_full_disk(tmp_path: Path, call: Called) -> None:
    """/dev/full answers every write with "no space left"; here the folder is a file system of 64 KiB, if we may."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        done = call("measure", *QUICK, "--out", str(small / "report"))
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1, done.stderr
        assert {path.name for path in small.rglob("*.*")} <= {
            *("sweep.json", "log.txt"),
            *(p.name for p in runs_in(small / "report")),
        }
    finally:
        subprocess.run(["umount", str(small)], check=False)


def test_commas_part_methods_and_their_settings() -> None:
    listed = "none,replay:ratio=0.3,memory=10,ewc:lam=3+l2sp:lam=1;beta=2, frozen"
    assert [m.strip() for m in re.split(METHODS_APART, listed)] == [
        "none",
        "replay:ratio=0.3,memory=10",
        "ewc:lam=3+l2sp:lam=1;beta=2",
        "frozen",
    ]
