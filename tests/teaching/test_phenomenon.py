"""The checks of lessons 00 and 01 accept right solutions and name the usual mistakes, written as a learner would."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from forgetlab.teaching.exercises.phenomenon import (
    check_first_loss,
    check_kept_share,
    check_side_effect,
    check_worst_hit,
)
from tests.teaching import checks
from tests.teaching.checks import Function


def kept_share(before: Any, after: Any, higher_is_better: Any) -> Any:
    ratio = after / before if higher_is_better else before / after
    return min(ratio, 1.0)


def worst_hit(before: Any, after: Any, higher_is_better: Any) -> Any:
    worst, least = "", 2.0
    for name in before:
        kept = kept_share(before[name], after[name], higher_is_better[name])
        if kept < least:
            worst, least = name, kept
    return worst


def first_loss(steps: Any, scores: Any, share: Any) -> Any:
    for step, score in zip(steps, scores, strict=True):
        if score < share * scores[0]:
            return step
    return -1


def side_effect(new: Any, old: Any, lr: Any) -> Any:
    return -lr * float((new * old).sum())


SOLUTIONS: list[tuple[Function, Function]] = [
    (check_kept_share, kept_share),
    (check_worst_hit, worst_hit),
    (check_first_loss, first_loss),
    (check_side_effect, side_effect),
]


@pytest.mark.parametrize(("check", "solution"), SOLUTIONS)
def test_right_solutions_pass(check: Function, solution: Function) -> None:
    checks.passes(check, solution)


@pytest.mark.parametrize("check", [check for check, _ in SOLUTIONS])
def test_the_plain_errors_are_told_in_words(check: Function) -> None:
    checks.tells_plain_errors(check)


def test_the_side_effect_is_what_a_small_step_does() -> None:
    """On two quadratic losses, whose values are known."""
    theta, new, old = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 3.0]), torch.tensor([4.0, 1.0])
    lr = 1e-5
    there = theta - lr * (theta - new)
    change = ((there - old).double() ** 2).sum() / 2 - ((theta - old).double() ** 2).sum() / 2
    assert side_effect(theta - new, theta - old, lr) == pytest.approx(float(change), rel=0.05)


def escapes_at_once(steps: Any, scores: Any, share: Any) -> Any:
    for step, score in zip(steps, scores, strict=True):
        return step if score < share * scores[0] else -1


def last_below(steps: Any, scores: Any, share: Any) -> Any:
    found = -1
    for step, score in zip(steps, scores, strict=True):
        if score < share * scores[0]:
            found = step
    return found


def at_or_below(steps: Any, scores: Any, share: Any) -> Any:
    return next((step for step, score in zip(steps, scores, strict=True) if score <= share * scores[0]), -1)


def absolute(steps: Any, scores: Any, share: Any) -> Any:
    return next((step for step, score in zip(steps, scores, strict=True) if score < share), -1)


def by_difference(before: Any, after: Any, better: Any) -> Any:
    return max(before, key=lambda name: abs(before[name] - after[name]))


WRONG: list[tuple[Function, Function, str]] = [
    (check_kept_share, lambda b, a, h: min(1, a / b), "after by before"),
    (check_kept_share, lambda b, a, h: min(1, b / max(a, 1e-12)), "before by after"),
    (check_kept_share, lambda b, a, h: a / b if h else b / a, "cap the share"),
    (check_kept_share, lambda b, a, h: 1 - kept_share(b, a, h), "share that was lost"),
    (check_kept_share, lambda b, a, h: (a - b) if h else (b - a), "You subtract"),
    (check_worst_hit, by_difference, "largest difference"),
    (check_worst_hit, lambda b, a, h: min(b, key=lambda n: a[n] / b[n]), "turn it round"),
    (check_worst_hit, lambda b, a, h: max(b, key=lambda n: kept_share(b[n], a[n], h[n])), "kept most"),
    (check_worst_hit, lambda b, a, h: sorted(a, key=lambda n: a[n])[0], "lowest score now"),
    (check_first_loss, lambda x, y, s: x.index(f) if (f := first_loss(x, y, s)) in x else -1, "place in the list"),
    (check_first_loss, absolute, "`share` itself"),
    (check_first_loss, lambda x, y, s: x[y.index(min(y))], "lowest score"),
    (check_first_loss, last_below, "last step below"),
    (check_first_loss, escapes_at_once, "always says"),
    (check_first_loss, at_or_below, "exactly at the bar"),
    (check_side_effect, lambda n, o, lr: lr * (n * o).sum(), "sign is turned"),
    (check_side_effect, lambda n, o, lr: -lr * n.norm() ** 2, "change of the new loss"),
    (check_side_effect, lambda n, o, lr: -lr * o.norm() ** 2, "trained on the old task"),
    (check_side_effect, lambda n, o, lr: -(n * o).sum(), "learning rate is missing"),
    (check_side_effect, lambda n, o, lr: -lr * n * o, "one number for each weight"),
    (
        check_side_effect,
        lambda n, o, lr: -lr * torch.cosine_similarity(n.flatten(), o.flatten(), dim=0),
        "as in a cosine",
    ),
]


@pytest.mark.parametrize(("check", "wrong", "said"), WRONG, ids=[said for _, _, said in WRONG])
def test_each_mistake_is_named(check: Function, wrong: Function, said: str) -> None:
    verdict = check(wrong)
    assert not verdict.passed
    assert said in verdict.words
