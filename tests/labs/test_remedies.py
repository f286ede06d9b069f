"""The remedy labs as a user has them: open, train, move, compare; their numbers beside runs made by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from forgetlab import labs
from forgetlab.experiments.recipes import Bench, Recipe, prepare
from forgetlab.labs import anchor, brake, dreams, freeze, mix, path, pull
from forgetlab.labs.kit import benches, remedy, so_far
from forgetlab.labs.kit.base import Lab
from forgetlab.labs.kit.shown import Result
from forgetlab.models.loading import load
from forgetlab.remedies.architectures import Adapters
from forgetlab.remedies.by_name import make_methods
from forgetlab.remedies.regularizers import EWC, KLAnchor
from forgetlab.remedies.replay import ExperienceReplay, GenerativeReplay, Multitask
from forgetlab.remedies.schedules import LayerwiseRates
from forgetlab.remedies.stopping import SafetyBrake
from forgetlab.training.loop import finetune
from forgetlab.training.method import Method

SMALL = {"steps": 4, "every": 2, "batch_size": 8, "limit": 16}
NAMES = ("pull", "mix", "dreams", "freeze", "path", "brake", "anchor")
# small settings, and the method made by hand that they stand for
CASES: dict[str, tuple[dict[str, Any], Any, float]] = {
    "pull": ({"samples": 20, "lam": 10.0}, lambda old: EWC(old, 10.0, examples=20), 1e-3),
    "mix": ({"memory": 10.0, "ratio": 0.25}, lambda old: ExperienceReplay(old, 0.25, 10), 1e-3),
    "dreams": ({"size": 20, "ratio": 0.5}, lambda old: GenerativeReplay(old, 0.5, 20), 1e-3),
    "freeze": ({"width": 4}, lambda old: Adapters(4), 2e-3),
    "path": ({"factor": 2.0, "schedule": "none"}, lambda old: LayerwiseRates(2.0), 2e-3),
    "brake": ({"drop": 0.9}, lambda old: SafetyBrake(0.9), 1e-3),
    "anchor": ({"beta": 1.0}, lambda old: KLAnchor(1.0), 1e-3),
}


@cache
def _bench(model: str, new: str, watch: tuple[str, ...]) -> Bench:
    return prepare(Recipe(model=model, new=new, watch=watch))


@pytest.fixture(autouse=True)
def _small_and_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("forgetlab.experiments.results.shipped_folder", lambda: tmp_path / "shipped")
    original = remedy.recipe
    monkeypatch.setattr(remedy, "recipe", lambda *which, **more: replace(original(*which, **more), **SMALL))
    monkeypatch.setattr(benches, "prepare", lambda r: _bench(r.model, r.new, r.watch))  # loaded once for all tests


def _lab(name: str, **settings: Any) -> Lab:
    lab = labs.show(name, driver="inline")
    if settings:
        lab.apply(settings)
    return lab


def _alt(lab: Lab) -> str:
    return unescape(re.findall(r'alt="([^"]*)"', lab.picture.value)[0])


def _words(lab: Lab) -> str:
    return unescape(re.sub("<.*?>", "", lab.message.value))


def _scores(records: list[dict[str, Any]]) -> list[dict[str, dict[str, float]]]:
    return [record["scores"] for record in records]


@pytest.mark.parametrize("name", NAMES)
def test_a_lab_shows_the_run_that_its_controls_describe(name: str) -> None:
    small, by_hand, lr = CASES[name]
    lab = _lab(name)
    assert _words(lab) == "Press Train, or move a slider."
    lab.apply(small)
    assert lab.state is not None, _words(lab)
    settings = lab.settings()
    recipe = getattr(labs, name).recipe(settings)
    bench = _bench(recipe.model, recipe.new, recipe.watch)

    def ran(methods: list[Method]) -> list[dict[str, dict[str, float]]]:
        bench.model.restore()
        how = {"steps": 4, "every": recipe.every, "batch_size": 8, "limit": 16, "lr": lr, "seed": settings["seed"]}
        return [r.scores for r in finetune(bench.model, bench.new, methods=methods, watch=bench.watch, **how)]

    assert _scores(lab.state["records"]) == ran([by_hand(bench.watch)])
    assert _scores(lab.state["plain"]) == ran([])
    assert _words(lab) == _alt(lab)
    assert re.match(r"After 4 steps: .*→.* Without the remedy it ends at ", _words(lab)), _words(lab)
    again = _lab(name)
    again.line.value = lab.line.value  # pasted: the kept result of the same settings
    assert again.settings() == settings
    assert again.source == "cached"
    assert _alt(again) == _alt(lab)


def test_the_run_without_a_remedy_is_trained_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    original = benches.Benches.run

    def counted(self: benches.Benches, recipe: Recipe) -> Any:
        asked.append(recipe.methods)
        return original(self, recipe)

    monkeypatch.setattr(benches.Benches, "run", counted)
    lab = _lab("mix", ratio=0.5, memory=10.0)
    first = lab.state["plain"] if lab.state else None
    lab.apply({"ratio": 0.25})
    assert [spec == "none" for spec in asked] == [False, True, False]
    assert lab.state is not None
    assert lab.state["plain"] == first
    _lab("pull", method="L2-SP", lam=0.01)
    assert asked.count("none") == 1  # another lab of the same fine-tune has it too
    _lab("pull", method="L2-SP", lam=0.01, seed=1)
    assert asked.count("none") == 2


def test_all_runs_so_far_stand_in_the_trade_off_until_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[list[so_far.Point]] = []
    original = remedy.scatter

    def seen(ax: Any, points: list[so_far.Point], how: so_far.SoFar, present: so_far.Point | None) -> None:
        shown.append(points)
        original(ax, points, how, present)

    monkeypatch.setattr(remedy, "scatter", seen)
    lab = _lab("pull", method="L2-SP", lam=1e-4)
    for lam in (1e-2, 1.0, 10**2.5, 1e6):
        lab.apply({"lam": lam})
    labels = [point.label for point in shown[-1]]
    assert set(labels) == {"λ=0", *(f"L2-SP λ={lam}" for lam in ("0.0001", "0.01", "1", "316", "1e6"))}
    assert labels[-1] == "L2-SP λ=1e6"
    lab.reset()
    lab.apply({"method": "L2-SP", "lam": 1.0})
    assert {point.label for point in shown[-1]} == {"L2-SP λ=1", "λ=0"}


def _seen_axes(monkeypatch: pytest.MonkeyPatch) -> list[Axes]:
    seen: list[Axes] = []
    original = remedy.scatter
    monkeypatch.setattr(remedy, "scatter", lambda ax, *more: seen.append(ax) or original(ax, *more))
    return seen


def test_only_the_present_run_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _seen_axes(monkeypatch)

    def filled() -> list[float]:
        (*_, ax) = seen
        assert len(ax.lines) > 1
        return [float(line.get_xdata()[0]) for line in ax.lines if line.get_markerfacecolor() != "white"]

    lab = _lab("mix", ratio=0.25, memory=10.0)
    lab.apply({"memory": 100.0})
    assert lab.state is not None
    size = lab.state["records"][0]["costs"]["bytes"] / 1000
    assert filled() == [size, size]  # its two marks, not those of ten texts
    lab.apply({"ratio": 0.0})
    assert filled() == []  # no memory: the present run has no point


def test_labels_stay_within_the_axes() -> None:
    figure = Figure(figsize=(6.4, 5.6), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    ax = figure.subplots(2, 2)[1, 1]
    points = [
        so_far.Point(x, (("new score", y), ("old kept", 1.0)), label)
        for x, y, label in ((0.0, 0.7, "T=2.9, p=0.95"), (1.0, 0.6, "columns 64"), (0.5, 0.5, "25%, 106 ms/step"))
    ]
    so_far.scatter(ax, points, so_far.SoFar("", "across", "up", lambda state, settings: []), points[-1])
    figure.canvas.draw()
    assert {text.get_text() for text in ax.texts} == {point.label for point in points}
    for text in ax.texts:
        words, frame = text.get_window_extent(), ax.get_window_extent()
        assert frame.x0 <= words.x0 < words.x1 <= frame.x1, text.get_text()
        assert frame.y0 <= words.y0 < words.y1 <= frame.y1, text.get_text()


@pytest.mark.parametrize("label", ["head only", "columns"])
def test_a_preset_of_one_task_undoes_all_tasks(label: str) -> None:
    lab = _lab("freeze", kind="LoRA", width=4, used="all tasks")
    lab.buttons[label].click()
    assert lab.settings()["used"] == "the new task"


def _state(new: list[float], ppl: list[float], status: str = "done") -> dict[str, Any]:
    records = [
        {"step": i, "scores": {"a": {"accuracy": n}, "b": {"perplexity": p}}, "status": "running", "message": ""}
        for i, (n, p) in enumerate(zip(new, ppl, strict=True))
    ]
    records[-1]["status"] = status
    tasks = [
        {"name": "a", "metric": "accuracy", "floor": None, "higher_is_better": True},
        {"name": "b", "metric": "perplexity", "floor": 2.0, "higher_is_better": False},
    ]
    return {"tasks": tasks, "records": records, "plain": []}


def _ends(state: dict[str, Any], records: str = "records") -> tuple[float, float] | None:
    return so_far.ends(state["tasks"], state[records])


def test_where_a_run_ends() -> None:
    assert _ends(_state([0.5, 0.9], [4.0, 10.0])) == pytest.approx((0.4, 0.9))  # kept: 4 / 10
    assert _ends(_state([0.5, 0.9], [4.0, 2.0])) == pytest.approx((1.0, 0.9))  # a gain keeps all, no more
    assert _ends(_state([0.5, 0.9], [4.0, 2.0], "diverged")) is None
    assert _ends(_state([0.5, 0.9], [4.0, 2.0]), "plain") is None
    assert _ends(_state([0.5, 0.9], [4.0, 2.0], "running")) is None


@pytest.mark.parametrize("name", ["pull", "brake", "path"])
def test_a_diverged_run_is_said_and_drawn(name: str) -> None:
    bad = _state([0.5, 0.1], [4.0, 1e9], "diverged")
    bad["records"][-1]["message"] = "the loss is no longer finite"
    for record in bad["records"]:
        record |= {"costs": {}, "lr": [1e-3] * 5, "drift_per_layer": {"layer 0": None}}
    lab = labs.show(name, driver="inline")
    lab._shown.result = Result({**bad, "settings": lab.settings()}, "live")
    lab._redraw()
    assert _alt(lab) == "Diverged: the loss is no longer finite."
    lab.state["message"] = "both runs are over"
    lab._redraw()
    assert _alt(lab) == "both runs are over"


def test_every_choice_and_slider_end_describes_a_run() -> None:
    for name in NAMES:
        lab = labs.show(name, driver="inline")
        start = lab.settings()
        for key, control in lab.training.items():
            ends = list(control.options) if hasattr(control, "options") else [control.min, control.max]
            base = getattr(control, "base", None)
            for end in [base**e for e in ends] if base else ends:
                recipe = getattr(labs, name).recipe({**start, key: end})
                assert make_methods(recipe.methods, None)
    for module, key in ((pull, "method"), (freeze, "kind"), (path, "schedule")):
        for option in module.show("inline").training[key].options:
            assert make_methods(module.recipe({**module.show("inline").settings(), key: option}).methods, None)


def test_frozen_and_added_leave_the_old_scores_as_they_are() -> None:
    lab = _lab("freeze", kind="adapters", width=4, used="the new task")
    assert lab.state is not None
    first, last = lab.state["records"][0], lab.state["records"][-1]
    for task in ("masked-lm", "entities"):
        assert first["scores"][task] == last["scores"][task]
    added = 3 * (2 * 64 * 4 + 4 + 64)  # three layers of width 64
    head = sum(p.numel() for name, p in _bench_of(lab).model.named_parameters() if name.startswith("heads.sentiment."))
    assert f"Trained: {added + head:,} weights, {added:,} of them added" in _words(lab)
    points = [point for point in freeze.points(lab.state, lab.settings()) if point]
    assert [(point.label, point.x) for point in points][0] == ("adapters 4", added + head)
    assert points[0].y[1] == ("old kept", 1.0)


def _bench_of(lab: Lab) -> Bench:
    recipe = getattr(labs, lab.name).recipe(lab.settings())
    return _bench(recipe.model, recipe.new, recipe.watch)


def test_the_memory_is_counted() -> None:
    lab = _lab("mix", ratio=0.5, memory=10.0)
    assert lab.state is not None
    point = mix.point(lab.state, lab.settings())
    assert point is not None
    held = lab.state["records"][0]["costs"]["bytes"]
    longest = 2 * 10 * 64 * 8  # two tasks, ten texts of at most 64 tokens each, 8 bytes
    assert 0 < held <= longest
    assert point.x == held / 1000
    lab.apply({"ratio": 0.0})
    assert mix.point(lab.state, lab.settings()) is None  # no memory: no place on a log scale
    assert lab.state["records"][-1]["scores"] == lab.state["plain"][-1]["scores"]


def test_all_old_texts_are_there_with_a_weight_that_can_be_moved() -> None:
    """L = L_new + w Σ L_old: Multitask's, and with another w another run."""
    lab = _lab("mix", past=mix.ALL, weight=0.1)
    assert lab.state is not None
    bench = _bench_of(lab)
    bench.model.restore()
    by_hand = finetune(bench.model, bench.new, methods=[Multitask(bench.watch, 0.1)], watch=bench.watch, **SMALL)
    assert [dict(r.scores) for r in by_hand] == [record["scores"] for record in lab.state["records"]]
    assert "All old texts are at hand" in lab.state["message"]
    assert mix.point(lab.state, lab.settings()) is None
    first = lab.state["records"][-1]["scores"]
    lab.apply({"weight": 10.0})
    assert lab.state["records"][-1]["scores"] != first


