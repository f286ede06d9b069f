"""Mammoth, from a checkout of its repository: GOLDEN_CHECKOUTS/mammoth."""

import os
from typing import Any

from run import load

PEER = "mammoth (repository, 07bd157b)"
metrics = load(f"{os.environ['GOLDEN_CHECKOUTS']}/mammoth/utils/metrics.py")


def backward_transfer(R: Any) -> Any:
    return metrics.backward_transfer(R)


def forward_transfer(R: Any, baseline: Any) -> Any:
    return metrics.forward_transfer(R, baseline)


def forgetting_measure(R: Any) -> Any:
    return metrics.forgetting(R)
