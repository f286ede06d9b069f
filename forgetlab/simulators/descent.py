"""Gradient descent in closed form: the dynamics of two tasks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forgetlab.errors import number, one_of, whole

Array = NDArray[np.float64]
PULLS = ("ewc", "l2sp")
HUGE = 1e50  # the growth of a diverging error is cut here, so that what is drawn stays finite


@dataclass(frozen=True, eq=False)
class TwoTasks:
    """What `two_tasks` returns; T = steps_old + steps + 1 points.

    steps: (T,), the fine-tune starts at 0, the old task's training is negative. path: (T, 2), the weights.
    loss_old, loss_new: (T,). optimum_*: (2,), hessian_*: (2, 2), for drawing the valleys with `quadratic`.
    equilibrium: (2,), where the fine-tune is heading; equilibrium_loss_*: the losses there. A decaying rate
    stops short of it, a diverging run never gets there.
    stable_rate: above it an error along the steepest direction grows. diverges: the last step's rate is above it.
    """

    steps: NDArray[np.int64]
    path: Array
    loss_old: Array
    loss_new: Array
    optimum_old: Array
    optimum_new: Array
    hessian_old: Array
    hessian_new: Array
    equilibrium: Array
    equilibrium_loss_old: float
    equilibrium_loss_new: float
    stable_rate: float
    diverges: bool
    source: str = "simulated"

    @property
    def score_old(self) -> Array:
        """exp(−loss), 1 at the optimum: the kept share perplexity before / after, were the loss in nats."""
        return np.exp(-self.loss_old)

    @property
    def score_new(self) -> Array:
        """exp(−loss) of the new task."""
        return np.exp(-self.loss_new)


def two_tasks(
    *,
    rate: float = 0.1,
    decay: float = 0.0,
    overlap: float = 0.5,
    lam: float = 0.0,
    pull: str = "ewc",
    steps: int = 100,
    steps_old: int = 0,
    curvature: float = 1.0,
    slack: float = 0.05,
    distance: float = 2.0,
) -> TwoTasks:
    """Gradient descent on a new quadratic task from the optimum of an old one, two weights in all.

    L(θ) = ½(θ − o)ᵀH(θ − o) with H = curvature·(uuᵀ + slack·(I − uuᵀ)): sensitive along u, nearly flat across.
    The old optimum is the origin; the new one is `distance` away along the new task's u. Step t is
    θ ← θ − η_t (H_new(θ − o_new) + λP(θ − θ*)) with η_t = rate·(1 − decay)ᵗ and θ* the weights at step 0.

    rate > 0. decay: share of the rate lost at each step, in [0, 1); the rate starts anew with each task.
    overlap: (u_old·u_new)², in [0, 1]. lam: λ ≥ 0 (without limit: nothing moves). pull: "ewc" (P = H_old, which is
    diagonal here, so that its diagonal is all of it) or "l2sp" (P = I). steps ≥ 1. steps_old: steps on the old
    task before, from `distance` away; 0 starts at its optimum. slack: in [0, 1]. curvature, distance > 0.
    With λ = 0 and no decay the old loss ends at ½·curvature·distance²·(slack + (1 − slack)·overlap).
    Source: the usual analysis of gradient descent on a quadratic, in the eigenbasis of the Hessian; for the
    two-task reading of EWC, Kirkpatrick et al. 2017, fig. 1. λ = 1 with "ewc" is joint training.

    >>> run = two_tasks(overlap=0.5, slack=0, steps=1000)
    >>> round(float(run.loss_old[-1]), 6)  # ½ · curvature · distance² · overlap
    1.0
    """
    rate, decay = number("rate", rate, above=True), number("decay", decay, 0, 1, below=True)
    overlap, slack, lam = number("overlap", overlap, 0, 1), number("slack", slack, 0, 1), number("lam", lam)
    curvature, distance = number("curvature", curvature, above=True), number("distance", distance, above=True)
    steps, steps_old = whole("steps", steps), whole("steps_old", steps_old, 0)
    one_of("pull", pull, PULLS)

    u_old, u_new = np.array([1.0, 0.0]), np.array([overlap, 1 - overlap]) ** 0.5
    H_old, H_new = (curvature * ((1 - slack) * np.outer(u, u) + slack * np.eye(2)) for u in (u_old, u_new))
    old, new = np.zeros(2), distance * u_new

    before = _descend(H_old, old, -distance * u_old if steps_old else old, _rates(rate, decay, steps_old))
    anchor = before[-1]
    M = H_new + lam * (H_old if pull == "ewc" else np.eye(2))
    # 0 = H_new(θ − o_new) + λP(θ − θ*) ⟺ M(θ − θ*) = −H_new(θ* − o_new); where M is flat, θ stays
    equilibrium = anchor - np.linalg.pinv(M, hermitian=True) @ H_new @ (anchor - new)
    rates = _rates(rate, decay, steps)
    path = np.concatenate([before[:-1], _descend(M, equilibrium, anchor, rates)])
    stable_rate = 2 / float(np.linalg.eigvalsh(M)[-1])
    return TwoTasks(
        steps=np.arange(-steps_old, steps + 1),
        path=path,
        loss_old=quadratic(path, H_old, old),
        loss_new=quadratic(path, H_new, new),
        optimum_old=old,
        optimum_new=new,
        hessian_old=H_old,
        hessian_new=H_new,
        equilibrium=equilibrium,
        equilibrium_loss_old=float(quadratic(equilibrium, H_old, old)),
        equilibrium_loss_new=float(quadratic(equilibrium, H_new, new)),
        stable_rate=stable_rate,
        diverges=bool(rates[-1] > stable_rate),
    )


def quadratic(theta: Array, hessian: Array, optimum: Array) -> Array:
    """½(θ − o)ᵀH(θ − o) for points theta of shape (..., d); returns shape (...).

    >>> float(quadratic(np.array([1.0, 2.0]), np.eye(2), np.zeros(2)))
    2.5
    """
    error = theta - optimum
    return np.asarray(0.5 * np.sum(error @ hessian * error, axis=-1))


def _rates(rate: float, decay: float, steps: int) -> Array:
    return rate * np.power(1 - decay, np.arange(steps, dtype=np.float64))


def _descend(hessian: Array, optimum: Array, start: Array, rates: Array) -> Array:
    """All points of a gradient descent: θ_t = o + V Π_{s<t}(1 − η_s m) Vᵀ(θ_0 − o), where H = V diag(m) Vᵀ."""
    m, V = np.linalg.eigh(hessian)
    factors = np.concatenate([np.ones((1, len(m))), 1 - np.multiply.outer(rates, m)])
    with np.errstate(over="ignore", invalid="ignore"):
        products = np.nan_to_num(np.cumprod(factors, axis=0), nan=0.0)  # nan: a factor of 0 after an overflow
    return optimum + np.clip(products, -HUGE, HUGE) * (V.T @ (start - optimum)) @ V.T
