"""Importance clouds: weights that matter to an old task, to a new one, to both or to neither."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.random import default_rng  # numpy imports it at first use only, some 15 ms
from numpy.typing import NDArray

from forgetlab.errors import number, whole

Array = NDArray[np.float64]
KINDS = ("slack", "new-critical", "old-critical", "shared")  # number 2·(critical to the old) + (critical to the new)


@dataclass(frozen=True, eq=False)
class ImportanceCloud:
    """What `importance_cloud` returns.

    old, new: (n,), importance of each parameter for each task. group: (n,), an index into KINDS.
    threshold_old, threshold_new: above them a parameter is critical.
    shares: group name → share of the n parameters; expected: the same for n without limit.
    """

    old: Array
    new: Array
    group: NDArray[np.int64]
    threshold_old: float
    threshold_new: float
    shares: Mapping[str, float]
    expected: Mapping[str, float]
    source: str = "simulated"


def importance_cloud(
    n: int = 2000, correlation: float = 0.4, seed: int = 0, *, quantile: float = 0.5, spread: float = 1.0
) -> ImportanceCloud:
    """Parameters with a log-normal importance for an old and a new task, and the four groups they fall into.

    n ≥ 1. correlation: of the two log importances, in [−1, 1]; the rank correlation is (6/π) arcsin(correlation/2),
    that of the raw values is far smaller. quantile: in (0, 1), the share of parameters below the threshold of a task.
    spread: standard deviation of log₁₀ importance, in decades; the median importance is 1.
    Defaults as found in the shipped tiny-bert: Fisher diagonals of one matrix spread over 0.3–1.8 decades, and
    those of two tasks correlate at 0.2–0.7.

    >>> importance_cloud(n=4, correlation=1.0).shares
    {'slack': 0.5, 'new-critical': 0.0, 'old-critical': 0.0, 'shared': 0.5}
    """
    n, seed = whole("n", n), whole("seed", seed, 0)
    spread = number("spread", spread, above=True)
    expected = expected_shares(correlation, quantile)
    z, other = default_rng(seed).standard_normal((2, n))
    old = 10 ** (spread * z)
    new = 10 ** (spread * (correlation * z + (1 - correlation**2) ** 0.5 * other))
    threshold_old, threshold_new = float(np.quantile(old, quantile)), float(np.quantile(new, quantile))
    group = 2 * (old > threshold_old).astype(np.int64) + (new > threshold_new)
    shares = np.bincount(group, minlength=4) / n
    return ImportanceCloud(
        old, new, group, threshold_old, threshold_new, dict(zip(KINDS, shares.tolist(), strict=True)), expected
    )


def expected_shares(correlation: float, quantile: float = 0.5) -> dict[str, float]:
    """The share of each group in an endless importance cloud: group name → share.

    shared = P(both above) = (1 − q)² + (1/2π) ∫₀^{arcsin ρ} exp(−z²/(1 + sin θ)) dθ with z the normal quantile of q;
    at the median, z = 0, this is 1/4 + arcsin(ρ)/2π. The integral is taken by the midpoint rule (error < 1e-8).
    Source: Plackett 1954 (the derivative of the orthant probability in ρ); Sheppard 1899 (the median).

    >>> expected_shares(0.0)
    {'slack': 0.25, 'new-critical': 0.25, 'old-critical': 0.25, 'shared': 0.25}
    """
    correlation = number("correlation", correlation, -1, 1)
    quantile = number("quantile", quantile, 0, 1, above=True, below=True)
    z, above, end = NormalDist().inv_cdf(quantile), 1 - quantile, np.arcsin(correlation)
    theta = end * (np.arange(1000) + 0.5) / 1000
    integral = end * np.mean(np.exp(-(z**2) / (1 + np.sin(theta))))
    shared = float(np.clip(above**2 + integral / (2 * np.pi), max(0.0, 2 * above - 1), above))
    return dict(zip(KINDS, (1 - 2 * above + shared, above - shared, above - shared, shared), strict=True))
