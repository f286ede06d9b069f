"""Features and outputs: how much they changed, and what a linear classifier still reads from them."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from forgetlab.errors import ForgetlabError
from forgetlab.metrics.arrays import Numbers, as_array

# Logits are taken in chunks of this many numbers, which bounds each float32 copy to 64 MB.
_CHUNK = 2**24


@torch.no_grad()
def linear_cka(X: ArrayLike | Tensor, Y: ArrayLike | Tensor, *, unbiased: bool = True) -> float:
    """Similarity of two representations of the same examples: 1 = equal up to rotation and scale.

    X: (n, d1), Y: (n, d2), rows paired; computed in float64. Returns a float, which may fall slightly outside
    0 to 1 when unbiased; nan where a side is constant or not finite.
    Raises ForgetlabError for other shapes, or n below 4 (unbiased) or 2.
    Source: Kornblith et al. 2019, section 3; HSIC_1 of Song et al. 2012. The common, biased variant is far
    above 0 for unrelated features unless n is much larger than d.

    >>> x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    >>> round(linear_cka(x, 3 * x), 6)
    1.0
    """
    x, y = _centred(X, "X"), _centred(Y, "Y")
    if len(x) != len(y) or len(x) < (4 if unbiased else 2):
        least = "4 (unbiased)" if unbiased else "2"
        raise ForgetlabError(f"X has {len(x)} rows, Y {len(y)}; expected the same number, at least {least}")
    y = y.to(x.device)
    xy, xx, yy = torch.stack([_hsic(a, b, unbiased) for a, b in ((x, y), (x, x), (y, y))]).tolist()
    # CKA = HSIC(X, Y) / √(HSIC(X, X) HSIC(Y, Y)); biased: ‖YᵀX‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F)
    return xy / math.sqrt(xx) / math.sqrt(yy) if xx > 0 and yy > 0 else math.nan


def _centred(features: ArrayLike | Tensor, name: str) -> Tensor:
    x = torch.as_tensor(features)
    if x.ndim != 2:
        raise ForgetlabError(f"{name} has shape {[*x.shape]}; expected (n, d): flatten the positions")
    x = x.cpu().double() if x.device.type == "mps" else x.double()  # MPS has no float64
    centred = x - x.mean(dim=0)
    # constant features leave only rounding, which would give a CKA of noise
    return torch.where(centred.norm() > 1e-12 * x.norm(), centred, centred * 0)


def _hsic(x: Tensor, y: Tensor, unbiased: bool) -> Tensor:
    """HSIC of centred features with linear kernels K, L, up to a factor that cancels in CKA."""
    n, d1, d2 = len(x), x.shape[1], y.shape[1]
    # ‖YᵀX‖²_F = Σ_ij K_ij L_ij, by the side with fewer multiplications
    cross = (y.T @ x).square().sum() if d1 * d2 <= n * (d1 + d2) else ((x @ x.T) * (y @ y.T)).sum()
    if not unbiased:
        return cross
    # HSIC_1 ∝ tr(K̃L̃) + 1ᵀK̃1·1ᵀL̃1 / ((n−1)(n−2)) − 2·1ᵀK̃L̃1 / (n−2), K̃ = K with a zero
    # diagonal. Centring leaves it as it is and makes K1 = 0, so K̃1 = −diag K: no (n, n) matrix is needed.
    k, l = x.square().sum(dim=1), y.square().sum(dim=1)
    return (cross - k @ l) + k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 * (k @ l) / (n - 2)


@torch.no_grad()
def output_shift(
    before: Tensor, after: Tensor, *, rare: ArrayLike | Tensor | None = None, mask: Tensor | None = None
) -> dict[str, float]:
    """How a model's predictions changed on the same inputs: KL, entropy, mass on rare words.

    before, after: logits (..., V); −inf is a probability of 0. rare: (r,) token ids. mask: (...), true where
    a position counts (not padding). Returns means over positions: `kl` = KL(p_before ‖ p_after),
    `entropy_before`, `entropy_after` in nats; with `rare`, `rare_mass_before`, `rare_mass_after`, 0 to 1.
    Raises ForgetlabError for shapes that differ, no position, or an id outside the vocabulary.
    Source: Kullback & Leibler 1951, in the direction before ‖ after. It grows where the new model rules out what
    the old one said; the penalty of RLHF, KL(p_after ‖ p_before), does not.

    >>> round(output_shift(torch.zeros(2, 4), torch.zeros(2, 4))["entropy_after"], 4)  # ln 4
    1.3863
    """
    if before.shape != after.shape or not before.numel():
        raise ForgetlabError(f"logits are {[*before.shape]} and {[*after.shape]}; expected the same (..., V)")
    if mask is not None and mask.shape != before.shape[:-1]:
        raise ForgetlabError(f"mask has shape {[*mask.shape]}; expected {[*before.shape[:-1]]}")
    V = before.shape[-1]
    old, new = (x.reshape(-1, V) if mask is None else x[mask.bool().to(x.device)] for x in (before, after))
    if not len(old):
        raise ForgetlabError("mask is false everywhere; expected at least one position that counts")
    ids = torch.as_tensor([] if rare is None else rare).unique()  # a repeated id must not count twice
    whole = not ids.is_floating_point() and ids.dtype != torch.bool
    if ids.numel() and not (whole and 0 <= ids[0] <= ids[-1] < V):
        raise ForgetlabError(f"rare spans {ids[[0, -1]].tolist()}; expected token ids from 0 to {V - 1}")
    ids = ids.long().to(after.device)

    def expect(p: Tensor, value: Tensor) -> Tensor:
        return torch.where(p == 0, 0.0, p * value).sum(dim=-1)  # 0 · ln 0 = 0

    sums = []
    rows = max(1, _CHUNK // V)
    for b, a in zip(old.split(rows), new.split(rows), strict=True):
        log_p, log_q = (x.to(after.device).float().log_softmax(dim=-1) for x in (b, a))
        p, q = log_p.exp(), log_q.exp()
        kl = expect(p, log_p - log_q)  # Σ_v p (ln p − ln q)
        entropies = [-expect(p, log_p), -expect(q, log_q)]  # −Σ_v p ln p
        masses = [p[:, ids].sum(dim=-1), q[:, ids].sum(dim=-1)]
        sums.append(torch.stack([kl, *entropies, *masses]).sum(dim=1))
    means = (torch.stack(sums).sum(dim=0) / len(old)).clamp_min(0).tolist()  # below 0 only by rounding
    names = ("kl", "entropy_before", "entropy_after", "rare_mass_before", "rare_mass_after")
    return dict(zip(names[: 3 if rare is None else 5], means, strict=False))


def kshot_probe(
    features: Numbers,
    labels: Numbers,
    test_features: Numbers,
    test_labels: Numbers,
    *,
    k: int,
    seed: int,
    repeats: int = 5,
    ridge: float = 1.0,
) -> dict[str, float]:
    """Test accuracy, 0 to 1, of a linear classifier fitted to k examples of each class, over several draws.

    The arguments are those of `kshot_hits`. Returns `mean` and sample `std` over the draws (nan for one).

    >>> kshot_probe([[0.0], [1.0], [9.0], [8.0]], [0, 0, 1, 1], [[2.0], [7.0]], [0, 1], k=2, seed=0)
    {'mean': 1.0, 'std': 0.0}
    """
    right = kshot_hits(features, labels, test_features, test_labels, k=k, seed=seed, repeats=repeats, ridge=ridge)
    accuracies = right.mean(axis=1)
    std = float(np.std(accuracies, ddof=1)) if repeats > 1 else math.nan
    return {"mean": float(np.mean(accuracies)), "std": std}


def kshot_hits(
    features: Numbers,
    labels: Numbers,
    test_features: Numbers,
    test_labels: Numbers,
    *,
    k: int,
    seed: int,
    repeats: int = 5,
    ridge: float = 1.0,
) -> NDArray[np.float64]:
    """Which test examples a linear classifier has right that is fitted to k examples of each class.

    features: (n, d), labels: (n,) class numbers, to draw from; test_features: (m, d), test_labels: (m,).
    seed: of the draws; repeats: how many; ridge: λ. Returns (repeats, m) 0 and 1 (nan: bad features); their mean is
    the accuracy.
    Raises ForgetlabError for other shapes, a class with fewer than k examples, or a new class in the test.
    Source: ridge regression (Hastie et al., ESL, eq. 3.44) to one-hot targets. The common probe is a logistic
    one on all labels; here mean and scale too come from the k-shot draw alone, so nothing else leaks in.

    >>> kshot_hits([[0.0], [1.0], [9.0], [8.0]], [0, 0, 1, 1], [[2.0], [7.0]], [0, 1], k=2, seed=0, repeats=1)
    array([[1., 1.]])
    """
    x, y = as_array(features, "features", 2), as_array(labels, "labels", 1)
    test_x, test_y = as_array(test_features, "test_features", 2), as_array(test_labels, "test_labels", 1)
    if (len(x), len(test_x), x.shape[1]) != (len(y), len(test_y), test_x.shape[1]) or not len(test_x):
        given = f"features {x.shape} and {test_x.shape} with {len(y)} and {len(test_y)} labels"
        raise ForgetlabError(f"{given}; expected (n, d) and (m, d) with n and m > 0")
    if k < 1 or repeats < 1 or not ridge > 0:
        raise ForgetlabError(f"k={k}, repeats={repeats}, ridge={ridge}; expected each above 0")
    classes, counts = np.unique(y, return_counts=True)
    if len(classes) < 2 or counts.min() < k:
        numbers = ", ".join(f"{label:g}: {count}" for label, count in zip(classes, counts, strict=True))
        raise ForgetlabError(f"examples per class: {numbers}; expected 2 classes or more, each with k={k}")
    if strange := set(test_y.tolist()) - set(classes.tolist()):
        raise ForgetlabError(f"test labels hold {sorted(strange)[:5]}; expected those of {classes.tolist()}")
    if not (np.isfinite(x).all() and np.isfinite(test_x).all()):
        return np.full((repeats, len(test_x)), math.nan)
    generator = torch.Generator().manual_seed(seed)
    pools = [np.flatnonzero(y == label) for label in classes]
    targets = np.repeat(np.eye(len(classes)), k, axis=0)
    right = []
    for _ in range(repeats):
        shots = x[np.concatenate([i[torch.randperm(len(i), generator=generator)[:k].numpy()] for i in pools])]
        mean, scale = shots.mean(axis=0), shots.std(axis=0)
        scale[scale <= 1e-9 * np.abs(shots).max(axis=0)] = 1  # a constant feature leaves only rounding
        a, b = (shots - mean) / scale, (test_x - mean) / scale
        # W = Aᵀ (AAᵀ + λI)⁻¹ Y, the form for few examples; balanced classes share one intercept
        W = a.T @ np.linalg.solve(a @ a.T + ridge * np.eye(len(a)), targets)
        right.append(classes[(b @ W).argmax(axis=1)] == test_y)
    return np.stack(right).astype(np.float64)
