"""Per-example gradients without a loop: each layer's input and the gradient at its output are enough.

For one backward pass over a batch this gives Σ_x |∂s_x/∂θ|^power, squares or absolute values, for every parameter, at
about the cost of the ordinary weight gradients. The trap: on sequences the gradient of one example is itself a sum
over positions, which must be taken before the power; (δ²)ᵀ(a²) would drop the cross-position terms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

CHUNK = 2**19  # elements of per-example gradients held at a time: 2 MiB, which stay in the processor's cache
BLOCK = 2**17  # of a large weight's: 512 KiB, which stay in the cache of one core
Power = Literal[1, 2]


def powered(g: Tensor, power: Power, out: Tensor | None = None) -> Tensor:
    """|g|^power of an example's gradient: the Fisher information squares it, MAS takes its absolute value."""
    return torch.square(g, out=out) if power == 2 else torch.abs(g, out=out)


@dataclass
class Call:
    """One use of a layer in a forward pass: its input, and the spot of the graph where its output came out.

    output: not the tensor, which may be changed in place later.
    """

    layer: nn.Module
    input: Tensor
    output: GradientEdge


class Contribution:
    """What one call adds to the per-example gradients of one parameter.

    examples(lo, hi): (hi − lo, *shape) dense gradients; `out` is memory that they may be written to.
    add_to(total, power): Σ_x |gradient|^power added to what a sum holds, by a shorter way where there is one.
    """

    def __init__(self, shape: torch.Size, a: Tensor, d: Tensor) -> None:
        self.shape, self.a, self.d = shape, a, d

    def examples(self, lo: int, hi: int, out: Tensor | None = None) -> Tensor:
        raise NotImplementedError

    def add_to(self, total: Tensor, power: Power) -> None:
        add_up([self], len(self.d), total, power)


