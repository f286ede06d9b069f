"""Transfer between tasks, from the scores on every task after every task."""

from __future__ import annotations

from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from forgetlab.errors import ForgetlabError
from forgetlab.metrics.arrays import Numbers, as_array


def average_accuracy(R: Numbers) -> float:
    """Mean score over all tasks after the last one, in the unit of R.

    R: (T, T), T >= 1, R[i, j] = score on task j after task i; only the last row is read.
    Raises ForgetlabError for another shape or a last row that is not finite.
    Source: Lopez-Paz & Ranzato 2017 (GEM), eq. 2. Not "average incremental accuracy", a mean over rows.

    >>> average_accuracy([[0.9, 0.1], [0.7, 0.8]])
    0.75
    """
    scores = _scores(R, least=1)
    needed = np.zeros(scores.shape, dtype=bool)
    needed[-1] = True
    _need(scores, needed)
    return float(scores[-1].mean())  # ACC = (1/T) Σ_j R[T, j]


def backward_transfer(R: Numbers) -> float:
    """Mean change of each earlier task from when it was learned to the end; negative = forgetting.

    R: (T, T), T >= 2; the diagonal and the last row are read, the rest may be nan. Returns the unit of R.
    Raises ForgetlabError for another shape or a needed number that is not finite.
    Source: GEM 2017, eq. 3. Some divide by T, which counts the last task's certain zero.

    >>> round(backward_transfer([[0.9, 0.1], [0.7, 0.8]]), 3)
    -0.2
    """
    scores = _scores(R)
    needed = np.eye(len(scores), dtype=bool)
    needed[-1], needed[:, -1] = True, False
    _need(scores, needed)
    return float((scores[-1] - scores.diagonal())[:-1].mean())  # BWT = 1/(T−1) Σ_{i<T} (R[T, i] − R[i, i])


def forward_transfer(R: Numbers, baseline: Numbers) -> float:
    """Mean head start on each task, before it is trained, from the tasks before it, in the unit of R.

    R: (T, T), T >= 2, read just above the diagonal. baseline: (T,), of the untrained model; [0] is not read.
    Raises ForgetlabError for other shapes or a needed number that is not finite.
    Source: GEM 2017, eq. 4. Without the baseline, as often reported, it is zero-shot accuracy.

    >>> round(forward_transfer([[0.9, 0.6], [0.7, 0.8]], baseline=[0.5, 0.5]), 3)
    0.1
    """
    scores, start = _scores(R), as_array(baseline, "baseline", 1)
    if len(start) != len(scores):
        raise ForgetlabError(f"baseline has {len(start)} scores; expected {len(scores)}, one per task of R")
    _need(scores, np.eye(len(scores), k=1, dtype=bool))
    _need(start, np.arange(len(start)) > 0, "baseline")
    return float((scores.diagonal(1) - start[1:]).mean())  # FWT = 1/(T−1) Σ_{i≥2} (R[i−1, i] − b_i)


@overload
def forgetting_measure(R: Numbers, *, per_task: Literal[False] = False) -> float: ...
@overload
def forgetting_measure(R: Numbers, *, per_task: Literal[True]) -> NDArray[np.float64]: ...
def forgetting_measure(R: Numbers, *, per_task: bool = False) -> float | NDArray[np.float64]:
    """Mean loss of each earlier task from its best score before the last task; positive = forgetting.

    R: (T, T), T >= 2, in columns before the last; above the diagonal nan is skipped. Returns the mean or,
    `per_task`, the (T−1,) losses, in the unit of R.
    Raises ForgetlabError for another shape or a needed number that is not finite.
    Source: Chaudhry et al. 2018 (Riemannian Walk). The maximum excludes the last row, so a gain counts as
    negative. Not −BWT: that starts from R[j, j], this from the peak.

    >>> forgetting_measure([[0.5, 0.1, 0.1], [0.75, 0.8, 0.1], [0.25, 0.8, 0.9]], per_task=True).tolist()
    [0.5, 0.0]
    """
    scores = _scores(R)
    needed = np.tri(len(scores), dtype=bool)
    needed[:, -1] = False
    _need(scores, needed)
    best = np.where(np.isfinite(scores), scores, -np.inf)[:-1, :-1].max(axis=0)
    losses = best - scores[-1, :-1]  # F_j = max_{l<T} R[l, j] − R[T, j]
    return losses if per_task else float(losses.mean())


def _scores(R: Numbers, least: int = 2) -> NDArray[np.float64]:
    scores = as_array(R, "R")
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1] or len(scores) < least:
        expected = f"(T, T) with T >= {least}, R[i, j] = score on task j after task i"
        raise ForgetlabError(f"R has shape {scores.shape}; expected {expected}")
    return scores


def _need(scores: NDArray[np.float64], needed: NDArray[np.bool_], name: str = "R") -> None:
    missing = np.argwhere(needed & ~np.isfinite(scores))
    if len(missing):
        where = ", ".join(map(str, missing[0]))
        raise ForgetlabError(f"{name}[{where}] is {scores[tuple(missing[0])]}; expected a finite score there")
