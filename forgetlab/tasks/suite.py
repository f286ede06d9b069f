"""Several tasks that a model takes before and after."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from forgetlab.models.model import Model
from forgetlab.tasks.base import Scores, Task


@dataclass(frozen=True)
class Suite:
    """A named list of tasks: the benchmark that a model takes before and after."""

    name: str
    tasks: tuple[Task, ...]

    def evaluate(self, model: Model, limit: int | None = None) -> dict[str, Scores]:
        """Every score of every task: {task: {metric: value}}."""
        for task in self.tasks:
            task.prepare(model)
        return {task.name: task.score(model, limit) for task in self.tasks}

    def table(self, before: Mapping[str, Scores], after: Mapping[str, Scores]) -> str:
        """Two evaluations side by side as plain text, with the change, a ratio on the scale "ratio"."""
        lines = [f"{'task':<20}{'metric':<12}{'before':>9}{'after':>9}{'change':>9}"]
        for task in self.tasks:
            old, new = before[task.name][task.metric], after[task.name][task.metric]
            change = f"×{new / old:.2f}" if task.scale == "ratio" else f"{new - old:+.3f}"
            lines.append(f"{task.name:<20}{task.metric:<12}{_number(old):>9}{_number(new):>9}{change:>9}")
        return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) and abs(value) >= 10 else f"{value:.3f}"