class _Matrix(Contribution):
    """Weight of a linear layer: G_x = Σ_t δ_xt a_xtᵀ, (out, in)."""

    def examples(self, lo: int, hi: int, out: Tensor | None = None) -> Tensor:
        return torch.bmm(self.d[lo:hi].transpose(1, 2), self.a[lo:hi], out=out)

    def add_to(self, total: Tensor, power: Power) -> None:
        large = self.d.is_cpu and self.shape.numel() > BLOCK // 4
        # a text's class is read off one place: in the last layer δ is 0 at all others. One feature says whether to look
        if large and self.d[:, :, 0].eq(0).all(0).any():
            places = self.d.ne(0).any(2).any(0).nonzero().squeeze(1)
            self.d, self.a = self.d[:, places], self.a[:, places]
        if self.d.shape[1] == 1:  # no positions to add up: (δ aᵀ)² = δ² (a²)ᵀ, and so with absolute values
            total += powered(self.d[:, 0], power).T @ powered(self.a[:, 0], power)
        elif large:
            self._by_blocks(total, power)
        else:
            super().add_to(total, power)

    def _by_blocks(self, total: Tensor, power: Power) -> None:
        """Of a large weight, some rows at a time: what an example adds is taken while it is still in the cache."""
        out, width = self.shape
        rows = min(out, max(1, BLOCK // width))
        size = max(1, BLOCK // (rows * width))
        memory, sums = self.d.new_empty(size, rows, width), self.d.new_empty(rows, width)
        for block, d in zip(total.split(rows), self.d.transpose(1, 2).split(rows, dim=1), strict=True):
            part = sums[: len(block)].zero_()
            for d_some, a_some in zip(d.split(size), self.a.split(size), strict=True):
                for gradient in torch.bmm(d_some, a_some, out=memory[: len(d_some), : len(block)]):
                    part.addcmul_(gradient, gradient) if power == 2 else part.add_(gradient.abs_())
            block += part


class _Vector(Contribution):
    """Scale of a normalisation: G_x = Σ_t δ_xt ∘ a_xt, with a the normalised input."""

    def examples(self, lo: int, hi: int, out: Tensor | None = None) -> Tensor:
        return (self.d[lo:hi] * self.a[lo:hi]).sum(1).reshape(-1, *self.shape)


class _Sum(Contribution):
    """Bias: G_x = Σ_t δ_xt."""

    def examples(self, lo: int, hi: int, out: Tensor | None = None) -> Tensor:
        return self.d[lo:hi].sum(1)


class _Rows(Contribution):
    """Embedding: the rows δ of each (example, token), added up over the places where the token stands."""

    def examples(self, lo: int, hi: int, out: Tensor | None = None) -> Tensor:
        dense = self.d.new_zeros(hi - lo, *self.shape)
        rows = torch.arange(hi - lo, device=self.d.device).unsqueeze(1).expand_as(self.a[lo:hi])
        return dense.index_put_((rows, self.a[lo:hi]), self.d[lo:hi], accumulate=True)

    def add_to(self, total: Tensor, power: Power) -> None:
        vocabulary, width = self.shape
        keys = self.a + vocabulary * torch.arange(len(self.a), device=self.a.device).unsqueeze(1)
        found, place = keys.flatten().unique(return_inverse=True)
        sums = self.d.new_zeros(len(found), width).index_add_(0, place, self.d.flatten(0, 1))
        tokens, place = (found % vocabulary).unique(return_inverse=True)  # all other rows of `total` lie still
        total[tokens] += self.d.new_zeros(len(tokens), width).index_add_(0, place, powered(sums, power))


def add_up(contributions: Sequence[Contribution], count: int, total: Tensor, power: Power) -> None:
    """Add Σ_x |Σ of the contributions of example x|^power: tied weights are summed before the power is taken."""
    shape = total.shape
    size = min(count, max(1, CHUNK // max(1, shape.numel())))
    first, rest, added = contributions[0], contributions[1:], None
    # new memory for each chunk would cost as much as filling it
    memory = first.d.new_empty(size, *shape) if isinstance(first, _Matrix) else None
    for lo in range(0, count, size):
        hi = min(count, lo + size)
        gradient = first.examples(lo, hi, None if memory is None else memory[: hi - lo])
        for more in rest:
            gradient = gradient + more.examples(lo, hi)
        chunk = powered(gradient, power, out=gradient).sum(0)
        added = chunk if added is None else added.add_(chunk)
    if added is not None:
        total += added


def knows(layer: nn.Module) -> bool:
    """Whether a layer's own parameters are of a kind that is handled here."""
    own = {name: p.dim() for name, p in layer.named_parameters(recurse=False)}
    weight, bias = own.pop("weight", 0), own.pop("bias", 1)  # a normalised or pruned weight is no parameter
    if own or bias != 1:
        return False
    if isinstance(layer, nn.Embedding):
        return weight == 2 and layer.max_norm is None and not layer.scale_grad_by_freq
    if isinstance(layer, nn.Linear) or _kind(layer) == "Conv1D":
        return weight == 2
    return weight == 1 and (isinstance(layer, nn.LayerNorm) or _kind(layer) == "RMSNorm")


def _kind(layer: nn.Module) -> str:
    name = type(layer).__name__
    return "RMSNorm" if name.endswith("RMSNorm") else name


def contributions(call: Call, a: Tensor, d: Tensor) -> Iterator[tuple[Tensor, Contribution]]:
    """(parameter, contribution) of one call. a: (B, T, in), or (B, T) token ids; d: (B, T, out) gradients."""
    layer: Any = call.layer
    if isinstance(layer, nn.Embedding):
        if layer.padding_idx is not None:
            d = d.masked_fill((a == layer.padding_idx).unsqueeze(-1), 0.0)
        yield layer.weight, _Rows(layer.weight.shape, a, d)
        return
    if isinstance(layer, nn.Linear):
        yield layer.weight, _Matrix(layer.weight.shape, a, d)
    elif _kind(layer) == "Conv1D":  # GPT-2 keeps its weights as (in, out)
        yield layer.weight, _Matrix(layer.weight.shape, d, a)
    elif isinstance(layer, nn.LayerNorm):
        normal = F.layer_norm(a, layer.normalized_shape, eps=layer.eps)
        yield layer.weight, _Vector(layer.weight.shape, normal, d)
    else:
        eps = getattr(layer, "variance_epsilon", getattr(layer, "eps", None)) or torch.finfo(a.dtype).eps
        normal = a * torch.rsqrt(a.square().mean(-1, keepdim=True) + eps)
        yield layer.weight, _Vector(layer.weight.shape, normal, d)
    if (bias := getattr(layer, "bias", None)) is not None:
        yield bias, _Sum(bias.shape, d, d)


@contextmanager
def recording(module: nn.Module, rows: int) -> Iterator[list[Call]]:
    """Record each use of a known layer within the context; `rows` is the number of examples in the batch."""
    calls: list[Call] = []

    def spread(_: nn.Module, inputs: tuple[Any, ...]) -> Any:
        # position ids come once for the whole batch; each example needs its own rows to have its own gradient
        if inputs and inputs[0].dim() == 2 and len(inputs[0]) == 1:
            return (inputs[0].expand(rows, -1), *inputs[1:])
        return None

    def record(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs and isinstance(output, Tensor) and output.requires_grad:
            calls.append(Call(layer, inputs[0].detach(), get_gradient_edge(output)))

    handles = []
    for layer in module.modules():
        if knows(layer) and any(p.requires_grad for p in layer.parameters(recurse=False)):
            handles.append(layer.register_forward_hook(record))
            if isinstance(layer, nn.Embedding):
                handles.append(layer.register_forward_pre_hook(spread))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def graph(output: Tensor) -> set[Any]:
    """The nodes of autograd's graph below a tensor: a change in place may have cut a layer's output off from it."""
    nodes: set[Any] = set()
    waiting = [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in nodes:
            nodes.add(node)
            waiting += [below for below, _ in node.next_functions]
    return nodes


def add_totals(
    calls: Sequence[Call],
    objective: Tensor,
    owners: Tensor,
    rows: int,
    of_places: set[nn.Module],
    power: Power,
    keep: bool,
    sums: Mapping[Tensor, Tensor],
) -> tuple[set[Tensor], set[Tensor]]:
    """Add Σ_x |∂s_x/∂θ|^power to each parameter's sum in `sums`, from one backward pass of Σ_x s_x.

    objective: the scalar Σ_x s_x. owners: (places,) the example of each place, ascending. of_places: the layers whose
    rows are places instead of examples. keep: keep the graph for another objective.
    Returns the parameters that the recorded calls show, and those with a call that does not show which example is
    where; to these nothing is added.
    """
    if not calls:
        return set(), set()
    deltas = torch.autograd.grad(objective, [call.output for call in calls], retain_graph=keep, allow_unused=True)
    found: dict[Tensor, list[Contribution]] = {}
    unclear: set[Tensor] = set()
    for call, delta in zip(calls, deltas, strict=True):
        if delta is None:
            continue
        a, d, layer = call.input, delta.float(), call.layer
        if not _fits(layer, a, d, len(owners) if layer in of_places else rows):
            unclear.update(layer.parameters(recurse=False))
            continue
        if layer in of_places:
            a, d = _by_example(a, owners, rows), _by_example(d, owners, rows)
        features = 0 if isinstance(layer, nn.Embedding) else 1
        a = a.reshape(rows, -1, *a.shape[a.dim() - features :])
        d = d.reshape(rows, -1, d.shape[-1])
        for parameter, contribution in contributions(call, a if not features else a.float(), d):
            found.setdefault(parameter, []).append(contribution)
    for p, parts in found.items():
        if p in sums and p not in unclear:
            parts[0].add_to(sums[p], power) if len(parts) == 1 else add_up(parts, rows, sums[p], power)
    return found.keys() - unclear, unclear


def _fits(layer: nn.Module, a: Tensor, d: Tensor, count: int) -> bool:
    """Whether a call has one row for each of `count` examples (or places) and its features last."""
    if isinstance(layer, nn.Embedding):  # (B,) ids might as well be the positions of one text
        return d.dim() > 2 and a.shape == d.shape[:-1] and len(d) == count
    sizes = (a.shape[-1], d.shape[-1]) if a.dim() and d.dim() > 1 else ()
    weight = cast(Tensor, layer.weight).shape
    return a.shape[:-1] == d.shape[:-1] and len(d) == count and weight in (sizes, sizes[::-1], sizes[:1])


def _by_example(values: Tensor, owners: Tensor, rows: int) -> Tensor:
    """(places, …) → (rows, K, …), zeros where an example has fewer than K places."""
    rank, most = ranks(owners)
    padded = values.new_zeros(rows, most, *values.shape[1:])
    padded[owners, rank] = values
    return padded


def ranks(owners: Tensor) -> tuple[Tensor, int]:
    """(places,) the how-manyth place of its example each one is, from 0, and the most that an example has."""
    counts = torch.bincount(owners, minlength=1)
    return torch.arange(len(owners), device=owners.device) - (counts.cumsum(0) - counts)[owners], int(counts.max())
