"""What a run keeps and learns, which runs lie on the front, and the reader of the benchmark's file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest

from forgetlab import ForgetlabError
from forgetlab.__main__ import main
from forgetlab.errors import whole
from forgetlab.experiments.frontier import best_within, read_benchmark
from forgetlab.experiments.plan import Plan
from forgetlab.experiments.recipes import Recipe
from forgetlab.experiments.search import End, Pair, Search
from forgetlab.labs import frontier as frontier_lab
from forgetlab.remedies.by_name import METHODS, family, make_methods, settings, with_strength
from forgetlab.training.method import Family, Method, Setting


def test_the_best_within_a_budget() -> None:
    dots = [
        {"name": "a", "kept": [0.9, 1.0], "new": [0.7, 0.9]},
        {"name": "b", "kept": [0.99], "new": [0.6]},
        {"name": "c", "kept": [0.5], "new": [1.0]},
    ]
    found = [best_within(dots, budget) for budget in (0.0, 0.01, 0.06, 0.6)]
    assert [dot and dot["name"] for dot in found] == [None, "b", "a", "c"]


@pytest.mark.parametrize("remedy", METHODS)
@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
def test_every_strength_is_one_that_the_remedy_takes(remedy: str, strength: float) -> None:
    spec = with_strength(remedy, strength)
    (method,) = make_methods(spec, None)
    assert method.name == remedy
    assert family(spec) in get_args(Family)
    assert (family(spec) == "none") == (remedy == "none")


@pytest.mark.parametrize("remedy", METHODS)
def test_a_bare_name_and_the_search_mean_one_strength(remedy: str) -> None:
    (bare,), (searched,) = make_methods(remedy, None), make_methods(with_strength(remedy, 1), None)
    assert repr(bare) == repr(searched)
    if setting := METHODS[remedy].main:
        usual = settings(remedy)[setting.name]
        assert setting.low <= (setting.usual if usual is None else usual) <= setting.high


class Toy(Method):
    """A remedy that is known by its class alone."""

    name = "toy"
    family = "gradients"
    main = Setting("force", low=1, high=50)

    def __init__(self, force: int = 4) -> None:
        self.force = whole("force", force)


def test_a_new_remedy_is_known_everywhere_by_its_class(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(METHODS, Toy.name, Toy)
    assert main(["methods"]) == 0
    told = capsys.readouterr().out
    assert "toy                 A remedy that is known by its class alone.\n" in told
    assert f"{'':<20}gradients; usual force=4\n" in told
    assert family("toy:force=3+ewc") == "gradients"
    assert [with_strength("toy", x) for x in (0.01, 1, 3, 100)] == [f"toy:force={n}" for n in (1, 4, 12, 50)]
    asked: list[str] = []

    def ask(pairs: Sequence[Pair], share: float) -> dict[Pair, End]:
        asked.extend(spec for spec, _ in pairs)
        return dict.fromkeys(pairs, (0.5, 0.5))

    Search(["toy"], (0,), 0.95, ask).run()
    assert {"toy:force=4", "toy:force=1", "toy:force=40"} <= set(asked)
    plan = Plan(Recipe(), ["all"], (0,), Path("nowhere"))
    assert "toy" in plan.names()
    assert "toy" in frontier_lab.show(driver="inline").training["remedy"].options


def test_strength_by_hand() -> None:
    assert with_strength("ewc", 10) == "ewc:strength=10"
    assert with_strength("kl-anchor", 0.1) == "kl-anchor:beta=0.1"
    assert with_strength("replay", 100) == "replay:ratio=0.95"
    assert with_strength("lora", 0.01) == "lora:r=1"
    assert with_strength("none", 5) == "none"
    with pytest.raises(ForgetlabError, match="unknown remedy 'ewcs'; did you mean 'ewc'"):
        with_strength("ewcs", 1)
    with pytest.raises(ForgetlabError, match="strength must be"):
        with_strength("ewc", -1)
    assert family("replay:ratio=0.25+ewc:lam=1") == "replay"
    assert family("layerwise-rates+slanted-triangular") == "rates and stopping"


def _run(method: str, lm: float, new: float, status: str = "done") -> dict[str, Any]:
    before = {"sentiment": 0.5, "masked-lm": 3.0, "entities": 1.0}
    after = {"sentiment": new, "masked-lm": lm, "entities": 1.0}
    return {"method": method, "spec": f"{method} @ 1", "status": status, "before": before, "after": after}


def test_the_benchmark_is_read(tmp_path: Path) -> None:
    gone = _run("none", math.nan, math.nan, "diverged")
    tasks = [
        {"name": "sentiment", "metric": "accuracy", "scale": "points", "higher_is_better": True, "guess": 0.5},
        {"name": "masked-lm", "metric": "perplexity", "scale": "ratio", "higher_is_better": False, "guess": 48.0},
        {"name": "entities", "metric": "f1", "scale": "points", "higher_is_better": True, "guess": 0.0},
    ]
    content = {
        "tasks": tasks,
        "search": {"none": [_run("none", 12.0, 0.9)], "ewc": [_run("ewc:lam=1", 3.0, 0.8), gone], "x": [gone]},
        "best": {"none": [_run("none", 12.0, 0.9), gone], "ewc": [_run("ewc:lam=1", 3.0, 0.8)] * 2, "x": [gone]},
    }
    path = tmp_path / "remedies.json"
    path.write_text(json.dumps(content))
    assert read_benchmark(path) == [
        {
            "name": "none",
            "spec": "none @ 1",
            "family": "none",
            "kept": [0.75],  # ln (48 / 12) of ln (48 / 3) nats, and all of the entities
            "new": [0.9],
            "diverged": 1,
            "tried": [[0.75, 0.9]],
        },
        {
            "name": "ewc",
            "spec": "ewc:lam=1 @ 1",
            "family": "weights held",
            "kept": [1.0, 1.0],
            "new": [0.8, 0.8],
            "diverged": 0,
            "tried": [[1.0, 0.8]],
        },
    ]
    for wrong in ("{}", "[]", "no json", '{"best": {"a": [1]}, "search": {"a": []}}'):
        path.write_text(wrong)
        with pytest.raises(ForgetlabError, match=r"is not a result of benchmarks/remedies\.py"):
            read_benchmark(path)
    with pytest.raises(ForgetlabError, match="nowhere"):
        read_benchmark(tmp_path / "nowhere")
