"""What the metrics take for numbers: lists, arrays, tensors on any device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from forgetlab.errors import ForgetlabError

Numbers = ArrayLike | Tensor | Sequence[Tensor]


def as_array(values: Numbers, name: str, ndim: int | None = None) -> NDArray[np.float64]:
    """The numbers in float64 on the CPU; a ForgetlabError with their name for anything else."""
    try:
        if isinstance(values, (list, tuple)) and values and all(isinstance(v, Tensor) for v in values):
            values = torch.stack(tuple(values))  # one copy from the GPU for a whole list of per-batch sums
        if isinstance(values, Tensor):
            values = values.detach().cpu().double().numpy()
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ForgetlabError(f"{name}: expected a rectangular array of numbers ({error})") from error
    if ndim is not None and array.ndim != ndim:
        raise ForgetlabError(f"{name} has shape {array.shape}; expected {ndim} dimension(s)")
    return array


def rounded(value: float, digits: int) -> float | None:
    """A number as plain values hold it; None for what is not finite."""
    return round(value, digits) if math.isfinite(value) else None
