"""Models of a comparison as folders that `forgetlab.load` and transformers open, each with a card.

While methods are compared no weights are kept: the model that is to be saved is trained once more from its recipe,
which gives the same bits on the same machine; the card says whether it did. So a comparison that was killed and
resumed, or computed elsewhere, still gives the winner.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from forgetlab.errors import ForgetlabError
from forgetlab.experiments.folders import CARD, MODEL_DRAFT
from forgetlab.experiments.frontier import dots
from forgetlab.experiments.identity import identity
from forgetlab.experiments.model_card import card
from forgetlab.experiments.recipe import called
from forgetlab.experiments.recipes import Bench, Recipe
from forgetlab.experiments.recommendation import choice
from forgetlab.metrics.schema import BenchFacts, PlainRecord, Results, RunResult
from forgetlab.metrics.summary import nothing_to_lose
from forgetlab.remedies.architectures import LoRA
from forgetlab.remedies.by_name import make_methods
from forgetlab.sources import Examples
from forgetlab.sources.json_files import digest, plain_values, read_json, sync_folder, write_json
from forgetlab.tasks import Task

FIRST, LAST = "config.json", CARD  # without its config a folder is no model: a torn one is refused by whoever loads it
TIMED = ("seconds", "train_seconds", "setup_seconds", "peak_memory")


def fits_a_folder(methods: str) -> bool:
    """Whether what these methods leave is an ordinary model: LoRA is merged, other added parts have no place there."""
    return all(not m.adds_weights or (isinstance(m, LoRA) and m.shared) for m in make_methods(methods, None))


def winner(results: Results, keep: float) -> tuple[RunResult | None, str]:
    """The run that is saved: of what is recommended, the first seed, which was not chosen by its score.

    With it in words why it is another one than is recommended, or none.
    """
    runs, tasks = results["runs"], results["tasks"]
    found = dots(runs, tasks)
    how = {"watched": len(tasks) > 1, "to_lose": len(tasks) - 1 > len(nothing_to_lose(runs, tasks))}
    best, reason = choice(found, keep, **how), ""
    if best and not fits_a_folder(best["spec"]):
        reason = f"{best['spec']} adds parts that a transformers folder cannot hold"
        best = choice([dot for dot in found if fits_a_folder(dot["spec"])], keep, **how)
        reason += f"; {called(best['spec'])} is the best that it can" if best else ""
    if best is None:
        return None, reason or "nothing is recommended"
    own = [run for run in runs if run["recipe"]["methods"] == best["spec"]]
    return next(run for run in own if not diverged(run)), reason


class Models:
    """Where models go: in a draft, written by the process that trained them, then with their card in their place.

    where: the folder of a recipe's model, None for one that is not saved.
    """

    def __init__(self, where: Callable[[Recipe], Path | None], facts: BenchFacts) -> None:
        self._where, self._facts = where, facts

    def draft(self, recipe: Recipe) -> str:
        """Where `workers.compute` is to write a recipe's model; "" where none is saved."""
        folder = self._folder(recipe)
        return "" if folder is None else str(_draft(folder, recipe))

    def has(self, run: RunResult) -> bool:
        """Whether the model of a run lies in its place, or none is wanted."""
        folder = self._folder(recipe_of(run))
        return folder is None or diverged(run) or (read_json(folder / CARD) or {}).get("key") == run["key"]

    def finish(self, run: RunResult, before: RunResult | None = None, advice: Sequence[str] = ()) -> Path | None:
        """The draft of a run's model gets its card and takes its place, which is returned; None where none is saved.

        before: the same run as it was compared, if it is another one. advice: what is recommended.
        Raises ForgetlabError where the disk refuses, and where a worker of another machine has written it elsewhere.
        """
        if "error" in run:
            raise ForgetlabError(run["error"])
        recipe = recipe_of(run)
        folder = self._folder(recipe)
        if folder is None or diverged(run):
            return None
        draft = _draft(folder, recipe)
        try:
            if not (draft / FIRST).is_file():
                raise ForgetlabError(f"the model is not in {draft}: a cluster's workers have to share that folder")
            about = self._about(recipe, run, before, read_json(draft / CARD) or {})
            publish(draft, folder, card(folder.name, run, self._facts, about, advice), about)
        except OSError as error:
            raise ForgetlabError(f"cannot save the model in {folder}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return folder

    def _folder(self, recipe: Recipe) -> Path | None:
        return self._where(recipe) if fits_a_folder(recipe.methods) else None

    def _about(self, recipe: Recipe, run: RunResult, before: RunResult | None, draft: dict[str, Any]) -> dict[str, Any]:
        made = identity(recipe)
        return {
            "forgetlab": made["forgetlab"],
            "made_from": made["files"],
            "shipped data": made["shipped data"],
            "key": run["key"],
            "recipe": run["recipe"],
            "data": draft.get("data", {}),
            "versions": draft.get("versions", {}),
            "machine": self._facts["machine"],
            "scores": {when: run["records"][i]["scores"] for when, i in (("before", 0), ("after", -1))},
            "same_bits": None if before is None else same_bits(run, before),
        }


def write_draft(bench: Bench, draft: Path) -> None:
    """Write the model as the latest run has left it, LoRA merged into it, with hashes of the data it was made from.

    Raises ForgetlabError for a model that such a folder cannot hold, and where the disk refuses.
    """
    from safetensors import SafetensorError

    for method in bench.methods:
        if isinstance(method, LoRA):
            method.merge()
    whole = False
    try:
        shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
        draft.mkdir(parents=True)
        bench.model.save(draft)
        data = {task.name: hashes(task) for task in (bench.new, *bench.watch)}
        write_json(draft / CARD, {"data": data, "versions": versions("transformers", "tokenizers", "numpy")})
        whole = True
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise ForgetlabError(f"cannot save the model in {draft.parent}: {reason}") from error
    finally:
        if not whole:
            shutil.rmtree(draft, ignore_errors=True)


def hashes(task: Task) -> dict[str, str]:
    """Of a task's examples on each side, as they were read, wherever they come from."""
    sides = {"training examples": task.train, "test examples": task.test}
    return {side: digest(vars(rows) | {"notes": ()}) for side, rows in sides.items() if isinstance(rows, Examples)}


def recipe_of(run: RunResult) -> Recipe:
    """The recipe of a run."""
    return Recipe(**run["recipe"])


def same_bits(run: RunResult, other: RunResult) -> bool:
    """Whether two runs have the same numbers in every record, but for what a clock says."""

    def timeless(records: Sequence[PlainRecord]) -> list[dict[str, Any]]:
        return [{name: value for name, value in record.items() if name not in TIMED} for record in records]

    return plain_values({"": timeless(run["records"])}) == plain_values({"": timeless(other["records"])})


def diverged(run: RunResult) -> bool:
    """Whether a run ended with weights that are no model."""
    return run["records"][-1]["status"] == "diverged"


def _draft(folder: Path, recipe: Recipe) -> Path:
    """Beside the folder, or within one that is there; a resumed run meets what a killed one has left."""
    return (folder if folder.exists() else folder.parent) / f"{MODEL_DRAFT}{recipe.key()}"


def versions(*packages: str) -> dict[str, str]:
    """{package: its version}, and that of Python."""
    return {**{name: version(name) for name in packages}, "Python": platform.python_version()}


def publish(draft: Path, folder: Path, page: str, about: dict[str, Any]) -> None:
    """Give a draft its card and move it to its place; a model that was there goes, and nothing else.

    page: README.md. about: what forgetlab.json says; the names of all files are added.
    """
    (draft / "README.md").write_text(page, encoding="utf-8", errors="replace")
    files = about["files"] = sorted({path.name for path in draft.iterdir()} | {CARD})
    write_json(draft / CARD, about)
    for name in files:
        (draft / name).chmod((draft / FIRST).stat().st_mode)  # safetensors writes for its owner alone
        with (draft / name).open("rb") as file:
            os.fsync(file.fileno())
    if not folder.exists():
        draft.rename(folder)
    else:
        earlier = (read_json(folder / CARD) or {}).get("files", [])
        for name in sorted({FIRST, *earlier}, key=lambda name: name != FIRST):
            (folder / name).unlink(missing_ok=True)
        for name in sorted(files, key=lambda name: (name == FIRST, name == LAST)):
            (draft / name).replace(folder / name)
    sync_folder(folder)
