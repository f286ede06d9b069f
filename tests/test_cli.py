"""The command as a user runs it: a process, its exit status, what it prints and what it leaves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
QUICK = ["--steps", "4", "--every", "2", "--batch", "8", "--limit", "16", "--seeds", "2", "--device", "cpu"]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "forgetlab", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


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
    assert page.count("<img") == 3
    assert "http://" not in page


def test_measure_is_one_method(tmp_path: Path) -> None:
    done = run("measure", "--method", "frozen", *QUICK, "--model", "tiny-gpt", "--new", "sentiment", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "forgetlab-report/results.json").read_text())["summary"][0]["method"] == "frozen"


def test_pretrain_on_own_text_and_compare(tmp_path: Path) -> None:
    for name, words in (("old", "the fox ran over the hill"), ("new", "notice of the lease is given in writing")):
        passages = (f"{words} {i} times and {i * 7 % 31} more ." for i in range(160))
        (tmp_path / f"{name}.txt").write_text("\n\n".join(passages))
    done = run("pretrain", "--text", "old.txt", "--steps", "30", "--out", "gpt", cwd=tmp_path)
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
    done = run("compare", *arguments, *QUICK, "--steps", "40", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "forgetlab-report/results.json").read_text())["summary"]
    kept = {row["method"]: row["tasks"]["old"]["change"] for row in rows}
    assert kept["none"] > 1.2 * kept["replay"]


def test_lists(tmp_path: Path) -> None:
    models, tasks = run("models", cwd=tmp_path), run("tasks", cwd=tmp_path)
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
        (["compare", "--seeds", "0"], "--seeds must be 1 or more"),
        (["compare", "--out", "busy"], "busy"),
        (["compare", "--new", "broken.csv"], "broken.csv"),
        (["compare", "--new", "empty.csv"], "empty.csv is empty"),
        (["compare", "--model", "someone/model"], "could not be fetched"),
        (["pretrain", "--out", "x"], "say what to train"),
        (["pretrain", "--text", "empty.csv", "--out", "x"], "empty.csv is empty"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / "precious.txt").write_text("mine")
    (tmp_path / "broken.csv").write_bytes(b"PK\x03\x04\x00\x00")
    (tmp_path / "empty.csv").write_text("")
    before = sorted(p.name for p in tmp_path.rglob("*"))
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("forgetlab: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_a_full_disk(tmp_path: Path) -> None:
    """/dev/full answers every write with "no space left"; here the folder is a file system of 64 KiB, if we may."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        done = run("measure", *QUICK, "--out", str(small / "report"), cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1, done.stderr
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=False)
