"""A recipe is a value: it says everything that defines a run, so that the same recipe gives the same numbers."""

from __future__ import annotations

import hashlib
import inspect
import json
import platform
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import forgetlab
from forgetlab import catalog, sources
from forgetlab.architectures import Adapters, Frozen, LoRA, ProgressiveColumns
from forgetlab.errors import ForgetlabError, unknown
from forgetlab.interference import AGEM, PCGrad
from forgetlab.interpolation import WeightInterpolation
from forgetlab.methods import Method
from forgetlab.models import Model, load
from forgetlab.regularizers import EWC, L2SP, MAS, SI, KLAnchor, LwF, OnlineEWC
from forgetlab.replay import ExperienceReplay, GenerativeReplay, Multitask
from forgetlab.schedules import Cosine, GradualUnfreezing, LayerwiseRates, SlantedTriangular, Warmup
from forgetlab.stopping import EarlyStopping, SafetyBrake
from forgetlab.tasks import CausalLM, Classification, MaskedLM, Tagging, Task
from forgetlab.training import Precision, Record, finetune

_REMEDIES: tuple[type[Method], ...] = (
    Method,
    L2SP,
    EWC,
    OnlineEWC,
    SI,
    MAS,
    LwF,
    KLAnchor,
    ExperienceReplay,
    GenerativeReplay,
    Multitask,
    Frozen,
    Adapters,
    LoRA,
    ProgressiveColumns,
    LayerwiseRates,
    Warmup,
    Cosine,
    SlantedTriangular,
    GradualUnfreezing,
    EarlyStopping,
    SafetyBrake,
    PCGrad,
    AGEM,
    WeightInterpolation,
)
METHODS: dict[str, type[Method]] = {remedy.name: remedy for remedy in _REMEDIES}
FROM_OLD_TASKS = ("old", "fisher", "importance")  # a first argument of this name takes the watched tasks
_ANY_TEXT = sources.Examples(kind="text", texts=("a",))
_STAND_IN = MaskedLM("stand-in", _ANY_TEXT, _ANY_TEXT)  # for checking the settings before any task is there
MACHINE_TEXT = ("python-docs", "python-source", "licences")
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")


@dataclass(frozen=True)
class Recipe:
    """Everything that defines a run.

    model: a shipped name, a folder or a hub id. new: the task to learn; watch: the tasks to watch (empty: what
    suits the model). Each is an embedded task's name, a file, or one of MACHINE_TEXT.
    methods: remedies, such as "none", "l2sp:lam=0.1" or "replay:ratio=0.3+l2sp". similarity: the dial of the new task.
    learn_steps: watched tasks whose head the model lacks are learned first, for that many steps.
    text, label, kind: columns and kind of the new task's file. limit: test examples per score (None: all).
    """

    model: str = "tiny-bert"
    new: str = ""
    watch: tuple[str, ...] = ()
    methods: str = "none"
    steps: int = 300
    lr: float = 1e-3
    batch_size: int = 32
    seed: int = 0
    every: int = 20
    similarity: float = 1.0
    learn_steps: int = 200
    limit: int | None = 512
    text: str | None = None
    label: str | None = None
    kind: str | None = None
    device: str = "auto"
    precision: Precision = "float32"

    def key(self) -> str:
        """A stable name for the run: a hash of the recipe, of the files it reads and of forgetlab's version."""
        from forgetlab.paths import inputs, sha256

        files = {name: sha256(Path(name)) for name in (self.new, *self.watch) if Path(name).is_file()}
        content = [asdict(self), files, inputs(), forgetlab.__version__]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass
class Bench:
    """A model with its new and watched tasks, ready for any number of runs."""

    model: Model
    new: Task
    watch: list[Task]
    notes: list[str] = field(default_factory=list)

    def run(self, recipe: Recipe) -> Iterator[Record]:
        """One run from the model as it was; yields its records."""
        self.model.restore()
        return finetune(
            self.model,
            self.new,
            methods=make_methods(recipe.methods, self.watch),
            watch=self.watch,
            steps=recipe.steps,
            lr=recipe.lr,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            every=recipe.every,
            precision=recipe.precision,
            limit=recipe.limit,
        )


