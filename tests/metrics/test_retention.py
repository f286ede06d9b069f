"""What is kept and learned, against the definitions written out, and the front against a slow search."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from forgetlab.errors import ForgetlabError
from forgetlab.metrics.retention import best, higher_is_better, kept, learned, pareto, scale, share

PERPLEXITY = {"scale": "ratio", "higher_is_better": False}


def test_kept_by_hand() -> None:
    assert kept(0.9, 0.7, 0.5) == pytest.approx(0.5)
    assert kept(0.8, 0.9, 0.5) == 1.0  # a gain does not make up for a loss elsewhere
    assert kept(0.9, 0.4, 0.5) == 0.0  # nor is worse than guessing less than nothing
    # 3 → 12 with a unigram model at 48: ln 4 of ln 16 nats are left
    assert kept(3.0, 12.0, 48.0, **PERPLEXITY) == pytest.approx(0.5)
    assert kept(3.0, 48.0, 48.0, **PERPLEXITY) == 0.0
    assert kept(3.0, 2.9, 48.0, **PERPLEXITY) == 1.0
    for gone in (math.inf, math.nan):
        assert kept(3.0, gone, 48.0, **PERPLEXITY) == kept(0.9, gone, 0.5) == 0.0


def test_a_tagger_or_classifier_that_falls_to_chance_keeps_nothing() -> None:
    assert kept(0.80, 0.50, 0.5) == 0.0  # the plain ratio says 0.63
    assert kept(1.00, 0.0, 0.0) == 0.0
    assert kept(0.62, 0.31, 0.31) == pytest.approx(0.0)  # most frequent of many classes


def test_what_starts_at_chance_has_nothing_to_lose() -> None:
    assert kept(0.52, 0.50, 0.5, error=0.04) is None  # the plain ratio says 0.96
    assert kept(0.45, 0.50, 0.5) is None
    assert kept(0.5, 0.9, 0.5) is None
    assert kept(900.0, 900.0, 873.0, **PERPLEXITY) is None
    assert kept(800.0, 900.0, 873.0, **PERPLEXITY, error=0.1) is None  # ln (873 / 800) = 0.087
    assert kept(800.0, 800.0, 873.0, **PERPLEXITY, error=0.08) == 1.0
    for start in (math.inf, math.nan):
        assert kept(start, 5.0, 48.0, **PERPLEXITY) is None
    assert kept(math.nan, 0.5, 0.5) is None


def test_without_a_guesser_it_is_the_plain_ratio() -> None:
    assert kept(0.8, 0.6) == pytest.approx(0.75)
    assert kept(3.0, 6.0, **PERPLEXITY) == 0.5
    assert kept(0.2, 0.4, higher_is_better=False) == 0.5  # a Brier score
    assert kept(0.0, 0.4) is None
    assert kept(3.0, math.inf, **PERPLEXITY) == 0.0
    assert kept(0.2, 0.0, higher_is_better=False) == 1.0


def test_learned_by_hand() -> None:
    assert learned(0.5, 0.9) == pytest.approx(0.8)
    assert learned(0.5, 0.4) == 0.0
    assert learned(1.0, 1.0) == 0.0
    assert learned(32.0, 8.0, 2.0, scale="ratio") == pytest.approx(0.5)
    assert learned(32.0, 1.9, 2.0, scale="ratio") == 1.0
    assert learned(32.0, math.inf, scale="ratio") == learned(0.5, math.nan) == 0.0
    with pytest.raises(ForgetlabError, match="unknown scale 'log'"):
        learned(0.5, 0.9, scale="log")


def test_a_share_of_an_array_is_that_of_each_number() -> None:
    random_ = np.random.default_rng(0)
    before, after = random_.uniform(1.5, 40, (2, 200))
    each = [kept(b, a, 48.0, **PERPLEXITY) for b, a in zip(before, after, strict=True)]
    assert share(48.0, after, before, "ratio").tolist() == pytest.approx(each)
    assert share(1.0, np.array([0.5, np.nan]), np.array([1.0, 0.0])).tolist() == [0.0, 0.0]


def test_the_direction_is_the_tasks_own() -> None:
    words = {"metric": "word_perplexity,none"}
    assert (scale(words), higher_is_better(words), best(words)) == ("ratio", False, 1.0)
    told = {"metric": "surprise", "scale": "ratio", "higher_is_better": False, "floor": 1.9}
    assert (scale(told), higher_is_better(told), best(told)) == ("ratio", False, 1.9)
    assert (scale({"metric": "f1"}), higher_is_better({"metric": "f1"}), best({"metric": "f1"})) == ("points", True, 1)
    loss = {"metric": "brier_score"}
    assert (scale(loss), higher_is_better(loss), best(loss)) == ("points", False, 0.0)


def test_the_front_is_what_nothing_else_beats() -> None:
    generator = random.Random(0)
    points = [(generator.randint(0, 20) / 20, generator.randint(0, 20) / 20) for _ in range(60)]

    def beaten(i: int) -> bool:
        (x, y), rest = points[i], [p for p in points if p != points[i]]
        return any(u >= x and v >= y for u, v in rest)

    front = pareto(points)
    assert sorted(front) == [i for i in range(60) if not beaten(i)]
    assert [points[i] for i in front] == sorted(points[i] for i in front)
    assert pareto([(0.5, 0.5), (0.5, 0.5), (0.2, 0.9), (0.2, 0.8), (0.2, 0.9)]) == [2, 4, 0, 1]  # equals stand together
    assert pareto([]) == []
