"""The benchmark of repairs: each way between two models is the formula of its name, and the table is its numbers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import repairs
from benchmarks.repairs import equal, page, rows, with_table
from benchmarks.ways import LOOKS, STRENGTHS, WAYS, by_layer, dropped, fisher, fisher_of_the_old, trimmed

RESULTS = Path(repairs.__file__).parent / "results"
DELTA = {"a": torch.tensor([0.1, -0.4, 0.3, -0.2]), "b": torch.tensor([[0.5, 0.6], [-0.8, 0.7], [0.05, 1.0]])}
OLD = {"a": torch.tensor([4.0, 0.0, 2.0, 1.0]), "b": torch.ones(3, 2)}
NEW = {"a": torch.tensor([1.0, 1.0, 0.0, 2.0]), "b": torch.full((3, 2), 0.5)}


def case(**more: Any) -> Any:
    return SimpleNamespace(bench=SimpleNamespace(old_fisher=[OLD]), new_fisher=NEW, delta=DELTA, seed=3, **more)


def look(alpha: float, old: float, new: float) -> Any:
    return {"alpha": alpha, "layers": {}, "old": old, "new": new, "scores": {}}


def test_every_way_has_as_many_looks() -> None:
    assert {name: len(list(way(case()))) for name, way in WAYS.items()} == dict.fromkeys(WAYS, LOOKS)


def test_fisher_weights_are_those_that_lose_least() -> None:
    """θ = (F_b θ_b + λ F_a θ_a) / (F_b + λ F_a) is where the slope of F_b (θ − θ_b)² + λ F_a (θ − θ_a)² is 0."""
    f_old, f_new = (
        {n: f / torch.cat([v.flatten() for v in of.values()]).mean() for n, f in of.items()} for of in (OLD, NEW)
    )
    for lam, share in zip(STRENGTHS, fisher(case()), strict=True):
        assert isinstance(share, dict)
        for name, delta in DELTA.items():  # θ_b = 0, θ_a = Δ
            theta = share[name] * delta
            slope = f_old[name] * theta + lam * f_new[name] * (theta - delta)
            assert torch.allclose(slope, torch.zeros(()), atol=1e-4 * max(1, lam))
    for lam, share in zip(STRENGTHS, fisher_of_the_old(case()), strict=True):
        assert isinstance(share, dict)
        for name, delta in DELTA.items():
            theta = share[name] * delta
            assert torch.allclose(lam * f_old[name] * theta + theta - delta, torch.zeros(()), atol=1e-4 * max(1, lam))


def test_trimming_keeps_the_largest_and_dropping_keeps_the_mean() -> None:
    sizes = sorted((abs(v) for d in DELTA.values() for v in d.flatten().tolist()), reverse=True)
    for share in trimmed(case()):
        assert isinstance(share, dict)
        kept = sorted((abs(v) for n, d in DELTA.items() for v in d[share[n] > 0].tolist()), reverse=True)
        assert kept == sizes[: len(kept)]
    wide = case()
    wide.delta = {"a": torch.zeros(20_000)}
    scales = [0.4, 0.6, 0.8, 1.0] * 4
    for scale, share in zip(scales, dropped(wide), strict=True):
        assert isinstance(share, dict)
        assert float(share["a"].mean()) == pytest.approx(scale, rel=0.08)


def test_by_layer_finds_what_one_alpha_cannot() -> None:
    """Layer 0 forgets and learns nothing, layer 1 learns: an α for each ends above the best one for both."""
    names = ("bert.encoder.layer.0.x.weight", "bert.encoder.layer.1.x.weight")

    def seen(share: Any) -> Any:
        return look(-1, share[names[0]], 1 - share[names[1]])

    found = by_layer(SimpleNamespace(delta=dict.fromkeys(names, torch.ones(1)), look=seen))
    best = min((one for _, one in found if one["new"] <= 0.02), key=lambda one: one["old"])
    assert len(found) == LOOKS
    assert best["old"] <= 0.2 + 1e-9


def test_at_equal_new_score_is_a_point_on_the_line() -> None:
    curve = [look(0, 0.0, 1.0), look(0.5, 0.2, 0.4), look(1, 0.6, 0.0)]
    assert equal(curve, 0.2) == pytest.approx(0.4)
    assert equal(curve, 0.7) == pytest.approx(0.1)
    assert (equal(curve, 0.0), equal(curve, -0.1), equal(curve, 2.0)) == (0.6, 0.6, 0.0)


def test_the_tables_are_the_numbers_measured() -> None:
    found = json.loads((RESULTS / "repairs.json").read_text(encoding="utf-8"))
    assert (RESULTS / "repairs.md").read_text(encoding="utf-8") == page(found)
    docs = repairs.DOCS.read_text(encoding="utf-8")
    assert with_table(docs, found["cases"]) == docs
    assert all(len(cases) >= 5 for cases in found["cases"].values())
    better = {name for name, row in rows(found["cases"]).items() if row["kept at equal new"][1] > 0}
    assert better == {"α by layer", "Fisher of the old"}  # the first is offered, of the other the page says why not