def test_the_dreams_shown_are_those_that_are_replayed() -> None:
    lab = _lab("dreams", size=20, ratio=0.5, temperature=1.5, seed=3)
    assert lab.state is not None
    bench = _bench_of(lab)
    bench.model.restore()
    method = GenerativeReplay(bench.watch, 0.5, 20, temperature=1.5)
    next(finetune(bench.model, bench.new, methods=[method], seed=3, watch=bench.watch))
    task, _ = method._past[0]
    assert task.train is not None
    replayed = set(task.train.texts)
    shown = [text for text, _ in lab.state["dreams"] if len(text.split()) > 1]
    assert len(shown) >= 3
    assert set(shown) <= replayed
    assert lab.state["looked_at"] == 20


def test_bad_dreams_are_less_fluent_and_too_bad_ones_refused_in_words() -> None:
    fluent = {t: dreams.dream({"temperature": t, "top_p": 1.0, "size": 40, "seed": 0}) for t in (1.0, 4.0)}
    assert fluent[1.0]["fluency"] > fluent[4.0]["fluency"] + 0.3
    dull = dreams.dream({"temperature": 0.1, "top_p": 0.05, "size": 40, "seed": 0})
    assert dull["different"] < fluent[1.0]["different"]


def test_the_rates_of_the_layers() -> None:
    lab = _lab("path", factor=2.0, schedule="none", unfreeze=5)
    assert lab.state is not None
    # four steps: the heads and the last layer alone
    assert path.rates(lab.state, lab.settings()) == {
        "rates": {
            "heads": ([2, 4], [2e-3, 2e-3]),
            "layer 2": ([2, 4], [pytest.approx(1e-3)] * 2),
            "layer 1": ([2, 4], [None, None]),
            "layer 0": ([2, 4], [None, None]),
            "embeddings": ([2, 4], [None, None]),
        }
    }
    assert _alt(lab) == _words(lab)  # a layer without any rate is drawn too
    lab.apply({"unfreeze": 0, "schedule": "warm-up", "share": 0.5})
    rates = path.rates(lab.state, lab.settings())["rates"]
    assert rates["embeddings"][1][-1:] == [pytest.approx(2e-3 / 16)]


