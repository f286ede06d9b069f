"""The checks of lesson 03 accept right solutions and name the usual mistakes, written as a learner would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from forgetlab.teaching.exercises.transfer import GOLDEN, check_bwt, check_forgetting_measure, check_perplexity

CHECKS = (check_bwt, check_forgetting_measure, check_perplexity)


def bwt(R: Any) -> Any:
    T = len(R)
    return sum(R[T - 1][i] - R[i][i] for i in range(T - 1)) / (T - 1)


def forgetting(R: Any) -> Any:
    T = len(R)
    return sum(max(R[row][j] for row in range(T - 1)) - R[T - 1][j] for j in range(T - 1)) / (T - 1)


def perplexity(nll: Any, tokens: Any) -> Any:
    return np.exp(np.sum(nll) / np.sum(tokens))


def test_right_solutions_pass() -> None:
    assert bwt(GOLDEN) == pytest.approx(-0.125)  # by hand: ((0.7 − 0.9) + (0.75 − 0.8)) / 2
    assert forgetting(GOLDEN) == pytest.approx(0.15)  # ((0.95 − 0.7) + (0.8 − 0.75)) / 2
    solutions: tuple[Callable[..., Any], ...] = (bwt, forgetting, perplexity)
    for check, function in zip(CHECKS, solutions, strict=True):
        verdict = check(function)
        assert verdict.passed, verdict.words
        assert len(verdict.words) > 15


def test_losses_cut_off_at_0_are_told() -> None:
    def cut_off(R: Any) -> Any:
        return np.maximum(0, R[:-1].max(axis=0) - R[-1])[:-1].mean()

    assert "cut off" in check_forgetting_measure(cut_off).words


def test_the_plain_errors_are_told_in_words() -> None:
    for check in CHECKS:
        assert "returns nothing" in check(lambda *given: None).words
        assert "raised ZeroDivisionError" in check(lambda *given: 1 / 0).words
        assert "Expected a function" in check(0.125).words  # type: ignore[arg-type]
        assert not check(lambda *given: "a word").passed
        assert "expected" in check(lambda *given: 12.5).words


def row_after(R: Any) -> Any:
    T = len(R)
    starts = [R[min(i + 1, T - 1)][i] for i in range(T - 1)]
    return sum(R[T - 1][i] - starts[i] for i in range(T - 1)) / (T - 1)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda R: bwt(R) * (len(R) - 1) / len(R), "over T tasks"),
        (lambda R: np.mean(np.array(R)[-1] - np.diag(R)), "over T tasks"),
        (lambda R: -bwt(R), "sign is turned"),
        (lambda R: bwt(R) * (len(R) - 1), "divided by the number of earlier tasks"),
        (row_after, "one task later"),
        (lambda R: np.mean([R[-1][i] - R[0][i] for i in range(len(R) - 1)]), "first row"),
        (lambda R: bwt(np.transpose(R)), "Rows and columns"),
        (lambda R: -forgetting(R), "best score so far"),
        (lambda R: np.mean(R[-1, :-1] - R[-2, :-1]), "row before the last"),
    ],
)
def test_mistakes_in_backward_transfer(wrong: Callable[..., Any], said: str) -> None:
    verdict = check_bwt(wrong)
    assert not verdict.passed
    assert said in verdict.words


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda R: np.mean([max(R[:, j]) - R[-1, j] for j in range(len(R) - 1)]), "includes the last row"),
        (lambda R: -bwt(R), "starts from the diagonal"),
        (lambda R: -forgetting(R), "sign is turned"),
        (lambda R: np.mean([max(R[:-1, j]) - R[-1, j] for j in range(len(R))]), "leave its column"),
        (lambda R: forgetting(R) * (len(R) - 1) / len(R), "divided by T"),
        (lambda R: forgetting(R) * (len(R) - 1), "added up"),
        (lambda R: np.mean([max(R[i]) - R[-1, i] for i in range(len(R) - 1)]), "along the rows"),
        (lambda R: np.mean([max(R[j:-1, j]) - R[-1, j] for j in range(len(R) - 1)]), "begins at the task's own row"),
        (lambda R: max(max(R[:-1, j]) - R[-1, j] for j in range(len(R) - 1)), "largest loss"),
    ],
)
def test_mistakes_in_the_forgetting_measure(wrong: Callable[..., Any], said: str) -> None:
    verdict = check_forgetting_measure(wrong)
    assert not verdict.passed
    assert said in verdict.words


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda nll, tokens: np.mean([np.exp(a / b) for a, b in zip(nll, tokens, strict=True)]), "mean of per-batch"),
        (lambda nll, tokens: np.exp(np.mean(nll / tokens)), "counts alike"),
        (lambda nll, tokens: np.sum(nll) / np.sum(tokens), "cross-entropy"),
        (lambda nll, tokens: 2 ** (np.sum(nll) / np.sum(tokens)), "not 2"),
        (lambda nll, tokens: np.exp(np.mean(nll)), "number of batches"),
        (lambda nll, tokens: np.exp(-np.sum(nll) / np.sum(tokens)), "sign is lost"),
    ],
)
def test_mistakes_in_perplexity(wrong: Callable[..., Any], said: str) -> None:
    verdict = check_perplexity(wrong)
    assert not verdict.passed
    assert said in verdict.words
