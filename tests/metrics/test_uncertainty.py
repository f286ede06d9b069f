"""The intervals hold the truth as often as they say, on simulated test sets; the tests against scipy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from forgetlab.errors import ForgetlabError
from forgetlab.metrics.uncertainty import (
    NORMAL,
    difference,
    interval,
    mcnemar,
    resampled,
    standard_error,
    student,
    wilson,
)

SETS, ITEMS = 2000, 200


def mean(sums: Tensor) -> Tensor:
    return sums[..., 0] / sums[..., 1]


def perplexity(sums: Tensor) -> Tensor:
    return mean(sums).exp()


def texts(random: np.random.Generator, *shape: int) -> np.ndarray:
    """Tallies (nll, tokens) of texts of 5 to 39 tokens, easy and hard ones; truth: 1.2 nats a token."""
    tokens = random.integers(5, 40, shape)
    hard = random.gamma(2.0, 0.6, shape)
    return np.stack([random.gamma(tokens * hard / 2.4, 2.4), tokens], axis=-1)


def covered(intervals: list[tuple[float, float]], truth: float) -> float:
    return sum(low <= truth <= high for low, high in intervals) / len(intervals)


@pytest.mark.parametrize("p", [0.5, 0.8, 0.95])
def test_the_interval_of_an_accuracy_holds_the_truth(p: float) -> None:
    right = (np.random.default_rng(0).random((SETS, ITEMS)) < p).sum(axis=1)
    assert 0.93 <= covered([wilson(n, ITEMS) for n in right], p) <= 0.97


def test_the_interval_of_a_perplexity_holds_the_truth() -> None:
    sets = texts(np.random.default_rng(1), SETS, ITEMS)
    found = perplexity(resampled(sets))  # the same draws as `interval`, for all test sets at once
    tail = stats.norm.cdf(-stats.t.ppf(0.975, ITEMS - 1) * math.sqrt(ITEMS / (ITEMS - 1)))
    low, high = np.quantile(found.numpy(), (tail, 1 - tail), axis=-1)
    intervals = list(zip(low.tolist(), high.tolist(), strict=True))
    assert intervals[7] == pytest.approx(interval(sets[7], perplexity), rel=1e-6)
    assert 0.93 <= covered(intervals, math.exp(1.2)) <= 0.97


def test_the_interval_of_a_paired_change_holds_the_truth() -> None:
    random = np.random.default_rng(2)
    before = texts(random, SETS, ITEMS)
    after = before.copy()
    after[..., 0] *= 1.3  # nats: 1.2 → 1.56, and noise of the text's own
    after[..., 0] += random.normal(0, 4, (SETS, ITEMS))
    drawn = resampled(np.stack([before, after], axis=1), 500)
    errors = (mean(drawn)[:, 1] - mean(drawn)[:, 0]).std(dim=-1)
    moved = after[..., 0].sum(1) / after[..., 1].sum(1) - before[..., 0].sum(1) / before[..., 1].sum(1)
    found = [difference([m], e) for m, e in zip(moved.tolist(), errors.tolist(), strict=True)]
    assert 0.93 <= covered([(one.low, one.high) for one in found], 0.36) <= 0.97
    apart = [resampled(one, 500, seed) for seed, one in enumerate((before, after))]  # not in pairs: far too wide
    assert float(errors.mean()) < 0.8 * float(torch.hypot(*(mean(one).std(dim=-1) for one in apart)).mean())


def test_seeds_and_items_together_hold_the_truth() -> None:
    random = np.random.default_rng(3)
    effect = 0.05 + random.normal(0, 0.02, (SETS, 3, 1))  # of each seed
    items = effect + random.normal(0, 0.3, (SETS, 1, ITEMS))  # the items move all seeds alike
    errors = items.mean(axis=1).std(axis=-1) / math.sqrt(ITEMS)
    found = [difference(list(s), e) for s, e in zip(items.mean(axis=-1), errors, strict=True)]
    assert 0.93 <= covered([(one.low, one.high) for one in found], 0.05) <= 0.99
    seeds_only = [difference(list(s)) for s in items.mean(axis=-1)]
    assert covered([(one.low, one.high) for one in seeds_only], 0.05) < 0.93


def test_the_bootstrap_of_a_mean_is_its_standard_error() -> None:
    tally = texts(np.random.default_rng(4), ITEMS)
    drawn = perplexity(resampled(tally, 4000))
    assert float(drawn.std()) == pytest.approx(standard_error(tally, perplexity), rel=0.05)
    right = np.stack([np.arange(ITEMS) % 4 > 0, np.ones(ITEMS)], axis=-1)
    assert standard_error(right, mean) == pytest.approx(math.sqrt(0.75 * 0.25 / ITEMS))
    low, high = interval(right, mean)
    assert (low, high) == pytest.approx(wilson(150, ITEMS), abs=0.015)


def test_draws_are_the_same_for_all_that_is_scored_on_the_same_items() -> None:
    random = np.random.default_rng(5)
    one, other = texts(random, 50), texts(random, 50)
    both = resampled(np.stack([one, other]), 20, seed=7)
    assert both[1].tolist() == resampled(other, 20, seed=7).tolist()
    assert not torch.equal(both[1], resampled(other, 20, seed=8))
    slow = np.array([other[row].sum(axis=0) for row in random.integers(0, 50, (4000, 50))])
    assert resampled(other, 4000).std(dim=0).numpy() == pytest.approx(slow.std(axis=0), rel=0.06)
    assert resampled(other, 300)[:, 1].min() < other[:, 1].sum() < resampled(other, 300)[:, 1].max()


def test_wilson_mcnemar_and_student_are_scipys() -> None:
    for right, n in ((0, 10), (7, 10), (255, 256), (256, 256)):
        theirs = stats.binomtest(right, n).proportion_ci(method="wilson")
        assert wilson(right, n) == pytest.approx((theirs.low, theirs.high), abs=1e-6)
    random = np.random.default_rng(6)
    for _ in range(50):
        old, new = (random.random((2, 80)) < [[0.9], [0.8]]).astype(float)
        lost, won = int((old > new).sum()), int((new > old).sum())
        p = stats.binomtest(lost, lost + won).pvalue if lost + won else 1.0
        assert mcnemar(old, new) == pytest.approx(p)
    assert mcnemar([1, 0], [1, 0]) == 1.0
    for freedom in (1, 2, 5, 10, 11, 30, 500):
        assert student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=0.003)


def test_a_difference_by_hand() -> None:
    found = difference([0.049, 0.070, 0.056])
    t = stats.ttest_1samp([0.049, 0.070, 0.056], 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((t.low, t.high), abs=1e-5)
    assert found.word == "helps"
    assert difference([0.049, 0.070, 0.056], item_error=0.03).word == "cannot be told"
    assert difference([-0.2, -0.21, -0.19]).word == "harms"
    assert difference([0.1, 0.1, 0.1]).word == "helps"
    alone = difference([0.1], 0.02)
    assert (alone.low, alone.high) == pytest.approx((0.1 - NORMAL * 0.02, 0.1 + NORMAL * 0.02))
    assert difference([0.1]).word == "cannot be told"  # one seed, nothing known of the items


def test_what_cannot_be_resampled_is_refused() -> None:
    with pytest.raises(ForgetlabError, match=r"shape \(0,\)"):
        resampled([])
    with pytest.raises(ForgetlabError, match="2 answers before, 1 after"):
        mcnemar([1, 0], [1])
