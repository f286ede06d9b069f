"""The checks of lessons 00 and 01 accept right solutions and name the usual mistakes, written as a learner would."""

from __future__ import annotations

import math
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


def kept_share(before: Any, after: Any, guess: Any, nats: Any) -> Any:
    if nats:
        before, after, guess = math.log(before), math.log(after), math.log(guess)
    share = (after - guess) / (before - guess)
    return min(max(share, 0.0), 1.0)


def worst_hit(before: Any, after: Any, guess: Any, nats: Any) -> Any:
    worst, least = "", 2.0
    for name in before:
        kept = kept_share(before[name], after[name], guess[name], nats[name])
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


def uncut(before: Any, after: Any, guess: Any, nats: Any) -> Any:
    if nats:
        return math.log(guess / after) / math.log(guess / before)
    return (after - guess) / (before - guess)


def by_difference(before: Any, after: Any, guess: Any, nats: Any) -> Any:
    return max(before, key=lambda name: abs(before[name] - after[name]))


WRONG: list[tuple[Function, Function, str]] = [
    (check_kept_share, lambda b, a, g, n: min(1, b / a) if n else min(1, a / b), "plain ratio"),
    (check_kept_share, lambda b, a, g, n: kept_share(b, a, g, False), "logarithm of all three"),
    (check_kept_share, lambda b, a, g, n: uncut(b, a, g, n), "at 1 and at 0"),
    (check_kept_share, lambda b, a, g, n: max(0, uncut(b, a, g, n)), "cap the share"),
    (check_kept_share, lambda b, a, g, n: min(1, uncut(b, a, g, n)), "less than nothing"),
    (check_kept_share, lambda b, a, g, n: 1 - kept_share(b, a, g, n), "share that was lost"),
    (check_kept_share, lambda b, a, g, n: math.log(a / b) if n else a - b, "You subtract the scores"),
    (check_worst_hit, by_difference, "largest difference"),
    (check_worst_hit, lambda b, a, g, n: min(b, key=lambda t: b[t] / a[t] if n[t] else a[t] / b[t]), "plain ratios"),
    (check_worst_hit, lambda b, a, g, n: min(b, key=lambda t: a[t] / b[t]), "after / before for every task"),
    (check_worst_hit, lambda b, a, g, n: max(b, key=lambda t: kept_share(b[t], a[t], g[t], n[t])), "kept most"),
    (check_worst_hit, lambda b, a, g, n: sorted(a, key=lambda t: a[t])[0], "lowest score now"),
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
    (check_side_effect, lambda n, o, lr: -lr * (n * o).sum().reshape(1), "it is (1,), expected is ()"),
    (check_side_effect, lambda n, o, lr: str(float(-lr * (n * o).sum())), "gives a text"),
    (check_side_effect, lambda n, o, lr: -lr * (n * o).sum() if n.ndim == 1 else None, "end in a `return`"),
    (check_kept_share, lambda b, a, g, n: a / 0, "Called with (0.8, 0.6, 0.5, False), it raised ZeroDivisionError"),
]


@pytest.mark.parametrize(("check", "wrong", "said"), WRONG, ids=[said for _, _, said in WRONG])
def test_each_mistake_is_named(check: Function, wrong: Function, said: str) -> None:
    verdict = check(wrong)
    assert not verdict.passed
    assert said in verdict.words
