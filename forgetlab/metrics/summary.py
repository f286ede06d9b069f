"""What the records of runs say, method by method: scores before and after, how sure they are, what is kept and learned.

Runs and tasks are plain values, as in results.json: see `schema`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from forgetlab.metrics.retention import best, higher_is_better, kept, learned, on, scale, share
from forgetlab.metrics.schema import PlainRecord, RunResult, SummaryRow, TaskFacts, TaskSummary
from forgetlab.metrics.tally import OF_SUMS, score_of_sums
from forgetlab.metrics.uncertainty import NORMAL, difference, mcnemar, resampled, standard_error, wilson

Array = NDArray[np.float64]

DRAWS = 500  # test sets that are drawn anew


def score(record: PlainRecord, task: TaskFacts) -> float:
    """A task's main score in a record; nan where it was no finite number, and where the run diverged.

    Weights that are nan still give an accuracy, that of chance, which means nothing.
    """
    value = None if record["status"] == "diverged" else record["scores"][task["name"]][task["metric"]]
    return math.nan if value is None else value


def kept_of(task: TaskFacts, records: Sequence[PlainRecord]) -> float | None:
    """`metrics.retention.kept` of a watched task along a run; None where it has nothing to lose."""
    return kept(
        score(records[0], task),
        score(records[-1], task),
        task.get("guess"),
        scale=scale(task),
        higher_is_better=higher_is_better(task),
        error=error_before(task, records[0]),
    )


def learned_of(task: TaskFacts, records: Sequence[PlainRecord]) -> float:
    """`metrics.retention.learned` of the new task along a run."""
    return learned(score(records[0], task), score(records[-1], task), best(task), scale=scale(task))


def nothing_to_lose(runs: Sequence[RunResult], tasks: Sequence[TaskFacts]) -> list[str]:
    """The watched tasks that start within their error of a guesser: they count nowhere."""
    return [task["name"] for task in tasks[1:] if runs and kept_of(task, runs[0]["records"]) is None]


def resampled_scores(runs: Sequence[RunResult], tasks: Sequence[TaskFacts]) -> dict[str, Array]:
    """{task: (runs, 2, draws) scores before and after, on test sets drawn anew}; nan for a run that diverged.

    The same draws for all runs and for before and after, so that differences stay in pairs. Tasks without tallies are
    left out.
    """
    found = {}
    for number, task in enumerate(tasks):
        pairs = [[_items(run["records"][i], task) for i in (0, -1)] for run in runs]
        have = [i for i, pair in enumerate(pairs) if all(part is not None for part in pair)]
        if have and len({part.shape for i in have for part in pairs[i] if part is not None}) == 1:
            sums = resampled(np.array([pairs[i] for i in have]), DRAWS, seed=number)
            scores = np.full((len(runs), 2, DRAWS), np.nan)
            scores[have] = score_of_sums(task["metric"], sums).numpy()
            found[task["name"]] = scores
    return found


def resampled_shares(runs: Sequence[RunResult], tasks: Sequence[TaskFacts], scores: Mapping[str, Array]) -> Array:
    """(runs, 2, draws) the share kept and the share learned of each run, on such test sets.

    A task that cannot be drawn anew adds no doubt: its own share stands in each draw.
    """
    found = np.empty((len(runs), 2, DRAWS))
    new, *watched = tasks
    for i, run in enumerate(runs):
        old = []
        for task in watched:
            if (fixed := kept_of(task, run["records"])) is not None:
                old.append(np.full(DRAWS, fixed))
                if task["name"] in scores and (guess := task.get("guess")) is not None:
                    before, after = scores[task["name"]][i]
                    old[-1] = share(guess, after, before, scale(task))
        found[i, 0] = np.mean(old, axis=0) if old else 1.0
        found[i, 1] = learned_of(new, run["records"])
        if new["name"] in scores:
            before, after = scores[new["name"]][i]
            found[i, 1] = share(before, after, best(new), scale(new))
    return found


def summarise(runs: Sequence[RunResult], tasks: Sequence[TaskFacts]) -> list[SummaryRow]:
    """One row a method: {"method", "seeds", "status", "seconds_per_step", "drift", "tasks": {name: {...}}}.

    For each task: "before" and "after" (means over seeds), "spread" (standard deviation of "after" over seeds; None
    for one), "error" (the standard error of "after" that comes from the choice of its test items; None where it is not
    known), "change" (after − before, or after / before on the scale "ratio"), "told" (whether the change can be told
    from none), and "kept" or, of the new task, "learned": the mean share. Where a run diverged they are None.
    """
    drawn, rows = resampled_scores(runs, tasks), list[SummaryRow]()
    for method in dict.fromkeys(run["recipe"]["methods"] for run in runs):
        places = [i for i, run in enumerate(runs) if run["recipe"]["methods"] == method]
        own = [runs[i] for i in places]
        last = [run["records"][-1] for run in own]
        rows.append(
            {
                "method": method,
                "seeds": len(own),
                "status": sorted({record["status"] for record in last}),
                "seconds_per_step": _mean([record["train_seconds"] / max(1, record["step"]) for record in last]),
                "drift": _mean([record["drift"] for record in last]),
                "tasks": {
                    task["name"]: _row(
                        task, own, drawn[task["name"]][places] if task["name"] in drawn else None, new=task is tasks[0]
                    )
                    for task in tasks
                },
            }
        )
    return rows


def _row(task: TaskFacts, runs: Sequence[RunResult], drawn: Array | None, new: bool) -> TaskSummary:
    """A task's part of a row of `summarise`. drawn: (seeds, 2, draws)."""
    ends = [score(run["records"][-1], task) for run in runs]
    before, after = _mean([score(run["records"][0], task) for run in runs]), _mean(ends)
    which: Literal["learned", "kept"] = "learned" if new else "kept"
    empty = dict.fromkeys(("spread", "error", "change", "told", which))
    row = cast(TaskSummary, {**empty, "before": before, "after": after})
    if after is None or before is None:
        return row
    row["change"] = after / before if scale(task) == "ratio" else after - before
    row["spread"] = statistics.stdev(ends) if len(ends) > 1 else None
    row[which] = _mean([learned_of(task, run["records"]) if new else kept_of(task, run["records"]) for run in runs])
    if drawn is not None and np.isfinite(drawn).all():
        row["error"] = float(drawn[:, 1].mean(axis=0).std())
        if (
            not row["error"]
            and task["metric"] == "accuracy"
            and (items := _items(runs[0]["records"][-1], task)) is not None
        ):
            low, high = wilson(after * len(items), len(items))  # all right, or all wrong: no draw shows the doubt left
            row["error"] = (high - low) / (2 * NORMAL)
    row["told"] = _told(task, runs, drawn)
    return row


