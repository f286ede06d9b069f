"""The exercises of lesson 12: right solutions pass, and each usual mistake is told by name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from forgetlab.teaching.exercises.rewards import check_advantage, check_directions, check_proxy, check_step
from tests.teaching.checks import Function, passes, tells_plain_errors


def advantage(r: Any) -> Any:
    mean, sd = r.mean(1, keepdims=True), r.std(1, keepdims=True)
    return np.divide(r - mean, sd, out=np.zeros_like(r), where=sd > 1e-12)


def tried(z: Any, y: int, r: float, b: float, rate: float) -> Any:
    """The step by finite differences of log π."""

    def log_p(logits: Any) -> float:
        return float(logits[y] - np.log(np.exp(logits).sum()))

    ahead = [(log_p(z + 1e-5 * one) - log_p(z - 1e-5 * one)) / 2e-5 for one in np.eye(len(z))]
    return z + rate * (r - b) * np.array(ahead)


def kl(p: Any, q: Any) -> float:
    """Σ p log(p/q) answer by answer."""
    total = 0.0
    for one, other in zip(p, q, strict=True):
        if one > 0:
            total += one * math.log(one / other) if other > 0 else math.inf
    return total


def both(now: Any, before: Any) -> tuple[float, float]:
    return kl(now, before), kl(before, now)


def worth(before: Any, proxy: Any, truth: Any, beta: float) -> float:
    weights = [q * math.exp(r / beta) for q, r in zip(before, proxy, strict=True)]
    return sum(w * t for w, t in zip(weights, truth, strict=True)) / sum(weights)


SOLUTIONS = [(check_advantage, advantage), (check_step, tried), (check_directions, both), (check_proxy, worth)]


@pytest.mark.parametrize(("check", "solution"), SOLUTIONS)
def test_right_solutions_pass_and_plain_errors_are_said(check: Function, solution: Function) -> None:
    passes(check, solution)
    tells_plain_errors(check)


def quiet(function: Function) -> Function:
    def called(*given: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*given)

    return called


@pytest.mark.parametrize(
    ("check", "wrong", "told"),
    [
        (check_advantage, quiet(lambda r: (r - r.mean(1)[:, None]) / r.std(1)[:, None]), "divides 0 by 0"),
        (check_advantage, lambda r: (r - r.mean()) / r.std(), "whole batch"),
        (check_advantage, lambda r: advantage(r.T).T, "same* prompt"),
        (check_advantage, lambda r: r - r.mean(axis=1, keepdims=True), "spread is missing"),
        (check_advantage, lambda r: advantage(r) / np.maximum(r.std(1)[:, None], 1e-9), "variance"),
        (check_advantage, lambda r: -advantage(r), "sign"),
        (check_advantage, lambda r: r / np.array([s or 1 for s in r.std(1)])[:, None], "mean is not taken off"),
        (
            check_advantage,
            lambda r: advantage(r) * math.sqrt((r.shape[1] - 1) / r.shape[1]),
            "over n − 1",
        ),
        (check_step, lambda z, y, r, b, rate: 2 * z - tried(z, y, r, b, rate), "sign"),
        (check_step, lambda z, y, r, b, rate: tried(z, y, r, 0, rate), "baseline is missing"),
        (check_step, lambda z, y, r, b, rate: tried(z, y, r, -b, rate), "added"),
        (
            check_step,
            lambda z, y, r, b, rate: [x + rate * (r - b) * (i == y) for i, x in enumerate(z)],
            "zero-sum",
        ),
        (
            check_step,
            lambda z, y, r, b, rate: z + (tried(z, y, r, b, rate) - z) * np.exp(z[y]) / np.exp(z).sum(),
            "not of its logarithm",
        ),
        (check_step, lambda z, y, r, b, rate: tried(z, y, 1, 0, rate), "reward is not there"),
        (check_step, lambda z, y, r, b, rate: tried(z, y, r, b, 1), "learning rate"),
        (check_step, lambda z, y, r, b, rate: tried(z, y, r, b, rate) - z, "step alone"),
        (check_directions, lambda now, before: (kl(before, now), kl(now, before)), "exchanged"),
        (
            check_directions,
            quiet(lambda p, q: ((p * np.log(p / q)).sum(), (q * np.log(q / p)).sum())),
            "a nan",
        ),
        (
            check_directions,
            lambda p, q: (
                sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a and b),
                sum(b * math.log(b / a) for a, b in zip(p, q, strict=True) if a and b),
            ),
            "both sides",
        ),
        (check_directions, lambda p, q: (kl(p, q) / len(p), kl(q, p) / len(p)), "mean over the answers"),
        (check_directions, lambda p, q: (kl(p, q) / math.log(2), kl(q, p) / math.log(2)), "bits"),
        (check_directions, lambda p, q: (kl(p, q), kl(p, q)), "Both are"),
        (check_directions, lambda p, q: (kl(p, q), -kl(p, q)), "antisymmetric"),
        (check_proxy, lambda q, r, t, beta: worth(q, r, r, beta), "proxy's own"),
        (check_proxy, lambda q, r, t, beta: worth(q, t, t, beta), "Nobody has it"),
        (check_proxy, lambda q, r, t, beta: worth(q, t, r, beta), "exchanged"),
        (check_proxy, lambda q, r, t, beta: worth(q, r, t, 1 / beta), "divided"),
        (check_proxy, lambda q, r, t, beta: worth(np.ones(len(q)), r, t, beta), "old policy is missing"),
        (check_proxy, lambda q, r, t, beta: sum(q * np.exp(r / beta) * t), "add up to 1"),
        (check_proxy, lambda q, r, t, beta: worth(q, r, t, beta) / len(q), "equally likely"),
        (check_proxy, lambda q, r, t, beta: q @ t, "old policy's worth"),
    ],
)
def test_a_mistake_is_named(check: Function, wrong: Function, told: str) -> None:
    verdict = check(wrong)
    assert not verdict.passed
    assert told in verdict.words, verdict.words


def test_falling_silent_is_free_in_one_direction_only() -> None:
    reverse, forward = both(np.array([0.0, 1.0]), np.array([0.5, 0.5]))
    assert reverse == pytest.approx(math.log(2))
    assert forward == math.inf
    assert check_directions(lambda now, before: (kl(now, before), min(kl(before, now), 99.0))).passed is False
