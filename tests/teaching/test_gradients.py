"""The checks of lesson 05: the right solution passes, and each usual mistake is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from forgetlab.teaching.exercises import Verdict
from forgetlab.teaching.exercises.gradients import check_cosine, check_pcgrad, check_projection

CHECKS = pytest.mark.parametrize("check", [check_cosine, check_projection, check_pcgrad])
Check = Callable[[Any], Verdict]


def flat(gradients: dict[str, Any], names: list[str]) -> Any:
    return torch.cat([gradients[name].flatten() for name in names])


def both(new: dict[str, Any], old: dict[str, Any]) -> tuple[Any, Any]:
    names = sorted(new.keys() & old.keys())
    return flat(new, names), flat(old, names)


def test_the_cosine_of_the_joined_weights_passes() -> None:
    verdict = check_cosine(lambda new, old: torch.cosine_similarity(*both(new, old), dim=0))
    assert verdict
    assert "agrees" in verdict.words


def mean_of_cosines(new: dict[str, Any], old: dict[str, Any]) -> float:
    found = [torch.cosine_similarity(new[n].flatten(), old[n].flatten(), dim=0) for n in new.keys() & old.keys()]
    return float(torch.stack(found).mean())


def with_heads(new: dict[str, Any], old: dict[str, Any]) -> float:
    a, b = both(new, old)
    return float(a @ b / (flat(new, list(new)).norm() * flat(old, list(old)).norm()))


def of_both(formula: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda new, old: formula(*both(new, old))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (mean_of_cosines, "took their mean"),
        (of_both(torch.dot), "dot product"),
        (of_both(lambda a, b: a @ b / ((a @ a) * (b @ b))), "squared norms"),
        (of_both(lambda a, b: a @ b / a.norm()), "norm of the old gradient is missing"),
        (of_both(lambda a, b: a @ b / b.norm()), "norm of the new gradient is missing"),
        (with_heads, "a head that the other task does not have"),
        (of_both(lambda a, b: -torch.cosine_similarity(a, b, dim=0)), "the sign is not"),
    ],
)
def test_each_mistake_of_the_cosine_is_named(wrong: Callable[..., Any], words: str) -> None:
    verdict = check_cosine(wrong)
    assert not verdict
    assert words in verdict.words


def by_lagrange(g: Any, r: Any) -> Any:
    """min ‖z − g‖² with z·r ≥ 0, by its one multiplier."""
    return g + max(0.0, -float(g @ r) / float(r @ r)) * r


def test_the_nearest_gradient_that_does_no_harm_passes() -> None:
    assert check_projection(by_lagrange)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda g, r: g - (g @ r) / (r @ r) * r, "although the two agree"),
        (lambda g, r: g - (g @ r) / (r @ r) * r if (g @ r) > 0 else g, "turned round"),
        (lambda g, r: g + (g @ r) / (r @ r) * r if (g @ r) < 0 else g, "Wrong sign"),
        (lambda g, r: g - torch.dot(g, r) * r if (g @ r) < 0 else g, "squared norm ‖r‖² is missing"),
        (lambda g, r: g - (g @ r) / torch.linalg.norm(r) * r if (g @ r) < 0 else g, "divided by the norm"),
        (lambda g, r: g - (g @ r) / (g @ g) * r if (g @ r) < 0 else g, "divided by ‖g‖²"),
        (lambda g, r: (g @ r) / (r @ r) * r if (g @ r) < 0 else g, "It is what must go"),
        (lambda g, r: g.clone(), "never projects"),
    ],
)
def test_each_mistake_of_the_projection_is_named(wrong: Callable[..., Any], words: str) -> None:
    verdict = check_projection(wrong)
    assert not verdict
    assert words in verdict.words


def off(a: Any, b: Any) -> Any:
    return by_lagrange(a, b)


def one_after_the_other(a: Any, b: Any) -> Any:
    a = off(a, b)
    return a + off(b, a)


def shortened(a: Any, b: Any) -> Any:
    return a + b if a @ b >= 0 else a - (a @ b) * b + b - (a @ b) * a


def added(a: Any, b: Any) -> Any:
    return a + b if a @ b >= 0 else a + (a @ b) / (b @ b) * b + b + (a @ b) / (a @ a) * a


def test_surgery_on_both_passes() -> None:
    assert check_pcgrad(lambda a, b: off(a, b) + off(b, a))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda a, b: a - (a @ b) / (b @ b) * b + b - (a @ b) / (a @ a) * a, "although the two agree"),
        (lambda a, b: a + b, "plain sum"),
        (one_after_the_other, "Only the first gradient was changed"),
        (lambda a, b: off(a, b) + b, "Only the first gradient was changed"),
        (lambda a, b: a + off(b, a), "Only the second gradient was changed"),
        (lambda a, b: torch.stack([off(a, b), off(b, a)]).mean(0), "took the mean"),
        (added, "Wrong sign"),
        (shortened, "squared norm is missing"),
    ],
)
def test_each_mistake_of_the_surgery_is_named(wrong: Callable[..., Any], words: str) -> None:
    verdict = check_pcgrad(wrong)
    assert not verdict
    assert words in verdict.words


@CHECKS
def test_what_is_no_solution_at_all_is_said_in_words(check: Check) -> None:
    assert "Expected a function" in check(3.0).words
    assert "returns nothing yet" in check(lambda a, b: None).words
    assert "returns nothing yet" in check(lambda a, b: ...).words
    assert "ZeroDivisionError" in check(lambda a, b: 1 / 0).words
    assert "expected" in check(lambda a, b: "text").words


def test_the_checks_see_a_conflict_and_an_agreement() -> None:
    seen: list[bool] = []

    def spy(g: Any, r: Any) -> Any:
        seen.append(bool(g @ r < 0))
        return g

    check_projection(spy)
    assert {True, False} == set(seen)