def prepare(recipe: Recipe) -> Bench:
    """Load a recipe's model and tasks; learn first the watched tasks that the model has no head for."""
    make_methods(recipe.methods, None)  # a wrong name or value is said before anything is loaded
    model = load(recipe.model, device=recipe.device)
    new_name = recipe.new or ("causal-lm:notices" if model.lm_kind == "causal" else "sentiment")
    new, notes = _resolve(new_name, model, "new", recipe)
    watch = []
    for name in recipe.watch or _default_watch(recipe, model):
        one, more = _resolve(name, model, "watch", recipe)
        watch.append(one)
        notes += more
    missing = [t for t in watch if isinstance(t, Classification | Tagging) and t.head not in model.heads]
    for one in (new, *watch):
        one.prepare(model, recipe.seed)
    notes += new.remarks(model, "train", "test") + [note for one in watch for note in one.remarks(model, "test")]
    if missing:
        _learn(model, missing, [t for t in watch if t not in missing and t.has_loss and t.size()], recipe)
        notes.append(f"learned first, for {recipe.learn_steps} steps: {', '.join(t.name for t in missing)}")
    for name in [n for n in model.heads if isinstance(new, Classification | Tagging) and n == new.head]:
        if f"heads.{name}.linear.weight" not in model.known_names:
            del model.heads[name]  # each run makes the new head from its own seed
    model.remember()
    return Bench(model, new, watch, notes)


def run(recipe: Recipe) -> Iterator[Record]:
    """Load, fine-tune and yield the records of one recipe."""
    return prepare(recipe).run(recipe)


def sweep(
    recipes: Sequence[Recipe],
    on_record: Callable[[Recipe, Record], None] | None = None,
    bench: Bench | None = None,
) -> list[dict[str, Any]]:
    """Run many recipes of one model and its tasks; returns [{"recipe": …, "records": […]}] in their order.

    on_record: called at each record, for progress. bench: a prepared one (default: that of the first recipe).
    """
    bench = bench or prepare(recipes[0])
    results = []
    for recipe in recipes:
        records = []
        for record in bench.run(recipe):
            records.append(record.as_dict())
            if on_record:
                on_record(recipe, record)
        results.append({"recipe": asdict(recipe), "key": recipe.key(), "records": records})
    return results


def compare(recipe: Recipe, methods: Sequence[str], seeds: Sequence[int], bench: Bench, **hooks: Any) -> dict[str, Any]:
    """Every method at every seed, and a summary: the content of results.json."""
    recipes = [replace(recipe, methods=m, seed=s) for m in methods for s in seeds]
    runs = sweep(recipes, bench=bench, **hooks)
    tasks = [
        {
            "name": t.name,
            "kind": t.kind,
            "metric": t.metric,
            "higher_is_better": t.higher_is_better,
            "floor": t.floor,
        }
        for t in (bench.new, *bench.watch)
    ]
    return {
        "forgetlab": forgetlab.__version__,
        "machine": {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "device": device_name(bench.model),
        },
        "model": {"name": bench.model.name, "parameters": sum(p.numel() for p in bench.model.parameters())},
        "new": bench.new.name,
        "tasks": tasks,
        "runs": runs,
        "summary": summarise(runs, tasks),
        "notes": bench.notes,
    }


