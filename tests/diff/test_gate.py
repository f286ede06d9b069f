"""What a task may lose: read, refused in words, and turned into an exit status."""

from __future__ import annotations

import math
from typing import cast

import pytest

from forgetlab.diff.gate import STATUS, allowances, budget, parsed, worst
from forgetlab.errors import ForgetlabError
from forgetlab.metrics.schema import TaskFacts

TASKS = cast(
    list[TaskFacts],
    [
        {"name": "entities", "metric": "f1", "scale": "points"},
        {"name": "general", "metric": "perplexity", "scale": "ratio"},
    ],
)


def test_points_stay_and_factors_become_nats() -> None:
    found = allowances(parsed("entities=0.02, general=1.1x,"), TASKS)
    assert found == {"entities": 0.02, "general": pytest.approx(math.log(1.1))}
    assert allowances(parsed("general=1x"), TASKS) == {"general": 0.0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("entities", "names no task or no number"),
        ("=0.1", "names no task"),
        ("entities=abc", "'abc' is no allowance"),
        ("entities=-1", "'-1' is no allowance"),
        ("entities=nan", "is no allowance"),
        ("general=0.9x", "expected 1x or more, such as general=1.1x"),
        ("entities=2", "between 0 and 1"),
        ("entities=0.1,entities=0.2", "'entities' twice"),
    ],
)
def test_what_is_no_allowance(text: str, said: str) -> None:
    with pytest.raises(ForgetlabError, match=said):
        parsed(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("entites=0.1", "unknown task in --allow 'entites'; did you mean 'entities'"),
        ("general=0.1", "its score is perplexity; expected a factor, such as general=1.1x"),
        ("entities=1.1x", "its score is f1; expected points of it, such as entities=0.02"),
    ],
)
def test_an_allowance_that_no_task_has(text: str, said: str) -> None:
    with pytest.raises(ForgetlabError, match=said):
        allowances(parsed(text), TASKS)


def test_a_budget_is_points_or_nats() -> None:
    entities, general = TASKS
    assert (budget("0.02", entities), budget("0.02", general), budget(".5")) == (0.02, 0.02, 0.5)
    assert budget("1.02x", general) == pytest.approx(math.log(1.02))
    assert budget("1x") == 0
    refused = {"1.02x": "the score of entities is f1; expected points", "1.5": "between 0 and 1"}
    for value, said in (refused | {"-0.1": "is no budget", "nan": "is no budget"}).items():
        with pytest.raises(ForgetlabError, match=said):
            budget(value, entities)
    with pytest.raises(ForgetlabError, match="between 1 and 2"):
        budget("0.9x", general)


def test_the_worst_of_several_decides_the_status() -> None:
    assert STATUS[worst(["fine", "not enough evidence", "lost"])] == 3
    assert STATUS[worst(["fine", None, "not enough evidence"])] == 4
    assert STATUS[worst(["fine", "fine"])] == 0
    assert STATUS[worst([None])] == STATUS[worst([])] == 0
