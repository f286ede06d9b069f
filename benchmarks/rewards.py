"""Demonstrations and rewards at equal reward: how far the model goes, and what it forgets, of near and of far text.

python -m benchmarks.rewards [--seeds 5] [--only NAME …] [--processes 2] [--runs FOLDER] [--out FOLDER]
tiny-gpt learns to write praise (`task("praise")`) by methods × teachers × rates. Each run ends at the first look at
which the reward of answers to the test prompts is GOAL. Finished runs are kept in --runs: started again, it goes on
there. Writes benchmarks/results/rewards.json and rewards.md, or with a part of the rows only to --out.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import forgetlab
from benchmarks.rewards_table import all_correlations, page
from forgetlab.models.loading import load
from forgetlab.models.model import Model, evaluating
from forgetlab.remedies.by_name import make_methods
from forgetlab.remedies.regularizers.outputs import frozen_copy
from forgetlab.sources.json_files import digest, read_json, write_json
from forgetlab.sources.shipped import inputs
from forgetlab.tasks import CausalLM, Rewarded, Task, filtered
from forgetlab.tasks.embedded import task
from forgetlab.tasks.encoding import asked
from forgetlab.tasks.rewarded import Answers
from forgetlab.tasks.writing import Writing
from forgetlab.training.loop import finetune
from forgetlab.training.method import Method, Run
from forgetlab.training.record import Record

GOAL = 0.93  # of the reward, where all are compared
SOONER = 0.85  # and there: demonstrations teach little more than GOAL, and so come to it slowly
FAR = "causal-lm:news"  # text of another kind: the language in general has reviews among it
LIMIT = 288  # test texts, and answers to the nine test prompts: 32 each
TRIES = 8  # answers to each of them that a KL is taken on
TEXTS = 100  # written from nothing, for the fluency
OWN = 1000  # of the model's own answers that are kept, as many as there are demonstrations

Look = dict[str, float]


@dataclass(frozen=True)
class Row:
    """A way to learn. teacher: of demonstrations, "own" for the model's own filtered answers, or an advantage."""

    teacher: str
    lr: float
    methods: str = "none"
    batch: int = 32
    steps: int = 400
    every: int = 20

    @property
    def rewarded(self) -> bool:
        return self.teacher in ("group", "leave-one-out")


