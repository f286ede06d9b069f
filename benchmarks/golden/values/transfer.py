"""Scores on every task after every task: R[i][j] is that on task j after task i."""

from __future__ import annotations

from fractions import Fraction as F
from typing import Any

from benchmarks.golden.exact import Matrix, mean
from benchmarks.golden.values import Value

GEM = "Lopez-Paz & Ranzato 2017 (GEM)"
DIAZ = "of Díaz-Rodríguez et al. 2018"
FOUR = [[0.9, 0.1, 0.25, 0.2], [0.95, 0.8, 0.3, 0.15], [0.7, 0.75, 0.85, 0.35], [0.6, 0.65, 0.9, 0.8]]
THREE = [[0.5, 0.4, 0.3], [0.65, 0.8, 0.55], [0.75, 0.6, 0.9]]
CASES = [{"R": FOUR}, {"R": THREE}]


def pairs(R: Matrix, gap: int = 1) -> list[tuple[int, int]]:
    """(i, j) with j <= i − gap."""
    return [(i, j) for i in range(len(R)) for j in range(i - gap + 1)]


def backward(R: Matrix) -> F:
    return mean(R[-1][j] - R[j][j] for j in range(len(R) - 1))


def forward(R: Matrix, baseline: Any) -> F:
    return mean(R[i - 1][i] - baseline[i] for i in range(1, len(R)))


def fell(R: Matrix, last: int) -> F:
    """Mean over the tasks but the last of: the best score in the rows before `last`, less the score at the end."""
    return mean(max(row[j] for row in R[:last]) - R[-1][j] for j in range(len(R) - 1))


def forgetting(R: Matrix) -> F:
    return fell(R, len(R) - 1)


def one_task_less(R: Matrix) -> F:
    T = len(R)
    return sum((max(R[i][j] for i in range(j, T - 2)) - R[-1][j] for j in range(T - 2)), F(0)) / (T - 1)


def over_all(R: Matrix, value: F) -> F:
    return value * F(len(R) - 1, len(R))


VALUES = (
    Value(
        "average_accuracy",
        "ACC = (1/T) Σ_j R[T, j]",
        f"{GEM}, eq. 2",
        "the last row",
        lambda R: mean(R[-1]),
        CASES,
        conventions={
            f"A {DIAZ}: the mean over the lower triangle": lambda R: mean(R[i][j] for i, j in pairs(R, 0)),
            "average incremental accuracy: the mean over rows of the mean over the tasks seen": lambda R: mean(
                mean(row[: i + 1]) for i, row in enumerate(R)
            ),
            "learning accuracy: the mean of the diagonal": lambda R: mean(R[i][i] for i in range(len(R))),
        },
        mistakes={"the mean of the whole matrix": lambda R: mean(map(mean, R))},
    ),
    Value(
        "backward_transfer",
        "BWT = 1/(T−1) Σ_{i<T} (R[T, i] − R[i, i])",
        f"{GEM}, eq. 3",
        "negative = forgetting",
        backward,
        CASES,
        conventions={
            f"BWT {DIAZ}: the mean over all i > j of R[i, j] − R[j, j]": lambda R: mean(
                R[i][j] - R[j][j] for i, j in pairs(R)
            ),
            "the sign is turned (forgetting as −BWT)": lambda R: -backward(R),
        },
        mistakes={
            "divides by T": lambda R: over_all(R, backward(R)),
            f"that {DIAZ} without the pairs j = i − 1, divided by the number of all pairs": lambda R: (
                sum((R[i][j] - R[j][j] for i, j in pairs(R, 2)), F(0)) / len(pairs(R))
            ),
            "from the best score instead of the one just after learning": lambda R: -forgetting(R),
        },
    ),
    Value(
        "forward_transfer",
        "FWT = 1/(T−1) Σ_{i≥2} (R[i−1, i] − b_i)",
        f"{GEM}, eq. 4",
        "baseline: scores of the untrained model; its first is not read",
        forward,
        [{"R": FOUR, "baseline": [0.05, 0.15, 0.1, 0.25]}, {"R": THREE, "baseline": [0.5, 0.45, 0.25]}],
        conventions={
            f"FWT {DIAZ}: the mean over the upper triangle, no baseline": lambda R, baseline: mean(
                R[j][i] for i, j in pairs(R)
            ),
        },
        mistakes={
            "no baseline is subtracted": lambda R, baseline: forward(R, [0] * len(R)),
            "divides by T": lambda R, baseline: over_all(R, forward(R, baseline)),
            "the mean over the lower triangle, no baseline": lambda R, baseline: mean(R[i][j] for i, j in pairs(R)),
        },
    ),
    Value(
        "forgetting_measure",
        "F = 1/(T−1) Σ_{j<T} (max_{l<T} R[l, j] − R[T, j])",
        "Chaudhry et al. 2018 (Riemannian Walk), eq. 3",
        "the maximum leaves out the last row, so a task that gained counts as negative; positive = forgetting",
        forgetting,
        CASES,
        conventions={"from the score just after learning instead of the best one (−BWT)": lambda R: -backward(R)},
        mistakes={
            "the maximum includes the last row: no task can count as negative": lambda R: fell(R, len(R)),
            "divides by T": lambda R: over_all(R, forgetting(R)),
            "without task T−1, and without row T−1 in the maximum; divided by T−1": one_task_less,
            "the sign is turned": lambda R: -forgetting(R),
        },
    ),
)
