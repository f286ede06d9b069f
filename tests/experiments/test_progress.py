"""What is said on the way of a comparison: where there is no terminal, on one, and in its log."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from forgetlab.experiments import progress
from forgetlab.experiments.progress import Progress
from forgetlab.experiments.recipes import Recipe
from forgetlab.experiments.sweeps import RunFolder
from forgetlab.experiments.teller import Teller
from tests.experiments.test_sweeps import QUICK, made

STEP = SimpleNamespace(step=2, loss=0.5, scores={"sentiment": {"accuracy": 0.75, "loss": 0.1}})


def step_of(recipe: Recipe, step: int) -> Any:
    return recipe, SimpleNamespace(**{**vars(STEP), "step": step})


def test_away_from_a_terminal_a_line_comes_again_and_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PAUSE", 0.01)
    with Progress(None, 8) as bar:
        bar(*step_of(QUICK, 2))
        lines, deadline = 0, time.monotonic() + 20
        told = ""
        while lines < 3 and time.monotonic() < deadline:  # nothing happens, and it is said that it goes on
            time.sleep(0.01)
            told += capsys.readouterr().out
            lines = told.count("progress: 25%  plain fine-tuning  seed 0  step 2  ")
    assert lines >= 3
    assert capsys.readouterr().err == ""
    assert not bar._writer.is_alive()


def test_a_reader_that_is_gone_ends_the_lines_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Gone())
    with Progress(None, 8) as bar:
        bar._writer.join(20)
        assert not bar._writer.is_alive()


def test_several_runs_at_once_add_up() -> None:
    bar = Progress(None, 16)
    for seed, step in ((0, 2), (1, 2), (0, 4)):
        bar(*step_of(Recipe(steps=4, seed=seed), step))
    assert bar.line().startswith("progress: 38%  plain fine-tuning  seed 0  step 4")
    bar.landed(made(Recipe(steps=4, seed=0)), 1.0)  # type: ignore[arg-type]
    assert bar.line().startswith("progress: 38%  plain fine-tuning  seed 0  done")


def test_the_log_is_there_with_the_first_record_and_goes_with_an_error_before_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = RunFolder(tmp_path / "out", QUICK, resume=False)
    told = Teller(Progress(None, 8), kept, command="python -m forgetlab compare")
    log = tmp_path / "out" / "runs" / "log.txt"
    log.parent.mkdir(parents=True)
    tasks = [{"name": "sentiment", "metric": "accuracy"}]
    told.facts({"model": {"name": "tiny-bert"}, "new": "sentiment", "tasks": tasks})  # type: ignore[typeddict-item]
    told.say("3 rows were empty")
    told.record(*step_of(QUICK, 2))
    lines = [line.partition("  ")[2] for line in log.read_text().splitlines()]
    assert lines == [
        "python -m forgetlab compare",
        "tiny-bert learns sentiment; watched: nothing",
        "note: 3 rows were empty",
        "plain fine-tuning, seed 0, step 2: loss 0.5; sentiment accuracy 0.75",
    ]
    assert capsys.readouterr().out == "note: 3 rows were empty\n"
    assert kept.told() == f"no run had finished; how far it was: {log}"
    RunFolder(tmp_path / "out", QUICK, resume=False)  # a stopped one without a finished run is in nobody's way
    kept.drop_log()
    assert not log.exists()
    kept.put(made(QUICK))  # type: ignore[arg-type]
    kept.log("more")
    kept.drop_log()
    assert log.exists()
