"""The runs that `forgetlab.experiments.forecast` is fitted on and checked on. Part of benchmarks/forecasts.py.

Each job is a planned run and the trials before it: the run's first steps at seeds of their own. A finished one is kept
in a folder: started again, the benchmark goes on there.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from forgetlab.experiments.recipes import Bench, Recipe, prepare
from forgetlab.experiments.trials import SHORT, first_steps
from forgetlab.sources.json_files import digest, read_json, write_json
from forgetlab.tasks.base import facts_of

LIMIT = 160  # test items per score
WATCH = {
    "tiny-bert": ("masked-lm", "entities", "acceptability", "minimal-pairs"),
    "tiny-gpt": ("causal-lm", "cloze"),
}
FIT = {
    "tiny-bert": ("sentiment", "register", "masked-lm:reviews", "masked-lm:clinic"),
    "tiny-gpt": ("causal-lm:notices", "causal-lm:clinic", "causal-lm:howto", "sentiment"),
}
UNSEEN = {
    "tiny-bert": ("plain", "entailment", "masked-lm:news", "masked-lm:riddles"),
    "tiny-gpt": ("causal-lm:news", "causal-lm:stories", "causal-lm:reviews", "register"),
}
KNOWN_METHODS = ("none", "none", "none", "l2sp", "replay", "warmup", "cosine")
UNSEEN_METHODS = (*KNOWN_METHODS, "replay:ratio=0.5", "ewc")
RATES, LENGTHS = (1e-4, 3e-3), (40, 240)
MIXED = (("tiny-bert", "plain"), ("tiny-bert", "masked-lm:clinic"), ("tiny-gpt", "causal-lm:news"))
MIXED += (("tiny-bert", "sentiment"), ("tiny-gpt", "causal-lm:clinic"), ("tiny-bert", "masked-lm:riddles"))
RATIOS, MIX_RATES, MIX_STEPS = (0.0, 0.1, 0.25, 0.5), (3e-4, 1e-3, 3e-3), 160
SHORT_RATIOS, SHORT_RATES, MIX_SHORT = (0.0, 0.1, 0.5), (3e-4, 3e-3), 20


@dataclass(frozen=True)
class Job:
    """A planned run. trials: seeds of the trials before it; short: their steps."""

    role: str
    recipe: Recipe
    trials: tuple[int, ...] = (101, 102)
    short: int = SHORT


def embedded(count: int) -> list[Job]:
    """`count` jobs to fit on and as many to check on: other new tasks, rates, lengths, seeds, two more methods."""
    jobs = []
    for role, news, methods in (("fit", FIT, KNOWN_METHODS), ("unseen", UNSEEN, UNSEEN_METHODS)):
        draw = random.Random(role)
        for i in range(count):
            model = "tiny-bert" if i % 2 else "tiny-gpt"
            rate, steps = (a * (b / a) ** draw.random() for a, b in (RATES, LENGTHS))
            steps = max(LENGTHS[0], round(steps / 4) * 4)
            recipe = Recipe(
                model, news[model][i // 2 % 4], WATCH[model], draw.choice(methods), steps, batch_size=16, limit=LIMIT
            )
            jobs.append(Job(role, replace(recipe, lr=float(f"{rate:.2g}"), seed=i, every=steps // 2)))
    return jobs


def mixed() -> list[Job]:
    """Long runs over a grid of ratios and rates, and the six short ones that are to name the best of the grid."""
    jobs = []
    for (model, new), rate, ratio in product(MIXED, MIX_RATES, RATIOS):
        methods = f"replay:ratio={ratio:g}"
        recipe = Recipe(model, new, WATCH[model], methods, MIX_STEPS, rate, 16, every=MIX_STEPS // 2, limit=LIMIT)
        short = rate in SHORT_RATES and ratio in SHORT_RATIOS
        jobs.append(Job("mix", recipe, (104,) if short else (), MIX_SHORT))
    return jobs


def real(folder: Path) -> list[Job]:
    """Runs on a folder's data, of the models minilm and docs-gpt there."""
    jobs = []
    names = {
        name: str(folder / name) for name in ("reviews.csv", "authors.csv", "wnut.conll", "grimm.txt", "plays.txt")
    }
    plain = [("none", 3e-5, 60), ("none", 1e-4, 60), ("none", 3e-4, 40), ("l2sp", 2e-4, 60), ("replay", 2e-4, 40)]
    for new in ("authors.csv", "reviews.csv", "wnut.conll"):
        watch = tuple(names[other] for other in ("authors.csv", "reviews.csv", "wnut.conll") if other != new)
        for i, (methods, rate, steps) in enumerate(plain):
            recipe = Recipe(str(folder / "minilm"), names[new], watch, methods, steps, rate, 8, seed=i)
            jobs.append(Job("real", replace(recipe, every=steps // 2, learn_steps=150, limit=100), (101, 102)))
    more = [("none", 1e-4, 80), ("none", 4e-4, 80), ("none", 1e-3, 160), ("l2sp", 1e-3, 80), ("replay", 6e-4, 80)]
    for new in ("licences", names["grimm.txt"], names["plays.txt"]):
        for i, (methods, rate, steps) in enumerate(more):
            recipe = Recipe(str(folder / "docs-gpt"), new, ("python-docs",), methods, steps, rate, 16, seed=i)
            jobs.append(Job("real", replace(recipe, every=steps // 4, limit=100), (101, 102)))
    return jobs


@cache
def bench_of(model: str, new: str, watch: tuple[str, ...], learn: int, batch: int) -> tuple[Bench, list[Any]]:
    """A prepared bench, and the facts of its tasks. Watched tasks without a head are learned at a rate that suits."""
    rate = 1e-3 if model.startswith("tiny") else 2e-4
    bench = prepare(Recipe(model, new, watch, learn_steps=learn, batch_size=batch, lr=rate, limit=LIMIT))
    return bench, [facts_of(one, bench.model, LIMIT) for one in (bench.new, *bench.watch)]


def done(folder: Path, job: Job) -> dict[str, Any]:
    """The job with its records, from the folder if it is there."""
    path = folder / f"{job.role}-{digest(asdict(job))[:16]}.json"
    if found := read_json(path):
        return found
    recipe = job.recipe
    bench, facts = bench_of(recipe.model, recipe.new, recipe.watch, recipe.learn_steps, recipe.batch_size)
    trials = [first_steps(bench, replace(recipe, seed=seed), job.short) for seed in job.trials]
    long = [slim(record.as_dict()) for record in bench.run(recipe)]
    return write_json(
        path,
        {"role": job.role, "recipe": asdict(recipe), "tasks": facts, "short": job.short, "parameters": bench.model.size}
        | {"trials": [[slim(record) for record in trial] for trial in trials], "records": long},
    )


def slim(record: dict[str, Any]) -> dict[str, Any]:
    kept = ("step", "status", "scores", "drift", "lr", "loss", "train_seconds", "tallies")
    return {key: record[key] for key in kept}


def all_jobs(count: int, folder: Path | None) -> Iterator[Job]:
    """All jobs, those to fit on and to check on in turns; without a folder of real data and models none with them."""
    own = embedded(count)
    yield from (job for pair in zip(own[:count], own[count:], strict=True) for job in pair)
    yield from mixed()
    if folder:
        yield from real(folder)
