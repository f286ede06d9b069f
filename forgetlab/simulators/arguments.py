"""Arguments of the simulators, checked: numbers and arrays of them, finite and within their limits."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forgetlab.errors import MOST, ForgetlabError, shown

Array = NDArray[np.float64]

_LIMITS = {"ge": ("≥", np.greater_equal), "gt": (">", np.greater), "le": ("≤", np.less_equal), "lt": ("<", np.less)}


def numbers(name: str, values: ArrayLike, **limits: float) -> Array:
    """The values in float64, all finite and within the limits, such as ge=0, lt=1."""
    wanted = " ".join(["finite", *(f"and {_LIMITS[key][0]} {limit:g}" for key, limit in limits.items())])
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "iuf":
        raise ForgetlabError(f"{name} must be a number, {wanted}; got {shown(values)}")
    good = np.isfinite(array)
    for key, limit in limits.items():
        good &= _LIMITS[key][1](array, limit)
    if not good.all():
        raise ForgetlabError(f"{name} must be {wanted}, got {array[~good].flat[0]:g}")
    return array.astype(np.float64)


def number(name: str, value: float, **limits: float) -> float:
    array = numbers(name, value, **limits)
    if array.ndim:
        raise ForgetlabError(f"{name} must be one number, got an array of shape {array.shape}")
    return float(array)


def whole(name: str, value: int, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= MOST:
        raise ForgetlabError(f"{name} must be a whole number of {least} or more, got {shown(value)}")
    return int(value)
