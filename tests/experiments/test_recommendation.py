"""What is recommended, and what is said of each remedy against none, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from forgetlab.experiments.frontier import Dot
from forgetlab.experiments.recommendation import evidence, learners, pick, recommend, verdicts, versus


def dot(spec: str, kept: list[float], new: list[float], diverged: int = 0, items: float | None = None) -> Dot:
    """items: the deviation of both shares over test sets, moved alike for all dots."""
    one = {"name": spec, "spec": spec, "family": "none", "kept": kept, "new": new, "diverged": diverged}
    if items is not None:
        moves = items * np.random.default_rng(0).standard_normal((2, 500))
        one["drawn"] = [np.array([[k], [n]]) + moves for k, n in zip(kept, new, strict=True)]
    return one


PLAIN = dot("none", [0.30, 0.32, 0.34], [0.99, 0.99, 0.99])
REPLAY = dot("replay", [0.97, 0.98, 0.99], [0.95, 0.96, 0.97])
FROZEN = dot("frozen", [1.0, 1.0, 1.0], [0.04, 0.05, 0.06])
EWC = dot("ewc", [0.90, 0.90, 0.90], [0.965, 0.965, 0.965])


def test_what_keeps_enough_and_learns_most_is_recommended_with_its_evidence() -> None:
    lines = recommend([PLAIN, FROZEN, REPLAY, EWC], 0.95)
    assert lines[0] == (
        "To keep ≥ 95 % of the old scores: replay (keeps 98 ±1 %, learns 0.96 ±0.01 of the new task; 3 seeds)."
    )
    assert lines[1].startswith("Keeps enough by learning little: frozen (keeps 100 ±0 %, learns 0.05")
    assert lines[2] == "Plain fine-tuning: keeps 32 ±2 %, learns 0.99 ±0.00 of the new task; 3 seeds."
    assert lines[3] == (
        "Against plain fine-tuning on the same seeds (mean of both shares, 95 % interval): replay helps, +0.32 "
        "(+0.32 to +0.32); ewc helps, +0.28 (+0.25 to +0.30); frozen harms, −0.13 (−0.14 to −0.12)."
    )
    assert len(lines) == 4
    lower = recommend([PLAIN, FROZEN, REPLAY, EWC], 0.9)
    assert lower[0].startswith("To keep ≥ 90 % of the old scores: ewc (")
    assert lower[1].startswith("It cannot be told from that: replay (")


def test_advice_names_only_what_learns_and_the_near_misses() -> None:
    near = dot("ewc", [0.93, 0.94, 0.95], [0.90, 0.91, 0.92])
    lines = recommend([PLAIN, FROZEN, near], 0.95)
    assert lines[0].startswith("Nothing that learns keeps ≥ 95 % of the old scores: ewc comes nearest (keeps 94 ±1 %")
    assert lines[1].startswith("Keeps enough by learning little: frozen (keeps 100 ±0 %, learns 0.05")
    weak = dot("lora", [1.0, 1.0, 1.0], [0.60, 0.61, 0.62])
    lines = recommend([PLAIN, FROZEN, near, weak], 0.95)
    assert lines[0].startswith("To keep ≥ 95 % of the old scores: lora (")
    assert lines[1].startswith("Just below 95 %: ewc (keeps 94 ±1 %, learns 0.91 ±0.01")
    far = dot("l2sp", [0.8, 0.8, 0.8], [0.95, 0.95, 0.95])
    assert not any("Just below" in line for line in recommend([PLAIN, FROZEN, far, weak], 0.95))
    assert [one["spec"] for one in learners([PLAIN, FROZEN, near, weak])] == ["none", "ewc", "lora"]
    assert pick([PLAIN, FROZEN], 0.95) is PLAIN


def test_where_nothing_learns_that_is_all_that_is_said() -> None:
    weak = [dot("none", [0.99] * 2, [0.0, 0.02]), dot("frozen", [1.0] * 2, [0.0, 0.0])]
    assert recommend(weak, 0.95) == [
        "Nothing learns the new task here (0.01 of it at most): try more --steps or another --lr first."
    ]


def test_small_gains_on_every_seed_help() -> None:
    plain = dot("none", [0.60, 0.70, 0.50], [0.9, 0.9, 0.9])
    better = dot("wise", [0.60 + 2 * 0.049, 0.70 + 2 * 0.070, 0.50 + 2 * 0.056], [0.9, 0.9, 0.9])
    (found,) = verdicts([plain, better])  # an unpaired rule of two deviations (0.05 each) sees nothing here
    assert found["verdict"] == "helps"
    assert found["balance"] == pytest.approx([0.0583, 0.0319, 0.0848], abs=2e-4)
    assert verdicts([better, {**plain, "spec": "ewc"}]) == []  # nothing to compare with
    shuffled = {**better, "seeds": [2, 1, 0]}  # the same runs under other seeds: no longer in pairs
    assert verdicts([plain, shuffled])[0]["verdict"] == "cannot be told"


def test_the_error_of_the_items_counts_beside_the_seeds() -> None:
    plain, better = (dot(name, [k] * 3, [0.9] * 3, items=0.03) for name, k in (("none", 0.9), ("ewc", 0.95)))
    assert evidence(better) == "keeps 95 ±0/3 %, learns 0.90 ±0.00/0.03 of the new task; 3 seeds"
    assert verdicts([plain, better])[0]["verdict"] == "helps"  # the same items move both alike
    apart = versus(better, plain, "kept")
    assert apart is not None
    assert (apart.low, apart.high) == pytest.approx((0.05, 0.05))
    noisy = {**better, "drawn": [-part for part in better["drawn"]]}  # moved the other way
    assert verdicts([plain, noisy])[0]["verdict"] == "cannot be told"
    alone = dot("ewc", [0.95], [0.9], items=0.03)
    assert evidence(alone) == "keeps 95 ±–/3 %, learns 0.90 ±–/0.03 of the new task; one seed"
    assert "cannot be told from a little less" in recommend([plain, better], 0.94)[0]


def test_no_remedy_is_better_than_plain_fine_tuning() -> None:
    worse = dot("l2sp", [0.31, 0.33, 0.35], [0.9, 0.9, 0.9])
    assert recommend([PLAIN, worse], 0.95)[-1] == "No remedy that was tried is known to beat plain fine-tuning here."
    harmless = dot("none", [0.98, 0.99, 1.0], [0.95, 0.96, 0.97])
    assert recommend([harmless, REPLAY], 0.95)[-1].startswith("No remedy is needed here")
    better = dot("replay", [0.98, 0.99, 1.0], [0.99, 1.0, 1.0])
    assert not any("No remedy" in line for line in recommend([harmless, better], 0.95))


def test_where_no_remedy_was_tried_none_is_judged() -> None:
    (line,) = recommend([PLAIN], 0.95)
    assert line.startswith("Plain fine-tuning keeps less than 95 % of the old scores (keeps 32 ±2 %")
    assert "No remedy was tried" in line
    assert recommend([PLAIN], 0.3)[0].startswith("Plain fine-tuning keeps enough (")
    assert not any("beat" in line for line in recommend([EWC], 0.95))


def test_one_seed_is_said_and_a_lucky_one_does_not_win() -> None:
    lines = recommend([dot("none", [0.3], [0.9]), dot("ewc", [1.0], [0.9])], 0.9)
    assert lines[-1] == "One seed only: a difference may be luck; --seeds 3 tells."
    assert "ewc cannot be told, +0.35." in lines[-3]
    lucky = dot("mas", [0.99], [0.999])
    assert recommend([PLAIN, REPLAY, lucky], 0.95)[0].split("scores: ")[1].startswith("replay")
    assert recommend([PLAIN, EWC, lucky], 0.95)[0].split("scores: ")[1].startswith("mas (keeps 99 %")


def test_diverged_seeds_and_nothing_watched_are_said() -> None:
    near = dot("replay", [0.94, 0.96, 0.98], [0.9, 0.9, 0.9], diverged=1)
    (first, *_) = recommend([PLAIN, near], 0.95)
    assert "1 more diverged" in first
    assert first.endswith("That it keeps 95 % cannot be told from a little less.")
    assert recommend([dot("none", [], [], diverged=3)], 0.95)[0].startswith("Every run diverged")
    assert "Nothing was watched" in recommend([PLAIN], 0.95, watched=False)[0]
    assert "has anything to lose" in recommend([PLAIN], 0.95, to_lose=False)[0]
    assert verdicts([dot("none", [], [], diverged=3), EWC]) == []
