"""Damage of known kind, planted in the shipped models: does `diff --where` tell unreadable from overwritten?

python -m benchmarks.planted_damage [--seeds 20] [--out FOLDER]
reach's one threshold, MOST, was chosen on seed 1000 of each kind; here are the seeds from 0. Damage that costs a task
less than LOSS is drawn anew, up to 20 times; the last norm is scaled as strongly as that takes. Also: what it says of
real fine-tunes. Writes results/planted-damage.json and .md; two to four minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from forgetlab import finetune, load, task
from forgetlab.diff.inside.reach import ReachFound, reach, standard
from forgetlab.diff.models.pair import Pair
from forgetlab.metrics.uncertainty import wilson
from forgetlab.models import Model
from forgetlab.remedies.by_name import make_methods

RESULTS = Path(__file__).parent / "results"
Weights = dict[str, Tensor]
LIMIT = 256  # test items of a task

LOSS = 0.15  # points or nats
TASKS = (
    ("tiny-bert", "entities"),
    ("tiny-bert", "acceptability"),
    ("tiny-bert", "masked-lm"),
    ("tiny-gpt", "causal-lm"),
)
REAL = ("none", "l2sp", "ewc")  # remedies of a fine-tune on sentiment

UNREADABLE, OVERWRITTEN, UNTOLD = "unreadable", "overwritten", "cannot be told"


class InMemory:
    """What `reach` needs of a pair, from two sets of one small model's weights."""

    def __init__(self, model: Model, before: Weights, after: Weights) -> None:
        self.model, self._sides = model, {"before": before, "after": after}

    def become(self, which: str) -> Model:
        return self._pour(self._sides[which])

    def weights(self, which: str) -> Iterator[tuple[str, Tensor]]:
        yield from self._sides[which].items()

    def between(self, after: str, share: Callable[[str, Tensor, Tensor], Tensor]) -> Model:
        old, new = self._sides["before"], self._sides[after]
        return self._pour({name: share(name, old[name], new[name]) for name in old})

    @torch.no_grad()
    def _pour(self, weights: Weights) -> Model:
        for name, weight in self.model.named_parameters():
            weight.copy_(weights[name])
        return self.model.eval()


def weights_of(model: Model) -> Weights:
    """A copy of them, tied ones once."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


# -- what is planted --------------------------------------------------------------------------------


def noise(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian noise of the weight's norm."""
    drawn = torch.randn(weight.shape, generator=generator)
    return drawn * (weight.norm() / drawn.norm())


def turned(weight: Tensor, generator: torch.Generator) -> Tensor:
    """What reads features, as if these were rotated at random."""
    q, r = torch.linalg.qr(torch.randn(weight.shape[1], weight.shape[1], generator=generator, dtype=torch.float64))
    return (weight.double() @ (q * r.diagonal().sign())).float()


def permuted(weight: Tensor, generator: torch.Generator) -> Tensor:
    """The classes of a head in a cycle: none stands where it was."""
    return weight.roll(1 + int(torch.randint(len(weight) - 1, (1,), generator=generator)), 0)


def scaled(weight: Tensor, generator: torch.Generator) -> Tensor:
    return weight * (3.0 * torch.randn(weight.shape, generator=generator)).exp()


def flipped(weight: Tensor, generator: torch.Generator) -> Tensor:
    return weight * (1 - 2 * torch.randint(2, weight.shape, generator=generator))


def fresh(weight: Tensor, generator: torch.Generator) -> Tensor:
    """As transformers begins a matrix."""
    return 0.02 * torch.randn(weight.shape, generator=generator)


def a_little(weight: Tensor, generator: torch.Generator) -> Tensor:
    return weight + 0.01 * noise(weight, generator)


