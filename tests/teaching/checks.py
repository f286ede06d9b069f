"""What every check of an exercise must do, whatever it checks."""

from collections.abc import Callable
from typing import Any

Function = Callable[..., Any]


def passes(check: Function, solution: Function) -> None:
    verdict = check(solution)
    assert verdict.passed, verdict.words
    assert len(verdict.words) > 15


def tells_plain_errors(check: Function) -> None:
    assert "returns nothing" in check(lambda *given: None).words
    assert "returns nothing" in check(lambda *given: ...).words
    assert "raised ZeroDivisionError" in check(lambda *given: 1 / 0).words
    assert "Expected a function" in check(0.5).words
    assert "expected" in check(lambda *given: "a word").words
    assert not check(lambda *given: 12.5).passed
