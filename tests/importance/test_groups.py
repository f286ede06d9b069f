"""Quadrants of a known arrangement, ranks counted one by one, and weights put back exactly."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from forgetlab import ForgetlabError
from forgetlab.importance import put_back, quadrants
from forgetlab.importance.groups import KINDS
from forgetlab.models.model import Model

# ten weights: 0 and 1 matter to the old task only, 2 and 3 to both, 4 and 5 to the new one only
OLD = {"a": torch.tensor([[9.0, 8.0], [7.0, 6.0]]), "b": torch.tensor([0.5, 0.4, 0.3, 0.2, 0.1, 0.0])}
NEW = {"b": torch.tensor([9.0, 8.0, 0.3, 0.2, 0.1, 0.0]), "a": torch.tensor([[0.5, 0.4], [7.0, 6.0]])}


def test_a_known_arrangement() -> None:
    found = quadrants(OLD | {"head": torch.ones(50)}, {"other": torch.ones(3)} | NEW, top=0.4)
    kinds = [KINDS[k] for k in found.kind.tolist()]
    assert kinds == ["old-critical"] * 2 + ["shared"] * 2 + ["new-critical"] * 2 + ["slack"] * 4
    assert found.shares() == {"slack": 0.4, "new-critical": 0.2, "old-critical": 0.2, "shared": 0.2}
    assert found.mass() == pytest.approx(
        {"slack": 0.6 / 31.5, "new-critical": 0.9 / 31.5, "old-critical": 17 / 31.5, "shared": 13 / 31.5}
    )
    assert found.old.tolist() == pytest.approx([9, 8, 7, 6, 0.5, 0.4, 0.3, 0.2, 0.1, 0])
    assert found.new.tolist() == pytest.approx([0.5, 0.4, 7, 6, 9, 8, 0.3, 0.2, 0.1, 0])
    assert found.thresholds == pytest.approx((0.5, 0.5))
    assert found.names == ("a", "b")


def test_the_share_is_the_one_asked_for() -> None:
    values = {"w": torch.rand(1000, generator=torch.Generator().manual_seed(0))}
    for top in (0.001, 0.1, 0.3, 0.7, 0.9, 0.999):
        shares = quadrants(values, values, top).shares()
        assert shares["shared"] == pytest.approx(top)
        assert shares["slack"] == pytest.approx(1 - top)


def test_an_importance_of_zero_is_never_critical() -> None:
    old = {"w": torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0])}
    shares = quadrants(old, {"w": torch.zeros(5)}, top=0.5).shares()
    assert shares == {"slack": 0.8, "new-critical": 0, "old-critical": 0.2, "shared": 0}


def slow_ranks(values: list[float]) -> list[float]:
    """1 + how many are smaller, and half of those that are equal."""
    return [sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values]


def slow_correlation(a: list[float], b: list[float]) -> float:
    a, b = slow_ranks(a), slow_ranks(b)
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    product = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    return product / math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))


def test_rank_correlation_with_ties() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(8, (60,), generator=generator).float()
    b = (a + torch.randint(5, (60,), generator=generator)).square()
    found = quadrants({"w": a}, {"w": b}).correlation
    assert 0.5 < found < 0.98
    assert found == pytest.approx(slow_correlation(a.tolist(), b.tolist()))
    assert quadrants({"w": a}, {"w": a.exp()}).correlation == pytest.approx(1)
    assert quadrants({"w": a}, {"w": -a}).correlation == pytest.approx(-1)
    assert math.isnan(quadrants({"w": a}, {"w": torch.ones(60)}).correlation)


def test_bad_quadrants() -> None:
    for top in (0, 1, -0.1, float("nan")):
        with pytest.raises(ForgetlabError, match="top must be between 0 and 1"):
            quadrants(OLD, NEW, top)
    with pytest.raises(ForgetlabError, match="no parameter in common"):
        quadrants(OLD, {"c": torch.ones(3)})
    with pytest.raises(ForgetlabError, match=r"another model: b has the shape \(5,\), here it is \(6,\)"):
        quadrants(OLD, NEW | {"b": torch.ones(5)})


# -- the intervention ---------------------------------------------------------------------------------


def moved(model: Model) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """(weights before, weights after, importance); every weight has moved and no two matter alike."""
    before = model.snapshot()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    named = dict(model.named_parameters())
    order = torch.randperm(sum(p.numel() for p in named.values()), generator=generator).float()
    parts = order.split([p.numel() for p in named.values()])
    importance = {name: part.view_as(p) for (name, p), part in zip(named.items(), parts, strict=True)}
    return before, model.snapshot(), importance


@pytest.mark.parametrize("least", [False, True])
@pytest.mark.parametrize("count", [0, 1, 777, 0.1, 1.0])
def test_exactly_the_most_important_weights_come_back(bert: Model, count: int | float, least: bool) -> None:
    before, after, importance = moved(bert)
    total = sum(v.numel() for v in importance.values())
    wanted = round(count * total) if isinstance(count, float) else count
    assert put_back(bert, before, importance, count, least=least) == wanted
    for name, p in bert.named_parameters():
        chosen = importance[name] < wanted if least else importance[name] >= total - wanted
        assert torch.equal(p, torch.where(chosen, before[name], after[name])), name
    assert all(p.requires_grad for p in bert.parameters())


def test_only_the_weights_that_both_name_are_touched(bert: Model) -> None:
    before, after, importance = moved(bert)
    first, second, third, *_ = importance
    part = {name: importance[name] for name in (first, second)}
    count = put_back(bert, {name: before[name] for name in (second, third)}, part, 1.0)
    assert count == importance[second].numel()
    for name, p in bert.named_parameters():
        assert torch.equal(p, (before if name == second else after)[name])


def test_bad_intervention(bert: Model) -> None:
    before, after, importance = moved(bert)
    total = sum(v.numel() for v in importance.values())
    for count in (-1, total + 1, 1.5, -0.1, float("nan"), float("inf"), True, "all", None):
        with pytest.raises(ForgetlabError, match=f"count must be a whole number up to {total:,} or a share up to 1.0"):
            put_back(bert, before, importance, count)  # type: ignore[arg-type]
    name = "body.bert.embeddings.LayerNorm.bias"
    with pytest.raises(ForgetlabError, match="importance of another model: this one has no parameter else"):
        put_back(bert, before, importance | {"else": torch.ones(2)}, 5)
    with pytest.raises(ForgetlabError, match=rf"importance of another model: {name} has the shape \(31,\), here"):
        put_back(bert, before, importance | {name: torch.ones(31)}, 5)
    with pytest.raises(ForgetlabError, match=rf"weights of another model: {name} has the shape \(31,\), here"):
        put_back(bert, before | {name: torch.ones(31)}, importance, 5)
    with pytest.raises(ForgetlabError, match="no parameter in common"):
        put_back(bert, {}, importance, 5)
    assert all(torch.equal(p, after[n]) for n, p in bert.named_parameters())