def rows() -> dict[str, Row]:
    """{name: row}; the name says what it is, and its rate."""
    found, rates = dict[str, Row](), {3e-4: 20, 1e-3: 8}  # of each rate, the steps between looks
    for lr, every in rates.items():
        for teacher, often in (("like", every), ("narrow", every // 2), ("strange", every), ("own", every // 2)):
            found[f"SFT {teacher}, {lr:g}"] = Row(teacher, lr, every=often)
        for name, advantage in (("GRPO", "group"), ("RLOO", "leave-one-out")):
            found[f"{name}, {lr:g}"] = Row(advantage, lr, batch=8, every=every)
    for lr, every in rates.items():
        found[f"SFT like, batch 256, {lr:g}"] = Row("like", lr, batch=256, steps=200, every=every)
        found[f"SFT like, cosine, {lr:g}"] = Row("like", lr, "cosine", steps=20 * every, every=every)
    free = Row("group", 3e-4, batch=8, steps=240)
    for direction, beta in product(("reverse", "forward"), (0.1, 0.3, 1.0)):
        held = f"kl-anchor:beta={beta:g},direction={direction}"
        found[f"GRPO, β = {beta:g} {direction}, {free.lr:g}"] = replace(free, methods=held)
    return found


@torch.no_grad()
def kl(p: Model, q: Model, written: Answers) -> float:
    """KL(p ‖ q) over whole answers, nats an answer: Σ over the tokens of an answer of KL(p_t ‖ q_t), mean over answers.

    written: answers drawn from p. Exact over the vocabulary at each token; only what stands before is drawn.
    """
    place = torch.arange(written.ids.shape[1])
    batch = {"input_ids": written.ids, "attention_mask": (place < written.lengths.unsqueeze(1)).long()}
    at = asked(batch | {"scored": written.scored})
    with evaluating(p), evaluating(q):
        a, b = (model.lm_logits(model.hidden(batch)[at]).double().log_softmax(-1) for model in (p, q))
    return float((a.exp() * (a - b)).sum()) / len(written.ids)


class Looks(Method):
    """At each look, what was reached; the run ends where the reward is GOAL."""

    name = "looks"

    def __init__(self, praise: Rewarded) -> None:
        self._praise, self.found = praise, list[Look]()
        self._spent = self._began = 0.0

    def setup(self, run: Run) -> None:
        self._before = frozen_copy(run.model, run)
        self._theirs = self._answers(run.model)

    def before_step(self, run: Run) -> None:
        self._began = time.process_time()

    def after_step(self, run: Run) -> None:
        self._spent += time.process_time() - self._began

    def _answers(self, model: Model) -> Answers:
        rows = torch.arange(len(self._praise.test)).repeat_interleave(TRIES)
        return self._praise.answers(model, "test", rows, torch.Generator().manual_seed(1))

    def should_stop(self, record: Record, run: Run) -> str | None:
        own, model = record.scores[self._praise.name], run.model
        self.found.append(
            {
                "steps": record.step,
                "seconds": self._spent,  # of one core, so that another program beside does not count
                **{name: own[name] for name in ("reward", "distinct", "ended", "length")},
                "fluency": record.scores["writing"]["fluency"],
                "far": record.scores[FAR]["loss"],
                "near": record.scores["praise:blame"]["loss"],
                "drift": record.drift,
                "reverse": kl(model, self._before, self._answers(model)),
                "forward": kl(self._before, model, self._theirs),
            }
        )
        return "as good as the others" if own["reward"] >= GOAL else None


@cache
def base() -> Model:
    torch.set_num_threads(1)
    return load("tiny-gpt", device="cpu")


def looks(row: Row, seed: int) -> list[Look]:
    """The looks of one run, up to GOAL or the last step."""
    model = base()
    model.restore()
    praise = task("praise", advantage=row.teacher) if row.rewarded else task("praise")
    assert isinstance(praise, Rewarded)
    start = time.process_time()
    if row.teacher == "own":
        new: Task = CausalLM("own", filtered(praise, model, OWN, seed), task("praise:like").test)
    else:
        new = praise if row.rewarded else task(f"praise:{row.teacher}", seed=seed)
    writing = time.process_time() - start if row.teacher == "own" else 0.0
    watch = [task(FAR), task("praise:blame"), Writing("writing", TEXTS), *([] if row.rewarded else [praise])]
    own = Looks(praise)
    options: dict[str, Any] = {"steps": row.steps, "every": row.every, "lr": row.lr, "batch_size": row.batch}
    for _ in finetune(
        model, new, methods=[*make_methods(row.methods, watch), own], watch=watch, seed=seed, limit=LIMIT, **options
    ):
        pass
    return [look | {"seconds": look["seconds"] + writing} for look in own.found]


def done(folder: Path, name: str, row: Row, seed: int) -> dict[str, Any]:
    """A run of a row, from the folder if it is there."""
    settings = [asdict(row), seed, FAR, GOAL, LIMIT, TRIES, TEXTS, OWN, inputs(), forgetlab.__version__]
    path = folder / f"{digest(settings)[:16]}.json"
    found = read_json(path) or write_json(path, {"looks": looks(row, seed)})
    return {"name": name, "seed": seed, "looks": found["looks"]}


def told(runs: Iterable[dict[str, Any]], total: int) -> list[dict[str, Any]]:
    start, found = time.perf_counter(), list[dict[str, Any]]()
    for run in runs:
        found.append(run)
        last = ", ".join(f"{key} {value:.3g}" for key, value in run["looks"][-1].items())
        passed = time.perf_counter() - start
        print(f"{passed:6.0f} s {len(found):4}/{total} {run['name']:36} seed {run['seed']}: {last}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=list(rows()), default=list(rows()))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("build/rewards"), help="where finished runs are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    if len(options.only) < len(rows()) and options.out == parser.get_default("out"):
        parser.error("a part of the table needs an --out of its own")
    os.environ["OMP_NUM_THREADS"] = "1"
    jobs = [(options.runs, name, rows()[name], seed) for name in options.only for seed in range(options.seeds)]
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        runs = told(pool.map(done, *zip(*jobs, strict=True)), len(jobs))
    made = {
        "seeds": options.seeds,
        "goals": [GOAL, SOONER],
        "rows": {name: asdict(rows()[name]) for name in options.only},
    }
    short = [
        {**run, "looks": [{k: float(f"{v:.5g}") for k, v in look.items()} for look in run["looks"]]} for run in runs
    ]
    results = {"made": made, "runs": short, "correlations": all_correlations(short, made["goals"])}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "rewards.json").write_text(json.dumps(results) + "\n", encoding="utf-8")
    (options.out / "rewards.md").write_text(page(results) + "\n", encoding="utf-8")
    print(page(results))


if __name__ == "__main__":
    main()
