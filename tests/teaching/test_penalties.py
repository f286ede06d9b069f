"""The checks of lesson 06: the right solution passes, and each usual mistake is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from forgetlab.teaching.exercises.penalties import check_ewc, check_l2sp, check_proximal

Pull = Callable[..., Any]


def is_old(name: str) -> bool:
    return "heads.sentiment" not in name


def l2sp(
    remember: Callable[[Any], Any] = lambda p: p.detach().clone(),
    term: Callable[[Any, Any], Any] = lambda p, a: ((p - a) ** 2).sum(),
    keep: Callable[[str], bool] = is_old,
    factor: float = 0.5,
) -> Pull:
    def start(weights: dict[str, Any], lam: float) -> Callable[[], Any]:
        anchor = {name: remember(p) for name, p in weights.items() if keep(name)}
        return lambda: factor * lam * sum(term(weights[name], value) for name, value in anchor.items())

    return start


def mean_over_weights(weights: dict[str, Any], lam: float) -> Callable[[], Any]:
    anchor = {name: p.detach().clone() for name, p in weights.items() if is_old(name)}
    return lambda: lam / 2 * torch.cat([(weights[n] - a).flatten() for n, a in anchor.items()]).square().mean()


def without_lam(weights: dict[str, Any], lam: float) -> Callable[[], Any]:
    return l2sp()(weights, 1.0)


def decay(keep: Callable[[str], bool] = is_old) -> Pull:
    return lambda weights, lam: lambda: lam / 2 * sum((p**2).sum() for n, p in weights.items() if keep(n))


def copied_at_each_call(weights: dict[str, Any], lam: float) -> Callable[[], Any]:
    return lambda: lam / 2 * sum(((p - p.detach().clone()) ** 2).sum() for n, p in weights.items() if is_old(n))


def test_a_pull_to_a_detached_copy_passes() -> None:
    assert check_l2sp(l2sp())
    assert check_l2sp(l2sp(remember=lambda p: p.clone().detach().clone()))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (l2sp(remember=lambda p: p), "not a copy"),
        (l2sp(remember=lambda p: p.detach()), "not a copy"),
        (l2sp(remember=lambda p: p.clone()), "flows into the anchor"),
        (l2sp(keep=lambda name: True), "new head is pulled"),
        (l2sp(factor=1.0), "½ is missing"),
        (l2sp(term=lambda p, a: (p - a).sum()), "cancel each other"),
        (l2sp(term=lambda p, a: (p - a).abs().sum()), "absolute values"),
        (mean_over_weights, "mean over the weights"),
        (without_lam, "λ is missing"),
        (decay(), "which is weight decay"),
        (decay(lambda name: True), "the new head is pulled along"),
        (copied_at_each_call, "anew at each call"),
        (lambda weights, lam: torch.zeros(()), "a function that gives the penalty later"),
        (lambda weights, lam: lambda: 0.5, "must give a tensor"),
        (lambda weights, lam: lambda: torch.ones(()), "no gradient"),
        (lambda weights, lam: lambda: None, "returns nothing yet"),
    ],
)
def test_each_mistake_of_l2sp_is_named(wrong: Pull, words: str) -> None:
    verdict = check_l2sp(wrong)
    assert not verdict
    assert words in verdict.words


def ewc(
    term: Callable[[Any, Any], Any] = lambda f, d: (f * d**2).sum(), factor: float = 0.5, lam_used: bool = True
) -> Pull:
    def penalty(weights: Any, anchor: Any, fisher: Any, lam: float) -> Any:
        return factor * (lam if lam_used else 1) * sum(term(fisher[n], weights[n] - anchor[n]) for n in weights)

    return penalty


def mean_over_all(weights: Any, anchor: Any, fisher: Any, lam: float) -> Any:
    return lam / 2 * torch.cat([(fisher[n] * (weights[n] - anchor[n]) ** 2).flatten() for n in weights]).mean()


def test_a_pull_weighed_by_the_fisher_passes() -> None:
    assert check_ewc(ewc())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (ewc(lambda f, d: (d**2).sum()), "not used"),
        (ewc(lambda f, d: (f**2 * d**2).sum()), "is squared"),
        (ewc(lambda f, d: ((f * d) ** 2).sum()), "is squared"),
        (mean_over_all, "mean over all weights"),
        (ewc(lambda f, d: (f * d**2).mean()), "within each tensor"),
        (ewc(factor=1.0), "½ is missing"),
        (ewc(lambda f, d: (f * d).sum()), "cancel"),
        (ewc(lambda f, d: (f * d.abs()).sum()), "absolute value"),
        (ewc(lam_used=False), "λ is missing"),
    ],
)
def test_each_mistake_of_ewc_is_named(wrong: Pull, words: str) -> None:
    verdict = check_ewc(wrong)
    assert not verdict
    assert words in verdict.words


def test_the_implicit_step_passes() -> None:
    assert check_proximal(lambda theta, anchor, s: torch.lerp(theta, anchor, s / (1 + s)))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda theta, anchor, s: (1 - s) * theta + s * anchor, "plain gradient step"),
        (lambda theta, anchor, s: torch.lerp(anchor, theta, s / (1 + s)), "exchanged"),
        (lambda theta, anchor, s: s * anchor + theta, "division by 1 + s"),
        (lambda theta, anchor, s: torch.lerp(theta, anchor, 2 * s / (1 + 2 * s)), "counts twice"),
        (lambda theta, anchor, s: 1 * anchor, "jumps onto"),
        (lambda theta, anchor, s: 1 * theta, "does not move"),
        (lambda theta, anchor, s: theta / (1 + s), "weight decay"),
        (lambda theta, anchor, s: anchor + (anchor - theta) / (1 + s), "wrong side"),
    ],
)
def test_each_mistake_of_the_proximal_step_is_named(wrong: Pull, words: str) -> None:
    verdict = check_proximal(wrong)
    assert not verdict
    assert words in verdict.words


@pytest.mark.parametrize("check", [check_l2sp, check_ewc, check_proximal])
def test_what_is_no_solution_at_all_is_said_in_words(check: Callable[[Any], Any]) -> None:
    assert "Expected a function" in check("text").words
    assert "returns nothing yet" in check(lambda *_: None).words
    assert "returns nothing yet" in check(lambda *_: ...).words
    assert "ZeroDivisionError" in check(lambda *_: 1 / 0).words
