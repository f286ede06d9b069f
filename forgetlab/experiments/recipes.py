"""From recipes to records: a model with its tasks is prepared, and any number of recipes are run on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import forgetlab
from forgetlab.errors import ForgetlabError
from forgetlab.experiments import stacked
from forgetlab.experiments.recipe import Recipe
from forgetlab.metrics.schema import BenchFacts, PlainRecord, Results, RunResult
from forgetlab.metrics.summary import summarise
from forgetlab.models.device import device_name
from forgetlab.models.loading import load
from forgetlab.models.model import Model
from forgetlab.remedies.by_name import make_methods
from forgetlab.remedies.regularizers.quadratic import Quadratic
from forgetlab.remedies.replay import Multitask
from forgetlab.tasks import Classification, OnPolicy, Tagging, Task
from forgetlab.tasks.base import facts_of
from forgetlab.tasks.from_data import task_from
from forgetlab.tasks.source_names import is_hub_name, parsed
from forgetlab.training.loop import finetune
from forgetlab.training.method import Method
from forgetlab.training.options import Options
from forgetlab.training.record import Record
from forgetlab.training.torch_state import is_small

OPTIONS = ("steps", "lr", "batch_size", "seed", "every", "precision", "limit")
AT_ONCE = 32  # runs whose weights are stacked
HUB_LIMIT = 20_000  # examples of a side: more would not be met in a run


@dataclass
class Bench:
    """A model with its new and watched tasks, ready for any number of runs.

    learned: the tasks it learned first. limit: test items per score, as in the recipe that it was made for.
    """

    model: Model
    new: Task
    watch: list[Task]
    notes: list[str] = field(default_factory=list)
    learned: tuple[str, ...] = ()
    limit: int | None = None
    methods: list[Method] = field(default_factory=list)  # of the latest run

    def run(self, recipe: Recipe) -> Iterator[Record]:
        """One run from the model as it was; yields its records. It begins with the first `next`."""
        self.model.restore()
        self.methods = make_methods(recipe.methods, self.watch)
        yield from finetune(self.model, self.new, methods=self.methods, watch=self.watch, **_options(recipe))


def prepare(recipe: Recipe) -> Bench:
    """Load a recipe's model and tasks; learn first the watched tasks that the model has no head for.

    >>> prepare(Recipe(new="register", watch=("sentiment",), learn_steps=2)).learned  # tiny-bert has no head for it
    ('sentiment',)
    """
    make_methods(recipe.methods, None)  # a wrong name or value is said before anything is loaded
    Options(**_options(recipe))
    recipe.check()
    model = load(recipe.model, device=recipe.device, max_length=recipe.max_length)
    new_name = recipe.new or ("causal-lm:notices" if model.lm_kind == "causal" else "sentiment")
    new, notes = _resolve(new_name, model, "new", recipe)
    watch = []
    for name in recipe.watch or _default_watch(recipe, model):
        one, more = _resolve(name, model, "watch", recipe)
        watch.append(one)
        notes += more
    if len({one.name for one in (new, *watch)}) < 1 + len(watch):
        names = ", ".join(one.name for one in (new, *watch))
        raise ForgetlabError(f"two tasks have the same name: {names}; give one another: FILE:name=OTHER")
    missing = [t for t in watch if isinstance(t, Classification | Tagging) and t.head not in model.heads]
    for one in (new, *watch):
        one.prepare(model, recipe.seed)
    notes += [note for one in (new, *watch) for note in _one_sided(one)]
    notes += new.remarks(model, "train", "test", limit=recipe.limit)
    notes += [note for one in watch for note in one.remarks(model, "test", limit=recipe.limit)]
    if missing:
        _learn(model, missing, [t for t in watch if t not in missing and t.has_loss and t.size()], recipe)
        notes.append(f"learned first, for {recipe.learn_steps} steps: {', '.join(t.name for t in missing)}")
    if isinstance(new, Classification | Tagging) and f"heads.{new.head}.linear.weight" not in model.known_names:
        del model.heads[new.head]  # each run makes the new head from its own seed
    model.remember()
    return Bench(model, new, watch, notes, learned=tuple(t.name for t in missing), limit=recipe.limit)


def run(recipe: Recipe) -> Iterator[Record]:
    """Load, fine-tune and yield the records of one recipe.

    >>> [record.step for record in run(Recipe(new="sentiment", watch=("entities",), steps=4, every=2, limit=8))]
    [0, 2, 4]
    """
    return prepare(recipe).run(recipe)


def sweep(
    recipes: Sequence[Recipe],
    on_record: Callable[[Recipe, Record], None] | None = None,
    bench: Bench | None = None,
    *,
    together: bool | None = None,
) -> list[RunResult]:
    """Run many recipes of one model and its tasks; returns [{"recipe": …, "key": …, "records": […]}] in their order.

    on_record: called at each record, for progress. bench: a prepared one (default: that of the first recipe).
    together: whether recipes that differ only in the rate and in a pull on the weights are trained at once, with the
    same results up to rounding (`stacked`); None: for a small model on a GPU.

    >>> recipes = [Recipe(new="sentiment", watch=("entities",), steps=2, lr=lr, limit=8) for lr in (1e-4, 1e-3)]
    >>> [result["recipe"]["lr"] for result in sweep(recipes)]
    [0.0001, 0.001]
    """
    bench = bench or prepare(recipes[0])
    if together is None:
        together = bench.model.device.type == "cuda" and is_small(bench.model)
    together = together and not isinstance(bench.new, OnPolicy)  # each run has answers of its own
    found: dict[Recipe, RunResult] = {}
    for group in _alike(recipes) if together else []:
        found.update(_at_once(bench, group, on_record))
    return [found.get(recipe) or finished(bench, recipe, on_record) for recipe in recipes]


def _alike(recipes: Sequence[Recipe]) -> list[list[Recipe]]:
    """Groups of two or more recipes that `stacked` can train at once."""
    groups: dict[Recipe, list[Recipe]] = {}
    for recipe in dict.fromkeys(recipes):
        if recipe.precision == "float32" and stacked.stackable(make_methods(recipe.methods, None)):
            groups.setdefault(replace(recipe, methods="", lr=1.0), []).append(recipe)
    return [
        group[i : i + AT_ONCE] for group in groups.values() for i in range(0, len(group), AT_ONCE) if group[i + 1 :]
    ]


def _at_once(
    bench: Bench, group: Sequence[Recipe], on_record: Callable[[Recipe, Record], None] | None
) -> dict[Recipe, RunResult]:
    bench.model.restore()
    pulls = [[m for m in make_methods(r.methods, bench.watch) if isinstance(m, Quadratic)] for r in group]
    variants = [stacked.Variant(r.lr, *pull) for r, pull in zip(group, pulls, strict=True)]
    records: dict[Recipe, list[PlainRecord]] = {recipe: [] for recipe in group}
    shared = {name: value for name, value in _options(group[0]).items() if name not in ("lr", "precision")}
    for row in stacked.finetune_stacked(bench.model, bench.new, variants, watch=bench.watch, **shared):
        for recipe, record in zip(group, row, strict=True):
            if record is not None:
                records[recipe].append(record.as_dict())
                if on_record:
                    on_record(recipe, record)
    return {recipe: _result(recipe, records[recipe]) for recipe in group}


def finished(bench: Bench, recipe: Recipe, on_record: Callable[[Recipe, Record], None] | None = None) -> RunResult:
    """One run to its end, as plain values."""
    records: list[PlainRecord] = []
    for record in bench.run(recipe):
        records.append(record.as_dict())
        if on_record:
            on_record(recipe, record)
    return _result(recipe, records)


def _options(recipe: Recipe) -> dict[str, Any]:
    """What `finetune` takes of a recipe."""
    return {name: getattr(recipe, name) for name in OPTIONS}


def _result(recipe: Recipe, records: list[PlainRecord]) -> RunResult:
    return {"recipe": asdict(recipe), "key": recipe.key(), "records": records}


def compare(recipe: Recipe, methods: Sequence[str], seeds: Sequence[int], bench: Bench, **hooks: Any) -> Results:
    """Every method at every seed, and a summary: the content of results.json."""
    return results_of(describe(bench), sweep(recipes_of(recipe, methods, seeds), bench=bench, **hooks))


def recipes_of(recipe: Recipe, methods: Sequence[str], seeds: Sequence[int]) -> list[Recipe]:
    """A recipe with every method at every seed."""
    return [replace(recipe, methods=m, seed=s) for m in methods for s in seeds]


def results_of(facts: BenchFacts, runs: list[RunResult]) -> Results:
    """The content of results.json."""
    return {**facts, "runs": runs, "summary": summarise(runs, facts["tasks"])}


def describe(bench: Bench) -> BenchFacts:
    """What results.json says of everything but the runs: the versions, the machine, the model, its tasks, notes."""
    return {
        "forgetlab": forgetlab.__version__,
        "machine": {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": device_name(bench.model)},
        "model": {"name": bench.model.name, "parameters": bench.model.size},
        "new": bench.new.name,
        "tasks": [facts_of(task, bench.model, bench.limit) for task in (bench.new, *bench.watch)],
        "notes": bench.notes,
    }


def _default_watch(recipe: Recipe, model: Model) -> list[str]:
    if model.name not in ("tiny-bert", "tiny-gpt"):
        raise ForgetlabError(
            f"say what to watch: --watch FILE or a task's name ({model.name} is not of the embedded world)"
        )
    masked = model.lm_kind == "masked"
    names = ("masked-lm", "entities", "acceptability") if masked else ("causal-lm", "cloze", "writing")
    return [name for name in names if name != recipe.new]


def _resolve(name: str, model: Model, role: str, recipe: Recipe) -> tuple[Task, list[str]]:
    """A task from an embedded name, a file, the hub or this machine's own text; with remarks on the data."""
    source = parsed(name)
    given: dict[str, Any] = {}
    if role == "new":
        given = {"text": recipe.text, "label": recipe.label, "kind": recipe.kind, "similarity": recipe.similarity}
    if is_hub_name(source.name) and "limit" not in source.options:
        given["limit"] = HUB_LIMIT
    task = task_from(name, model, **given)
    notes = dict.fromkeys(note for side in (task.train, task.test) if side is not None for note in side.notes)
    return task, [f"{Path(source.name).name}: {note}" for note in notes]


