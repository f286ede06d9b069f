"""What is in no table: its losses are the published ones, its numbers in the docs are the shipped ones."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks import not_kept
from benchmarks.correlation import bootstrapped, ranks, spearman
from benchmarks.not_kept import DOCS, END, ROWS, START, made, table
from benchmarks.slopes import correlation, said
from benchmarks.weighing import DFT, Weighed, dft, flow, stm
from forgetlab.experiments.recipes import Bench
from forgetlab.models.model import Model
from forgetlab.tasks import Classification
from forgetlab.tasks.embedded import task
from forgetlab.training.loop import finetune

LOGITS, TARGETS = [[1.0, -0.5, 0.2], [0.0, 2.0, -1.0]], [2, 1]
RESULTS = Path(not_kept.__file__).parent / "results" / "not_kept.json"


def _probabilities(row: list[float]) -> list[float]:
    total = sum(map(math.exp, row))
    return [math.exp(value) / total for value in row]


def test_dft_weighs_the_gradient_by_the_probability_of_the_right_class() -> None:
    """Its value is −p log p; its gradient p (q − 1_y), as p is held: that of the cross-entropy times p."""
    logits = torch.tensor(LOGITS, requires_grad=True)
    loss = dft(logits, torch.tensor(TARGETS))
    loss.backward()
    q = [_probabilities(row) for row in LOGITS]
    p = [own[y] for own, y in zip(q, TARGETS, strict=True)]
    assert loss.item() == pytest.approx(sum(-a * math.log(a) for a in p) / 2, rel=1e-6)
    by_hand = [[a * (own[k] - (k == y)) / 2 for k in range(3)] for own, y, a in zip(q, TARGETS, p, strict=True)]
    assert logits.grad is not None
    assert logits.grad.tolist() == [pytest.approx(row, rel=1e-5) for row in by_hand]


def test_flow_and_stm_by_hand() -> None:
    before = torch.tensor([0.1, 2.0, 0.5, 1.0, 0.7])  # median 0.7
    assert flow(before).tolist() == pytest.approx([math.exp(-loss / 0.7) for loss in before.tolist()], rel=1e-6)
    assert flow(before, 2.0).tolist() == pytest.approx([math.exp(-loss / 1.4) for loss in before.tolist()], rel=1e-6)
    assert stm(before, 0.5).tolist() == [1.0, 0.0, 1.0, 0.0, 1.0]


def test_a_weighed_task_counts_each_example_for_its_weight(bert: Model) -> None:
    new = task("plain", size=8)
    assert isinstance(new, Classification)
    before = torch.linspace(0.1, 2.0, 8)
    one, methods = made("STM", 0.5, Bench(bert, new, []), before)
    assert isinstance(one, Weighed)
    assert methods == []
    assert one.weights.tolist() == [2.0] * 4 + [0.0] * 4
    one.prepare(bert)
    rows = torch.tensor([1, 6, 3])
    weighed = one.loss(bert, one.batch(bert, rows, torch.Generator()))
    each = [new.loss(bert, new.batch(bert, row[None], torch.Generator())).item() for row in rows]
    assert weighed.item() == pytest.approx((2 * each[0] + 2 * each[2]) / 3, rel=1e-5)


def test_asft_is_dft_and_the_kl_from_the_model_before(bert: Model) -> None:
    """On the model before the KL is 0; a step on, a record's penalty is λ Σ p₀ (log p₀ − log p), mean over tokens."""
    new, old = task("plain", size=8), task("masked-lm", size=8)
    one, methods = made("ASFT", 3.0, Bench(bert, new, [old]), torch.zeros(8))
    assert isinstance(one, DFT)
    batch = {k: v for k, v in new.batch(bert, torch.arange(8), torch.Generator()).items() if k != "targets"}
    mask = batch["attention_mask"].bool()

    def log_probabilities() -> torch.Tensor:
        with torch.no_grad():
            return bert.lm_logits(bert.hidden(batch)[mask]).double().log_softmax(-1)

    before = log_probabilities()
    records = finetune(bert, one, methods=methods, steps=2, every=1, batch_size=8, lr=1e-2, limit=8)
    first, now = next(records), next(records)
    assert (first.penalty["lwf"], now.penalty["lwf"]) == (0.0, 0.0)  # of the first step, taken before any change
    after = log_probabilities()
    kl = float((before.exp() * (before - after)).sum(-1).mean())
    assert next(records).penalty["lwf"] == pytest.approx(3 * kl, rel=1e-4)


def test_ranks_and_their_correlation_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    x, y = [3.0, 1.0, 1.0, 7.0, -2.0, 7.0], [0.0, 4.0, 5.0, 5.0, 2.0, 9.0]
    assert (ranks(x) + 1).tolist() == stats.rankdata(x).tolist()
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert spearman([1, 1, 1], [1, 2, 3]) == 0


def test_the_interval_is_that_of_whole_groups() -> None:
    """Two groups, 0 and 1: their mean is 0, ½ or 1, with the shares ¼, ½ and ¼, so that the interval is all of it."""
    assert bootstrapped(lambda drawn: sum(drawn) / 2, 2) == (0.5, 0.0, 1.0)
    middle, low, high = bootstrapped(lambda drawn: sum(drawn) / 100, 100)
    assert (middle, low, high) == (49.5, pytest.approx(43.9, abs=1), pytest.approx(55.1, abs=1))  # ±1.96 · 28.9 / 10


def test_a_forecast_is_ranked_over_new_tasks_within_each_old_one() -> None:
    told = [{"new": n, "seed": s, "old": o, "rose": n + 10 * o, "it": n * (1 - 2 * o)} for n in (0, 1, 2)
            for s in (0, 1) for o in (0, 1)]  # fmt: skip
    assert correlation(told, "it")[0] == 0  # +1 for one old task, −1 for the other
    assert correlation([row for row in told if not row["old"]], "it")[0] == pytest.approx(1)
    a, b = {"w": torch.tensor([3.0, -4.0])}, {"w": torch.tensor([1.0, 2.0]), "v": torch.ones(1)}
    assert said(a, b) == pytest.approx(
        {"−g_new · g_old": 5, "−cosine": 1 / 5**0.5, "−sign(g_new) · g_old": 1, "‖g_new‖": 5}
    )


def test_the_numbers_in_the_docs_are_those_of_the_shipped_results() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert START + table(results) + END in DOCS.read_text(encoding="utf-8")
    for new in results.keys() & {*not_kept.NEW}:
        assert results[new]["best"].keys() == ROWS.keys()
        assert {run["seed"] for runs in results[new]["best"].values() for run in runs} == set(range(5))
    told = {row["methods"]: row["verdict"] for row in results["sentiment"]["verdicts"]}
    words = [told[name] for name in ("DFT", "STM", "FLOW", "ASFT", "KL before ‖ now")]
    assert words == ["harms", "cannot be told", "cannot be told", "helps", "helps"]
    beside = {name: row["verdict"] for name, row in results["sentiment"]["beside"].items()}
    assert beside == {"ASFT": "harms", "α by layer": "cannot be told"}
