"""The exercises of lesson 13: right solutions pass, and each usual mistake is told by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from forgetlab.teaching.exercises.streams import check_kl, check_online_fisher


def kl(now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Written from the definition, with plain exponentials."""
    p = now.exp() / now.exp().sum(dim=1, keepdim=True)
    q = before.exp() / before.exp().sum(dim=1, keepdim=True)
    return (p * (p / q).log()).sum(dim=1).mean()


def test_the_right_kl_passes() -> None:
    assert check_kl(kl).passed
    assert check_kl(lambda now, before: F.kl_div(before.log_softmax(-1), now.softmax(-1), reduction="batchmean")).passed
    assert check_kl(lambda now, before: kl(now, before).detach()).passed


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda now, before: kl(before, now), "KL(before ‖ now)"),
        (lambda now, before: kl(now, before) * len(now), "added up"),
        (lambda now, before: kl(now, before) / now.shape[1], "tokens *and* vocabulary"),
        (
            lambda now, before: (now.softmax(1) * (now.softmax(1) - before.softmax(1))).sum(1).mean(),
            "logarithm is missing",
        ),
        (lambda now, before: F.cross_entropy(before, now.softmax(1)), "cross-entropy"),
        (lambda now, before: (now.softmax(1) * (now - before)).sum(1).mean(), "raw logits"),
        (
            lambda now, before: (now.softmax(0) * (now.softmax(0) / before.softmax(0)).log()).sum(1).mean(),
            "over the tokens",
        ),
        (lambda now, before: -kl(now, before), "sign"),
        (
            lambda now, before: (now.softmax(1) * (now.log_softmax(1) - before.log_softmax(1))).sum(1),
            "one value for each token",
        ),
    ],
)
def test_a_mistake_in_the_kl_is_named(wrong: Callable[..., Any], told: str) -> None:
    verdict = check_kl(wrong)
    assert not verdict.passed
    assert told in verdict.words


def faded(running: Any, new: Any, gamma: float) -> dict[str, torch.Tensor]:
    result = {}
    for name, value in running.items():
        result[name] = torch.add(new[name], value, alpha=gamma)
    return result


def test_the_right_running_fisher_passes() -> None:
    assert check_online_fisher(faded).passed


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda running, new, gamma: {n: running[n] + gamma * new[n] for n in running}, "wrong term"),
        (lambda running, new, gamma: {n: torch.lerp(new[n], running[n], gamma) for n in running}, "weighted mean"),
        (lambda running, new, gamma: {n: gamma * (running[n] + new[n]) for n in running}, "both terms"),
        (lambda running, new, gamma: {n: running[n] + new[n] for n in running}, "γ is missing"),
        (lambda running, new, gamma: {n: gamma * running[n] for n in running}, "new Fisher is missing"),
        (lambda running, new, gamma: new, "running Fisher is missing"),
        (
            lambda running, new, gamma: {
                n: value / sum(float(v.sum()) for v in faded(running, new, gamma).values())
                for n, value in faded(running, new, gamma).items()
            },
            "divided by its total",
        ),
    ],
)
def test_a_mistake_in_the_running_fisher_is_named(wrong: Callable[..., Any], told: str) -> None:
    verdict = check_online_fisher(wrong)
    assert not verdict.passed
    assert told in verdict.words


@pytest.mark.parametrize("check", [check_kl, check_online_fisher])
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda *given: None, "returns nothing"),
        (lambda *given: ..., "returns nothing"),
        (lambda *given: "small", "expected"),
        (lambda *given: given[9], "IndexError"),
        ("kl", "Expected a function"),
    ],
)
def test_what_is_no_answer_is_said_in_words(check: Callable[[Any], Any], answer: Any, told: str) -> None:
    verdict = check(answer)
    assert not verdict.passed
    assert told in verdict.words
