"""Closed-form toys: two-task dynamics, importance clouds, the geometry of interference, a stiff pull.

Nothing here is a language model: each result carries source = "simulated" for the corner of its figure.
The *old* task is the one that can be forgotten, the *new* one the fine-tune.
All raise ForgetlabError for a number that is not finite or out of its range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.random import default_rng  # numpy imports it at first use only, some 15 ms
from numpy.typing import ArrayLike, NDArray

from forgetlab.errors import MOST, ForgetlabError, shown, unknown

Array = NDArray[np.float64]

PULLS = ("ewc", "l2sp")
GROUPS = ("old-critical", "new-critical", "shared", "slack")
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
    """
    rate, decay = _number("rate", rate, gt=0), _number("decay", decay, ge=0, lt=1)
    overlap, slack = _number("overlap", overlap, ge=0, le=1), _number("slack", slack, ge=0, le=1)
    lam = _number("lam", lam, ge=0)
    curvature, distance = _number("curvature", curvature, gt=0), _number("distance", distance, gt=0)
    steps, steps_old = _whole("steps", steps, 1), _whole("steps_old", steps_old, 0)
    if pull not in PULLS:
        raise unknown("pull", pull, PULLS)

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
    """½(θ − o)ᵀH(θ − o) for points theta of shape (..., d); returns shape (...)."""
    error = theta - optimum
    return np.asarray(0.5 * np.sum(error @ hessian * error, axis=-1))


def _rates(rate: float, decay: float, steps: int) -> Array:
    return rate * np.power(1 - decay, np.arange(steps, dtype=np.float64))


def _descend(hessian: Array, optimum: Array, start: Array, rates: Array) -> Array:
    """All points of a gradient descent: θ_t = o + V Π_{s<t}(1 − η_s m) Vᵀ(θ_0 − o), where H = V diag(m) Vᵀ."""
    m, V = np.linalg.eigh(hessian)
    return optimum + _products(1 - np.multiply.outer(rates, m)) * (V.T @ (start - optimum)) @ V.T


def _products(factors: Array) -> Array:
    """Π_{s<t} factors[s] for t = 0…T along the first axis; (1 − ηm)ᵗ if the factors are all equal."""
    with np.errstate(over="ignore", invalid="ignore"):
        products = np.cumprod(np.concatenate([np.ones((1, *factors.shape[1:])), factors]), axis=0)
    return np.clip(np.nan_to_num(products, nan=0.0), -HUGE, HUGE)  # nan: a factor of 0 after an overflow


@dataclass(frozen=True, eq=False)
class StiffPull:
    """What `stiff_pull` returns, for lam of shape S.

    steps: (T,). explicit, proximal: (*S, T), the weight at each step. equilibrium: S, the same for both.
    explicit_diverges, proximal_diverges: S, whether its distance to the equilibrium grows.
    stable_lam: the explicit step diverges for a λ above it (at any λ if it is negative).
    """

    lam: Array
    steps: NDArray[np.int64]
    explicit: Array
    proximal: Array
    equilibrium: Array
    explicit_diverges: NDArray[np.bool_]
    proximal_diverges: NDArray[np.bool_]
    stable_lam: float
    source: str = "simulated"


def stiff_pull(
    lam: ArrayLike = (1.0, 10.0, 30.0),
    *,
    rate: float = 0.1,
    fisher: float = 1.0,
    curvature: float = 1.0,
    steps: int = 50,
) -> StiffPull:
    """One weight between its anchor θ* = 0, where it starts, and a new task's optimum at 1; two ways to step.

    L = ½h(θ − 1)² + (λ/2)F(θ − θ*)².
    Explicit: θ ← θ − η(h(θ − 1) + λFθ), stable while η(h + λF) ≤ 2.
    Proximal: θ ← (θ − ηh(θ − 1)) / (1 + ηλF), the task's step and then the pull's, decoupled and implicit. While
    ηh ≤ 2 it is stable at any λ. With plain gradient steps both end at h/(h + λF); with Adam they would not, as
    Adam scales an explicit pull along with the gradient and leaves a decoupled one alone.

    lam: any shape, λ ≥ 0. rate: η > 0. fisher: F > 0. curvature: h > 0. steps ≥ 1.
    Source: forward–backward splitting, Parikh & Boyd 2014, section 4.2.
    """
    strengths = _numbers("lam", lam, ge=0)
    rate, fisher = _number("rate", rate, gt=0), _number("fisher", fisher, gt=0)
    curvature, steps = _number("curvature", curvature, gt=0), _whole("steps", steps, 1)
    stiffness = strengths * fisher
    equilibrium = curvature / (curvature + stiffness)
    explicit = 1 - rate * (curvature + stiffness)
    proximal = (1 - rate * curvature) / (1 + rate * stiffness)

    def path(factor: Array) -> Array:  # θ_t = θ_eq + factorᵗ(θ_0 − θ_eq) from θ_0 = 0
        powers = _products(np.broadcast_to(factor, (steps, *strengths.shape)))
        return np.moveaxis(equilibrium * (1 - powers), 0, -1)

    return StiffPull(
        lam=strengths,
        steps=np.arange(steps + 1),
        explicit=path(explicit),
        proximal=path(proximal),
        equilibrium=equilibrium,
        explicit_diverges=np.abs(explicit) > 1,
        proximal_diverges=np.abs(proximal) > 1,
        stable_lam=(2 / rate - curvature) / fisher,
    )


