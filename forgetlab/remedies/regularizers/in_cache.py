"""The pull of `quadratic`, for weights larger than the processor's cache: in pieces, of which none leaves it midway."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from forgetlab.models.sharded import is_sharded

Term = tuple[Tensor, Tensor | float, Tensor]  # a weight, its λΩ, and where it is pulled to

PIECE = 2**18  # elements that are pulled at a time: 1 MiB


def is_large(p: Tensor) -> bool:
    return p.device.type == "cpu" and p.numel() > PIECE and p.is_contiguous() and not is_sharded(p)


def few_rows(p: Tensor, strength: Tensor | float) -> Tensor | None:
    """The rows of a large weight that are pulled, where they are few: of embeddings old tasks have few of the words."""
    if not (isinstance(strength, Tensor) and p.dim() == 2 and is_large(p)):
        return None
    rows = strength.any(dim=1).nonzero().squeeze(1)
    return rows if 2 * len(rows) < len(p) else None


def add_pull(whole: Tensor, term: Term, rows: Tensor | None) -> None:
    """whole += λΩ(θ − θ*), in the rows alone where some are given. whole: the gradient, changed in place."""
    if rows is not None:
        for some, (p, strength, anchor) in _of_rows(term, rows):
            whole.index_add_(0, some, (p - anchor).mul_(strength))
        return
    room = torch.empty(PIECE, dtype=whole.dtype)  # one for all pieces: they would wait for new memory
    for gradient, p, strength, anchor in _pieces(whole, *term):
        away = torch.sub(p, anchor, out=room[: len(p)])
        if isinstance(strength, Tensor):
            gradient.addcmul_(away, strength)
        else:
            gradient.add_(away, alpha=strength)


def step_back(term: Term, rows: Tensor | None, rate: float) -> None:
    """θ ← θ* + (θ − θ*) / (1 + ηλΩ), in place."""
    if rows is not None:
        for some, (p, strength, anchor) in _of_rows(term, rows):
            term[0].index_copy_(0, some, torch.lerp(anchor, p, 1 / (1 + rate * strength)))
        return
    for p, strength, anchor in _pieces(*term):
        torch.lerp(anchor, p, 1 / (1 + rate * strength), out=p)


def _of_rows(term: Term, rows: Tensor) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """(which, copies of these rows of the weight, its λΩ and its anchor), in pieces."""
    for some in rows.split(max(1, PIECE // term[0].shape[1])):
        yield some, [t[some] for t in term if isinstance(t, Tensor)]


def _pieces(*values: Tensor | float) -> Iterator[tuple[Any, ...]]:
    """Tensors of one size in pieces, numbers as they are."""
    return zip(*(v.flatten().split(PIECE) if isinstance(v, Tensor) else repeat(v) for v in values), strict=False)
