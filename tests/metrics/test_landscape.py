"""The plane through three sets of weights, against a quadratic whose values are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from forgetlab import task
from forgetlab.errors import ForgetlabError
from forgetlab.metrics.landscape import Plane, weights_of
from forgetlab.sources.examples import take
from forgetlab.tasks import MaskedLM
from tests.conftest import small_model


class Bowl(nn.Module):
    """½ Σ h (θ − c)², in weights of two shapes."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.a = nn.Parameter(torch.randn(3, 4, generator=generator))
        self.b = nn.Parameter(torch.randn(5, generator=generator))
        self.h = torch.rand(17, generator=generator) + 0.1
        self.c = torch.randn(17, generator=generator)

    def loss(self) -> Tensor:
        return (self.h * (torch.cat([self.a.flatten(), self.b]) - self.c) ** 2).sum() / 2


def some(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"a": torch.randn(3, 4, generator=generator), "b": torch.randn(5, generator=generator)}


def flat(weights: dict[str, Tensor]) -> Tensor:
    return torch.cat([weights["a"].flatten(), weights["b"]]).double()


def test_the_three_points_have_the_coordinates_of_a_triangle() -> None:
    one, two, three = some(1), some(2), some(3)
    (x1, y1), (x2, y2), (x3, y3) = Plane(one, two, three).points
    assert (x1, y1, y2) == (0, 0, 0)
    for (xa, ya, a), (xb, yb, b) in (
        ((x1, y1, one), (x2, y2, two)),
        ((x1, y1, one), (x3, y3, three)),
        ((x2, y2, two), (x3, y3, three)),
    ):
        assert math.hypot(xa - xb, ya - yb) == pytest.approx(float((flat(a) - flat(b)).norm()), rel=1e-5)


def test_weights_at_the_three_points_are_the_three() -> None:
    corners = [some(1), some(2), some(3)]
    plane = Plane(*corners)
    for point, weights in zip(plane.points, corners, strict=True):
        torch.testing.assert_close(plane.at(*point), weights)


def test_the_grid_equals_the_quadratic_in_closed_form() -> None:
    bowl, plane = Bowl(), Plane(some(1), some(2), some(3))
    xs, ys = [-1.0, 0.0, 2.5], [0.0, 1.5]
    rows = list(plane.evaluate(bowl, xs, ys, {"bowl": bowl.loss, "twice": lambda: 2 * bowl.loss()}))
    # on a plane a quadratic is L(0) + g·p + ½ pᵀHp, with p = (x, y)
    zero = flat(some(1))
    basis = torch.stack([flat(plane.at(1, 0)) - zero, flat(plane.at(0, 1)) - zero])
    h, c = bowl.h.double(), bowl.c.double()
    g, hessian = basis @ (h * (zero - c)), basis @ torch.diag(h) @ basis.T
    for row, y in zip(rows, ys, strict=True):
        for found, twice, x in zip(row["bowl"], row["twice"], xs, strict=True):
            p = torch.tensor([x, y], dtype=torch.float64)
            expected = float((h * (zero - c) ** 2).sum() / 2 + g @ p + p @ hessian @ p / 2)
            assert found == pytest.approx(expected, rel=1e-4)
            assert twice == pytest.approx(2 * expected, rel=1e-4)
    torch.testing.assert_close(basis @ basis.T, torch.eye(2, dtype=torch.float64), atol=1e-5, rtol=0)


def test_locate_is_the_least_squares_solution() -> None:
    plane, weights = Plane(some(1), some(2), some(3)), some(4)
    zero = flat(some(1))
    basis = torch.stack([flat(plane.at(1, 0)) - zero, flat(plane.at(0, 1)) - zero]).T
    solved = torch.linalg.lstsq(basis, (flat(weights) - zero).unsqueeze(1)).solution.squeeze(1)
    place = plane.locate(weights)
    assert [place.x, place.y] == pytest.approx(solved.tolist(), rel=1e-4)
    assert place.off == pytest.approx(float((flat(weights) - zero - basis @ solved).norm()), rel=1e-4)
    inside = plane.locate(plane.at(0.3, -2.0))
    assert [inside.x, inside.y, inside.off] == pytest.approx([0.3, -2.0, 0], abs=1e-5)


