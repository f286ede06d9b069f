"""Rank correlations, with intervals from whole runs drawn anew: the looks of one run are no independent points."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def ranks(values: ArrayLike) -> NDArray[np.float64]:
    """The rank of each value, counted from 0; equal ones have their mean rank.

    >>> ranks([30, 10, 10]).tolist()
    [2.0, 0.5, 0.5]
    """
    _, places, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts + 1) / 2)[places]


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """The correlation of the ranks of two lists (Spearman 1904); 0 where one of them is constant.

    >>> round(spearman([1, 2, 3, 4], [1, 4, 9, -1]), 6)
    -0.2
    """
    a, b = (own - own.mean() for own in (ranks(x), ranks(y)))
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size else 0.0


def bootstrapped(
    value: Callable[[Sequence[int]], float], count: int, draws: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """(value, low, high): of all `count` groups, and 95 % percentiles over groups drawn with replacement (Efron 1979).

    value: takes the numbers of the groups, some of them twice or more.
    """
    random = np.random.default_rng(seed)
    found = [value(random.integers(count, size=count).tolist()) for _ in range(draws)]
    low, high = np.quantile(found, (0.025, 0.975))
    return value(range(count)), float(low), float(high)
