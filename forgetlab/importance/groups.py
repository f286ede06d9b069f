"""Two tasks on one model: which weights matter to the old one, the new one, both or neither."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from forgetlab.errors import ForgetlabError, number
from forgetlab.importance.files import check_importance
from forgetlab.models.model import Model
from forgetlab.simulators import KINDS


@dataclass(frozen=True)
class Quadrants:
    """Every weight as a point (importance to the old task, importance to the new one), and its quadrant.

    old, new: (N,) importances. kind: (N,) number of the quadrant in KINDS. names: parameter names in the
    order of the points. thresholds: (old, new) that cut the plane. correlation: Spearman's, of ranks.
    """

    old: Tensor
    new: Tensor
    kind: Tensor
    names: tuple[str, ...]
    thresholds: tuple[float, float]
    correlation: float

    def shares(self) -> dict[str, float]:
        """Share of the weights in each quadrant."""
        counts = torch.bincount(self.kind, minlength=len(KINDS))
        return {name: float(n) / len(self.kind) for name, n in zip(KINDS, counts, strict=True)}

    def mass(self) -> dict[str, float]:
        """Share of the old task's importance that lies in each quadrant."""
        total = float(self.old.sum()) or 1.0
        return {name: float(self.old[self.kind == i].sum()) / total for i, name in enumerate(KINDS)}


def quadrants(old: Mapping[str, Tensor], new: Mapping[str, Tensor], top: float = 0.1) -> Quadrants:
    """Sort the weights by their importance to two tasks.

    old, new: {name: tensor} of one model (names in only one of them, such as a task's own head, are left out).
    top: share of the weights that counts as critical to a task, in (0, 1): those above its (1 − top) quantile.
    Raises ForgetlabError for importances without a common name, other shapes, or a share out of range.

    >>> a, b = {"w": torch.tensor([0.1, 0.2, 3.0, 4.0])}, {"w": torch.tensor([0.1, 2.0, 0.2, 3.0])}
    >>> [KINDS[kind] for kind in quadrants(a, b, top=0.5).kind]
    ['slack', 'new-critical', 'old-critical', 'shared']
    """
    number("top", top, 0, 1, above=True, below=True)
    names = tuple(name for name in old if name in new)
    if not names:
        raise ForgetlabError("the two importances have no parameter in common")
    check_importance({name: new[name] for name in names}, old)
    a, b = (torch.cat([task[name].flatten().float().cpu() for name in names]) for task in (old, new))
    cut_a, cut_b = _threshold(a, top), _threshold(b, top)
    correlation = float(torch.corrcoef(torch.stack([_ranks(a), _ranks(b)]))[0, 1])
    kind = 2 * (a > cut_a).long() + (b > cut_b).long()
    return Quadrants(a, b, kind, names, (cut_a, cut_b), correlation)


@torch.no_grad()
def put_back(
    model: Model,
    before: Mapping[str, Tensor],
    importance: Mapping[str, Tensor],
    count: int | float,
    *,
    least: bool = False,
) -> int:
    """Give the most important weights the values that they had before: the test of what an importance means.

    before: {name: tensor}, such as a snapshot. importance: {name: tensor} of the old task. count: how many weights, or
    a share from 0.0 to 1.0 if it is a float. least: take the least important ones instead, as a control.
    Changes the model in place; returns how many weights were put back.
    Raises ForgetlabError for importances or weights of another model and counts out of range.

    >>> ones = {name: torch.ones_like(weight) for name, weight in model.named_parameters()}
    >>> put_back(model, model.snapshot(), ones, 1000)
    1000
    """
    named = dict(model.named_parameters())
    check_importance(importance, named)
    weights = {name: p for name, p in named.items() if name in importance and name in before}
    if not weights:
        raise ForgetlabError("the importance and the weights before have no parameter in common")
    check_importance({name: before[name] for name in weights}, weights, what="weights")
    total = sum(p.numel() for p in weights.values())
    whole_or_share = isinstance(count, int | float) and not isinstance(count, bool)
    if not whole_or_share or not 0 <= count <= (1 if isinstance(count, float) else total):
        raise ForgetlabError(f"count must be a whole number up to {total:,} or a share up to 1.0, got {count!r}")
    wanted = round(count * total) if isinstance(count, float) else count
    flat = torch.cat([importance[name].flatten().to(p.device) for name, p in weights.items()])
    chosen = torch.zeros(total, dtype=torch.bool, device=flat.device)
    chosen[flat.topk(wanted, largest=not least).indices] = True
    parts = chosen.split([p.numel() for p in weights.values()])
    for (name, p), part in zip(weights.items(), parts, strict=True):
        p.copy_(torch.where(part.view_as(p), before[name].to(p), p))
    return wanted


def _threshold(values: Tensor, top: float) -> float:
    """The value that a share `top` of them exceeds (torch.quantile refuses more than 16 million)."""
    rank = max(1, len(values) - round(top * len(values)))
    return float(values.kthvalue(rank).values)


def _ranks(values: Tensor) -> Tensor:
    """Equal values share their mean rank."""
    _, place, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[place]
