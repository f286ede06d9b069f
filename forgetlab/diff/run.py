"""One diff from start to results: the models, the tasks, each model's answers, and what they say."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

import forgetlab
from forgetlab.diff import gate
from forgetlab.diff.findings import Parts, changed, finding, groups_of, parts, repeated
from forgetlab.diff.heads import ready
from forgetlab.diff.models.pair import BEFORE, Pair
from forgetlab.diff.order import Order, numbered
from forgetlab.diff.outcomes import Outcome, outcome, outcomes
from forgetlab.diff.schema import AfterFound, Diff
from forgetlab.errors import ForgetlabError
from forgetlab.experiments.saving import hashes, versions
from forgetlab.metrics import paired
from forgetlab.metrics.schema import TaskFacts
from forgetlab.models.device import device_name
from forgetlab.models.model import Model
from forgetlab.tasks import Task
from forgetlab.tasks.embedded import default_watch
from forgetlab.tasks.from_data import task_from
from forgetlab.tasks.source_names import is_embedded, is_hub_name, parsed

if TYPE_CHECKING:
    from forgetlab.diff.inside.reach import Standard

HUB_LIMIT = 20_000  # examples that are read of a hub set's side
Say = Callable[[str, float], None]


def execute(order: Order, say: Say = lambda text, share: None) -> Diff:
    """Compare BEFORE with each AFTER; returns the content of diff.json. say: hears what is done, and how far it is.

    Raises ForgetlabError for what cannot be compared.
    """
    start = time.perf_counter()
    pair = Pair(order.before, numbered(order.afters), device=order.device, dtype=cast(Any, order.dtype))
    if order.repair:
        from forgetlab.diff.repair.saved import check_repair_folder

        check_repair_folder(pair, order.repair)
    tasks, new, notes = _tasks(order, pair.model)
    say("finding a head for every task", 0.0)
    notes += ready(pair, tasks, new)
    groups = {task.name: groups_of(task, pair.model, order.limit) for task in tasks}
    for task in tasks:
        notes += task.remarks(pair.model, "test", limit=order.limit) + repeated(task, groups[task.name])
    allowed = gate.allowances(dict(order.allow), [_facts(task) for task in tasks])
    within = gate.budget(order.within, _facts(new) if new else None)
    count = len(pair.names) * len(tasks)
    done = iter(range(count))
    found = outcomes(pair, tasks, order.limit, lambda text: say(text, 0.1 + 0.8 * next(done) / count))
    asked = _Asked(tasks, new, order.limit, allowed, groups, _parts(tasks, pair.model, order.limit, found[BEFORE]))
    afters = [_after(pair, name, asked, found[BEFORE], found[name]) for name in pair.names[1:]]
    verdict = gate.worst(after["gate"] for after in afters)
    if order.where:
        standards: dict[str, Standard] = {}
        for after, name in zip(afters, pair.names[1:], strict=True):
            say(f"{after['name']}: where it changed", 0.9)
            _opened(after, pair, name, [task for task in tasks if task is not new], order.limit, standards)
    if order.repair:
        say(f"{afters[0]['name']}: looking for a repair", 0.95)
        afters += _repaired(order.repair, within, pair, afters[0], asked, found[BEFORE])
    return {
        "forgetlab": forgetlab.__version__,
        "before": pair.given(BEFORE),
        "parameters": sum(p.numel() for p in cast(Any, pair.model.body).parameters()),
        "afters": afters,
        "gate": verdict,
        "notes": list(dict.fromkeys([*pair.notes, *notes])),
        "versions": versions("torch", "transformers", "tokenizers", "safetensors", "numpy"),
        "data": {task.name: hashes(task) for task in tasks},
        "machine": {"device": device_name(pair.model), "threads": torch.get_num_threads(), "dtype": order.dtype},
        "seconds": time.perf_counter() - start,
        "memory": peak_memory(),
        "command": order.command,
    }


def _tasks(order: Order, model: Model) -> tuple[list[Task], Task | None, list[str]]:
    """The tasks, the new one first, and what is worth saying of their data."""
    tasks, notes = [], []
    for source in [*filter(None, [order.new]), *(order.watch or default_watch(model))]:
        name, given = parsed(source), dict[str, Any]()
        if is_hub_name(name.name) and "limit" not in name.options:
            given["limit"] = HUB_LIMIT
        task = task_from(source, model, **given)
        tasks.append(task)
        notes += [f"{task.name}: {note}" for side in (task.train, task.test) if side for note in side.notes]
        if not is_embedded(name.name) and "test" not in name.options and task.has_loss and task.size():
            notes.append(
                f"{task.name}: scored is the part of it that `compare` never trains on, {len(task.test)} of "
                f"{len(task.test) + task.size()}; {name.name}:test={name.name} scores all of it"
            )
    if len({task.name for task in tasks}) < len(tasks):
        names = ", ".join(task.name for task in tasks)
        raise ForgetlabError(f"two tasks have the same name: {names}; give one another: FILE:name=OTHER")
    return tasks, tasks[0] if order.new else None, notes


@dataclass(frozen=True)
class _Asked:
    """What every model of the pair is asked: the new task among the others, and of each its groups and parts."""

    tasks: Sequence[Task]
    new: Task | None
    limit: int | None
    allowed: Mapping[str, float]
    groups: Mapping[str, Tensor | None]
    parts: Mapping[str, Parts]


def _parts(tasks: Sequence[Task], model: Model, limit: int | None, before: Mapping[str, Outcome]) -> dict[str, Parts]:
    """Of each task with a perplexity the class and the place of every scored token."""
    tokens = {task: before[task.name].tokens for task in tasks}
    return {task.name: parts(task, model, limit, own) for task, own in tokens.items() if own}


def _after(
    pair: Pair, name: str, asked: _Asked, before: Mapping[str, Outcome], after: Mapping[str, Outcome]
) -> AfterFound:
    told, gated = [], []
    for task in asked.tasks:
        sides = before[task.name], after[task.name]
        change, most = changed(task, *sides, asked.groups[task.name]), asked.allowed.get(task.name)
        if most is not None:
            gated.append((change, most))
        told.append(
            finding(
                task,
                *sides,
                change,
                limit=asked.limit,
                within=asked.parts.get(task.name),
                allowed=most,
                role="new" if task is asked.new else "watched",
            )
        )
    verdict = None
    if gated:
        known = [(change, most) for change, most in gated if change is not None]
        verdict = paired.gate(*map(list, zip(*known, strict=True))) if known else "fine"
        if verdict == "fine" and len(known) < len(gated):
            verdict = "not enough evidence"  # of a task without items nobody can say how sure its score is
    return {"name": pair.given(name), "lent": list(pair.lent[name]), "tasks": told, "gate": verdict}


def _opened(
    after: AfterFound,
    pair: Pair,
    name: str,
    watched: Sequence[Task],
    limit: int | None,
    standards: dict[str, Standard],
) -> None:
    """Add where it happened, and for each task that is lost whether it is only out of reach."""
    from forgetlab.diff.inside.reach import reach
    from forgetlab.diff.inside.where import where

    after["where"] = where(pair, name, watched, limit)
    lost = [one["facts"]["name"] for one in after["tasks"] if one["verdict"] == "lost"]
    after["reach"] = [reach(pair, name, task, limit, standards=standards) for task in watched if task.name in lost]


def _facts(task: Task) -> TaskFacts:
    return {"name": task.name, "metric": task.metric, "scale": task.scale}


def _repaired(
    out: Path, within: float, pair: Pair, after: AfterFound, asked: _Asked, before: Mapping[str, Outcome]
) -> list[AfterFound]:
    """Add a repair, and save its model; returns the diff of that, if there is one."""
    from forgetlab.diff.repair.choice import repair
    from forgetlab.diff.repair.saved import save_repaired

    name = pair.names[1]
    old = [task for task in asked.tasks if task is not asked.new]
    after["repair"] = mended = repair(pair, name, old, asked.new, within, limit=asked.limit)
    if mended["chosen"] is None:
        return []
    title = str(save_repaired(pair, mended, out))
    again = {task.name: outcome(task, pair.model, asked.limit) for task in asked.tasks}
    return [{**_after(pair, name, asked, before, again), "name": title}]


def peak_memory() -> float | None:
    """The most bytes that this process has held so far; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)
