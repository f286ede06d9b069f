"""What to compare, and how; checked in words before torch is loaded, and the rest of it before a model is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import forgetlab
from forgetlab.errors import ForgetlabError, number, one_of, whole
from forgetlab.experiments import trackers
from forgetlab.experiments.folders import RUNS, check_apart, check_folder, check_model_folder
from forgetlab.experiments.recipe import Recipe, check_device

UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass
class Plan:
    """What to compare, and how.

    methods: methods texts, or ["all"]: every remedy, those left out that do not fit. out: the report's folder.
    budget: seconds, within which strengths are searched; None: the methods as they are. keep: the share of the old
    scores that is to stay. resume: take up the runs in `out`. processes: None is what is fastest. cluster: the
    address of a Dask scheduler. save: the folder of the recommended run's model; save_all: a folder with one for each
    run. report_to: other places that the scores go to, see `trackers`.
    """

    recipe: Recipe
    methods: Sequence[str]
    seeds: Sequence[int]
    out: Path
    budget: float | None = None
    keep: float = 0.95
    resume: bool = False
    processes: int | None = None
    cluster: str | None = None
    save: Path | None = None
    save_all: Path | None = None
    report_to: Sequence[str] = ()

    def check(self) -> None:
        """Raise ForgetlabError for what cannot work and can be told without torch: the quick part of all checks."""
        if not self.methods:
            raise ForgetlabError("no method given; try --methods none,l2sp,ewc,replay, or all")
        if not self.seeds:
            raise ForgetlabError("--seeds must be 1 or more, got 0")
        number("--keep", self.keep, 0, 1)
        if self.processes is not None:
            whole("--processes", self.processes)
            if self.cluster:
                raise ForgetlabError("--processes and --cluster exclude each other: a cluster's workers are its own")
        for method in self.methods:
            check_names(method, "all")
        self.recipe.check()
        trackers.check(self.report_to)
        check_folder(self.out)
        others = (self.out, self.out / RUNS, self.recipe.model)
        if self.save:
            check_apart(self.save, *others)
            check_model_folder(self.save)
        if self.save_all:
            check_apart(self.save_all, *others, *filter(None, [self.save]))
        self.recipe.check_files()

    def check_methods(self) -> None:
        """Raise ForgetlabError for settings of methods that cannot work, and where none leaves what is to be saved."""
        check_device(self.recipe.device)
        from forgetlab.experiments.saving import fits_a_folder
        from forgetlab.remedies.by_name import make_methods

        for method in self.names():
            make_methods(method, None)
            for seed in self.seeds:
                if place := self.place(replace(self.recipe, methods=method, seed=seed)):
                    check_model_folder(place)
        if (self.save or self.save_all) and not any(map(fits_a_folder, self.names())):
            names = ", ".join(self.names())
            raise ForgetlabError(f"nothing to save: {names} adds parts that a transformers folder cannot hold")

    def place(self, recipe: Recipe) -> Path | None:
        """Where the model of a recipe goes that is one of all."""
        return self.save_all / folder_name(recipe) if self.save_all else None

    def names(self) -> list[str]:
        """The methods texts, "all" taken apart: one of each family at a time, in case time is short."""
        from forgetlab.remedies.by_name import METHODS, family

        families: dict[str, list[str]] = {}
        for name in METHODS:
            families.setdefault(family(name), []).append(name)
        every = [name for row in zip_longest(*families.values()) for name in row if name]
        return list(dict.fromkeys(name for given in self.methods for name in (every if given == "all" else [given])))


def parts(methods: str) -> list[str]:
    """The methods of a recipe, each with its settings: not parted at the plus of 1e+03."""
    return re.split(r"\+(?=\s*[A-Za-z])", methods)


def check_names(methods: str, *more: str) -> None:
    """Raise ForgetlabError for names that no remedy has; their settings take torch to be told right from wrong."""
    for part in parts(methods):
        one_of("method", part.partition(":")[0].strip(), [*method_names(), *more])


def method_names() -> list[str]:
    """The names that remedies have, read from their files: importing them takes torch, and seconds."""
    folder = Path(forgetlab.__file__).parent / "remedies"
    texts = (path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py")))
    return ["none", *(name for text in texts for name in re.findall(r'^    name(?:: \w+)? = "([\w-]+)"', text, re.M))]


def folder_name(recipe: Recipe) -> str:
    """What the folder of a run's model is called: its methods and seed, in letters that every file system takes.

    >>> folder_name(Recipe(methods="replay:ratio=0.3+ewc", seed=2))
    'replay-ratio=0.3+ewc-seed2'
    """
    name = re.sub(r"[^\w.,=+]+", "-", recipe.methods).strip("-.")
    return f"{name if len(name) <= 100 else f'{name[:80]}-{recipe.key()[:8]}'}-seed{recipe.seed}"


def seconds(text: str) -> float:
    """A time as "90s", "10m" or "1.5h", in seconds; raises ForgetlabError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([smh])", text.strip().lower())
    if not found or not float(found[1]):
        raise ForgetlabError(f"--budget must be a time such as 90s, 10m or 1.5h, got {text!r}")
    return float(found[1]) * UNITS[found[2]]


def spoken(time: float) -> str:
    """Seconds as people say them: 0.4 s, 12 s, 5 min, 1.5 h."""
    if time < 120:
        return f"{time:.1f} s" if time < 10 else f"{time:.0f} s"
    return f"{time / 60:.0f} min" if time < 7200 else f"{time / 3600:.1f} h"