def _one_sided(task: Task) -> list[str]:
    """A note for classes that the split left on one side only: they are never learned, or never asked for."""
    if not isinstance(task, Classification | Tagging) or task.train is None:
        return []
    train, test = (
        {*(side.labels or ()), *(tag for tags in side.tags or () for tag in tags)} for side in (task.train, task.test)
    )
    notes = []
    for only, where in ((test - train, "only on the test side, never learned"), (train - test, "never tested")):
        if only:
            names = ", ".join(sorted(only)[:5]) + (", …" if len(only) > 5 else "")
            notes.append(f"{task.name}: {len(only)} of {len(train | test)} classes are {where}: {names}")
    return notes


def _learn(model: Model, missing: Sequence[Task], others: Sequence[Task], recipe: Recipe) -> None:
    first, *rest = [*missing, *others]
    steps = finetune(
        model,
        first,
        methods=[Multitask(rest)] if rest else [],
        steps=recipe.learn_steps,
        lr=recipe.lr,
        batch_size=min(recipe.batch_size, first.size()),
        seed=0,
        every=recipe.learn_steps,
        precision=recipe.precision,
        limit=8,
    )
    for record in steps:
        if record.status == "diverged":
            raise ForgetlabError(f"learning {first.name} first: {record.message}; use a lower --lr")