LAST = r"layer\.2\.output\.LayerNorm\.weight|ln_f\.weight"
READERS = r"heads\..*weight|predictions\.transform\.dense\.weight"
MATRICES = r"(?!.*(norm|Norm|ln_)).*weight"
DAMAGE: dict[str, tuple[str, dict[str, Callable[[Tensor, torch.Generator], Tensor]]]] = {
    "readout redrawn": (UNREADABLE, {READERS: noise}),
    "last basis rotated": (UNREADABLE, {READERS: turned}),
    "classes permuted": (UNREADABLE, {r"heads\..*weight": permuted}),
    "last norm scaled": (UNREADABLE, {LAST: scaled}),
    "last norm flipped": (UNREADABLE, {LAST: flipped}),
    "last norm flipped, all else moved a little": (UNREADABLE, {LAST: flipped, ".*": a_little}),
    "layer 0 overwritten": (OVERWRITTEN, {rf"body.*\.(layer|h)\.0\.{MATRICES}": noise}),
    "layer 1 overwritten": (OVERWRITTEN, {rf"body.*\.(layer|h)\.1\.{MATRICES}": noise}),
    "layers 0 and 1 begun anew": (OVERWRITTEN, {rf"body.*\.(layer|h)\.[01]\.{MATRICES}": fresh}),
    "all layers overwritten": (OVERWRITTEN, {rf"body.*\.(layer|h)\.\d\.{MATRICES}": noise}),
    "embeddings overwritten": (OVERWRITTEN, {r"body.*(word_embeddings|wte)\.weight": noise}),
    "layer 1 overwritten, all else moved a little": (
        OVERWRITTEN,
        {rf"body.*\.(layer|h)\.1\.{MATRICES}": noise, ".*": a_little},
    ),
    "all moved a little": (UNTOLD, {".*": a_little}),
}


def damaged(before: Weights, kind: str, seed: int) -> Weights:
    """Each weight changed by the first pattern that its name matches."""
    generator = torch.Generator().manual_seed(seed)
    _, how = DAMAGE[kind]
    after = {}
    for name, weight in before.items():
        change = next((change for pattern, change in how.items() if re.fullmatch(f".*({pattern})", name)), None)
        after[name] = weight if change is None else change(weight, generator)
    return after


class Bench:
    """A task on the model that knows it."""

    def __init__(self, model: str, name: str) -> None:
        self.model, self.task = load(model), task(name)
        self.task.prepare(self.model)
        self.before = weights_of(self.model)
        self.against = self._asked(self.before, lambda pair: standard(pair, self.task, LIMIT))

    def _asked(self, after: Weights, what: Callable[[Pair], Any]) -> Any:
        found = what(cast(Pair, InMemory(self.model, self.before, after)))
        InMemory(self.model, self.before, after).become("before")
        return found

    def reach(self, after: Weights, thorough: bool = False) -> ReachFound:
        return self._asked(
            after,
            lambda pair: reach(
                pair, "after", self.task, LIMIT, standards={self.task.name: self.against}, thorough=thorough
            ),
        )

    def uses(self, kind: str) -> bool:
        """Whether the task uses what such damage changes: the backbone, or its own head."""
        after = damaged(self.before, kind, 0)
        changed = [name for name, weight in after.items() if not torch.equal(weight, self.before[name])]
        heads = ("predictions",) if self.task.kind == "masked-lm" else (f"heads.{getattr(self.task, 'head', '')}.",)
        return any(not re.search(r"predictions|heads", name) or any(h in name for h in heads) for name in changed)

    def planted(self, kind: str, seed: int) -> tuple[ReachFound, int]:
        """What is said of damage that costs enough, and how often it had to be drawn."""
        for drawn in range(20):
            after = damaged(self.before, kind, seed + 100 * drawn)
            if DAMAGE[kind][0] == UNTOLD or self._loss(after) >= LOSS:
                break
        return self.reach(after), drawn + 1

    def _loss(self, after: Weights) -> float:
        model = InMemory(self.model, self.before, after).become("after")
        now, old = (
            self.task.main_score(t.items.sum(0)) for t in (self.task.tally(model, LIMIT), self.against.before.own)
        )
        InMemory(self.model, self.before, after).become("before")
        return float((now / old).log() if self.task.scale == "ratio" else old - now)


