"""Records with tallies against slow computations: errors, what is told from no change, what counts nowhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from forgetlab.experiments.frontier import dots, shares
from forgetlab.experiments.recommendation import verdicts
from forgetlab.metrics.summary import kept_of, nothing_to_lose, resampled_scores, summarise

TASKS = [
    {"name": "new", "metric": "accuracy", "higher_is_better": True, "scale": "points", "floor": None, "guess": 0.5},
    {"name": "lm", "metric": "perplexity", "higher_is_better": False, "scale": "ratio", "floor": 1.5, "guess": 60.0},
    {"name": "tags", "metric": "f1", "higher_is_better": True, "scale": "points", "floor": None, "guess": 0.0},
    {"name": "coin", "metric": "accuracy", "higher_is_better": True, "scale": "points", "floor": None, "guess": 0.5},
]
N = 120


def tallies(seed: int, new: float, nats: float, hits: float, coin: float = 0.52) -> dict[str, list[list[float]]]:
    """Items of each task; seed decides which ones are right."""
    random = np.random.default_rng(seed)
    right = (random.random(N) < new).astype(float)
    tokens = random.integers(5, 30, N)
    found = (random.random(N) < hits).astype(float)
    guessed = (np.arange(N) < coin * N).astype(float)
    columns = {
        "new": (right, np.ones(N)),
        "lm": (tokens * nats * random.uniform(0.8, 1.2, N), tokens),
        "tags": (found, np.ones(N), np.ones(N)),
        "coin": (guessed, np.ones(N)),
    }
    return {name: np.stack(own, axis=1).tolist() for name, own in columns.items()}


def record(step: int, items: dict[str, list[list[float]]], status: str = "running") -> dict[str, Any]:
    sums = {name: np.array(rows).sum(axis=0) for name, rows in items.items()}
    scores = {
        "new": {"accuracy": sums["new"][0] / sums["new"][1]},
        "lm": {"perplexity": float(np.exp(sums["lm"][0] / sums["lm"][1]))},
        "tags": {"f1": 2 * sums["tags"][0] / (sums["tags"][1] + sums["tags"][2])},
        "coin": {"accuracy": sums["coin"][0] / sums["coin"][1]},
    }
    more = {"train_seconds": 0.1 * step, "drift": 1.0, "status": status}
    return {"step": step, "scores": scores, "tallies": items, **more}


def run(method: str, seed: int, *after: float) -> dict[str, Any]:
    before = record(0, tallies(0, 0.5, 1.0, 0.95))
    return {
        "recipe": {"methods": method, "seed": seed},
        "records": [before, record(10, tallies(seed + 1, *after), "done")],
    }


RUNS = [
    *(run("none", seed, 0.9, 3.2, 0.6) for seed in range(3)),
    *(run("ewc", seed, 0.9, 1.3, 0.9) for seed in range(3)),
]


@pytest.mark.parametrize(("share", "end"), [(1.0, 0.031), (0.0, 0.031)])  # 1.96² / (120 + 1.96²), the other end apart
def test_all_right_is_not_beyond_doubt(share: float, end: float) -> None:
    (row,) = summarise([run("none", seed, share, 1.0, 0.9) for seed in range(2)], TASKS)
    assert row["tasks"]["new"]["after"] == share
    assert 2 * 1.96 * row["tasks"]["new"]["error"] == pytest.approx(end, abs=0.0005)


def test_a_task_at_chance_counts_nowhere() -> None:
    records = RUNS[0]["records"]
    assert nothing_to_lose(RUNS, TASKS) == ["coin"]  # 0.52 of 120 answers, a guesser's 0.50
    assert kept_of(TASKS[3], records) is None
    each = [kept_of(task, records) for task in TASKS[1:3]]
    found = shares(records, TASKS)
    assert found is not None
    assert found[0] == pytest.approx(sum(share for share in each if share is not None) / 2)
    row = summarise(RUNS, TASKS)[0]["tasks"]
    assert row["coin"]["kept"] is None
    assert row["tags"]["kept"] == pytest.approx(row["tags"]["after"] / row["tags"]["before"], abs=0.02)
    assert nothing_to_lose(RUNS, [*TASKS[:3], {**TASKS[3], "guess": 0.3}]) == []


def test_all_that_is_watched_at_chance_keeps_all() -> None:
    assert shares(RUNS[0]["records"], [TASKS[0], TASKS[3]]) == (1.0, pytest.approx(0.8, abs=0.15))


def test_the_errors_are_those_of_a_slow_bootstrap() -> None:
    drawn = resampled_scores(RUNS, TASKS)
    random = np.random.default_rng(9)
    rows = np.array([r["records"][1]["tallies"]["lm"] for r in RUNS[:3]])
    slow = []
    for _ in range(2000):
        sums = rows[:, random.integers(0, N, N)].sum(axis=1)
        slow.append(np.exp(sums[:, 0] / sums[:, 1]).mean())
    (none, ewc) = summarise(RUNS, TASKS)
    assert none["tasks"]["lm"]["error"] == pytest.approx(np.std(slow), rel=0.1)
    share = none["tasks"]["new"]["after"]
    assert none["tasks"]["new"]["error"] < (share * (1 - share) / N) ** 0.5  # three seeds answer unlike here
    assert drawn["tags"].shape == (6, 2, 500)
    assert drawn["tags"][0, 0].tolist() == drawn["tags"][5, 0].tolist()  # the same start, the same draws
    assert ewc["tasks"]["tags"]["told"] is False
    assert none["tasks"]["tags"]["told"] is True
    assert none["tasks"]["coin"]["told"] is None  # nothing has moved


def test_one_run_is_judged_by_mcnemar() -> None:
    one = run("none", 0, 0.9, 3.2, 0.6)
    old, new = (np.array(r["tallies"]["new"])[:, 0] for r in one["records"])
    for flips, told in ((5, False), (6, True)):  # two-sided p of 5 to 0: 0.0625, of 6 to 0: 0.031
        right = old.copy()
        right[np.flatnonzero(old == 0)[:flips]] = 1
        items = {**one["records"][0]["tallies"], "new": np.stack([right, np.ones(N)], axis=1).tolist()}
        changed = {**one, "records": [one["records"][0], record(10, items, "done")]}
        assert summarise([changed], TASKS)[0]["tasks"]["new"]["told"] is told
    assert new.sum() > old.sum()


def test_dots_carry_the_items_and_remedies_are_judged_in_pairs() -> None:
    plain, ewc = dots(RUNS, TASKS)
    assert ewc["seeds"] == [0, 1, 2]
    assert np.mean(ewc["drawn"], axis=(0, 2)) == pytest.approx([np.mean(ewc["kept"]), np.mean(ewc["new"])], abs=0.02)
    (found,) = verdicts([plain, ewc])
    assert found["verdict"] == "helps"
    low, high = found["kept"][1:]
    assert low < np.mean(ewc["kept"]) - np.mean(plain["kept"]) < high
    bare = [{**r, "records": [{**one, "tallies": {}} for one in r["records"]]} for r in RUNS]
    assert [one["drawn"] for one in dots(bare, TASKS)] == [[], []]
    assert dots(bare, TASKS[:3])[0]["kept"] == plain["kept"]  # of "coin" nothing tells that it is at chance


def test_what_diverged_has_no_errors() -> None:
    lost = run("none", 3, 0.9, 3.2, 0.6)
    lost["records"][1]["status"] = "diverged"
    (row,) = summarise([RUNS[0], lost], TASKS)
    assert row["tasks"]["lm"]["after"] is row["tasks"]["lm"]["error"] is row["tasks"]["lm"]["told"] is None
    (dot,) = dots([RUNS[0], lost], TASKS)
    assert dot["diverged"] == 1
    assert len(dot["drawn"]) == len(dot["kept"]) == 1
    assert np.isfinite(dot["drawn"]).all()
