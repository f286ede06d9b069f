"""The law against the normal equations and simulated runs: what it says of runs that it was not fitted on."""

from __future__ import annotations

import math

import numpy as np
import pytest

from forgetlab.errors import ForgetlabError
from forgetlab.experiments.forecast_law import ITEMS, LEVEL, Past, columns, fit, loosened, shipped, squeezed

WEIGHTS = np.array([6.0, 0.4, 0.8, -0.5])


def simulated(
    random: np.random.Generator, news: int, runs: int, miss: float = 0.0, apart: float = 0.0, model: str = "a"
) -> list[Past]:
    """Runs of a true law. miss: what it misses in a run; apart: what it misses in all runs of a new task."""
    found = list[Past]()
    for new in range(news):
        shift = apart * random.normal()
        for _ in range(runs):
            x = columns(
                random.exponential(0.05),
                math.exp(random.uniform(-8, -5)),
                random.uniform(1, 4),
                0.25 * random.integers(2),
            )
            y = float(loosened(np.dot(x, WEIGHTS) + shift + miss * random.normal()))
            found.append({"model": model, "new": f"{new}", "scale": "ratio", "x": x, "error": 0.0, "fall": y})
    return found


def test_squeezed_is_a_logarithm_where_changes_are_large_and_counts_small_ones() -> None:
    assert float(squeezed(1e-4)) == pytest.approx(1e-4 / 0.02, rel=1e-4)
    assert float(squeezed(5.0)) == pytest.approx(math.log(2 * 5 / 0.02), rel=1e-4)
    assert loosened(squeezed([-0.3, 0.0, 2.0])).tolist() == pytest.approx([-0.3, 0.0, 2.0])


def test_the_weights_solve_the_normal_equations() -> None:
    past = simulated(np.random.default_rng(0), news=4, runs=6, miss=0.5, apart=0.3)
    x, y = np.array([one["x"] for one in past]), np.arcsinh(np.array([one["fall"] for one in past]) / 0.02)
    assert fit(past).weights == pytest.approx(np.linalg.solve(x.T @ x, x.T @ y))


def test_a_law_without_misses_is_found_and_its_interval_has_no_width() -> None:
    past = simulated(np.random.default_rng(1), news=5, runs=5)
    law = fit(past)
    assert law.weights == pytest.approx(WEIGHTS)
    low, high = law.ends(past[0]["x"], model="a")
    assert (low, high) == pytest.approx((past[0]["fall"], past[0]["fall"]), rel=1e-6)


def test_as_many_runs_of_other_tasks_end_inside_as_is_stated() -> None:
    """New tasks differ by themselves (apart), so that residuals of the fit alone would be too small."""
    random, inside, tried = np.random.default_rng(2), 0, 0
    for _ in range(60):
        law = fit(simulated(random, news=12, runs=6, miss=0.6, apart=0.6))
        for one in simulated(random, news=10, runs=2, miss=0.6, apart=0.6):
            low, high = law.ends(one["x"], model="a")
            inside, tried = inside + (low <= one["fall"] <= high), tried + 1
    assert inside / tried == pytest.approx(LEVEL, abs=0.025)  # 1,200 of them, in groups: a standard error of 0.01


def test_the_choice_of_the_items_is_counted_beside_what_the_law_misses() -> None:
    """Scores that differ from a true law by their items alone: the law has nothing to add to that interval."""
    random, past = np.random.default_rng(3), list[Past]()
    for one in simulated(random, news=10, runs=40):
        past.append({**one, "error": 1.96 * 0.05, "fall": one["fall"] + 0.05 * random.normal()})
    law = fit(past)
    x = columns(0.0, math.exp(-8), 1.0, 0.0)
    low, high = law.ends(x, error=1.96 * 0.05, model="a")
    assert high - low == pytest.approx(2 * 1.645 * 0.05, rel=0.25)
    assert pytest.approx(1.644854 / 1.959964) == ITEMS


def test_another_model_and_a_run_unlike_all_others_have_a_wider_interval() -> None:
    random = np.random.default_rng(4)
    other = [
        {**one, "fall": float(loosened(squeezed(one["fall"]) + 2))} for one in simulated(random, 4, 6, 0.3, model="b")
    ]
    law = fit([*simulated(random, 4, 6, 0.3), *other])  # type: ignore[list-item]
    x = columns(0.05, math.exp(-6), 2.0, 0.0)
    (low, high), (wide_low, wide_high) = law.ends(x, model="a"), law.ends(x, model="c")
    assert wide_low < low < high < wide_high
    assert law.strangeness(x) < 1 < law.strangeness(columns(50.0, math.exp(2), 9.0, 0.0))


def test_too_few_new_tasks_make_no_law() -> None:
    with pytest.raises(ForgetlabError, match="three new tasks or more, got 2"):
        fit(simulated(np.random.default_rng(0), news=2, runs=9))


def test_the_shipped_past_gives_a_law_for_each_scale() -> None:
    """More of a rise, a longer way and less replay mean more is forgotten: the signs that the law must have."""
    for scale in ("points", "ratio"):
        law = fit([one for one in shipped() if one["scale"] == scale])
        assert law.weights[1] > 0
        assert law.weights[2] > 0
        assert law.weights[3] < 0
        assert law.results > 100
        assert {"tiny-bert", "tiny-gpt"} <= law.models
