"""Bring your own: any model, any data. What does this fine-tune teach it, and what does it cost?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from html import escape
from pathlib import Path

from forgetlab.experiments.recipes import Bench, Recipe, prepare, summarise
from forgetlab.labs.kit.base import Lab, Settings
from forgetlab.labs.kit.benches import RunState, device, head, score_lines, score_panels, states, told
from forgetlab.labs.kit.curves import Curves
from forgetlab.labs.kit.quests import Quest, achieved
from forgetlab.labs.kit.runner import Driver
from forgetlab.labs.kit.shown import within
from forgetlab.labs.views.ask import card, table
from forgetlab.metrics.retention import scale
from forgetlab.metrics.schema import TaskFacts, TaskSummary
from forgetlab.plots.style import UNITS, number
from forgetlab.remedies.by_name import make_methods
from forgetlab.tasks.from_data import check_source
from forgetlab.tasks.source_names import parted, source_files
from forgetlab.teaching import compat
from forgetlab.teaching.page import Place

REMEDIES = {"plain": "none", "EWC": "ewc:lam=100", "replay": "replay:ratio=0.3", "LoRA": "lora"}


class Own(RunState):
    """A run with its batch size and methods, and remarks on the data."""

    notes: list[str]
    methods: str
    batch_size: int


QUESTS = (
    Quest(
        "Learn 0.85 and keep 90 % of what is watched.",
        "Is there a button for it?",
        lambda runs: len(runs[-1]["tasks"]) > 1 and achieved(runs[-1], 0.85, 0.9),
        ({"methods": "ewc:lam=100"},),
    ),
    Quest(
        "Lose nothing of what is watched (99 %).",
        "Add weights, leave the old ones.",
        lambda runs: len(runs[-1]["tasks"]) > 1 and achieved(runs[-1], 0, 0.99),
        ({"methods": "lora"},),
    ),
)


def show(driver: Driver | None = None) -> Lab[Own]:
    """The lab as a widget: model, new data, what to watch, methods, steps, learning rate, seed, columns of the file."""
    benches = dict[str, Bench]()
    view = lru_cache(maxsize=1)(Curves)  # a figure for as long as the panels are the same

    def work(settings: Settings) -> Iterator[Own]:
        run = recipe(settings)
        loads = str(filed({name: value for name, value in settings.items() if name not in ("methods", "steps")}))
        if loads not in benches:
            benches.clear()  # one model at a time: they may be large
            benches[loads] = prepare(run)
        bench = benches[loads]
        run = replace(run, batch_size=min(run.batch_size, bench.new.size() or 1))
        for state in states(bench, run):
            yield {**state, "notes": bench.notes, "methods": run.methods, "batch_size": run.batch_size}

    def draw(state: Own, old: Sequence[Own], settings: Settings, source: str) -> tuple[str, str]:
        names = tuple(task["name"] for task in state["tasks"])
        same = [run for run in old if tuple(task["name"] for task in run["tasks"]) == names]
        lines = [score_lines(run["tasks"], run["records"], "score") for run in (state, *same)]
        figure = view(tuple(score_panels(state["tasks"]))).draw(lines[0], lines[1:], source)
        page = card("", within(figure, told(state), settings, 0.75) + summary(state, settings))
        return page, f"Fine-tuning {settings['model']} on {names[0]}"

    return Lab(
        "own",
        work,
        draw,
        training={
            "model": compat.text("model", "tiny-bert"),
            "new": compat.text("new data", "sentiment"),
            "watch": compat.text("watch", "masked-lm, entities"),
            "methods": compat.text("methods", "none"),
            "lr": compat.log_slider("learning rate η", 1e-3, 1e-6, 1e-1),
            "steps": compat.slider("steps", 100, 20, 500, 20),
            "seed": compat.slider("seed", 0, 0, 9, 1),
            "text": compat.text("text column", ""),
            "label": compat.text("label column", ""),
        },
        check=check,
        head=head,
        filed=filed,
        presets={label: {"methods": spec} for label, spec in REMEDIES.items()},
        intro="model: tiny-bert, tiny-gpt, a folder or a hub id. new data, watch (several, with commas): a CSV, JSONL "
        "or text file, a task (sentiment, masked-lm, …), or real text of this machine: python-docs, python-source, "
        "licences. Columns: empty to find them; of a watched file: cola.tsv:text=3,label=1. methods: none, "
        "ewc:lam=100, replay:ratio=0.3+l2sp, …",
        driver=driver,
        quests=QUESTS,
    )


def recipe(settings: Settings) -> Recipe:
    """The run that the controls describe."""
    given = {name: value.strip() for name, value in settings.items() if isinstance(value, str)}
    model = given["model"] or "tiny-bert"
    return Recipe(
        model=model,
        new=given["new"],
        watch=tuple(parted(given["watch"])),
        methods=given["methods"] or "none",
        steps=settings["steps"],
        lr=settings["lr"],
        seed=settings["seed"],
        every=max(1, settings["steps"] // 10),
        limit=128,
        text=given["text"] or None,
        label=given["label"] or None,
        device=device(model),
    )


def check(settings: Settings) -> None:
    """Raise ForgetlabError for methods, tasks and files that are not there, before anything is loaded."""
    run = recipe(settings)
    make_methods(run.methods, None)
    for name in filter(None, (run.new, *run.watch)):
        check_source(name)


def filed(settings: Settings) -> Settings:
    """The settings, with size and time of the files behind them: of a file that has changed there is no kept result."""
    run = recipe(settings | {"methods": "", "steps": 1})
    stamps = [
        [path.name, path.stat().st_size, path.stat().st_mtime_ns]
        for path in (*files(run.model), *source_files((run.new, *run.watch)))
    ]
    return {**settings, "files": stamps} if stamps else dict(settings)


def files(name: str) -> list[Path]:
    """The files of a model's folder; none where there is no folder of this name."""
    with suppress(OSError, RuntimeError, ValueError):  # a name too long, a home that is not known, a NUL
        return [file for file in sorted(Path(name).expanduser().iterdir()) if file.is_file()]
    return []


def summary(state: Own, settings: Settings) -> str:
    """What the run took, and remarks on the data; each task before and after as an HTML table, but beside controls."""
    (row,) = summarise([{"recipe": {"methods": state["methods"]}, "records": state["records"]}], state["tasks"])
    scores = [_scores(task, row["tasks"][task["name"]]) for task in state["tasks"]]
    costs, seconds = state["records"][0]["costs"], row["seconds_per_step"] or 0.0
    took = (
        f"{state['methods']}: {1000 * seconds:.0f} ms a step, batches of {state['batch_size']}, "
        f"{costs['trained_parameters']:,.0f} weights trained, {costs['bytes'] / 1e6:.1f} MB held by the methods"
    )
    remarks = "".join(f"<li>{escape(words)}</li>" for words in (took, *state["notes"]))
    beside = settings.get("place", Place()).across  # there they stand above the picture
    return (
        "" if beside else table("Scores", ("before", "after", "change"), scores)
    ) + f'<ul style="margin:0;padding-left:20px;overflow-wrap:anywhere">{remarks}</ul>'


def _scores(task: TaskFacts, score: TaskSummary) -> tuple[str, ...]:
    on, change = scale(task), score["change"]
    sign = "×" if on == "ratio" else "+" if change is not None and change >= 0.005 else ""
    changed = "–" if change is None else sign + number(change, on)
    name = f"{escape(task['name'])}<br>{escape(UNITS.get(task['metric'], task['metric']))}"
    return name, number(score["before"], on), number(score["after"], on), changed
