"""What a diff is asked for, and what of it cannot work: said before torch is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forgetlab.diff.gate import PRECISIONS, budget
from forgetlab.errors import ForgetlabError, one_of, shown, whole
from forgetlab.experiments.folders import check_apart, check_folder
from forgetlab.experiments.recipe import check_device
from forgetlab.sources.files import file_path
from forgetlab.sources.model_names import model_folder, shipped_models
from forgetlab.tasks.readable import check_file
from forgetlab.tasks.source_names import check_source, titles

ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class Order:
    """What is asked for. allow: as `gate.parsed` gives it. repair: where the repaired model goes."""

    before: str
    afters: tuple[str, ...]
    watch: tuple[str, ...] = ()
    new: str = ""
    limit: int | None = 2000
    allow: tuple[tuple[str, str], ...] = ()
    where: bool = False
    repair: Path | None = None
    within: str = "0.01"
    out: Path = Path("forgetlab-diff")
    device: str = "auto"
    dtype: str = "float32"
    command: str = ""

    def check(self) -> None:
        """Raise ForgetlabError for what cannot work and can be told without torch."""
        places: dict[Path | str, str] = {}
        for name in (self.before, *self.afters):
            own = file_path(name)
            place = own if (own / ADAPTER).is_file() else model_folder(name)
            key = place.resolve() if place else name
            if key in places:
                same = name if name == places[key] else f"{places[key]} and {name}"
                raise ForgetlabError(f"{same}: the same model twice; expected one BEFORE a fine-tune and one AFTER it")
            places[key] = name
        for source in filter(None, (self.new, *self.watch)):
            check_source(source)
        if self.new and self.new in self.watch:
            raise ForgetlabError(f"{self.new} is the new task and watched too; leave it out of --watch")
        if not self.watch and Path(self.before).name not in shipped_models():
            raise ForgetlabError(
                f"say what to watch: --watch FILE or a task's name ({self.before} is not of the embedded world)"
            )
        if self.limit is not None:
            whole("--limit", self.limit)
        self._check_names()
        budget(self.within)
        one_of("dtype", self.dtype, PRECISIONS)
        check_folder(self.out)
        if self.repair and len(self.afters) > 1:
            raise ForgetlabError(f"--repair mends one model, and {len(self.afters)} AFTERs are given: leave one")
        if self.repair and not self.new:
            raise ForgetlabError("--repair keeps the new score: say with --new FILE what AFTER was trained on")
        if self.repair:
            models = [place for place in places if isinstance(place, Path)]
            check_apart(self.repair, self.out, *models)
            for model in models:
                if model in file_path(self.repair).resolve().parents:
                    raise ForgetlabError(f"--repair {self.repair} lies in {places[model]}, which is compared: choose a "
                                         "folder outside it")  # fmt: skip
        for source in filter(None, (self.new, *self.watch)):
            check_file(source)
        kinds = {name: model_type(place) for place, name in places.items() if isinstance(place, Path)}
        before = kinds.get(self.before)
        for name, kind in kinds.items():
            if before and kind and kind != before:
                raise other_architecture(name, "model_type", kind, before)
        check_device(self.device)

    def _check_names(self) -> None:
        """Of --allow; where the tasks to watch are the model's own, they are not known yet."""
        tasks = [titles(source) for source in filter(None, (self.new, *self.watch))]
        if self.watch and all(tasks):
            for name, _ in self.allow:
                one_of("task in --allow", name, [title for one in tasks for title in one])


def model_type(folder: Path) -> str | None:
    """What a folder's config.json says; None for an adapter, and for a file that is damaged: that is told later."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found.get("model_type") if isinstance(found, dict) else None


def other_architecture(given: str, setting: str, value: object, before: object) -> ForgetlabError:
    """The error for an AFTER that is not what BEFORE became, as one of its settings tells."""
    return ForgetlabError(
        f"{given} is of another architecture: its {setting} is {shown(value)}, BEFORE's {shown(before)}; "
        "expected the model that BEFORE became"
    )


def numbered(names: Sequence[str]) -> list[str]:
    """The AFTERs by the number in their names, where all have one: checkpoints of a run. Else as they are given.

    >>> numbered(["run/checkpoint-1000", "run/checkpoint-200"])
    ['run/checkpoint-200', 'run/checkpoint-1000']
    """
    steps = [step_of(name) for name in names]
    return sorted(names, key=lambda name: step_of(name) or 0) if None not in steps and len({*steps}) > 1 else [*names]


def step_of(name: str) -> int | None:
    """The last number in the last part of a name.

    >>> step_of("run-3/checkpoint-200")
    200
    """
    found = re.findall(r"\d+", Path(name).name)
    return int(found[-1][:18]) if found else None