def test_the_brake_marks_what_is_allowed_and_what_came_back() -> None:
    lab = _lab("brake", drop=0.2, lr=1e-3)
    assert lab.state is not None
    first = lab.state["records"][0]["scores"]
    lines = brake.marks(lab.state, lab.settings())
    assert lines["masked-lm"]["allowed"][1][0] == pytest.approx(first["masked-lm"]["perplexity"] / 0.8)
    assert lines["entities"]["allowed"][1][0] == pytest.approx(first["entities"]["f1"] * 0.8)
    assert "allowed" not in lines["sentiment"]
    lab.apply({"lr": 0.1, "drop": 0.0})
    last = lab.state["records"][-1]
    assert last["status"] == "stopped"
    assert "the weights of step 0 are back" in _words(lab)
    assert last["scores"]["masked-lm"] == first["masked-lm"]
    lines = brake.marks(lab.state, lab.settings())
    assert lines["masked-lm"]["weights put back"] == ([2, 4], [first["masked-lm"]["perplexity"]] * 2)
    assert lab.state["plain"][-1]["status"] != "stopped"
    states = remedy.beside_plain(benches.Benches(), brake.recipe({**lab.settings(), "seed": 1}))
    words = next(state["message"] for state in states if "message" in state)  # what Stop leaves, once this run is over
    assert re.fullmatch(r"After \d steps: .*\(.* are back\)\.", words), words


def test_the_anchor_is_tried_on_a_writer() -> None:
    lab = _lab("anchor", beta=100.0)
    assert lab.state is not None
    assert [task["name"] for task in lab.state["tasks"]] == ["causal-lm:notices", "causal-lm", "cloze"]
    assert load("tiny-gpt").lm_kind == "causal"
    kept, without = anchor.points(lab.state, lab.settings())
    assert kept is not None
    assert without is not None
    assert (kept.label, without.label) == ("β=100", "β=0")
