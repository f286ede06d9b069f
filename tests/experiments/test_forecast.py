"""Trials and the command on small runs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import forecasts_table, mixing
from forgetlab.__main__ import main
from forgetlab.errors import ForgetlabError
from forgetlab.experiments.forecast import Forecast, sentence
from forgetlab.experiments.recipes import Bench, Recipe, prepare
from forgetlab.experiments.trials import first_steps, old_share, run_trials, schedule, trials_of
from forgetlab.tasks.base import facts_of

RECIPE = Recipe(new="sentiment", watch=("masked-lm", "entities", "minimal-pairs"), steps=16, batch_size=8, limit=32)
QUICK = ["--batch", "8", "--limit", "24", "--device", "cpu", "--trials", "1"]


@pytest.fixture(scope="module")
def bench() -> Bench:
    return prepare(RECIPE)


@pytest.mark.parametrize("methods", ["none", "warmup:share=0.5", "cosine", "slanted-triangular:cut=0.2+warmup"])
def test_the_schedule_is_that_of_the_optimizer(bench: Bench, methods: str) -> None:
    records = [*bench.run(replace(RECIPE, methods=methods, steps=10, every=1, limit=1))]
    assert schedule(methods, 10) == pytest.approx([record.lr[0] / RECIPE.lr for record in records[1:]])


def test_a_trial_is_the_beginning_of_the_planned_run(bench: Bench) -> None:
    planned = replace(RECIPE, methods="warmup:share=0.75", seed=5, every=4)
    whole = [record.as_dict() for record in bench.run(planned)]
    first, last = first_steps(bench, planned, 8)
    assert (first["step"], last["step"]) == (0, 8)
    assert last["scores"] == whole[2]["scores"]


def test_what_a_trial_says(bench: Bench) -> None:
    pairs = run_trials(bench, replace(RECIPE, lr=5e-3, methods="replay:ratio=0.25"), (1, 2))
    tasks = [facts_of(one, bench.model, RECIPE.limit) for one in (bench.new, *bench.watch)]
    found = {
        one.task["name"]: one for one in trials_of(tasks, pairs, replace(RECIPE, methods="replay:ratio=0.25"), 100)
    }
    assert list(found) == ["masked-lm", "entities", "minimal-pairs"]
    rises = [last["scores"]["masked-lm"]["loss"] - first["scores"]["masked-lm"]["loss"] for first, last in pairs]
    one, rise = found["masked-lm"], sum(rises) / 2
    assert one.moved == pytest.approx(rise)  # of a perplexity the fall is in nats
    drift = sum(last["drift"] for _, last in pairs) / 2
    assert one.x == pytest.approx([1, math.asinh(rise / 0.02), math.log(drift / 10 * 2), math.log(3.5)])
    f1 = [first["scores"]["entities"]["f1"] - last["scores"]["entities"]["f1"] for first, last in pairs]
    assert found["entities"].moved == pytest.approx(sum(f1) / 2)
    assert found["minimal-pairs"].x[1] == pytest.approx(math.asinh(found["minimal-pairs"].moved / 0.02))  # no loss


def test_old_share() -> None:
    assert old_share("replay:ratio=0.3+ewc") == 0.3
    assert old_share("ewc") == 0


def test_a_trial_that_diverges_says_so(bench: Bench) -> None:
    with pytest.raises(ForgetlabError, match=r"the trial diverged.*lower --lr"):
        run_trials(bench, replace(RECIPE, lr=1e30), (1,))


def test_sentences() -> None:
    points = {"name": "entities", "metric": "f1", "scale": "points"}
    one = Forecast(points, 0.9, 0.01, 0.21, 0.08, 0.35, "will fall", False)  # type: ignore[arg-type]
    assert sentence(one) == "f1 0.90 will probably be worse by 0.21 (0.08 to 0.35)"
    assert sentence(replace(one, low=-0.1, word="cannot be told")) == "f1 0.90 cannot be told (−0.10 to 0.35)"


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    watch = ["--new", "register", "--watch", "masked-lm,acceptability"]
    assert main(["forecast", *watch, "--lr", "3e-3", "--steps", "300", *QUICK, "--out", "told.json"]) == 0
    said = capsys.readouterr().out
    assert "After 300 steps at a rate of 0.003 with plain fine-tuning, from 1 trial of 8 steps" in said
    assert "  masked-lm      perplexity" in said
    told = json.loads(Path("told.json").read_text())
    assert told["recipe"]["lr"] == 3e-3
    ends = {one["task"]["name"]: one for one in told["tasks"]}
    assert ends["masked-lm"]["word"] == "will fall"
    assert all(one["low"] <= one["fall"] <= one["high"] for one in ends.values())
    assert ends["acceptability"]["high"] <= ends["acceptability"]["before"]

    runs = ["compare", *watch, "--methods", "none,replay", "--seeds", "1", "--steps", "12", "--every", "12"]
    assert main([*runs, *QUICK[:6], "--out", "report"]) == 0
    assert main(["forecast", *watch, "--lr", "3e-3", "--steps", "300", *QUICK, "--past", "report"]) == 0
    assert "4 of them yours" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--steps", "8"], "a run of 8 steps is no longer than its trial of 8: run it"),
        (["--trials", "0"], "--trials must be 1 or more, got 0"),
        (["--out", "nowhere/told.json"], "is no file that can be written"),
        (["--method", "reply"], "replay"),
        (["--new", "sentimental"], "sentiment"),
    ],
)
def test_bad_input_is_said_in_a_line(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["forecast", *given]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_the_docs_have_the_numbers_of_the_recorded_runs() -> None:
    root = Path(forecasts_table.__file__).parents[1]
    docs = (root / "docs" / "forecast.md").read_text(encoding="utf-8").splitlines()
    found, mixed = (
        json.loads((root / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("forecasts", "mixing")
    )
    shown = [line for line in docs if line.startswith("| ") and "---" not in line]
    assert {*shown} <= {*forecasts_table.checks(found), *mixing.page(mixed).splitlines()}
    assert sum(line.startswith("| **") for line in shown) == 8
    assert found["sets"]["all"]["points"]["runs"] >= 90


def test_named_is_the_most_that_is_learned_where_enough_is_kept() -> None:
    kept, learned = {(1e-3, 0.0): 0.5, (1e-3, 0.5): 0.9}, {(1e-3, 0.0): 0.8, (1e-3, 0.5): 0.6}
    assert [mixing.named(wish, kept, learned) for wish in (0.4, 0.7, 0.99)] == [(1e-3, 0.0), (1e-3, 0.5), (1e-3, 0.5)]
