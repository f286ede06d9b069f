"""The exercises of lesson 11: right solutions pass, and each usual mistake is told by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from forgetlab.teaching.exercises.own_data import check_disjoint, check_flips, check_perplexity


def key(text: str) -> str:
    return " ".join(text.lower().split())


def leaks(train: Any, test: Any) -> int:
    practised = [key(text) for text in train]
    return len([text for text in test if key(text) in practised])


def corpus(losses: Any, tokens: Any) -> float:
    total = 0.0
    for loss, count in zip(losses, tokens, strict=True):
        total += loss * count
    return math.exp(total / sum(tokens))


def test_the_right_solutions_pass() -> None:
    assert check_disjoint(leaks).passed
    assert check_perplexity(corpus).passed
    assert check_perplexity(lambda losses, tokens: math.exp(np.average(losses, weights=tokens))).passed


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda train, test: len([t for t in test if t in train]), "Only identical strings"),
        (lambda train, test: len([t for t in test if t.lower() in [s.lower() for s in train]]), "runs of spaces"),
        (
            lambda train, test: len([t for t in test if " ".join(t.split()) in [" ".join(s.split()) for s in train]]),
            "upper and lower case",
        ),
        (lambda train, test: len(set(map(key, train)).intersection(map(key, test))), "Each different text"),
        (lambda train, test: len([t for t in train if key(t) in map(key, test)]), "entries of train"),
        (lambda train, test: len([t for t in test if key(t) not in map(key, train)]), "clean"),
        (lambda train, test: leaks(train, test) / len(test), "share"),
    ],
)
def test_a_mistake_in_counting_leaks_is_named(wrong: Callable[..., Any], told: str) -> None:
    verdict = check_disjoint(wrong)
    assert not verdict.passed
    assert told in verdict.words


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda losses, tokens: math.exp(sum(losses) / len(losses)), "equally large"),
        (lambda losses, tokens: sum(map(math.exp, losses)) / len(losses), "Perplexities are averaged. "),
        (
            lambda losses, tokens: sum(math.exp(x) * n for x, n in zip(losses, tokens, strict=True)) / sum(tokens),
            "Perplexities are averaged, weighted",
        ),
        (lambda losses, tokens: 2 ** np.average(losses, weights=tokens), "2 is raised"),
        (lambda losses, tokens: np.average(losses, weights=tokens), "mean loss of a token"),
        (lambda losses, tokens: math.exp(sum(losses) / sum(tokens)), "multiply it by its tokens"),
        (
            lambda losses, tokens: np.exp(np.float64(np.dot(losses, tokens) / len(losses))).item(),
            "number of batches",
        ),
    ],
)
def test_a_mistake_in_the_perplexity_is_named(wrong: Callable[..., Any], told: str) -> None:
    with np.errstate(over="ignore"):
        verdict = check_perplexity(wrong)
    assert not verdict.passed
    assert told in verdict.words


@pytest.mark.parametrize("check", [check_disjoint, check_perplexity])
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda first, second: None, "returns nothing"),
        (lambda first, second: ..., "returns nothing"),
        (lambda first, second: "many", "expected"),
        (lambda first, second: first.no_such_thing, "AttributeError"),
        (3, "Expected a function"),
    ],
)
def test_what_is_no_answer_is_said_in_words(check: Callable[[Any], Any], answer: Any, told: str) -> None:
    verdict = check(answer)
    assert not verdict.passed
    assert told in verdict.words


def count_flips(before: Any, after: Any, gold: Any) -> tuple[int, int]:
    lost = gained = 0
    for i, right in enumerate(gold):
        if before[i] == right and after[i] != right:
            lost += 1
        if before[i] != right and after[i] == right:
            gained += 1
    return lost, gained


def test_the_right_count_of_flips_passes() -> None:
    assert check_flips(count_flips).passed


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (
            lambda before, after, gold: (
                max(0, sum(map(str.__eq__, before, gold)) - sum(map(str.__eq__, after, gold))),
                max(0, sum(map(str.__eq__, after, gold)) - sum(map(str.__eq__, before, gold))),
            ),
            "moved by",
        ),
        (
            lambda before, after, gold: (
                len([1 for a, b, c in zip(before, after, gold, strict=True) if a != b and b != c]),
                len([1 for a, b, c in zip(before, after, gold, strict=True) if a != b and b == c]),
            ),
            "another wrong one",
        ),
        (lambda before, after, gold: count_flips(before, after, gold)[::-1], "other order"),
        (
            lambda before, after, gold: (
                len([1 for a, b in zip(after, gold, strict=True) if a != b]),
                len([1 for a, b in zip(after, gold, strict=True) if a == b]),
            ),
            "cannot be lost",
        ),
        (lambda before, after, gold: [n / len(gold) for n in count_flips(before, after, gold)], "Shares"),
    ],
)
def test_a_mistake_in_counting_flips_is_named(wrong: Callable[..., Any], told: str) -> None:
    verdict = check_flips(wrong)
    assert not verdict.passed
    assert told in verdict.words