@dataclass(frozen=True, eq=False)
class ImportanceCloud:
    """What `importance_cloud` returns.

    old, new: (n,), importance of each parameter for each task. group: (n,), an index into GROUPS.
    threshold_old, threshold_new: above them a parameter is critical.
    shares: group name → share of the n parameters; expected: the same for n without limit.
    """

    old: Array
    new: Array
    group: NDArray[np.int64]
    threshold_old: float
    threshold_new: float
    shares: Mapping[str, float]
    expected: Mapping[str, float]
    source: str = "simulated"


def importance_cloud(
    n: int = 2000, correlation: float = 0.4, seed: int = 0, *, quantile: float = 0.5, spread: float = 1.0
) -> ImportanceCloud:
    """Parameters with a log-normal importance for an old and a new task, and the four groups they fall into.

    n ≥ 1. correlation: of the two log importances, in [−1, 1]; the rank correlation is (6/π) arcsin(correlation/2),
    that of the raw values is far smaller. quantile: in (0, 1), the share of parameters below the threshold of a task.
    spread: standard deviation of log₁₀ importance, in decades; the median importance is 1.
    Defaults as found in the shipped tiny-bert: Fisher diagonals of one matrix spread over 0.3–1.8 decades, and
    those of two tasks correlate at 0.2–0.7.
    """
    n, seed = _whole("n", n, 1), _whole("seed", seed, 0)
    spread = _number("spread", spread, gt=0)
    expected = expected_shares(correlation, quantile)
    z, other = default_rng(seed).standard_normal((2, n))
    old = 10 ** (spread * z)
    new = 10 ** (spread * (correlation * z + (1 - correlation**2) ** 0.5 * other))
    threshold_old, threshold_new = float(np.quantile(old, quantile)), float(np.quantile(new, quantile))
    for_old, for_new = old > threshold_old, new > threshold_new
    group = np.select([for_old & ~for_new, for_new & ~for_old, for_old & for_new], [0, 1, 2], 3)
    shares = np.bincount(group, minlength=4) / n
    return ImportanceCloud(
        old, new, group, threshold_old, threshold_new, dict(zip(GROUPS, shares.tolist(), strict=True)), expected
    )


def expected_shares(correlation: float, quantile: float = 0.5) -> dict[str, float]:
    """The share of each group in an endless importance cloud: group name → share.

    shared = P(both above) = (1 − q)² + (1/2π) ∫₀^{arcsin ρ} exp(−z²/(1 + sin θ)) dθ with z the normal quantile of q;
    at the median, z = 0, this is 1/4 + arcsin(ρ)/2π. The integral is taken by the midpoint rule (error < 1e-8).
    Source: Plackett 1954 (the derivative of the orthant probability in ρ); Sheppard 1899 (the median).
    """
    correlation = _number("correlation", correlation, ge=-1, le=1)
    quantile = _number("quantile", quantile, gt=0, lt=1)
    z, above, end = NormalDist().inv_cdf(quantile), 1 - quantile, np.arcsin(correlation)
    theta = end * (np.arange(1000) + 0.5) / 1000
    integral = end * np.mean(np.exp(-(z**2) / (1 + np.sin(theta))))
    shared = float(np.clip(above**2 + integral / (2 * np.pi), max(0.0, 2 * above - 1), above))
    return dict(zip(GROUPS, (above - shared, above - shared, shared, 1 - 2 * above + shared), strict=True))


@dataclass(frozen=True, eq=False)
class Interference:
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
) -> Interference:
    """What one step does to both losses when their gradients meet at an angle.

    ΔL = −η g·u + ½η²c‖u‖² for the update u (exact if both losses have the curvature c along it). Updates:
    "plain": g_new; "agem": g_new without its part against g_old; "joint": g_old + g_new; "pcgrad": the same sum, each
    part off the other one first if they conflict. The plain step breaks even at η = 2‖g_old‖cos φ / (c‖g_new‖).

    angle: φ in degrees, 0 to 180. curvature: c ≥ 0. rate: η > 0. These three broadcast.
    old: ‖g_old‖ ≥ 0; with 0, at the old optimum, all that is left is ½η²c‖u‖². new: ‖g_new‖ > 0.
    Source: Yu et al. 2020 (PCGrad), algorithm 1; Chaudhry et al. 2019 (A-GEM), eq. 11.
    """
    phi = np.deg2rad(_numbers("angle", angle, ge=0, le=180))
    c, eta = _numbers("curvature", curvature, ge=0), _numbers("rate", rate, gt=0)
    old, new = _number("old", old, ge=0), _number("new", new, gt=0)
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

    return Interference(g_old, g_new, updates, change(g_old), change(g_new), break_even)


def _dot(x: Array, y: Array) -> Array:
    return np.asarray(np.sum(x * y, axis=-1))


_LIMITS = {"ge": ("≥", np.greater_equal), "gt": (">", np.greater), "le": ("≤", np.less_equal), "lt": ("<", np.less)}


def _numbers(name: str, values: ArrayLike, **limits: float) -> Array:
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


def _number(name: str, value: float, **limits: float) -> float:
    array = _numbers(name, value, **limits)
    if array.ndim:
        raise ForgetlabError(f"{name} must be one number, got an array of shape {array.shape}")
    return float(array)


def _whole(name: str, value: int, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= MOST:
        raise ForgetlabError(f"{name} must be a whole number of {least} or more, got {shown(value)}")
    return int(value)
