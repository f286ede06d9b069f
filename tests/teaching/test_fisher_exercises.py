"""The checks of lesson 04 accept right solutions and name the usual mistakes, written as a learner would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from forgetlab.teaching.exercises.fisher import check_expected_fisher, check_fisher, check_quadrants

CHECKS = (check_fisher, check_expected_fisher, check_quadrants)


def gradient(model: Any, x: Any, y: Any, **options: Any) -> Any:
    return torch.autograd.grad(cross_entropy(model(x), y, **options), model.weight)[0]


def each(model: Any, x: Any, y: Any) -> list[Any]:
    return [gradient(model, x[i : i + 1], y[i : i + 1]) for i in range(len(x))]


def fisher(model: Any, x: Any, y: Any) -> Any:
    return sum(g**2 for g in each(model, x, y)) / len(x)


def without_clearing(model: Any, x: Any, y: Any) -> Any:
    total = torch.zeros_like(model.weight)
    for i in range(len(x)):
        cross_entropy(model(x[i : i + 1]), y[i : i + 1]).backward()
        total += model.weight.grad**2
    return total / len(x)


def of_outputs(shape: Callable[[Any], Any]) -> Callable[..., Any]:
    """Squared gradients of one number an example, shape(logits)[y]."""

    def wrong(model: Any, x: Any, y: Any) -> Any:
        squares = [
            torch.autograd.grad(shape(model(one))[label], model.weight)[0] ** 2 for one, label in zip(x, y, strict=True)
        ]
        return sum(squares) / len(x)

    return wrong


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda m, x, y: gradient(m, x, y) ** 2, "averaged over the batch and then squared"),
        (lambda m, x, y: gradient(m, x, y, reduction="sum") ** 2, "summed over the batch and then squared"),
        (lambda m, x, y: fisher(m, x, y) * len(x), "not averaged"),
        (lambda m, x, y: -gradient(m, x, y), "without being squared"),
        (gradient, "without being squared"),
        (lambda m, x, y: sum(g.abs() for g in each(m, x, y)) / len(x), "MAS"),
        (without_clearing, "Clear the gradient"),
        (lambda m, x, y: gradient(m, x, y, reduction="sum") ** 2 / len(x), "gnb"),
        (of_outputs(lambda logits: logits), "gradient of the logit"),
        (of_outputs(lambda logits: logits.softmax(-1)), "Take its logarithm"),
        (lambda m, x, y: exact(m, x), "over all labels"),
    ],
)
def test_mistakes_in_the_fisher_information(wrong: Callable[..., Any], said: str) -> None:
    verdict = check_fisher(wrong)
    assert not verdict.passed
    assert said in verdict.words


def over_labels(weigh: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Mean over examples of Σ_y weigh(p(y|x), g)."""

    def function(model: Any, x: Any) -> Any:
        total = torch.zeros_like(model.weight)
        for i in range(len(x)):
            p = model(x[i]).softmax(-1).detach()
            for y in range(len(p)):
                total += weigh(p[y], gradient(model, x[i : i + 1], torch.tensor([y])))
        return total / len(x)

    return function


def batched(model: Any, x: Any) -> Any:
    p = model(x).softmax(-1).detach().mean(0)
    return sum(p[y] * gradient(model, x, torch.full((len(x),), y)) ** 2 for y in range(len(p)))


exact = over_labels(lambda p, g: p * g**2)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda m, x: fisher(m, x, m(x).argmax(-1)), "likeliest label"),
        (over_labels(lambda p, g: g**2 / 3), "counts alike"),
        (over_labels(lambda p, g: g**2), "without their probabilities"),
        (lambda m, x: 0 * m.weight, "averaged over the labels"),
        (over_labels(lambda p, g: (p * g) ** 2), "counts twice"),
        (lambda m, x: len(x) * exact(m, x), "added up over the examples"),
        (batched, "examples cancel"),
    ],
)
def test_mistakes_in_the_exact_fisher_information(wrong: Callable[..., Any], said: str) -> None:
    verdict = check_expected_fisher(wrong)
    assert not verdict.passed
    assert said in verdict.words


def groups(old: Any, new: Any, top: float) -> list[str]:
    """By sorting, where the library takes a quantile."""
    count = round(top * len(old))
    for_old, for_new = (set(values.argsort(descending=True)[:count].tolist()) for values in (old, new))
    both = {(True, False): "old-critical", (False, True): "new-critical", (True, True): "shared"}
    return [both.get((i in for_old, i in for_new), "slack") for i in range(len(old))]


def cut(old: Any, new: Any, at_old: Any, at_new: Any) -> list[str]:
    names = {(1, 0): "old-critical", (0, 1): "new-critical", (1, 1): "shared", (0, 0): "slack"}
    return [names[int(a > at_old), int(b > at_new)] for a, b in zip(old, new, strict=True)]


def renamed(name: str) -> Callable[..., Any]:
    return lambda *given: [name if group == "shared" else group for group in groups(*given)]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda old, new, top: groups(new, old, top), "swapped"),
        (lambda old, new, top: cut(old, new, old.quantile(top), new.quantile(top)), "at the `top` quantile"),
        (
            lambda old, new, top: cut(old, new, *[torch.cat([old, new]).quantile(1 - top)] * 2),
            "One cut serves both",
        ),
        (lambda old, new, top: cut(old, new, *[old.quantile(1 - top)] * 2), "The old task's cut"),
        (lambda old, new, top: cut(old, new, (1 - top) * old.max(), (1 - top) * new.max()), "share of the largest"),
        (lambda old, new, top: cut(old, new, old.mean(), new.mean()), "The cut is the mean"),
        (renamed("old-critical"), "called old-critical"),
        (renamed("new-critical"), "called new-critical"),
    ],
)
def test_mistakes_in_the_groups(wrong: Callable[..., Any], said: str) -> None:
    verdict = check_quadrants(wrong)
    assert not verdict.passed
    assert said in verdict.words


def test_right_solutions_pass() -> None:
    for check, function in zip(CHECKS, (fisher, exact, groups), strict=True):
        verdict = check(function)
        assert verdict.passed, verdict.words
        assert len(verdict.words) > 15


def test_the_plain_errors_are_told_in_words() -> None:
    for check in CHECKS:
        assert "returns nothing" in check(lambda *given: None).words
        assert "raised ZeroDivisionError" in check(lambda *given: 1 / 0).words
        assert "Expected a function" in check(7).words  # type: ignore[arg-type]
        assert "expected" in check(lambda *given: 12.5).words
