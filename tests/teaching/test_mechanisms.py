"""The checks of lesson 02 accept right solutions and name the usual mistakes, written as a learner would."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from forgetlab.teaching.exercises.mechanisms import check_entropy, check_kl, check_linear_cka, check_relative_drift
from tests.teaching import checks
from tests.teaching.checks import Function


def flat(weights: Any, names: Any) -> Any:
    return torch.cat([weights[name].flatten() for name in names])


def relative_drift(before: Any, after: Any) -> Any:
    return (flat(after, before) - flat(before, before)).norm() / flat(before, before).norm()


def cka(X: Any, Y: Any) -> Any:
    """By the Gram matrices and H = I − 1/n, the other way to write it."""
    H = torch.eye(len(X)) - 1 / len(X)
    K, L = H @ X @ X.T @ H, H @ Y @ Y.T @ H
    return (K * L).sum() / (K.norm() * L.norm())


def kl(before: Any, after: Any) -> Any:
    return F.kl_div(after.log_softmax(-1), before.log_softmax(-1), log_target=True, reduction="batchmean")


def entropy(logits: Any) -> Any:
    return torch.distributions.Categorical(logits=logits).entropy().mean()


SOLUTIONS: list[tuple[Function, Function]] = [
    (check_relative_drift, relative_drift),
    (check_linear_cka, cka),
    (check_kl, kl),
    (check_entropy, entropy),
]


@pytest.mark.parametrize(("check", "solution"), SOLUTIONS)
def test_right_solutions_pass(check: Function, solution: Function) -> None:
    checks.passes(check, solution)


@pytest.mark.parametrize("check", [check for check, _ in SOLUTIONS])
def test_the_plain_errors_are_told_in_words(check: Function) -> None:
    checks.tells_plain_errors(check)


def centred(x: Any, dim: int = 0) -> Any:
    return x - x.mean(dim, keepdim=True)


def bare_cka(X: Any, Y: Any) -> Any:
    return (Y.T @ X).norm() ** 2 / ((X.T @ X).norm() * (Y.T @ Y).norm())


def sum_of_norms(b: Any, a: Any) -> Any:
    return sum((a[n] - b[n]).norm() for n in b) / sum(b[n].norm() for n in b)


def mean_of_ratios(b: Any, a: Any) -> Any:
    return sum((a[n] - b[n]).norm() / b[n].norm() for n in b) / len(b)


def mean_of_rows(logits: Any) -> Any:
    p = logits.softmax(-1).mean(0)
    return -(p * p.log()).sum()


def across(logits: Any) -> Any:
    p = logits.softmax(0)
    return -(p * p.log()).sum(1).mean()


WRONG: list[tuple[Function, Function, str]] = [
    (check_relative_drift, lambda b, a: (flat(a, b) - flat(b, b)).norm(), "the distance itself"),
    (check_relative_drift, sum_of_norms, "Pythagoras"),
    (check_relative_drift, mean_of_ratios, "average the ratios"),
    (check_relative_drift, lambda b, a: len(b) * mean_of_ratios(b, a), "add up the ratios"),
    (check_relative_drift, lambda b, a: relative_drift(b, a) ** 2, "forget the roots"),
    (
        check_relative_drift,
        lambda b, a: abs(flat(a, b).norm() - flat(b, b).norm()) / flat(b, b).norm(),
        "subtract two norms",
    ),
    (check_relative_drift, lambda b, a: (flat(a, b) - flat(b, b)).norm() / flat(a, b).norm(), "after the fine-tune"),
    (check_relative_drift, lambda b, a: sum((a[n] - b[n]).norm() for n in a), "raised KeyError"),
    (check_linear_cka, bare_cka, "not centred"),
    (check_linear_cka, lambda X, Y: bare_cka(centred(X, 1), centred(Y, 1)), "wrong side"),
    (check_linear_cka, lambda X, Y: ((centred(Y).T @ centred(X)) ** 2).sum(), "Nothing is divided"),
    (
        check_linear_cka,
        lambda X, Y: bare_cka(centred(X), centred(Y)) / (centred(Y).T @ centred(X)).norm(),
        "not squared",
    ),
    (
        check_linear_cka,
        lambda X, Y: ((centred(Y).T @ centred(X)) ** 2).sum() / (centred(X) ** 2).sum() / (centred(Y) ** 2).sum(),
        "traces",
    ),
    (check_kl, lambda b, a: kl(a, b), "direction is swapped"),
    (check_kl, lambda b, a: kl(b, a) * len(b), "sum over the positions"),
    (
        check_kl,
        lambda b, a: (b.softmax(-1) * (b.log_softmax(-1) - a.log_softmax(-1))).mean(),
        "over the words too",
    ),
    (check_kl, lambda b, a: kl(b, a) / math.log(2), "bits"),
    (check_kl, lambda b, a: torch.linalg.vecdot(b.softmax(-1), b - a).mean(), "logits themselves"),
    (check_kl, lambda b, a: -kl(b, a), "never negative"),
    (check_kl, lambda b, a: F.cross_entropy(a, b.softmax(-1)), "cross-entropy"),
    (check_entropy, lambda x: entropy(x) / math.log(2), "bits"),
    (check_entropy, lambda x: (x.softmax(-1) * x.log_softmax(-1)).sum(-1).mean(), "sign is missing"),
    (check_entropy, mean_of_rows, "average prediction"),
    (check_entropy, across, "runs over the positions"),
    (check_entropy, lambda x: torch.distributions.Categorical(logits=x).entropy(), "one value for each position"),
    (check_entropy, lambda x: entropy(x) * len(x), "sum over the positions"),
    (check_entropy, lambda x: entropy(x).exp(), "exponential"),
]


@pytest.mark.parametrize(("check", "wrong", "said"), WRONG, ids=[f"{c.__name__}-{said}" for c, _, said in WRONG])
def test_each_mistake_is_named(check: Function, wrong: Function, said: str) -> None:
    verdict = check(wrong)
    assert not verdict.passed
    assert said in verdict.words
