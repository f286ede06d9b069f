"""continuum: from predictions; R becomes twenty test items a task."""

from typing import Any

import numpy as np
from continuum.metrics import metrics

PEER = "continuum"
NOTES = {
    "average_accuracy": "accuracy_A, documented as that of Díaz-Rodríguez et al. 2018",
    "backward_transfer": "its docstring cites GEM",
    "forward_transfer": "its docstring cites GEM; it takes no baseline",
    "forgetting_measure": "its docstring cites Chaudhry et al. 2018, eq. 3; corrected in its repository after this "
    "release (its issues 281 and 291)",
}
ITEMS = 20


def predictions(R: Any) -> tuple[list[Any], list[Any], list[Any]]:
    tasks = np.repeat(np.arange(len(R)), ITEMS)
    right = [np.concatenate([np.arange(ITEMS) < round(score * ITEMS) for score in row]) for row in R]
    return [one.astype(int) for one in right], [np.ones(len(tasks), int)] * len(R), [tasks] * len(R)


def average_accuracy(R: Any) -> float:
    return metrics.accuracy_A(*predictions(R))


def backward_transfer(R: Any) -> float:
    return metrics.backward_transfer(*predictions(R))


def forward_transfer(R: Any, baseline: Any) -> float:
    return metrics.forward_transfer(*predictions(R))


def forgetting_measure(R: Any) -> float:
    return metrics.forgetting(*predictions(R))
