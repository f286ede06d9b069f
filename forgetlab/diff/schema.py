"""What diff.json holds, as types."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from forgetlab.metrics.schema import TaskFacts


class ChangeFound(TypedDict):
    """`metrics.paired.Change`: loss in points or nats. None where nobody can say, or without end."""

    before: float | None
    after: float | None
    loss: float | None
    low: float | None
    high: float | None
    smallest: float | None


class ItemFound(TypedDict):
    """A test item that got worse or better. number: among the scored items, from 1. loss: how much worse, > 0."""

    number: int
    text: str
    gold: str | None
    before: str
    after: str
    loss: float


class PartFound(TypedDict):
    """A part of a perplexity's tokens: a class of words, or a quarter of each text."""

    name: str
    rule: str
    tokens: int
    share: float
    change: ChangeFound


class CalibrationFound(TypedDict):
    """error: the expected calibration error; confidence, right: means over the answers."""

    error: float
    confidence: float
    right: float


class TaskFound(TypedDict):
    """One AFTER on one task. flips: `metrics.guessing.Flips`. lost, gained: items, the worst and the best first."""

    facts: TaskFacts
    role: str
    before: dict[str, float | None]
    after: dict[str, float | None]
    change: ChangeFound
    flips: dict[str, Any] | None
    counted: str
    lost: list[ItemFound]
    gained: list[ItemFound]
    lost_items: int
    gained_items: int
    by_token_class: list[PartFound]
    by_position: list[PartFound]
    calibration: dict[str, CalibrationFound] | None
    allowed: float | None
    verdict: str


class AfterFound(TypedDict):
    """One AFTER. gate: the verdict over its tasks with an allowance, None where there is none."""

    name: str
    lent: list[str]
    tasks: list[TaskFound]
    gate: str | None
    where: NotRequired[Any]
    reach: NotRequired[list[Any]]
    repair: NotRequired[Any]


class Diff(TypedDict):
    """diff.json. gate: the worst verdict of all AFTERs. data: {task: {side: hash}}."""

    forgetlab: str
    before: str
    parameters: int
    afters: list[AfterFound]
    gate: str | None
    notes: list[str]
    versions: dict[str, str]
    data: dict[str, dict[str, str]]
    machine: dict[str, Any]
    seconds: float
    memory: float | None
    command: str
