"""What a score is made of, item by item, and the score that the sums of it give."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from forgetlab.errors import ForgetlabError

SAMPLE_SEED = 0  # which items a limit leaves is part of the test set: the same for every model, method and seed


@dataclass(frozen=True)
class Tally:
    """What a score is made of: sufficient statistics of each scored test item.

    columns: their names. items: (N, K) float64 on the CPU, a row for each item (text, pair, question) in the order of
    the test set. The main score of the whole is `task.main_score(items.sum(0))`.
    """

    columns: tuple[str, ...]
    items: Tensor

    def plain(self) -> list[list[float]]:
        """The items as lists, small as JSON: whole numbers as such, others with four decimals (nan and inf stay)."""
        return [[_short(value) for value in row] for row in self.items.tolist()]


def _short(value: float) -> float:
    return int(value) if math.isfinite(value) and value == int(value) else round(value, 4)


def answers(right: Tensor) -> Tally:
    """The tally of (n,) questions, each right (1), wrong (0) or right in a share of the draws."""
    share = right.cpu().double()
    return Tally(("right", "one"), torch.stack([share, torch.ones_like(share)], dim=1))


def matthews(sums: Tensor) -> Tensor:
    """Matthews correlation from (..., C·C) counts, gold classes by predicted ones; 0 where one class was predicted.

    Source: Matthews 1975; for C above 2, R_K of Gorodkin 2004, eq. 8.
    """
    table = sums.unflatten(-1, [math.isqrt(sums.shape[-1])] * 2)
    n, gold, predicted = table.sum((-2, -1)), table.sum(-1), table.sum(-2)
    spread = (n**2 - (gold**2).sum(-1)) * (n**2 - (predicted**2).sum(-1))
    right = table.diagonal(dim1=-2, dim2=-1).sum(-1)
    # R_K = (n Σ_k C_kk − Σ_k t_k p_k) / √((n² − Σ t_k²)(n² − Σ p_k²))
    found = (n * right - (gold * predicted).sum(-1)) / spread.clamp_min(1e-300).sqrt()
    return found.masked_fill(spread <= 0, 0.0)


# of (..., K) sums of a tally's columns
OF_SUMS: dict[str, Callable[[Tensor], Tensor]] = {
    "accuracy": lambda sums: sums[..., 0] / sums[..., 1],  # Σ right / Σ one
    "reward": lambda sums: sums[..., 0] / sums[..., 1],  # Σ reward / Σ one
    "kl": lambda sums: sums[..., 0] / sums[..., 1],  # Σ KL / Σ tokens
    "perplexity": lambda sums: (sums[..., 0] / sums[..., 1]).exp(),  # exp(Σ NLL / Σ tokens)
    "f1": lambda sums: 2 * sums[..., 0] / (sums[..., 1] + sums[..., 2]).clamp_min(1),  # 2·hits / (predicted + gold)
    "matthews": matthews,
}


def score_of_sums(metric: str, sums: Tensor) -> Tensor:
    """(..., K) sums of a tally's items → (...) the metric. Raises ForgetlabError for one that is no function of sums.

    >>> float(score_of_sums("accuracy", torch.tensor([3.0, 4.0])))
    0.75
    """
    if metric not in OF_SUMS:
        raise ForgetlabError(f"{metric} is no function of sums over test items; those are: {', '.join(OF_SUMS)}")
    return OF_SUMS[metric](sums)


def stratified(classes: Sequence[object], limit: int | None) -> Tensor:
    """(n,) rows, in order: all of them, or a seeded sample of `limit`, each class with its share of it.

    classes: of each row. Shares are rounded so that they sum to `limit` (largest remainders).
    """
    if limit is None or limit >= len(classes):
        return torch.arange(len(classes))
    numbers = {one: i for i, one in enumerate(dict.fromkeys(classes))}
    own = torch.tensor([numbers[one] for one in classes])
    exact = own.bincount().double() * limit / len(classes)
    quota = exact.long()
    quota[(exact - quota).argsort(descending=True, stable=True)[: limit - int(quota.sum())]] += 1
    drawn = torch.randperm(len(classes), generator=torch.Generator().manual_seed(SAMPLE_SEED))
    rows = [drawn[own[drawn] == i][:n] for i, n in enumerate(quota.tolist())]
    return torch.cat(rows).sort().values