def _told(task: TaskFacts, runs: Sequence[RunResult], drawn: Array | None) -> bool | None:
    """Whether the change of a score can be told from none: over seeds and items, or McNemar for one run's answers."""
    moves = [
        on(scale(task), score(r["records"][-1], task)) - on(scale(task), score(r["records"][0], task)) for r in runs
    ]
    if not np.any(moves):
        return None  # nothing has moved
    if drawn is None or not np.isfinite(moves).all() or not np.isfinite(drawn).all():
        return None if len(moves) == 1 or not np.isfinite(moves).all() else difference(moves).word != "cannot be told"
    if len(runs) == 1 and task["metric"] == "accuracy":
        old, new = (_items(runs[0]["records"][i], task) for i in (0, -1))
        if old is not None and new is not None and set(np.unique([old, new])) <= {0.0, 1.0}:
            return mcnemar(old[:, 0], new[:, 0]) < 0.05
    moved = on(scale(task), drawn[:, 1]) - on(scale(task), drawn[:, 0])
    return difference(moves, float(moved.mean(axis=0).std())).word != "cannot be told"


def error_before(task: TaskFacts, first: PlainRecord) -> float:
    """Half the 95 % interval of the score before, on its scale; 0 where there is no tally."""
    if (items := _items(first, task)) is None:
        return 0.0

    def on_scale(sums: Tensor) -> Tensor:
        found = score_of_sums(task["metric"], sums)
        return found.log() if scale(task) == "ratio" else found

    error = standard_error(items, on_scale)
    return NORMAL * error if math.isfinite(error) else 0.0


def _items(record: PlainRecord, task: TaskFacts) -> Array | None:
    """(N, K) tally of a task in a record; None without one, of a diverged run, of a score that is not of its sums."""
    rows = None if record["status"] == "diverged" else (record.get("tallies") or {}).get(task["name"])
    return np.array(rows, dtype=float) if rows and task["metric"] in OF_SUMS else None


def _mean(values: Sequence[float | None]) -> float | None:
    """None where a value is not there."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return statistics.fmean(known) if known and len(known) == len(values) else None
