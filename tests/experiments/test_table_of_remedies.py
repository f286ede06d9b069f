"""How the table of remedies is made: what is chosen on, how far a dial is turned, what is compared with what."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import remedies
from benchmarks.choosing import ROWS, WIDER, Row, at_edge, beyond, chosen, ladder
from benchmarks.remedies import Benchmark, Job
from benchmarks.remedies_table import equal, kept_at, matched, page, spoken, verdicts_of
from forgetlab.experiments.frontier import read_benchmark
from forgetlab.remedies.by_name import METHODS, make_methods

TASKS = [
    {"name": "plain", "metric": "accuracy", "scale": "points", "higher_is_better": True, "guess": 0.5, "floor": None},
    {"name": "masked-lm", "metric": "perplexity", "scale": "ratio", "higher_is_better": False, "guess": 48.0},
]
FACTS = {"plain": {"test": TASKS, "validation": TASKS}}


def _record(step: int, new: float, lm: float, status: str = "running") -> dict[str, Any]:
    return {"step": step, "status": status, "scores": {"plain": {"accuracy": new}, "masked-lm": {"perplexity": lm}}}


def _run(job: Job, new: float, lm: float = 3.0) -> dict[str, Any]:
    records = [_record(0, 0.5, 3.0), _record(job.steps, new, lm, "done")]
    ends = {
        when: {"plain": one["scores"]["plain"]["accuracy"], "masked-lm": one["scores"]["masked-lm"]["perplexity"]}
        for when, one in zip(("before", "after"), records, strict=True)
    }
    costs = {"ms_per_step": 1.0, "setup_seconds": 0.0, "bytes": 0.0, "trained_parameters": 1.0, "added_parameters": 0.0}
    same = {"method": job.spec.partition(" @ ")[0], "spec": job.spec, "seed": job.seed, "status": "done"}
    return {**same, **ends, **costs, "records": records}


class _World:
    """Runs that learn as `scores[split][spec]` says; what was asked for is in `jobs`."""

    def __init__(self, validation: dict[str, float], test: dict[str, float]) -> None:
        self.scores, self.jobs = {"validation": validation, "test": test}, list[Job]()

    def __call__(self, jobs: list[Job]) -> list[dict[str, Any]]:
        self.jobs += jobs
        return [_run(job, self.scores[job.split].get(job.spec, 0.6) + 0.001 * job.seed % 0.01) for job in jobs]


def _benchmark(rows: dict[str, Row], world: _World) -> Benchmark:
    return Benchmark(rows, world, FACTS, Namespace(new=["plain"], seeds=5, steps=200, long=600))


def test_the_rung_is_chosen_on_validation_texts_where_test_texts_would_choose_another() -> None:
    world = _World({"ewc:lam=3": 0.9, "ewc:lam=1": 0.7}, {"ewc:lam=1": 0.99, "ewc:lam=3": 0.8})
    bench = _benchmark({"none": Row("none"), "ewc": Row("ewc:lam={}", (1, 3, 10))}, world)
    search = bench.search()["plain"]
    assert {job.split for job in world.jobs} == {"validation"}
    best = bench.best("plain", search, 200)["ewc"]
    assert {run["spec"] for run in best} == {"ewc:lam=3"}
    reported = {job.seed for job in world.jobs if job.split == "test"}
    assert len(reported) == 5
    assert not reported & {job.seed for job in world.jobs if job.split == "validation"}


def test_a_dial_is_turned_on_while_its_best_is_at_the_edge_and_the_table_says_where_it_still_is() -> None:
    rising = {f"ewc:lam={x}": 0.6 + 0.01 * i for i, x in enumerate((1, 3, 10, 30, 100, 300, 1000))}
    inside = {"mas:lam=0.01": 0.9}
    rows = {
        "none": Row("none"),
        "ewc": Row("ewc:lam={}", ladder(1, 1000), 0),
        "mas": Row("mas:lam={}", ladder(0.001, 0.3), 2),
    }
    world = _World(rising | inside, {})
    bench = _benchmark(rows, world)
    search = bench.search()["plain"]
    assert list(search["ewc"]) == [1, 3, 10, 30, 100]  # three, and WIDER more
    assert WIDER == 2
    assert list(search["mas"]) == [0.01, 0.03, 0.1, 0.003]  # once to the other side, and there it ends
    block = bench.block("plain", search, bench.longer({"plain": search})["plain"])
    assert block["edge"] == ["ewc"]
    costs = {"step": 1.0, "setup": 0.0, "bytes": 0.0, "trained_parameters": 1.0, "added_parameters": 0.0}
    more = {"made": vars(bench.options), "costs": {"none": costs, "ewc": costs | {"step": 1.5, "bytes": 8.0}}}
    results = json.loads(json.dumps(remedies.without_records(block | more)))
    text = page(results, ["plain"])
    assert "Best at the edge of what was tried: ewc." in text
    assert "| ewc | ×1.50 | 0.0 | 2.00 | 1 | 0 |" in text
    assert "| mas | `mas:lam=0.01` | 0.60 ±0.00 | 3.00 ±0.00 | 0.20 ±0.00 | 1.00 ±0.00 | 0.602 ±0.002 |" in text


@pytest.mark.parametrize(
    ("balances", "best", "edge", "more"),
    [
        ({1: 0.2, 3: 0.5, 10: 0.4}, 3, False, None),
        ({3: 0.2, 10: 0.5}, 10, True, 30),
        ({3: 0.6, 10: 0.5}, 3, True, 1),
        ({10: 0.2, 30: 0.5}, 30, True, None),  # the end of the dial
        ({1: 0.5, 3: 0.5, 10: 0.5}, 1, True, None),  # nothing to choose: the first
        ({None: 0.5}, None, False, None),
    ],
)
def test_edges(balances: dict[float | None, float], best: float | None, edge: bool, more: float | None) -> None:
    assert (chosen(balances), at_edge(balances), beyond((1, 3, 10, 30), balances)) == (best, edge, more)


def test_every_remedy_has_a_row_whose_text_can_be_read() -> None:
    for row in ROWS.values():
        for rung in row.rungs or (None,):
            make_methods(row.at(rung).partition(" @ ")[0], None)
        assert len(row.start()) == (3 if row.rungs else 1)
        assert list(row.rungs) == sorted({*row.rungs})
    named = {part.partition(":")[0] for row in ROWS.values() for part in row.at(None).partition(" @ ")[0].split("+")}
    assert named == METHODS.keys()


def test_the_longer_runs_are_those_of_what_is_added_and_may_take_a_lower_rate() -> None:
    rate = "lora:r=4,alpha=8,targets=all @ {}"
    world = _World({rate.format("0.003"): 0.8}, {})
    bench = _benchmark({"none": ROWS["none"], "lora": ROWS["lora"], "ewc": ROWS["ewc"]}, world)
    longer = bench.longer(bench.search())["plain"]
    assert longer.keys() == {"none", "lora"}
    assert list(longer["lora"]) == [0.001, 0.003]
    assert {job.steps for job in world.jobs if job.spec == rate.format("0.001")} == {200, 600}


def test_what_is_kept_at_equal_learning_by_hand() -> None:
    # kept: 1, then ln (48 / 6) / ln 16 = 0.75, then 0.5; learned: 0, 0.4, 0.8
    records = [_record(0, 0.5, 3.0), _record(20, 0.7, 6.0), _record(40, 0.9, 12.0, "done")]
    assert kept_at(records, TASKS, 0.4) == pytest.approx(0.75)
    assert kept_at(records, TASKS, 0.6) == pytest.approx(0.625)
    assert kept_at(records, TASKS, 0.81) is None
    assert kept_at(records, TASKS, 0.4, ends=True) == pytest.approx(0.5)
    fast, slow = {"records": records}, {"records": [records[0], _record(40, 0.6, 3.0, "done")]}
    assert matched([fast, slow], [fast, fast], TASKS) == [pytest.approx(0.55)]  # at 0.9 · 0.8: four fifths of the way
    assert equal([0.57], 2) == "0.57 (1 of 2 seeds)"
    assert equal([], 2) == "never learns as much"


def test_verdicts_are_those_of_pairs() -> None:
    def runs(*gains: float) -> list[dict[str, Any]]:
        plain = (0.6, 0.7, 0.8, 0.9, 0.65)
        return [
            _run(Job("plain", "test", "x", s, 1, 1), a + b) for s, (a, b) in enumerate(zip(plain, gains, strict=True))
        ]

    rows = {"none": runs(0, 0, 0, 0, 0), "good": runs(*[0.05] * 5), "bad": runs(*[-0.05] * 5)}
    rows["either"] = runs(0.1, -0.1, 0.05, -0.05, 0.02)
    found = {row["methods"]: row for row in verdicts_of(rows, TASKS)}
    assert {name: row["verdict"] for name, row in found.items()} == {
        "good": "helps",
        "bad": "harms",
        "either": "cannot be told",
    }
    assert found["good"]["balance"] == [pytest.approx(0.05)] * 3  # of 0.1 more learned, and the rest alike
    assert spoken(found["bad"]) == "harms: −0.050 (−0.050 to −0.050)"


@pytest.mark.slow
def test_a_small_table_is_made_kept_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The brake looks at validation texts, and is scored on test texts like the others."""
    monkeypatch.setattr(remedies, "LIMIT", 32)
    monkeypatch.setattr(remedies, "WATCH", ("entities",))
    looked = Job("plain", "test", "safety-brake:drop=0.5", 0, 4, 2, looks=True)
    plain = Job("plain", "test", "none", 0, 4, 2)
    one, other = (remedies.done(tmp_path / "runs", job) for job in (looked, plain))
    assert one["before"] == other["before"]
    assert one["records"][1]["scores"] != other["records"][1]["scores"]
    kept = sorted((tmp_path / "runs").iterdir())
    monkeypatch.setattr(remedies, "computed", lambda job: pytest.fail("it was there"))
    assert remedies.done(tmp_path / "runs", looked) == one
    assert sorted((tmp_path / "runs").iterdir()) == kept
    tasks = remedies.facts("plain")["test"]
    block = {"tasks": tasks, "search": {"none": [other]}, "best": {"none": [other]}}
    path = tmp_path / "remedies.json"
    path.write_text(json.dumps(remedies.without_records({"plain": block})))
    (dot,) = read_benchmark(path, "plain")
    assert dot["new"] == [round(other["after"]["plain"], 4)]


def test_the_shipped_table_is_what_the_shipped_results_say() -> None:
    folder = Path(remedies.__file__).parent / "results"
    results = json.loads((folder / "remedies.json").read_text(encoding="utf-8"))
    assert (folder / "remedies.md").read_text(encoding="utf-8") == page(results, remedies.NEW) + "\n"
    for block in (results, results["plain"]):
        assert block["best"].keys() == ROWS.keys()
        chosen_on = {run["seed"] for runs in block["search"].values() for run in runs if len(runs) > 1}
        reported = {run["seed"] for runs in block["best"].values() for run in runs}
        assert (len(reported), reported & chosen_on) == (5, set())
