"""The scores of a comparison's runs in TensorBoard and Weights & Biases, beside the report: `--report-to`."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from forgetlab.errors import ForgetlabError, one_of

PLACES = ("tensorboard", "wandb")
PROJECT = "forgetlab"  # of W&B, unless WANDB_PROJECT says another

Log = Callable[[int, Mapping[str, float]], None]


def check(places: Sequence[str]) -> None:
    """Raise ForgetlabError for an unknown place, and for one whose package is not installed."""
    for place in places:
        one_of("place to report to", place, PLACES)
        if find_spec(place) is None:
            raise ForgetlabError(f"--report-to {place} needs the package {place}: pip install {place}")
    if "wandb" in places and not _wandb_may_write():
        raise ForgetlabError("--report-to wandb knows no account here: run wandb login, or set WANDB_MODE=offline")


class Trackers:
    """Writes each run's records to the places, once each, whichever way they come: one by one, or all when it is there.

    folder: OUT/runs, where both keep their files. tasks: their facts, the new one first.
    What goes wrong at a place is said once with `say`, and costs what it would have shown, no more.
    """

    def __init__(
        self, places: Sequence[str], folder: Path, tasks: Sequence[Mapping[str, Any]], say: Callable[[str], None]
    ) -> None:
        self.places, self.folder, self.tasks, self.say = list(places), folder, tasks, say
        self._open: dict[str, list[tuple[str, Log, Callable[[], None]]]] = {}  # of each run that goes on
        self._seen: dict[str, int] = {}  # the last step that was written
        self._one = threading.Lock()  # records come in a thread of their own

    def record(self, recipe: Mapping[str, Any], key: str, record: Mapping[str, Any]) -> None:
        """A record, as plain values."""
        with self._one:
            if not self.places or record["step"] < self._seen.get(key, 0):
                return
            if key not in self._open:
                self._open[key] = [made for place in [*self.places] if (made := self._begin(place, recipe, key))]
            self._seen[key] = record["step"] + 1
            for place, log, _ in self._open[key]:
                self._try(place, partial(log, record["step"], self._values(record)))

    def landed(self, run: Mapping[str, Any]) -> None:
        """A run that has ended, or was found: what was not written yet is."""
        for record in run["records"]:
            self.record(run["recipe"], run["key"], record)
        with self._one:
            for place, _, end in self._open.pop(run["key"], []):
                self._try(place, end)

    def close(self) -> None:
        """End what is open, as after an interrupt."""
        with self._one:
            for ends in self._open.values():
                for place, _, end in ends:
                    self._try(place, end)
            self._open.clear()

    def _begin(self, place: str, recipe: Mapping[str, Any], key: str) -> tuple[str, Log, Callable[[], None]] | None:
        begin = {"tensorboard": _tensorboard, "wandb": _wandb}[place]
        made = self._try(place, partial(begin, self.folder, recipe, key))
        return (place, *made) if made else None

    def _try(self, place: str, what: Callable[[], Any]) -> Any:
        if place not in self.places:
            return None
        try:
            return what()
        except Exception as error:  # another program's: a full disk, no network
            self.places.remove(place)
            self.say(f"{place} shows no more of this: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
            return None

    def _values(self, record: Mapping[str, Any]) -> dict[str, float]:
        found = {"drift": record["drift"], "train/loss": record["loss"]}
        for i, task in enumerate(self.tasks):
            for metric, value in record["scores"].get(task["name"], {}).items():
                found[f"{'watch' if i else 'new'}/{task['name']}/{metric}"] = value
        found |= {f"penalty/{name}": value for name, value in record["penalty"].items()}
        return {name: value for name, value in found.items() if value is not None}


def _name(recipe: Mapping[str, Any]) -> str:
    return f"{recipe['methods']}, seed {recipe['seed']}"


def _tensorboard(folder: Path, recipe: Mapping[str, Any], key: str) -> tuple[Log, Callable[[], None]]:
    from torch.utils.tensorboard import SummaryWriter

    own = (
        folder / "tensorboard" / f"{''.join(c if c.isalnum() or c in '.,=+' else '-' for c in _name(recipe))}-{key[:8]}"
    )
    shutil.rmtree(own, ignore_errors=True)  # of a run that was killed on its way: it begins anew
    writer = SummaryWriter(str(own))
    writer.add_text("recipe", "\n".join(f"    {name} = {value!r}" for name, value in recipe.items()))

    def log(step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return log, writer.close


def _wandb(folder: Path, recipe: Mapping[str, Any], key: str) -> tuple[Log, Callable[[], None]]:
    import wandb

    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=_name(recipe),
        group=folder.resolve().parent.name,
        id=key,  # a run that was killed goes on under its own name
        resume="allow",
        config=dict(recipe),
        dir=str(folder),
        reinit="create_new",  # several at a time
        settings=wandb.Settings(silent=True, console="off"),
    )
    return lambda step, values: run.log(dict(values), step=step), run.finish


def _wandb_may_write() -> bool:
    if os.environ.get("WANDB_MODE", "online") != "online" or os.environ.get("WANDB_API_KEY"):
        return True
    import wandb

    try:
        return bool(wandb.login(prompt=False))
    except Exception:  # no network, a key that is none
        return False
