"""The geometry of interference: one step, two losses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forgetlab.errors import ForgetlabError, number

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OneStep:
    """What `interference` returns, for angle, curvature and rate that broadcast to shape S.

    gradient_old, gradient_new: (*S, 2). updates: name → (*S, 2), the direction whose negative is stepped along.
    change_old, change_new: name → S, the change of each task's loss; negative = it improves.
    break_even: S, the rate above which the plain step harms the old task: 0 in conflict, inf if flat.
    """

    gradient_old: Array
    gradient_new: Array
    updates: Mapping[str, Array]
    change_old: Mapping[str, Array]
    change_new: Mapping[str, Array]
    break_even: Array
    source: str = "simulated"


def interference(
    angle: ArrayLike = 120.0, curvature: ArrayLike = 1.0, rate: ArrayLike = 0.1, *, old: float = 1.0, new: float = 1.0
) -> OneStep:
    """What one step does to both losses when their gradients meet at an angle.

    ΔL = −η g·u + ½η²c‖u‖² for the update u (exact if both losses have the curvature c along it). Updates:
    "plain": g_new; "agem": g_new without its part against g_old; "joint": g_old + g_new; "pcgrad": the same sum, each
    part off the other one first if they conflict. The plain step breaks even at η = 2‖g_old‖cos φ / (c‖g_new‖).

    angle: φ in degrees, 0 to 180. curvature: c ≥ 0. rate: η > 0. These three broadcast.
    old: ‖g_old‖ ≥ 0; with 0, at the old optimum, all that is left is ½η²c‖u‖². new: ‖g_new‖ > 0.
    Source: Yu et al. 2020 (PCGrad), algorithm 1; Chaudhry et al. 2019 (A-GEM), eq. 11.

    >>> step = interference(angle=180, rate=0.1)
    >>> round(float(step.change_old["plain"]), 3), round(float(step.change_old["agem"]), 3)
    (0.105, 0.0)
    """
    phi = np.deg2rad(_numbers("angle", angle, high=180))
    c, eta = _numbers("curvature", curvature), _numbers("rate", rate, above=True)
    old, new = number("old", old), number("new", new, above=True)
    try:
        phi, c, eta = np.broadcast_arrays(phi, c, eta)
    except ValueError:
        shapes = ", ".join(str(x.shape) for x in (phi, c, eta))
        raise ForgetlabError(f"angle, curvature and rate must broadcast, got shapes {shapes}") from None
    g_old = old * np.stack([np.ones_like(phi), np.zeros_like(phi)], -1)
    g_new = new * np.stack([np.cos(phi), np.sin(phi)], -1)
    clash = np.minimum(_dot(g_old, g_new), 0)[..., None]  # g_old·g_new where they conflict
    kept_new = g_new - clash / old**2 * g_old if old else g_new  # g_new − (g_new·g_old / ‖g_old‖²) g_old
    kept_old = g_old - clash / new**2 * g_new
    updates = {"plain": g_new, "agem": kept_new, "joint": g_old + g_new, "pcgrad": kept_old + kept_new}
    with np.errstate(divide="ignore", invalid="ignore"):
        break_even = np.maximum(2 * old * np.cos(phi) / (c * new), 0)
    break_even = np.where(np.isnan(break_even), np.inf, break_even)  # 0/0: nothing changes at any rate

    def change(gradient: Array) -> dict[str, Array]:
        return {name: -eta * _dot(gradient, u) + 0.5 * eta**2 * c * _dot(u, u) for name, u in updates.items()}

    return OneStep(g_old, g_new, updates, change(g_old), change(g_new), break_even)


def _numbers(name: str, values: ArrayLike, high: float = math.inf, *, above: bool = False) -> Array:
    """The values in float64, each of them a `number`."""
    return np.vectorize(lambda value: number(name, value, 0, high, above=above), otypes=[np.float64])(values)


def _dot(x: Array, y: Array) -> Array:
    return np.asarray(np.sum(x * y, axis=-1))
