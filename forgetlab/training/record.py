"""What a run yields at each evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from forgetlab.tasks import Scores, Task

Status = Literal["running", "done", "stopped", "diverged"]


@dataclass(frozen=True)
class Record:
    """The state of a run at one evaluation.

    step: finished steps. loss: mean training loss since the last record, nats (None before the first step).
    scores: {task: {metric: value}}, the new task first. penalty: {method: value of its loss
    term}, two of a name as "ewc" and "ewc 2".
    drift: ‖θ − θ₀‖ over all weights that were there before; drift_per_layer likewise; lr: of each group.
    costs: in the first record, "trained_parameters", "added_parameters" and "bytes" that the methods hold beyond
    plain fine-tuning; setup_seconds: what they took before the first step.
    seconds: since the start, scoring included; train_seconds: of the steps alone.
    peak_memory: the most bytes that tensors held on the device since the start (CUDA; None elsewhere).
    notes: what to know of the data (first record) and of what happened since the last record.
    status "diverged", "stopped" and "done" end a run; where a method stopped it, the record that made it do so comes
    first and the last one scores the weights that were kept. source: "live".
    tallies: {task: the statistics of its items, `Tally.plain`}; in the first record and in the one that ends the run.

    >>> first = next(finetune(model, new, watch=[old]))
    >>> first.step, first.drift, list(first.scores)
    (0, 0.0, ['sentiment', 'entities'])
    """

    step: int
    loss: float | None
    scores: dict[str, Scores]
    penalty: dict[str, float]
    drift: float
    drift_per_layer: dict[str, float]
    lr: list[float]
    seconds: float = 0.0
    train_seconds: float = 0.0
    setup_seconds: float = 0.0
    status: Status = "running"
    message: str = ""
    source: str = "live"
    notes: list[str] = field(default_factory=list)
    costs: dict[str, float] = field(default_factory=dict)
    peak_memory: float | None = None
    tallies: dict[str, list[list[float]]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The record as plain values, ready for JSON (nan and inf become None)."""
        return _finite(asdict(self))


def main_score(scores: Mapping[str, Scores], task: Task) -> float:
    """A task's main score among those of a record."""
    return scores[task.name][task.metric]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
