"""What results.json holds, as types: the plain values on their way from a run to its report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

PlainRecord = Mapping[str, Any]  # of `Record.as_dict`


class TaskFacts(TypedDict):
    """A task where only its scores are at hand, as `tasks.base.facts_of` says it; its name and metric will do."""

    name: str
    metric: str
    kind: NotRequired[str]
    higher_is_better: NotRequired[bool]
    scale: NotRequired[str]
    floor: NotRequired[float | None]
    guess: NotRequired[float | None]
    scored: NotRequired[int | None]
    of: NotRequired[int | None]


class RunResult(TypedDict):
    """A finished run. recipe: its fields; error: why it could not start (then there are no records)."""

    recipe: dict[str, Any]
    records: list[PlainRecord]
    key: NotRequired[str]
    seconds: NotRequired[float]
    error: NotRequired[str]


class TaskSummary(TypedDict):
    """A task's part of a row of `summarise`: of a watched task with "kept", of the new one with "learned"."""

    before: float | None
    after: float | None
    spread: float | None
    error: float | None
    change: float | None
    told: bool | None
    kept: NotRequired[float | None]
    learned: NotRequired[float | None]


class SummaryRow(TypedDict):
    """One method, over its seeds."""

    method: str
    seeds: int
    status: list[str]
    seconds_per_step: float | None
    drift: float | None
    tasks: dict[str, TaskSummary]


class Verdict(TypedDict):
    """A remedy against none; of each share [mean difference, low, high]."""

    methods: str
    verdict: str
    balance: list[float | None]
    kept: list[float | None]
    new: list[float | None]


class BenchFacts(TypedDict):
    """Everything but the runs. seconds: what a plain run takes."""

    forgetlab: str
    machine: dict[str, Any]
    model: dict[str, Any]
    new: str
    tasks: list[TaskFacts]
    notes: list[str]
    seconds: NotRequired[float]


class Results(BenchFacts):
    """results.json. search: the strengths that were tried and not taken, left_out: what there was no time for."""

    runs: list[RunResult]
    summary: list[SummaryRow]
    search: NotRequired[list[dict[str, Any]]]
    left_out: NotRequired[list[str]]
    keep: NotRequired[float]
    recommendation: NotRequired[list[str]]
    verdicts: NotRequired[list[Verdict]]
    command: NotRequired[str]