def test_weights_are_put_back_at_the_end_and_when_closed() -> None:
    bowl, plane = Bowl(), Plane(some(1), some(2), some(3))
    before = weights_of(bowl)
    rows = plane.evaluate(bowl, [0.0, 1.0], [0.0, 1.0], {"bowl": bowl.loss})
    next(rows)
    assert not torch.equal(bowl.a, before["a"])
    rows.close()  # type: ignore[attr-defined]
    torch.testing.assert_close(weights_of(bowl), before, rtol=0, atol=0)
    list(plane.evaluate(bowl, [0.0], [0.0], {"bowl": bowl.loss}))
    torch.testing.assert_close(weights_of(bowl), before, rtol=0, atol=0)


@pytest.mark.parametrize("at_once", [2, 5, 100])
def test_points_at_once_have_the_losses_of_one_at_a_time(at_once: int) -> None:
    model, *others = (small_model(seed=seed) for seed in (0, 1, 2))
    plane = Plane(*(weights_of(one) for one in (model, *others)))
    lm, before = task("masked-lm"), weights_of(model)

    def loss() -> Tensor:
        return lm.loss(model, lm.test_batches(model, 24)[0])

    losses = {"lm": loss, "twice": lambda: 2 * loss()}
    xs, ys = [0.0, plane.points[1][0], -1.0], [0.0, 0.7]
    expected = list(plane.evaluate(model, xs, ys, losses))
    found = list(plane.evaluate(model, xs, ys, losses, at_once=at_once))
    assert len(found) == len(ys)
    for row, exact in zip(found, expected, strict=True):
        assert row["lm"] == pytest.approx(exact["lm"], rel=1e-5)
        assert row["twice"] == pytest.approx(exact["twice"], rel=1e-5)
    assert len({round(value, 4) for row in expected for value in row["lm"]}) == len(xs) * len(ys)
    assert model.config._attn_implementation == "sdpa"
    torch.testing.assert_close(weights_of(model), before, rtol=0, atol=0)


def test_points_at_once_on_a_task_that_draws_its_gaps_and_closed_in_the_middle() -> None:
    model, *others = (small_model(seed=seed) for seed in (0, 1, 2))
    plane, before = Plane(*(weights_of(one) for one in (model, *others))), weights_of(model)
    texts = take(task("masked-lm").test, range(8))
    lm = MaskedLM("drawn", texts, texts)
    losses = {"lm": lambda: lm.loss(model, lm.test_batches(model, None)[0])}
    rows = plane.evaluate(model, [0.0, 1.0], [0.0, 1.0], losses, at_once=4)
    row = next(rows)
    rows.close()  # type: ignore[attr-defined]
    (expected, _) = plane.evaluate(model, [0.0, 1.0], [0.0, 1.0], losses)
    assert row["lm"] == pytest.approx(expected["lm"], rel=1e-5)
    assert model.config._attn_implementation == "sdpa"
    torch.testing.assert_close(weights_of(model), before, rtol=0, atol=0)


def test_no_points_at_once_is_refused() -> None:
    bowl, plane = Bowl(), Plane(some(1), some(2), some(3))
    with pytest.raises(ForgetlabError, match="at_once must be"):
        next(plane.evaluate(bowl, [0.0], [0.0], {"bowl": bowl.loss}, at_once=0))


def test_tied_weights_of_a_language_model_move_once() -> None:
    model, *others = (small_model(seed=seed) for seed in (0, 1, 2))
    plane = Plane(*(weights_of(one) for one in (model, *others)))
    tied = {"decoder": lambda: model.body.cls.predictions.decoder.weight.detach().pow(2).sum()}
    (row,) = plane.evaluate(model, [plane.points[1][0]], [0.0], tied)
    end = others[0].body.get_input_embeddings().weight.detach().pow(2).sum()
    assert row["decoder"] == pytest.approx([float(end)], rel=1e-5)


def test_what_makes_no_plane_is_refused_in_words() -> None:
    one, two = some(1), some(2)
    middle = {name: (one[name] + two[name]) / 2 for name in one}
    for third in (middle, two, one):
        with pytest.raises(ForgetlabError, match="not on one line"):
            Plane(one, two, third)
    with pytest.raises(ForgetlabError, match="not on one line"):
        Plane(one, one, two)
    with pytest.raises(ForgetlabError, match="diverged"):
        Plane(one, two, {**some(3), "b": torch.full((5,), math.nan)})
    with pytest.raises(ForgetlabError, match="'b' is in one of the sets of weights only"):
        Plane(one, two, {"a": some(3)["a"]})
    with pytest.raises(ForgetlabError, match=r"'b' has the shapes \[5\] and \[6\]"):
        Plane(one, two, {**some(3), "b": torch.zeros(6)})
    with pytest.raises(ForgetlabError, match="no parameter 'a'"):
        next(Plane(one, two, some(3)).evaluate(nn.Linear(2, 2), [0.0], [0.0], {}))