def summarise(runs: Sequence[dict[str, Any]], tasks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a method: {"method", "seeds", "status", "seconds_per_step", "drift", "tasks": {name: {...}}}.

    For each task: "before" and "after" (means over seeds), "spread" (standard deviation of "after"; None for one
    seed) and "change" (after − before, or after / before for a perplexity). Where a run diverged they are None.
    """
    rows = []
    for method in dict.fromkeys(run["recipe"]["methods"] for run in runs):
        own = [run["records"] for run in runs if run["recipe"]["methods"] == method]
        last = [records[-1] for records in own]
        scores = {}
        for task in tasks:
            before = _mean([records[0]["scores"][task["name"]][task["metric"]] for records in own])
            # weights that are nan still score something: chance, which is not a result
            finals = [None if r["status"] == "diverged" else r["scores"][task["name"]][task["metric"]] for r in last]
            after = _mean(finals)
            change = None
            if before is not None and after is not None:
                change = after / before if task["metric"] == "perplexity" else after - before
            known = [value for value in finals if value is not None]
            spread = statistics.stdev(known) if after is not None and len(known) > 1 else None
            scores[task["name"]] = {"before": before, "after": after, "spread": spread, "change": change}
        rows.append(
            {
                "method": method,
                "seeds": len(own),
                "status": sorted({record["status"] for record in last}),
                "seconds_per_step": _mean([record["train_seconds"] / max(1, record["step"]) for record in last]),
                "drift": _mean([record["drift"] for record in last]),
                "tasks": scores,
            }
        )
    return rows


def make_methods(spec: str, old: Sequence[Task] | None) -> list[Method]:
    """Methods from their text: "l2sp:lam=0.1,beta=0.01+replay:ratio=0.3".

    old: the tasks that a remedy may remember or measure; None only checks the names and values.
    """
    made = []
    for part in re.split(r"\+(?=\s*[A-Za-z])", spec):  # not at the plus of 1e+03
        name, _, given = part.strip().partition(":")
        if name not in METHODS:
            raise unknown("method", name, METHODS)
        takes = settings(name)
        options = dict(_setting(name, text, takes) for text in given.split(",") if text)
        for key in inspect.signature(METHODS[name]).parameters:
            if key in FROM_OLD_TASKS:
                options[key] = [_STAND_IN] if old is None else old
        made.append(METHODS[name](**options))
    return made


def settings(method: str) -> dict[str, Any]:
    """What can be set of a method in its text form: {name: default}."""
    parameters = inspect.signature(METHODS[method]).parameters
    hidden = (*FROM_OLD_TASKS, "anchor", "self", "args", "kwargs")
    return {key: parameter.default for key, parameter in parameters.items() if key not in hidden}


def device_name(model: Model) -> str:
    """The card's name on CUDA, else the kind of device and processor."""
    if model.device.type == "cuda":
        return torch.cuda.get_device_name(model.device)
    return f"{model.device.type} ({platform.machine()})"


def _setting(method: str, text: str, takes: Mapping[str, Any]) -> tuple[str, Any]:
    """NAME=VALUE as a name and a number, or a word where the setting's default is one."""
    key, equals, value = (part.strip() for part in text.partition("="))
    if equals and key not in takes:
        raise unknown(f"setting of {method}", key, takes)
    if equals and value and (isinstance(takes[key], str) or (takes[key] is None and not _is_number(value))):
        return key, value
    if not equals or not _is_number(value):
        raise ForgetlabError(f"{method}: expected NAME=NUMBER, got {text!r}")
    found = float(value)
    return key, int(found) if found.is_integer() and "." not in value and "e" not in value.lower() else found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _default_watch(recipe: Recipe, model: Model) -> list[str]:
    if model.name not in ("tiny-bert", "tiny-gpt"):
        raise ForgetlabError(
            f"say what to watch: --watch FILE or a task's name ({model.name} is not of the embedded world)"
        )
    names = (
        ["masked-lm", "entities", "acceptability"] if model.lm_kind == "masked" else ["causal-lm", "cloze", "writing"]
    )
    return [name for name in names if name != recipe.new]


def _resolve(name: str, model: Model, role: str, recipe: Recipe) -> tuple[Task, list[str]]:
    """A task from an embedded name, a file or this machine's own text; with remarks on the data."""
    if name in MACHINE_TEXT:
        examples = sources.machine_text(name)
    elif name.partition(":")[0] in catalog.DESCRIPTIONS and not Path(name).exists():
        return catalog.task(name, similarity=recipe.similarity if role == "new" else 1.0), []
    elif not Path(name).exists() and not any(mark in name for mark in "./\\"):
        raise unknown("task or file", name, [*catalog.DESCRIPTIONS, *MACHINE_TEXT])
    else:
        columns = {"text": recipe.text, "label": recipe.label, "kind": recipe.kind} if role == "new" else {}
        examples = sources.read(name, **columns)  # type: ignore[arg-type]
        if role == "new" and examples.kind == "text" and Path(name).suffix in TABLES and recipe.kind is None:
            sources.read(name, **{**columns, "kind": "labelled"})  # type: ignore[arg-type]
    notes = [f"{Path(name).name}: {note}" for note in examples.notes]
    train, test = sources.split(examples, test=0.2)
    short = Path(name).stem if Path(name).exists() else name
    short = short.replace(".", "-")
    if examples.kind == "tags":
        return Tagging(short, train, test), notes
    if examples.kind in ("labelled", "pairs"):
        return Classification(short, train, test), notes
    if model.lm_kind is None:
        raise ForgetlabError(
            f"{model.name} has no language-model head, so plain text ({Path(name).name}) gives it nothing to learn or "
            "to score: give a file with labels"
        )
    return (MaskedLM if model.lm_kind == "masked" else CausalLM)(short, train, test), notes


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


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.fmean(known) if len(known) == len(values) else None
