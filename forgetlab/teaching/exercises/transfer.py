"""Checks of lesson 03: backward transfer, the forgetting measure, perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forgetlab.metrics import backward_transfer, forgetting_measure, perplexity
from forgetlab.teaching.exercises.checking import Verdict, diagnose

Array = NDArray[np.float64]

GOLDEN = np.array([[0.9, 0.1, 0.1], [0.95, 0.8, 0.1], [0.7, 0.75, 0.85]])
CASES = [
    (GOLDEN,),
    (np.array([[0.9, 0.5], [0.6, 0.8]]),),
    # the last task helps the first one beyond its peak, and the third is best before it is trained
    (
        np.array(
            [
                [0.60, 0.20, 0.65, 0.30],
                [0.55, 0.75, 0.93, 0.25],
                [0.72, 0.40, 0.85, 0.45],
                [0.88, 0.62, 0.35, 0.90],
            ]
        ),
    ),
]


def check_bwt(function: Callable[..., Any]) -> Verdict:
    """Backward transfer of a matrix of scores.

    function: (R) → number, R a (T, T) array with R[i, j] = score on task j after learning task i.
    """
    mistakes: dict[str, Callable[[Array], Any]] = {
        "The mean runs over T tasks. The last task has had no time to change: its difference is always 0 and only "
        "waters the mean down. Average over the T − 1 tasks before it.": lambda R: (R[-1] - R.diagonal()).mean(),
        "The sign is turned round. Backward transfer is the end minus the start, so that forgetting "
        "is negative.": lambda R: -backward_transfer(R),
        "The sum is right, but it still has to be divided by the number of earlier tasks, T − 1.": lambda R: (
            R[-1] - R.diagonal()
        )[:-1].sum(),
        "Each task is compared with its score one task later, when some of it is already lost. Its start is the score "
        "just after its own training: the same number for row and column.": lambda R: (
            R[-1] - np.append(R.diagonal(-1), R[-1, -1])
        )[:-1].mean(),
        "Each task is compared with the first row, when most of them had not been learned. Its start is the score just "
        "after its own training: the diagonal.": lambda R: (R[-1] - R[0])[:-1].mean(),
        "Rows and columns are swapped: R[i, j] has the task just learned as its row. The end is the last row, not the "
        "last column.": lambda R: (R[:, -1] - R.diagonal())[:-1].mean(),
        "This starts from each task's best score so far. That is the forgetting measure with its sign turned; backward "
        "transfer starts from the diagonal, whatever came later.": lambda R: -forgetting_measure(R),
        "This compares with the row before the last, so that it tells what the last task alone changed. The start of "
        "each task is the diagonal.": lambda R: (R[-1] - R[-2])[:-1].mean(),
    }
    praise = "Each earlier task is compared with its own diagonal, over T − 1 tasks; forgetting comes out negative."
    return diagnose(function, CASES, backward_transfer, mistakes, praise)


def check_forgetting_measure(function: Callable[..., Any]) -> Verdict:
    """The forgetting measure of a matrix of scores.

    function: (R) → number, R a (T, T) array with R[i, j] = score on task j after learning task i.
    """
    mistakes: dict[str, Callable[[Array], Any]] = {
        "No task can come out below 0, so a gain is hidden. Either the maximum includes the last row (the peak is "
        "taken over the rows before it), or losses below 0 are cut off, as `max(0, …)` does.": lambda R: (
            R.max(axis=0) - R[-1]
        )[:-1].mean(),
        "This is backward transfer with its sign turned: it starts from the diagonal. The forgetting measure starts "
        "from the best score of the column before the last task.": lambda R: -backward_transfer(R),
        "The sign is turned round. This measure is peak minus end, so that forgetting is positive.": lambda R: (
            -forgetting_measure(R)
        ),
        "The mean runs over all T tasks. The last one cannot be forgotten yet: leave its column out.": lambda R: (
            R[:-1].max(axis=0) - R[-1]
        ).mean(),
        "The sum over tasks is divided by T. Only T − 1 tasks can have been forgotten.": lambda R: (
            forgetting_measure(R, per_task=True).sum() / len(R)
        ),
        "The losses of the tasks are added up, and still have to be averaged.": lambda R: forgetting_measure(
            R, per_task=True
        ).sum(),
        "The maximum is taken along the rows, over tasks. A peak belongs to one task: go down its column, over "
        "time.": lambda R: (R.max(axis=1) - R[-1])[:-1].mean(),
        "The maximum begins at the task's own row. The definition takes every row before the last: a task can be at "
        "its best before it is trained.": lambda R: float(
            np.mean([R[j:-1, j].max() - R[-1, j] for j in range(len(R) - 1)])
        ),
        "The largest loss is returned. The measure is the mean over the earlier tasks.": lambda R: forgetting_measure(
            R, per_task=True
        ).max(),
    }
    praise = "From each column's peak before the last row to the last row, over T − 1 tasks; a gain counts as negative."
    return diagnose(function, CASES, forgetting_measure, mistakes, praise)


def check_perplexity(function: Callable[..., Any]) -> Verdict:
    """Perplexity of a corpus that was read in batches.

    function: (nll, tokens) → number; nll (n,) summed −log p of each batch in nats, tokens (n,) their counts.
    """
    mistakes: dict[str, Callable[[Array, Array], Any]] = {
        "This is a mean of per-batch perplexities. One short, hard batch then weighs as much as a long one, and the "
        "result changes with the batching. Sum first, take exp once, at the end.": lambda n, t: np.exp(n / t).mean(),
        "Each batch's mean loss counts alike, however few tokens it has. Add up all losses and all tokens before you "
        "divide.": lambda n, t: np.exp((n / t).mean()),
        "This is the cross-entropy in nats. The perplexity is its exponential.": lambda n, t: n.sum() / t.sum(),
        "The losses are in nats, so the base is e, not 2.": lambda n, t: 2 ** (n.sum() / t.sum()),
        "The total loss is divided by the number of batches. Divide by the number of tokens.": lambda n, t: math.exp(
            n.sum() / len(n)
        ),
        "The sign is lost: this is the geometric mean probability of a token, and the perplexity is its "
        "inverse.": lambda n, t: np.exp(-n.sum() / t.sum()),
    }
    cases = [
        (np.array([20.0, 4.0]), np.array([10.0, 1.0])),
        (np.array([12.0, 30.0, 9.0]), np.array([8.0, 16.0, 2.0])),
    ]
    praise = "All losses over all tokens, then one exp: the same number for any batching."
    return diagnose(function, cases, perplexity, mistakes, praise)
