"""Demonstrations and rewards at equal reward: what is compared, by hand, and that the shipped table is the results'."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import rewards
from benchmarks.rewards import Row, kl, rows
from benchmarks.rewards_table import (
    MEASURES,
    all_correlations,
    at_goal,
    by_row,
    correlations,
    factor,
    page,
    reference,
)
from forgetlab.metrics.uncertainty import difference
from forgetlab.models.model import Model
from forgetlab.remedies.by_name import make_methods
from forgetlab.remedies.regularizers import KLAnchor
from forgetlab.tasks import Rewarded
from forgetlab.tasks.embedded import task
from forgetlab.tasks.rewarded import Answers
from forgetlab.training.loop import finetune
from tests.conftest import small_model

RESULTS = Path(rewards.__file__).parent / "results"
SAME = {"seconds": 1.0, "distinct": 0.5, "ended": 1.0, "length": 5.0, "fluency": 0.9}


def _look(
    steps: int, reward: float, far: float, near: float = 1.0, drift: float = 0.0, **kl: float
) -> dict[str, float]:
    kl = {"reverse": 0.0, "forward": 0.0, **kl}
    return {"steps": steps, "reward": reward, "far": far, "near": near, "drift": drift, **kl, **SAME}


def test_equal_reward_is_between_two_looks_and_perplexities_go_on_a_log_scale() -> None:
    looks = [_look(0, 0.4, math.log(3.0)), _look(10, 0.8, math.log(4.0)), _look(20, 0.9, math.log(9.0))]
    reached = at_goal(looks, 0.85)
    assert reached is not None
    assert (reached["steps"], reached["reward"]) == (pytest.approx(15), pytest.approx(0.85))
    assert math.exp(reached["far"]) == pytest.approx(6.0)  # the geometric mean of 4 and 9
    assert at_goal(looks, 0.95) is None
    assert at_goal([_look(0, 0.9, 1.0), _look(10, 0.9, 2.0)], 0.9) == _look(10, 0.9, 2.0)  # known from the start on


def test_rows_are_compared_with_demonstrations_at_their_rate_and_with_themselves_without_a_hold() -> None:
    names = rows()
    assert reference("GRPO, 0.001", names) == "SFT like, 0.001"
    assert reference("GRPO, β = 0.3 forward, 0.0003", names) == "GRPO, 0.0003"
    assert reference("SFT like, β = 1 reverse, 0.0003", names) == "SFT like, 0.0003"
    assert reference("SFT like, batch 256, 0.001", names) == "SFT like, 0.001"
    assert reference("SFT like, 0.0003", names) is None
    assert {name for name in names if reference(name, names) is None} == {"SFT like, 0.0003", "SFT like, 0.001"}
    assert all(row.lr == float(name.split(", ")[-1]) for name, row in names.items())


def test_factors_are_geometric_means_with_the_interval_of_students_t() -> None:
    logs = [math.log(2.0), math.log(8.0)]
    half = 12.7062 * (math.log(4.0) / math.sqrt(2)) / math.sqrt(2)
    assert factor(logs) == f"×4.000 ({math.exp(math.log(4) - half):.3f} to {math.exp(math.log(4) + half):.3f})"


def test_correlations_are_ranks_over_looks_and_their_intervals_over_runs() -> None:
    """Far text goes with drift, near text with the reverse KL, in every run alike; the forward KL with neither."""
    runs = [
        {"name": f"run {i}", "seed": 0, "looks": [_look(0, 0.4, 1.0), *(
            _look(10 * k, 0.4 + 0.1 * k, 1.0 + 0.1 * k * i, 1.0 + 0.3 * k - 0.02 * i, drift=float(k * i) ** 2,
                  reverse=3.0 * k - 0.2 * i, forward=1.0) for k in (1, 2, 3))]}
        for i in (1, 2, 3, 4)
    ]  # fmt: skip
    found = correlations(runs, draws=50)
    assert found["far"]["drift"] == pytest.approx((1, 1, 1))
    assert found["near"]["reverse"] == pytest.approx((1, 1, 1))
    assert found["far"]["forward"] == (0, 0, 0)
    at = correlations(runs, 0.65, draws=50)  # half-way between the second look and the third, of each run
    assert at["far"]["drift"][0] == pytest.approx(1)
    assert at["far"]["reverse"][0] == pytest.approx(-1)


def test_the_kl_of_answers_is_the_mean_log_ratio_of_those_drawn(gpt: Model) -> None:
    """E_p[log p(answer) − log q(answer)]: exact over the vocabulary here, over draws alone there."""
    praise = Rewarded("short", ["the film", "the plays"], lambda texts: [0.0] * len(texts), test=["the play"])
    before = small_model(causal=True)
    draws = torch.zeros(150, dtype=torch.long)
    written = praise.answers(gpt, "test", draws, torch.Generator().manual_seed(0))
    assert kl(gpt, before, written) == pytest.approx(0, abs=1e-9)  # the same weights
    list(finetune(gpt, task("praise:narrow", size=32), steps=6, lr=1e-2, batch_size=8, limit=8))
    written = praise.answers(gpt, "test", draws, torch.Generator().manual_seed(0))
    ratios = _log_probability(gpt, written) - _log_probability(before, written)
    error = float(ratios.std() / len(ratios) ** 0.5)
    exact = kl(gpt, before, written)
    assert exact == pytest.approx(float(ratios.mean()), abs=4 * error)
    assert exact > 4 * error  # else nothing is told apart


def _log_probability(model: Model, written: Answers) -> torch.Tensor:
    """(N,) log of what a model gives each answer, token by token."""
    found = []
    for ids, scored, length in zip(written.ids, written.scored, written.lengths.tolist(), strict=True):
        batch = {"input_ids": ids[None, :length], "attention_mask": torch.ones(1, length, dtype=torch.long)}
        with torch.no_grad():
            logs = model.lm_logits(model.hidden(batch)[0]).double().log_softmax(-1)
        tokens = scored[:length].nonzero().squeeze(1)
        found.append(logs[tokens - 1, ids[tokens]].sum())
    return torch.stack(found)


def _results() -> dict[str, Any]:
    names = {"SFT like, 0.0003": 0.2, "GRPO, 0.0003": 0.1}
    runs = []
    for name, rise in names.items():
        for seed in range(3):
            last = _look(10, 0.9 + 0.01 * seed, 1.0 + rise, 1.5, 2.0 + rise)
            runs.append({"name": name, "seed": seed, "looks": [_look(0, 0.4, 1.0), last]})
    made = {"seeds": 3, "goals": [0.9], "rows": names}
    return {"made": made, "runs": runs, "correlations": all_correlations(runs, [0.9], draws=50)}


def test_the_page_says_what_the_runs_say() -> None:
    results = _results()
    at = by_row(results, 0.9)["GRPO, 0.0003"]
    assert [look["far"] for look in at.values()] == [pytest.approx(0.1 * 0.5 / (0.5 + 0.01 * s)) for s in (0, 1, 2)]
    text = page(results)
    assert "| GRPO, 0.0003 | SFT like, 0.0003 | ×0.9" in text
    assert text.count("3 of 3") == 2
    assert "reward\n0.40, perplexity of far text 2.72" in text


def test_a_run_is_kept_and_ends_at_its_goal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewards, "GOAL", 0.0)  # the first look is as good
    monkeypatch.setattr(rewards, "LIMIT", 9)
    monkeypatch.setattr(rewards, "TRIES", 1)
    monkeypatch.setattr(rewards, "TEXTS", 4)
    row = Row("group", 3e-4, batch=2, steps=4, every=2)
    run = rewards.done(tmp_path, "one", row, 0)
    (look,) = run["looks"]
    assert {"reward", "far", "near", "fluency", "distinct", *MEASURES} < look.keys()
    assert (look["steps"], look["drift"], look["reverse"], look["forward"]) == (0, 0, 0, 0)
    monkeypatch.setattr(rewards, "looks", lambda row, seed: pytest.fail("it was there"))
    assert rewards.done(tmp_path, "one", row, 0) == run


def test_holds_are_those_of_the_anchor() -> None:
    held = {name: make_methods(row.methods, []) for name, row in rows().items() if "β" in name}
    assert len(held) == 6
    for name, (method,) in held.items():
        assert isinstance(method, KLAnchor)
        assert f"β = {method.beta:g} {method.direction}, " in name


@pytest.mark.skipif(not (RESULTS / "rewards.json").is_file(), reason="not measured yet")
def test_the_shipped_table_is_what_the_shipped_results_say() -> None:
    results = json.loads((RESULTS / "rewards.json").read_text(encoding="utf-8"))
    assert (RESULTS / "rewards.md").read_text(encoding="utf-8") == page(results) + "\n"
    assert results["made"]["rows"].keys() == rows().keys()
    assert len(results["runs"]) == len(rows()) * results["made"]["seeds"]
    at = correlations(results["runs"], results["made"]["goals"][0])
    told = results["correlations"][f"where the reward is {results['made']['goals'][0]:g}"]
    assert [list(ends) for by in at.values() for ends in by.values()] == [
        e for by in told.values() for e in by.values()
    ]
    for goal in results["made"]["goals"]:
        _what_the_document_says(results, goal)


def _what_the_document_says(results: dict[str, Any], goal: float) -> None:
    at = by_row(results, goal)

    def lost(name: str, key: str = "far") -> float:
        return float(np.mean([look[key] for look in at[name].values()]))

    for way in ("SFT like", "SFT narrow", "SFT strange", "SFT own", "GRPO", "RLOO"):
        assert lost(f"{way}, 0.001") > lost(f"{way}, 0.0003")
    like = at["SFT like, 0.0003"]
    for way, less in (("GRPO", True), ("RLOO", True), ("SFT own", True), ("SFT strange", False)):
        own = at[f"{way}, 0.0003"]
        apart = difference([own[seed]["far"] - like[seed]["far"] for seed in own.keys() & like.keys()])
        assert apart.high < 0 if less else apart.mean > 0
    assert lost("SFT narrow, 0.0003") < lost("SFT like, 0.0003")
    for key in ("near", "forward"):
        assert lost("SFT narrow, 0.0003", key) > lost("SFT like, 0.0003", key)
    told = results["correlations"][f"where the reward is {goal:g}, without β"]
    assert told["near"]["forward"][1] > 0.5
    assert told["far"]["drift"][1] > 0.5
    assert told["far"]["forward"][1] < 0 < told["far"]["forward"][2]
