"""The law that scales a trial: how far a watched score has fallen at the end of a run, from what its first steps did.

With g(x) = asinh(x / 0.02), which is even for small changes and a logarithm for large ones, and takes gains too:

    g(fall) = a + b · g(rise) + c · ln(‖θ_n − θ₀‖ / √N · Σ_{t<T} η_t / Σ_{t<n} η_t) + d · ln(1 + 10 p)

fall: of the main score at step T, in points or in nats. rise: of the old loss in nats at step n, the trial's end (of
the score, where a task has no loss). Then how far a weight would go, if it went on as in the trial, by the schedule
of its rates η. p: the share of old examples in a batch.

A power law where changes are large, as Kalajdzievski 2024 (2401.05605) has it for steps and Bethune et al. 2025
(2502.06042) for tokens and for 1 + B p. One law for each scale, by least squares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from forgetlab.errors import ForgetlabError
from forgetlab.metrics.uncertainty import NORMAL
from forgetlab.sources.json_files import read_json
from forgetlab.sources.shipped import data_folder

Array = NDArray[np.float64]

GRAIN = 0.02  # points or nats: changes below it are counted, above it their logarithm is
LEVEL = 0.9  # of the intervals
ITEMS = NormalDist().inv_cdf((1 + LEVEL) / 2) / NORMAL  # from half a 95 % interval to half of one of LEVEL
FILE = "forecast/law.json"
TINY = 1e-12


class Past(TypedDict):
    """A watched task of a past run. x: as in `columns`; error: half the 95 % interval of the score before."""

    model: str
    new: str
    scale: str
    x: list[float]
    error: float
    fall: float


@dataclass(frozen=True)
class Law:
    """A fitted law. weights: a, b, c, d. known, other: (low, high), the interval's ends beside g(fall), before
    leverage, for a model of past runs and for another one.

    inverse: (XᵀX)⁻¹. reach: the largest leverage among the past runs. models: theirs; results: how many there are.
    """

    weights: Array
    known: tuple[float, float]
    other: tuple[float, float]
    inverse: Array
    reach: float
    models: frozenset[str]
    results: int

    def middle(self, x: Sequence[float]) -> float:
        """The fall that the law foretells, on its scale; x: a row of `columns`."""
        return float(loosened(np.dot(x, self.weights)))

    def ends(self, x: Sequence[float], error: float = 0.0, model: str = "") -> tuple[float, float]:
        """The interval's ends, on the same scale: what the law misses, and beside it the choice of the test items.

        Wider by √(1 + leverage), and by more where no past run was alike. error: as of `Past`.
        """
        centre, leverage = float(np.dot(x, self.weights)), float(_leverage(np.array([x]), self.inverse)[0])
        wider = math.sqrt(1 + leverage) * max(1.0, math.sqrt(leverage / self.reach))
        middle, noise = float(loosened(centre)), ITEMS * error
        ends = self.known if model in self.models else self.other
        low, high = (float(loosened(centre + end * wider)) for end in ends)
        return middle - math.hypot(middle - low, noise), middle + math.hypot(high - middle, noise)

    def strangeness(self, x: Sequence[float]) -> float:
        """The trial's leverage over the largest among the past runs: above 1 the law is stretched beyond them."""
        return float(_leverage(np.array([x], dtype=float), self.inverse)[0]) / self.reach


def squeezed(x: Any) -> Array:
    """g(x) = asinh(x / 0.02)."""
    return np.arcsinh(np.asarray(x, dtype=float) / GRAIN)


def loosened(y: Any) -> Array:
    """The inverse of `squeezed`."""
    return GRAIN * np.sinh(np.asarray(y, dtype=float))


def fit(past: Sequence[Past], level: float = LEVEL) -> Law:
    """The law of past results of one scale, by least squares on g.

    The interval: each new task is foretold by a law that was fitted without it, and quantiles of what those laws miss
    beyond the choice of the items are its ends (cross-conformal prediction: Vovk 2015); for another model, each model
    by a law fitted on the others. Raises ForgetlabError for fewer than three new tasks.
    """
    models = np.array([one["model"] for one in past])
    groups = np.array([f"{one['model']}: {one['new']}" for one in past])
    if len(set(groups)) < 3:
        raise ForgetlabError(f"a law takes past runs of three new tasks or more, got {len(set(groups))}")
    x, y, noise = (np.array([one[key] for one in past], dtype=float) for key in ("x", "fall", "error"))
    known = _ends(x, y, ITEMS * noise, groups, level)
    other = _ends(x, y, ITEMS * noise, models, level) if len(set(models)) > 1 else known
    weights, inverse = _least_squares(x, squeezed(y))
    other = (min(known[0], other[0]), max(known[1], other[1]))
    return Law(weights, known, other, inverse, float(_leverage(x, inverse).max()), frozenset(models), len(y))


def _ends(x: Array, y: Array, noise: Array, groups: NDArray[np.str_], level: float) -> tuple[float, float]:
    """The quantiles of what laws that were fitted without a group miss in it, beyond the noise, beside g(fall)."""
    missed = np.empty_like(y)
    for group in set(groups):
        own = groups == group
        weights, inverse = _least_squares(x[~own], squeezed(y[~own]))
        centre = x[own] @ weights
        gap = y[own] - loosened(centre)
        beyond = np.sign(gap) * np.sqrt(np.maximum(gap**2 - noise[own] ** 2, 0))
        missed[own] = (squeezed(loosened(centre) + beyond) - centre) / np.sqrt(1 + _leverage(x[own], inverse))
    tail, n = (1 - level) / 2, len(y)  # at either end
    low = np.quantile(missed, max(0.0, tail - tail / n), method="lower")
    high = np.quantile(missed, min(1.0, (1 - tail) * (1 + 1 / n)), method="higher")
    return min(float(low), 0.0), max(float(high), 0.0)


def columns(rise: float, pace: float, way: float, share: float) -> list[float]:
    """What the law multiplies its weights with: 1, g(rise), ln pace + way, ln(1 + 10 p).

    pace: ‖θ_n − θ₀‖ / √N. way: ln of the ratio of the sums of rates.
    """
    return [1.0, float(squeezed(rise)), math.log(max(pace, TINY)) + way, math.log1p(10 * share)]


@cache
def shipped() -> list[Past]:
    """The past runs that come with forgetlab, made by benchmarks/forecasts.py."""
    found = read_json(data_folder() / FILE)
    if found is None:
        raise ForgetlabError(f"{FILE} is missing from the shipped data, or damaged; reinstall forgetlab")
    return found["past"]


def _least_squares(x: Array, y: Array) -> tuple[Array, Array]:
    weights, *_ = np.linalg.lstsq(x, y, rcond=None)
    return np.asarray(weights, dtype=np.float64), np.asarray(np.linalg.pinv(x.T @ x), dtype=np.float64)


def _leverage(x: Array, inverse: Array) -> Array:
    """h_i = x_iᵀ (XᵀX)⁻¹ x_i."""
    return np.einsum("ij,jk,ik->i", x, inverse, x)