def row(kind: str, benches: list[Bench], seeds: range) -> dict[str, Any]:
    """One kind of damage over the seeds, each on the next of the tasks that it can hurt."""
    able = [bench for bench in benches if bench.uses(kind)]
    founds = [able[seed % len(able)].planted(kind, seed) for seed in seeds]
    said = Counter(found["verdict"] for found, _ in founds)
    shares = sorted(found["recovered"][0] for found, _ in founds if found["recovered"])
    right = said[DAMAGE[kind][0]]
    return {
        "kind": kind,
        "truth": DAMAGE[kind][0],
        "tasks": [bench.task.name for bench in able],
        "seeds": len(founds),
        "right": right,
        "said": dict(said),
        "interval": [round(end, 3) for end in wilson(right, len(founds))],
        "recovered": [round(share, 3) for share in (shares[0], shares[len(shares) // 2], shares[-1])]
        if shares
        else None,
        "drawn": sum(drawn for _, drawn in founds),
        "wrong": [
            f"{able[seed % len(able)].task.name}, seed {seed}: {found['verdict']} ({found['why']})"
            for seed, (found, _) in zip(seeds, founds, strict=True)
            if found["verdict"] != DAMAGE[kind][0]
        ],
    }


def real(bench: Bench, methods: str) -> ReachFound:
    """What is said of a task after a fine-tune on sentiment."""
    model = bench.model
    old = [] if methods == "none" else [task("masked-lm"), task("entities")]
    model.restore()
    options: dict[str, Any] = {"steps": 100, "every": 100, "lr": 1e-3, "limit": 8}
    list(finetune(model, task("sentiment"), methods=make_methods(methods, old), **options))
    after = {name: weight for name, weight in weights_of(model).items() if name in bench.before}
    model.restore()
    bench.task.prepare(model)
    return bench.reach(after, thorough=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    start = time.perf_counter()
    benches = [Bench(*names) for names in TASKS]
    rows = []
    for kind in DAMAGE:
        rows.append(row(kind, benches, range(given.seeds)))
        print(json.dumps(rows[-1]), flush=True)
    evidence = {kind: benches[0].reach(damaged(benches[0].before, kind, 0), thorough=True) for kind in DAMAGE}
    tunes = {f"{methods}, {bench.task.name}": real(bench, methods) for methods in REAL for bench in benches[:3]}
    results = {
        "seeds": given.seeds,
        "planted": rows,
        "on entities, seed 0": evidence,
        "after sentiment": tunes,
        "seconds": round(time.perf_counter() - start),
    }
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "planted-damage.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (given.out / "planted-damage.md").write_text(table(results), encoding="utf-8")


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "| planted | truth | told right | of the loss, a fitted readout brings back: least, median, most |",
        "|---|---|---|---|",
    ]
    for one in results["planted"]:
        back = ", ".join(f"{100 * share:.0f} %" for share in one["recovered"]) if one["recovered"] else "–"
        lines.append(f"| {one['kind']} | {one['truth']} | {one['right']} of {one['seeds']} | {back} |")
    right, of = (sum(one[key] for one in results["planted"]) for key in ("right", "seeds"))
    lines += ["", f"In all {right} of {of} ({100 * right / of:.1f} %).", ""]
    lines += [
        "| after sentiment, with | watched | before → after | fitted readout brings back | relearning | verdict |"
    ]
    lines += ["|---|---|---|---|---|---|"]
    for name, one in results["after sentiment"].items():
        methods, watched = name.split(", ")
        back, saved = (f"{100 * one[key][0]:.0f} %" if one[key] else "–" for key in ("recovered", "savings"))
        scores = f"{one['before']:.3g} → {one['after']:.3g}"
        lines.append(f"| {methods} | {watched} | {scores} | {back} | {saved} | {one['verdict']} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
