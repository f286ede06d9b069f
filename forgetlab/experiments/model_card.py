"""The card of a model that a comparison has saved: how it was made and from what, what it learned and what it lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from forgetlab.experiments.recipe import Recipe, called
from forgetlab.metrics.retention import scale
from forgetlab.metrics.schema import BenchFacts, RunResult, TaskFacts, TaskSummary
from forgetlab.metrics.summary import summarise
from forgetlab.plots.style import number
from forgetlab.sources.json_files import digest

BITS = {
    True: "It was trained once more for this folder, and is bit for bit the run that was compared.",
    False: "It was trained once more for this folder, and its numbers differ from those of the run that was compared, "
    "as they may on a GPU or with another number of threads. The scores here are its own.",
    None: "It was written as its run ended.",
}


def card(title: str, run: RunResult, facts: BenchFacts, about: Mapping[str, Any], told: Sequence[str] = ()) -> str:
    """The Markdown of README.md. about: what stands in forgetlab.json; told: the advice, in sentences."""
    recipe, model, new, seed = Recipe(**run["recipe"]), facts["model"], facts["new"], run["recipe"]["seed"]
    advice = ["## What the comparison said", "", *(f"- {line}" for line in told), ""] if told else []
    lines = [
        "---",
        "library_name: transformers",
        "tags:",
        "- forgetlab",
        "---",
        "",
        f"# {in_a_line(title)}",
        "",
        f"{in_a_line(model['name'])} ({model['parameters']:,} weights), fine-tuned on {in_a_line(new)} with "
        f"{called(recipe.methods)}, seed {seed}. {BITS[about['same_bits']]}",
        "",
        "## Scores before and after",
        "",
        "| task | | metric | before | after | |",
        "|---|---|---|---|---|---|",
        *_scores(run, facts["tasks"]),
        "",
        "±: standard error that comes from the choice of the test items. This is one run, of one seed: what other "
        "seeds give is not in it. Kept and learned are shares above a guesser; perplexities are compared in nats.",
        "",
        *advice,
        "## To load it",
        "",
        "```python",
        "from forgetlab import load",
        "",
        'model = load("PATH OF THIS FOLDER")  # transformers opens it too, without the heads of labelled tasks',
        "```",
        "",
        "## Recipe",
        "",
        "```python",
        *_recipe(recipe),
        "```",
        "",
        "`forgetlab.experiments.run(recipe)` trains it anew.",
        "",
        "## Data and versions",
        "",
        "| | SHA-256 |",
        "|---|---|",
        *(f"| {_cell(name)} | `{sha}` |" for name, sha in _hashes(about).items()),
        "",
        ", ".join(f"{name} {value}" for name, value in _versions(about).items()) + ".",
    ]
    return "\n".join(lines) + "\n"


def _scores(run: RunResult, tasks: Sequence[TaskFacts]) -> list[str]:
    (after,) = summarise([run], tasks)
    (before,) = summarise([{**run, "records": [run["records"][0]] * 2}], tasks)
    rows = []
    for i, task in enumerate(tasks):
        old, now = before["tasks"][task["name"]], after["tasks"][task["name"]]
        share = now.get("kept", now.get("learned"))
        word = "learned" if not i else "kept"
        told = "nothing to lose" if share is None else f"{100 * share:.0f} % {word}"
        cells = [
            _cell(task["name"]),
            "new" if not i else "watched",
            task["metric"],
            _score(task, old),
            _score(task, now),
        ]
        rows.append(f"| {' | '.join([*cells, told])} |")
    return rows


def _score(task: TaskFacts, row: TaskSummary) -> str:
    if row["after"] is None:
        return "–"
    error = row["error"]
    form = scale(task) if error is not None and error >= 10 else "points"
    return number(row["after"], scale(task)) + ("" if error is None else f" ±{number(error, form)}")


def _recipe(recipe: Recipe) -> list[str]:
    values = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    return ["recipe = Recipe(", *(f"    {name}={value!r}," for name, value in values.items()), ")"]


def _hashes(about: Mapping[str, Any]) -> dict[str, str]:
    """What the model was made from: files as they lay there, and the examples of each task as they were read."""
    files = {f"file {name}": sha for name, sha in about["made_from"].items()}
    sides = {f"{task}, {side}": sha for task, both in about["data"].items() for side, sha in both.items()}
    return {**files, **sides, "data shipped with forgetlab": digest(about["shipped data"])}


def _versions(about: Mapping[str, Any]) -> dict[str, Any]:
    return {"forgetlab": about["forgetlab"], **about["machine"], **about["versions"]}


def in_a_line(text: str) -> str:
    """A name that a user gave, in a line of its own."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _cell(text: str) -> str:
    return in_a_line(text).replace("|", "\\|")
