"""What the statistics of `forgetlab diff` say, held against simulated models of which the truth is known.

`python benchmarks/diff_coverage.py` writes results/diff-coverage.json and .md (two minutes of one core).
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from forgetlab.metrics.evidence import Averaged, Flipped
from forgetlab.metrics.guessing import net
from forgetlab.metrics.paired import WORTH, Change, change, gate, shared
from forgetlab.metrics.tally import score_of_sums
from forgetlab.metrics.uncertainty import NORMAL

Array = NDArray[np.float64]
Test = Flipped | Averaged
Sets = tuple[Array, Array, float]  # before, after: (sets, n, …); the true loss

RESULTS = Path(__file__).parent / "results"
SETS, GATES = 2000, 1000
SIZES = (20, 50, 400)
Z95 = 1.644854
FAR = 10.0  # an allowance that no loss comes near
SURE = 20_000  # test sets, for how far off 2,000 may be


# -- simulated models ---------------------------------------------------------------------------------


def answers(
    random: np.random.Generator, sets: int, n: int, states: Sequence[float], guess: Sequence[float]
) -> tuple[Array, Array, Array]:
    """(sets, n) right answers before and after, and (n,) how probable a right guess is.

    states: shares of the questions that are kept, lost, gained and never known.
    """
    state, g = random.choice(4, size=(sets, n), p=states), np.resize(np.array(guess), n)
    known = (state <= 1, (state == 0) | (state == 2))
    old, new = ((k | (random.random((sets, n)) < g)).astype(float) for k in known)
    return old, new, g


def flipped(old: Array, new: Array) -> Flipped:
    return Flipped((old * (1 - new)).sum(-1), (new * (1 - old)).sum(-1), old.shape[-1])


def passages(random: np.random.Generator, sets: int, n: int, tail: str, even: bool = False) -> Sets:
    """(nll, tokens) of passages whose losses per token are spread as `tail` says; loss in nats.

    even: passages of 100 tokens; else of 5 to several hundred.
    """
    shape = (sets, n)
    tokens = np.full(shape, 100.0) if even else np.clip(np.exp(random.normal(4, 0.8, shape)).round(), 5, None)
    own, mean = {
        "normal": lambda: (random.normal(0.1, 0.1, shape), 0.1),
        "t, 3 degrees of freedom": lambda: (0.1 + 0.1 * random.standard_t(3, shape), 0.1),
        "gamma, shape ½": lambda: (random.gamma(0.5, 0.2, shape), 0.1),
        "lognormal, σ = 1": lambda: (0.05 * np.exp(random.normal(0, 1, shape)), 0.05 * np.exp(0.5)),
    }[tail]()
    before = random.gamma(4, 0.75, shape)
    after = before + own + random.normal(0, 0.5, shape) / np.sqrt(tokens)
    return np.stack([before * tokens, tokens], -1), np.stack([after * tokens, tokens], -1), float(mean)


def entities(
    random: np.random.Generator, sets: int, n: int, hit: tuple[float, float], false: tuple[float, float], keep: float
) -> Sets:
    """(hits, predicted, gold) of texts with 0 to 4 entities, found with the probability `hit` before and after.

    false: false ones a text. keep: how many entities are as hard after as before, the others drawn anew.
    """
    gold, rumours = random.integers(0, 5, (sets, n)), random.poisson(1.0, (sets, n))
    hard = random.random((sets, n, 4))
    hard_after = np.where(random.random(hard.shape) < keep, hard, random.random(hard.shape))
    there, found = np.arange(4) < gold[..., None], []
    for ease, p, wrong in zip((hard, hard_after), hit, false, strict=True):
        hits = ((ease < p) & there).sum(-1)
        found.append(np.stack([hits, hits + random.binomial(rumours, wrong), gold], -1).astype(float))
    # F1 = 2 · hits / (predicted + gold) of the means: two entities a text
    old, new = (2 * 2 * p / (2 * p + wrong + 2) for p, wrong in zip(hit, false, strict=True))
    return found[0], found[1], old - new


def classes(
    random: np.random.Generator, sets: int, n: int, right: tuple[float, float], share: float, keep: float
) -> Sets:
    """Cells, gold by predicted class, of two classes of which one has `share`; Matthews correlation."""
    gold, hard = (random.random((sets, n)) < share).astype(int), random.random((sets, n))
    hard_after = np.where(random.random(hard.shape) < keep, hard, random.random(hard.shape))
    tables, scores = [], []
    for ease, p in zip((hard, hard_after), right, strict=True):
        tables.append(np.eye(4)[2 * gold + np.where(ease < p, gold, 1 - gold)])
        cells = torch.tensor([(1 - share) * p, (1 - share) * (1 - p), share * (1 - p), share * p]).double()
        scores.append(float(score_of_sums("matthews", cells)))
    return tables[0], tables[1], scores[0] - scores[1]


def shares_of(before: Array, after: Array, metric: str) -> Averaged:
    """As `change` has them, of many test sets at once."""

    def score(sums: torch.Tensor) -> torch.Tensor:
        return score_of_sums(metric, sums)

    ratio = metric == "perplexity"
    both = torch.from_numpy(before), torch.from_numpy(after)
    return shared(*both, score, "ratio" if ratio else "points", 1.0 if ratio else -1.0, WORTH.get(metric, 0.0))


# -- what is counted ----------------------------------------------------------------------------------

STATES = {  # kept, lost, gained, never known
    "much lost": (0.4, 0.3, 0.0, 0.3),
    "some lost, some gained": (0.6, 0.1, 0.05, 0.25),
    "nearly all lost": (0.1, 0.8, 0.0, 0.1),
    "few flips": (0.8, 0.02, 0.02, 0.16),
}
GUESSES = {"¼": (0.25,), "½": (0.5,), "½ to ⅕ by item": (0.5, 0.25, 0.2, 1 / 3)}
TAILS = ("normal", "t, 3 degrees of freedom", "gamma, shape ½", "lognormal, σ = 1")
ENTITIES = {
    "F1 .90 to .80": ((0.8, 0.7), (0.1, 0.2), 0.8),
    "F1 .97 to .96": ((0.95, 0.93), (0.02, 0.02), 0.9),
    "F1 .93 to .39": ((0.9, 0.3), (0.1, 0.5), 0.5),
    "F1 .97, few change": ((0.95, 0.95), (0.02, 0.02), 0.95),
}
CLASSES = {
    "30 % rarer class, .78 to .57": ((0.9, 0.8), 0.3, 0.85),
    "10 % rarer class, .79 to .63": ((0.95, 0.9), 0.1, 0.9),
    "halves, few change": ((0.97, 0.96), 0.5, 0.95),
}


EXPECTED = (1, 2, 3, 5, 8, 16, 32, 64)  # flips


def held(low: Array, high: Array, truth: float) -> dict[str, float]:
    """Shares of intervals that hold the truth, and that lie wholly above and below it."""
    return {
        "held": float(((low <= truth) & (truth <= high)).mean()),
        "above": float((low > truth).mean()),
        "below": float((high < truth).mean()),
    }


def of_test(test: Test, truth: float) -> dict[str, float]:
    """`held` of its 95 % interval; and how many are called lost, and fine, where just the true loss is allowed."""
    z = test.z(truth)
    ends = test.end(NORMAL), test.end(-NORMAL)
    return {**held(*ends, truth), "lost": float((z > Z95).mean()), "fine": float((z <= -Z95).mean())}


def simulated(random: np.random.Generator, sets: int, n: int) -> Iterator[tuple[str, str, Sets]]:
    """Each score that is no share of right answers, in words, and its test sets."""
    for tail, even in itertools.product(TAILS, (True, False)):
        yield "perplexity", worded(tail, even), passages(random, sets, n, tail, even)
    for words, settings in ENTITIES.items():
        yield "f1", words, entities(random, sets, n, *settings)
    for words, of in CLASSES.items():
        yield "matthews", words, classes(random, sets, n, *of)


def worded(tail: str, even: bool) -> str:
    return f"losses {tail}, passages of {'one length' if even else 'uneven length'}"


Row = dict[str, Any]


def coverage(sets: int = SETS, sizes: Iterable[int] = SIZES, seed: int = 1) -> list[Row]:
    """The truth in the intervals: accuracy, net lost share, perplexity ratio, F1, Matthews.

    changed: how many items do, on average.
    """
    rows = list[Row]()
    for n in sizes:
        random = np.random.default_rng([seed, n])
        for words, states in STATES.items():
            for said, guess in GUESSES.items():
                old, new, g = answers(random, sets, n, states, guess)
                where = {"items": n, "simulated": f"{words}, guesses {said}", "changed": changed(old, new)}
                truth = float((states[1] - states[2]) * (1 - g).mean())
                rows.append({"score": "accuracy", **where, **of_test(flipped(old, new), truth)})
                _, low, high = net(old * (1 - new), (1 - old) * (1 - new), np.broadcast_to(g, old.shape))
                rows.append({"score": "net lost share", **where, **held(low, high, states[1])})
        for metric, words, (before, after, truth) in simulated(random, sets, n):
            where = {"items": n, "simulated": words, "changed": changed(before, after)}
            rows.append({"score": metric, **where, **of_test(shares_of(before, after, metric), truth)})
    return rows


def changed(before: Array, after: Array) -> float:
    """How many items of a test set do, on average."""
    moved = (before != after).reshape(*before.shape[:2], -1).any(-1)
    return round(float(moved.sum(-1).mean()), 1)


def exactly(n: int, guess: float | None = None) -> list[Row]:
    """How often intervals hold the truth, summed over all outcomes, over a fine set of truths.

    By the expected number of flips: the lowest, the mean and the highest of the truths with so many.
    guess: of the net lost share, all flips being to wrong, by loss or by guessing; None: of the accuracy.
    """
    one, other = (part.ravel() for part in np.mgrid[0 : n + 1, 0 : n + 1])
    one, other = one[one + other <= n], other[one + other <= n]  # lost and gained; or lost and wrong both times
    factorials = np.concatenate([[0.0], np.log(np.arange(1, n + 1)).cumsum()])
    ways = factorials[n] - factorials[one] - factorials[other] - factorials[n - one - other]
    if guess is None:
        test = Flipped(one, other, n)
        ends = test.end(NORMAL), test.end(-NORMAL)
    else:
        kinds = np.arange(n) < one[:, None], (np.arange(n) >= one[:, None]) & (np.arange(n) < (one + other)[:, None])
        ends = net(*(kind.astype(float) for kind in kinds), np.full(kinds[0].shape, guess))[1:]
    found: dict[tuple[int, int], list[float]] = {}
    for flips, part in itertools.product(np.geomspace(1, 64, 61), (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)):
        if flips / n > 0.6:
            continue
        if guess is None:  # part: of the flips, those that are gained
            p, q, truth = (1 - part) * flips / n, part * flips / n, (1 - 2 * part) * flips / n
        else:  # part: of the items that are lost or never known, those that are never known, g (1 − g) of which flip
            among = flips / n / ((1 - part) * (1 - guess) + part * guess * (1 - guess))
            p, q, truth = flips / n, among * part * (1 - guess) ** 2, among * (1 - part)
        if p + q >= 1 or truth > 1:
            continue
        logs = ways + one * np.log(p) + other * np.log(max(q, 1e-300)) + (n - one - other) * np.log(1 - p - q)
        own = float((np.exp(logs) * ((ends[0] <= truth) & (truth <= ends[1]))).sum())
        for least, most in itertools.pairwise(EXPECTED):
            if least <= flips <= most:
                found.setdefault((least, most), []).append(own)
    score = "accuracy" if guess is None else f"net lost share, guesses {guess:g}"
    return [
        {"score": score, "items": n, "expected flips": f"{least} to {most}", "truths": len(own)}
        | {"lowest": min(own), "mean": float(np.mean(own)), "highest": max(own)}
        | {"in 93 to 97": float(np.mean([0.93 <= one <= 0.97 for one in own]))}
        for (least, most), own in sorted(found.items())
    ]


@dataclass(frozen=True)
class Known:
    """A test whose z is known at the losses that are asked for."""

    zs: dict[float, float]

    def z(self, loss: float) -> float:
        return self.zs[loss]


def each(test: Test, losses: Sequence[float]) -> list[Change]:
    """Of many test sets each one, with what a gate looks at."""
    nan, found = float("nan"), zip(*(test.z(loss) for loss in losses), strict=True)
    return [Change(*[nan] * 6, cast(Any, Known(dict(zip(losses, map(float, zs), strict=True))))) for zs in found]


def five_tasks(random: np.random.Generator, sets: int, n: int) -> list[tuple[Test, float]]:
    """Five tasks and their true losses."""
    found: list[tuple[Test, float]] = []
    for states, guess in ((STATES["some lost, some gained"], (0.25,)), (STATES["few flips"], (0.5,))):
        old, new, g = answers(random, sets, n, states, guess)
        found.append((flipped(old, new), float((states[1] - states[2]) * (1 - g).mean())))
    for before, after, truth, metric in (
        (*entities(random, sets, n, (0.9, 0.85), (0.05, 0.05), 0.8), "f1"),
        (*passages(random, sets, n, "normal"), "perplexity"),
        (*passages(random, sets, n, "gamma, shape ½", even=True), "perplexity"),
    ):
        found.append((shares_of(before, after, metric), truth))
    return found


def gates(sets: int = GATES, sizes: Iterable[int] = (50, 400), seed: int = 2) -> list[Row]:
    """How often a gate errs where the true loss is just what is allowed, the hardest case.

    "lost": of all tasks; "fine": of the one that is at the boundary, the others being far below.
    """
    random, rows = np.random.default_rng(seed), list[Row]()
    for n in sizes:
        tasks = five_tasks(random, sets, n)
        names = ("accuracy", "accuracy, few flips", "F1", "perplexity", "perplexity, skewed")
        sorts = [(f"1: {name}", [task]) for name, task in zip(names, tasks, strict=True)] + [("5: all of these", tasks)]
        for words, some in sorts:
            limits, called = [truth for _, truth in some], {"lost": 0, "fine": 0}
            for at in zip(*(each(test, (truth, FAR)) for test, truth in some), strict=True):
                called["lost"] += gate(at, limits) == "lost"
                called["fine"] += gate(at, [limits[0]] + [FAR] * (len(at) - 1)) == "fine"
            rows.append({"tasks": words, "items": n, **{word: count / sets for word, count in called.items()}})
    return rows


def found_at_smallest(sets: int = SETS, sizes: Iterable[int] = SIZES, seed: int = 3) -> list[Row]:
    """Of test sets with just the smallest loss that one test set names, how many are called lost."""
    random, rows = np.random.default_rng(seed), list[Row]()
    for n in sizes:
        for gained in (0, n // 20, n // 5):
            pairs = [[1, 1]] * n
            seen = change([[0, 1]] * gained + pairs[gained:], pairs, "accuracy")
            back = min(gained / n, (1 - seen.smallest) / 2)
            counts = random.multinomial(n, [back + seen.smallest, back, 1 - 2 * back - seen.smallest], size=sets)
            z = Flipped(counts[:, 0], counts[:, 1], n).z(0.0)
            rows.append({"score": "accuracy", "items": n, "simulated": f"{gained} gained", "smallest": seen.smallest})
            rows[-1]["found"] = float((z > Z95).mean())
        for tail, even in itertools.product(TAILS, (True, False)):
            old, new, _ = passages(random, 1, n, tail, even)
            seen = change(old[0], new[0], "perplexity", scale="ratio", higher_is_better=False)
            new[0][:, 0] += (seen.smallest - seen.loss) * new[0][:, 1]  # each passage a little more, or less
            drawn = random.integers(0, n, (sets, n))
            z = shares_of(old[0][drawn], new[0][drawn], "perplexity").z(0.0)
            where = {"items": n, "simulated": worded(tail, even)}
            rows.append({"score": "perplexity", **where, "smallest": seen.smallest})
            rows[-1]["found"] = float((z > Z95).mean())
    return rows


# -- the page -----------------------------------------------------------------------------------------


def summary(rows: list[Row]) -> list[Row]:
    """Of each score and size the lowest and the highest share over its settings."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        found.setdefault((row["score"], row["items"]), []).append(row)
    return [
        {"score": score, "items": n, "settings": len(own)}
        | {
            name: _range([row[name] for row in own if name in row])
            for name in ("held", "above", "below", "lost", "fine")
        }
        for (score, n), own in sorted(found.items())
    ]


