"""The right solution passes, and each usual mistake is named as what it is."""

import math

import numpy as np
import pytest

from forgetlab.metrics.retention import pareto
from forgetlab.teaching.exercises.choosing import check_pareto, check_spread


def beaten(p, q):
    return q[0] <= p[0] and q[1] >= p[1] and (q[0] < p[0] or q[1] > p[1])


def solved_front(points):
    return [i for i, p in enumerate(points) if not any(beaten(p, q) for q in points)]


def kept_where(keep):
    return lambda points: [i for i, p in enumerate(points) if keep(p, [q for j, q in enumerate(points) if j != i])]


def test_the_front_is_solved_and_that_of_the_library() -> None:
    assert check_pareto(solved_front)
    random = np.random.default_rng(0)
    points = [tuple(pair) for pair in random.random((40, 2))]
    assert solved_front(points) == sorted(pareto([(-lost, new) for lost, new in points]))


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda points: solved_front([(-lost, new) for lost, new in points]), "to be had"),
        (lambda points: solved_front([(lost, -new) for lost, new in points]), "both axes"),
        (kept_where(lambda p, others: not any(q[0] < p[0] and q[1] > p[1] for q in others)), "tie on one axis"),
        (kept_where(lambda p, others: not any(q[0] <= p[0] and q[1] >= p[1] for q in others)), "twins"),
        (lambda points: [], "with itself"),
        (
            lambda points: sorted(
                {i for i in solved_front(points) if points[i][0] == min(points)[0]}
                | {i for i in solved_front(points) if points[i][1] == max(new for _, new in points)}
            ),
            "two winners",
        ),
        (lambda points: sorted({*range(len(points))} - {*solved_front(points)}), "beaten points"),
        (lambda points: [points[i] for i in solved_front(points)], "numbers"),
    ],
)
def test_mistakes_in_the_front_are_named(wrong, word) -> None:
    verdict = check_pareto(wrong)
    assert not verdict
    assert word in verdict.words


def test_the_spread_is_solved() -> None:
    assert check_spread(lambda scores: (np.mean(scores), np.std(scores, ddof=1)))


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda x: (np.mean(x), np.std(x)), "divided by n"),
        (lambda x: (np.mean(x), np.var(x, ddof=1)), "root is missing."),
        (lambda x: (np.mean(x), np.var(x)), "and n − 1"),
        (lambda x: (np.mean(x), np.std(x, ddof=1) / math.sqrt(len(x))), "standard error"),
        (lambda x: (np.mean(x), np.ptp(x)), "highest less lowest"),
        (lambda x: (np.mean(x), np.ptp(x) / 2), "half the range"),
        (lambda x: (np.mean(x), np.abs(np.array(x) - np.mean(x)).mean()), "without squares"),
        (lambda x: (np.median(x), np.std(x, ddof=1)), "median"),
    ],
)
def test_mistakes_in_the_spread_are_named(wrong, word) -> None:
    verdict = check_spread(wrong)
    assert not verdict
    assert word in verdict.words


@pytest.mark.parametrize("check", [check_pareto, check_spread])
def test_what_is_no_answer_is_said_in_words(check) -> None:
    assert "Expected a function, got float" in check(0.5).words
    assert "returns nothing" in check(lambda _: None).words
    assert "KeyError" in check(lambda points: {}[0]).words
    verdict = check(lambda _: "a")
    assert not verdict
    assert "expected" in verdict.words
