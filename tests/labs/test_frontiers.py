"""Along the run, Two valleys and All remedies on one plot, as a user has them; their numbers beside runs by hand."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from functools import cache
from html import unescape
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from forgetlab import labs
from forgetlab.experiments import frontier as room
from forgetlab.experiments import results
from forgetlab.experiments.recipes import Bench, Recipe, prepare
from forgetlab.interference import GradientCosine
from forgetlab.labs import along, frontier, valleys
from forgetlab.labs.kit import benches
from forgetlab.labs.kit.base import Lab
from forgetlab.labs.kit.shown import Result
from forgetlab.labs.views.frontier import Plot
from forgetlab.metrics.landscape import weights_of
from forgetlab.remedies.by_name import make_methods
from forgetlab.training.loop import finetune


@cache
def _bench(watch: tuple[str, ...]) -> Bench:
    return prepare(Recipe(new="sentiment", watch=watch))


@pytest.fixture(autouse=True)
def _small_and_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("forgetlab.experiments.results.shipped_folder", lambda: tmp_path / "shipped")
    monkeypatch.setattr(benches, "prepare", lambda recipe: _bench(recipe.watch))
    monkeypatch.setattr(along, "STEPS", 6)
    monkeypatch.setattr(along, "EVERY", 2)
    monkeypatch.setattr(valleys, "GRID", 3)
    monkeypatch.setattr(valleys, "TEXTS", 16)
    monkeypatch.setattr(valleys, "RUNS", {k: v.replace("examples=100", "examples=8") for k, v in valleys.RUNS.items()})


def _alt(lab: Lab) -> str:
    return unescape(re.findall(r'alt="([^"]*)"', lab.picture.value)[0])


def _words(lab: Lab) -> str:
    return unescape(re.sub("<.*?>", "", lab.message.value))


def _state(lab: Lab) -> dict[str, Any]:
    assert lab.state is not None, _words(lab)
    json.dumps(lab.state, allow_nan=False)
    return lab.state


def _opens_again(name: str, lab: Lab) -> None:
    again = labs.show(name, driver="inline")
    again.line.value = lab.line.value
    assert again.settings() == lab.settings()
    assert again.source == "cached"
    assert _alt(again) == _alt(lab)


# -- along the run ------------------------------------------------------------------------------------


def test_along_shows_the_cosines_of_the_run_that_its_controls_describe() -> None:
    lab = labs.show("along", driver="inline")
    assert _words(lab) == "Press Train, or move a slider."
    lab.apply({"remedy": "agem", "seed": 2})
    state = _state(lab)
    bench = _bench(along.OLD)
    bench.model.restore()
    cosines = GradientCosine(bench.watch, every=2)  # its draws follow the seed of the run
    methods = [*make_methods("agem", bench.watch), cosines]
    run = finetune(
        bench.model, bench.new, methods=methods, watch=bench.watch, steps=6, lr=1e-3, seed=2, every=2, limit=64
    )
    scores = [record.scores for record in run]
    assert [record["scores"] for record in state["records"]] == scores
    assert state["steps"] == [0, 2, 4]
    for task in along.OLD:
        own = [one.cosine for one in cosines.measurements if one.task == task]
        assert state["cosines"][task]["all"] == [round(cosine.total, 4) for cosine in own]
        assert state["cosines"][task]["layer 1"] == [round(cosine.per_layer["layer 1"], 4) for cosine in own]
    assert "conflict at" in _words(lab)
    assert _alt(lab).startswith("Steps in conflict (all): ")
    assert f"entities 1.00 → {state['records'][-1]['scores']['entities']['f1']:.2f}." in _alt(lab)
    _opens_again("along", lab)
    before = lab.picture.value
    lab.view["layer"].value = "layer 1"
    assert _alt(lab).startswith("Steps in conflict (layer 1): ")
    assert lab.picture.value != before
    assert lab.state is state  # nothing was trained


def test_the_share_of_conflicts_and_the_rise_after_them_by_hand() -> None:
    cosines = {"masked-lm": {"all": [-0.5, 0.5, None, -0.1], "layer 0": [None] * 4, "layer 1": [0.1, -0.2, 0.3, 0.0]}}
    losses = [1.0, 1.5, 1.25, 2.0, 3.0]
    state = {"cosines": cosines, "records": [{"scores": {"masked-lm": {"loss": loss}}} for loss in losses]}
    assert along.conflicts(state, "masked-lm", "all") == pytest.approx(2 / 3)
    assert along.conflicts(state, "masked-lm", "layer 0") is None
    assert along.rises(state, "masked-lm") == ([0.5, 1.0], [-0.25])
    assert along.rises(state, "masked-lm", "layer 1") == ([-0.25], [0.5, 0.75, 1.0])


def test_along_at_the_end_of_its_slider_is_drawn_and_said() -> None:
    lab = labs.show("along", driver="inline")
    lab.apply({"lr": 0.1, "remedy": "pcgrad"})
    assert _state(lab)["records"][-1]["step"] > 0
    assert "error" not in _words(lab)


def test_along_says_a_diverged_run() -> None:
    lab = labs.show("along", driver="inline")
    lab.apply({"lr": 1e-5})
    state = _state(lab)
    scores = {
        task: {"perplexity": None, "f1": 0.1, "accuracy": 0.5, "loss": None} for task in (*along.OLD, "sentiment")
    }
    last = {"step": 6, "status": "diverged", "message": "too high", "scores": scores}
    lab._shown.result = Result({**state, "records": [*state["records"][:-1], last]}, "live")
    lab.view["layer"].value = "layer 0"
    assert "error" not in _words(lab)
    start = state["records"][0]["scores"]["masked-lm"]["perplexity"]
    assert f"masked-lm {start:.2f} → –" in _alt(lab)
    assert "→ –" in _alt(lab).partition("entities 1.00")[2]


# -- two valleys --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_plane_goes_through_the_three_solutions() -> None:
    lab = labs.show("valleys", driver="inline")
    assert _words(lab) == "Press Train, or move a slider."
    lab.apply({"steps": 20, "seed": 3})
    state = _state(lab)
    bench = _bench((valleys.OLD,))
    ends: dict[str, Any] = {}
    for name, methods in valleys.RUNS.items():
        found = []
        for _ in bench.run(Recipe(methods=methods, lr=2e-3, steps=20, every=2, limit=8, seed=3)):
            found.append(weights_of(bench.model))
        ends["old"], ends[name] = found[0], found[-1]
        assert len(state["paths"][name]) == len(found) == 11
        for task in (bench.new, *bench.watch):  # loss at the end of the run, from the score
            assert state["ends"][name][task.name] == pytest.approx(task.score(bench.model, 16)["loss"], abs=2e-4)

    def apart(a: str, b: str) -> float:
        return math.sqrt(sum(float(((ends[a][n] - ends[b][n]).double() ** 2).sum()) for n in ends[a]))

    corners = {"old": "old", "new": "naive", "joint": "joint"}
    for one, first in corners.items():
        for other, second in corners.items():
            distance = math.dist(state["points"][one], state["points"][other])
            assert distance == pytest.approx(apart(first, second), rel=1e-3, abs=1e-3)
    for name in valleys.RUNS:
        assert math.hypot(*state["paths"][name][-1]) == pytest.approx(apart("old", name), rel=1e-3)
    assert [len(row) for row in state["loss"][valleys.OLD]] == [3, 3, 3]
    assert "0% off the plane; joint" in _words(lab)
    assert _alt(lab) == f"Filled contours: masked-lm. {_words(lab)}"
    assert len(lab.picture.value) > 20_000
    _opens_again("valleys", lab)
    for control, value in (("filled", valleys.NEW), ("shown", "EWC")):
        before = lab.picture.value
        lab.view[control].value = value
        assert lab.picture.value != before
    assert _alt(lab).startswith("Filled contours: sentiment.")
    assert lab.state is state


def test_a_run_that_diverges_leaves_words_in_place_of_the_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Bench.run
    for gone, expected in (
        (valleys.RUNS["joint"], "The joint run diverged"),
        (valleys.RUNS["EWC"], "EWC diverged"),
    ):

        def broken(self: Bench, recipe: Recipe, gone: str = gone) -> Any:
            for record in original(self, replace(recipe, steps=4)):
                ended = record.status == "done" and recipe.methods == gone
                yield replace(record, status="diverged") if ended else record

        monkeypatch.setattr(Bench, "run", broken)
        lab = labs.show("valleys", driver="inline")
        lab.apply({"steps": 20, "lr": 1e-3 if gone == valleys.RUNS["EWC"] else 1e-2})
        assert expected in _words(lab)
        assert expected in _alt(lab)
        assert ("points" in _state(lab)) == ("EWC" in expected)


# -- all remedies -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_frontier_shows_the_benchmark_and_the_learners_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Recipe
    monkeypatch.setattr(frontier, "Recipe", lambda **options: original(**{**options, "batch_size": 8, "limit": 16}))
    lab = labs.show("frontier", driver="inline")
    assert _words(lab) == "Press Train, or move a slider."
    small = {"steps": 20, "strength": 1.0}
    lab.apply({**small, "remedy": "ewc", "strength": 0.01})
    state = _state(lab)
    assert state["dots"] == room.read_benchmark("benchmarks/results/remedies.json")
    assert state["run"]["spec"] == "ewc:strength=0.01"
    bench = _bench(frontier.OLD)
    recipe = original(methods="ewc:strength=0.01", steps=20, every=4, limit=16, batch_size=8)
    first, *_, last = [record.scores for record in bench.run(recipe)]
    unigram = bench.watch[0].guesser(bench.model, 16)
    nats = math.log(unigram / last["masked-lm"]["perplexity"]) / math.log(unigram / first["masked-lm"]["perplexity"])
    share = [min(1, nats), min(1, last["entities"]["f1"] / first["entities"]["f1"])]
    before, after = (scores["acceptability"]["accuracy"] for scores in (first, last))
    guess = bench.watch[2].guesser(bench.model, 16)
    if before - guess > 1.96 * math.sqrt(before * (1 - before) / 16):  # of 16 texts it may start too near to chance
        share.append(min(1, max(0, (after - guess) / (before - guess))))
    assert state["run"]["kept"] == pytest.approx(sum(share) / len(share), abs=1e-4)
    assert state["run"]["new"] == pytest.approx(last["sentiment"]["accuracy"], abs=1e-4)
    assert _words(lab).startswith("ewc:strength=0.01: After 20 steps: sentiment ")
    assert "Your runs: 1, 0 in the corner of 90% kept and accuracy 0.95. Newest: ewc:strength=0.01 (20 steps" in _alt(
        lab
    )
    _opens_again("frontier", lab)
    lab.apply({**small, "remedy": "frozen"})
    assert "Your runs: 2, " in _alt(lab)
    lab.view["target"].value = 50 if lab.state["run"]["new"] >= 0.5 else lab.view["target"].value
    table = room.read_benchmark(Path(__file__).parents[2] / "benchmarks" / "results" / "remedies.json")
    for budget in (0, 60):
        lab.view["budget"].value = budget
        within = {fmean(dot["new"]): dot["name"] for dot in table if fmean(dot["kept"]) >= 1 - budget / 100 - 1e-3}
        assert f"best within {budget}% forgotten: {within[max(within)]}. " in _alt(lab)
    lab.apply({**small, "remedy": "ewc", "strength": 0.01})
    assert "Your runs: 2, " in _alt(lab)  # the same run again is one entry
    lab.reset()
    lab.apply({**small, "remedy": "none"})
    assert "Your runs: 1, " in _alt(lab)


def test_a_run_that_was_stopped_is_no_star(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Recipe
    monkeypatch.setattr(frontier, "Recipe", lambda **options: original(**{**options, "batch_size": 8, "limit": 16}))
    lab = labs.show("frontier", driver="inline")
    lab.apply({"steps": 20, "remedy": "frozen"})
    assert "Your runs: 1, " in _alt(lab)

    original_run = benches.Benches.run

    def stopped_at_8(self: benches.Benches, recipe: Recipe) -> Any:
        for state in original_run(self, recipe):
            if state["records"][-1]["step"] == 8:
                lab.buttons["Stop"].click()  # takes effect after this state
            yield state

    monkeypatch.setattr(benches.Benches, "run", stopped_at_8)
    lab.apply({"remedy": "ewc"})
    assert _state(lab)["run"]["step"] == 8
    assert _words(lab).startswith("Stopped")
    assert "Your runs: 1, " in _alt(lab)
    assert "Newest: frozen" in _alt(lab)


def test_the_corner_counts_and_a_diverged_run_is_listed() -> None:
    run = {"spec": "x", "step": 20, "lr": 1e-3, "seed": 0, "kept": 0.9, "new": 0.95}
    league = [run, {**run, "kept": 0.89}, {**run, "new": 0.94}, {**run, "kept": None, "new": None}]
    _, alt = Plot([]).draw(league, 0.1, 0.95)
    assert "0 remedies, 0 on the front; no dot within 10%. Your runs: 4, 1 in the corner" in alt
    assert alt.endswith("Newest: x (20 steps, rate 0.001, seed 0): diverged.")


def test_the_frontier_opens_on_what_is_shipped_where_there_is_no_benchmark(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measured = frontier.dots()
    monkeypatch.setattr(frontier, "carried", lambda folder: tmp_path / folder)
    assert frontier.dots() == []
    run = {"spec": "none", "step": 200, "lr": 1e-3, "seed": 0, "kept": 0.5, "new": 0.9}
    results.record("lab-frontier", [(frontier.OPENING, {"dots": measured, "run": run})])
    lab = labs.show("frontier", driver="inline")
    assert lab.settings() == frontier.OPENING
    assert lab.source == "cached"
    assert frontier.dots() == measured
    assert _alt(lab).startswith(f"{len(measured)} remedies, ")