def _range(values: list[float]) -> str | None:
    return f"{100 * min(values):.1f} to {100 * max(values):.1f}" if values else None


def page(found: dict[str, list[Row]]) -> str:
    """The tables, in Markdown: shares in per cent."""
    found = {"summary": summary(found["coverage"]), **found}
    tables = {
        "summary": "All settings in short: the lowest and the highest share",
        "coverage": "How often 95 % intervals hold the truth (lie above it, below it), and how often one task is "
        "called lost, and fine, where it has lost just what is allowed (meant: 5 % or fewer)",
        "gates": "How often a gate says lost where each task has lost just what is allowed, and fine where its first "
        "task has, the others nothing (meant: 5 % or fewer)",
        "sure": "The same rows of 50 items from 20,000 test sets each: what is chance in 2,000, and what is not",
        "exact": "Summed over all outcomes, over a fine set of truths: how often 95 % intervals hold the truth, by the "
        "expected number of flips",
        "smallest": "How often the smallest loss that one test set names is found in others (meant: 80 %)",
    }
    parts = ["# The statistics of forgetlab diff on simulated models", "Made by `python benchmarks/diff_coverage.py`."]
    for key, words in tables.items():
        head = list(dict.fromkeys(name for row in found[key] for name in row))
        lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
        lines += [f"| {' | '.join(_cell(name, row.get(name)) for name in head)} |" for row in found[key]]
        parts += [f"## {words}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _cell(name: str, value: Any) -> str:
    if not isinstance(value, float):
        return "" if value is None else str(value)
    return {"smallest": f"{value:.3f}", "changed": f"{value:.1f}"}.get(name, f"{100 * value:.1f}")


def main() -> None:
    start = time.perf_counter()
    exact = [row for n in (50, 100, 400) for row in exactly(n)]
    exact += [row for guess in (0.25, 0.5) for n in (50, 100) for row in exactly(n, guess)]
    found = {"coverage": coverage(), "gates": gates(), "sure": coverage(SURE, (50,), seed=4), "exact": exact}
    found["smallest"] = found_at_smallest()
    (RESULTS / "diff-coverage.md").write_text(page(found), encoding="utf-8")
    (RESULTS / "diff-coverage.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(page(found), f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
