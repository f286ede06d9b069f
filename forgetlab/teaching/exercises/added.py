"""Exercises on added weights: a bottleneck adapter, LoRA's forward pass, and how many weights LoRA adds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from forgetlab.teaching.exercises.checking import Verdict, diagnose

FINE = "fine"
HIDDEN, WIDTH = 7, 2


def check_adapter(make: Callable[[int, int], nn.Module]) -> Verdict:
    """Judge a learner's bottleneck adapter.

    make: (hidden, width) → a module, such as its class; the module maps (texts, tokens, hidden) to the same shape.
    """
    praise = "It starts as the identity, can learn from there, bends inside the bottleneck, and has the right size."
    if not callable(make):
        return diagnose(make, [], _adapter_fault, {}, praise)
    mistakes = {words: (lambda name=name: name) for words, name in ADAPTER_FAULTS.items()}
    return diagnose(lambda: _adapter_fault(make), [()], lambda: FINE, mistakes, praise)


ADAPTER_FAULTS = {
    "It must be a `torch.nn.Module`, so that its weights are found and trained.": "module",
    "What the block gave is normalised, shortcut and all: an adapter hands h on as it is. Leave the sum "
    "`h + up(…)` alone; the model's blocks bring their own LayerNorm.": "norm",
    "The output has another shape than the input: after the bottleneck comes the way back up to `hidden`.": "shape",
    "The residual is forgotten. With all its weights at 0 an adapter lets h through unchanged; this one answers "
    "with 0 and wipes out what the frozen model computed. Add h to what comes out of the bottleneck.": "residual",
    "It does not start as the identity, although the last weight matrix is 0: the *bias* after it is still random.": (
        "bias"
    ),
    "It does not start as the identity: before the first step it already changes what the model computes. Set the "
    "last layer, the one that leads back up, to 0.": "start",
    "It starts as the identity but can never leave it: both matrices are 0, and then the gradient of each, which is "
    "multiplied by the other, is 0 too. Only one of the two may start at 0.": "dead",
    "Nothing bends in it: without a nonlinearity between the two layers it is one linear map of low rank. Put one, "
    "such as GELU, inside the bottleneck.": "linear",
    "The nonlinearity comes after the way up. It belongs *inside* the bottleneck, between down and up, so that what "
    "is added is a mix of `width` directions and can be negative as well.": "after",
    "A factor that starts at 0 stands before what is added. That is a sound start too (ReZero), with weights of its "
    "own. Asked for is the start without them: the last layer, its bias included, at 0.": "gate",
    "It has the wrong number of weights. Down: hidden · width + width, up: width · hidden + hidden.": "count",
}


def check_lora(function: Callable[..., Tensor]) -> Verdict:
    """Judge a learner's forward pass of a linear layer with LoRA.

    function: (x, W, A, B, alpha), x (N, in), W (out, in), A (r, in), B (out, r) → (N, out).
    """
    praise = "It agrees with the merged weights W + (α / r) B A, and W itself was never touched."
    return diagnose(function, LAYERS, merged, LORA_FAULTS, praise)


def merged(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    """The same layer with its change folded into W."""
    return x @ (W + (alpha / A.shape[0]) * (B @ A)).T


def _layer(rows: int, wide: int, out: int, r: int, alpha: float) -> tuple[Any, ...]:
    draw = torch.Generator().manual_seed(rows)
    return *(torch.randn(shape, generator=draw) for shape in ((rows, wide), (out, wide), (r, wide), (out, r))), alpha


LAYERS: list[tuple[Any, ...]] = [_layer(3, 6, 4, 2, 16.0), _layer(5, 4, 9, 3, 2.0)]
LORA_FAULTS: dict[str, Callable[..., Tensor]] = {
    "The frozen part is missing: W x is still there, LoRA only adds to it.": lambda x, W, A, B, alpha: merged(
        x, torch.zeros_like(W), A, B, alpha
    ),
    "The factor α / r is missing: B A x is added as it is. With the factor the learning rate need not be "
    "tuned anew for each rank.": lambda x, W, A, B, alpha: merged(x, W, A, B, A.shape[0]),
    "The change is multiplied by α, but not divided by the rank r.": lambda x, W, A, B, alpha: merged(
        x, W, A, B, alpha * A.shape[0]
    ),
    "The factor is upside down: it is α / r, not r / α.": lambda x, W, A, B, alpha: merged(
        x, W, A, B, A.shape[0] ** 2 / alpha
    ),
    "The rank was read off the wrong side: r is the number of *rows* of A, not its columns (the layer's inputs).": (
        lambda x, W, A, B, alpha: merged(x, W, A, B, alpha * A.shape[0] / A.shape[1])
    ),
    "The rank was read off the wrong side: r is the number of *columns* of B, not its rows (the layer's outputs).": (
        lambda x, W, A, B, alpha: merged(x, W, A, B, alpha * A.shape[0] / B.shape[0])
    ),
    "The factor α / r is on everything. It belongs to the change alone: W x stays as it was pre-trained.": (
        lambda x, W, A, B, alpha: (alpha / A.shape[0]) * merged(x, W, A, B, A.shape[0])
    ),
    "The change is taken away instead of added.": lambda x, W, A, B, alpha: merged(x, W, A, B, -alpha),
}


def check_count(function: Callable[[int, int, int, int], int]) -> Verdict:
    """Judge a learner's count of the weights that LoRA adds.

    function: (layers, d_in, d_out, r), `layers` linear layers of that shape → added weights.
    """
    praise = "Two thin matrices a layer, r × d_in and d_out × r, and no bias."
    return diagnose(function, SHAPES, lora_weights, COUNT_FAULTS, praise)


def lora_weights(layers: int, d_in: int, d_out: int, r: int) -> int:
    """Elements of A and B in all layers."""
    return layers * sum(torch.empty(shape, device="meta").numel() for shape in ((r, d_in), (d_out, r)))


SHAPES = [(6, 64, 64, 16), (24, 768, 768, 8), (4, 48, 192, 4), (1, 10, 3, 2)]
COUNT_FAULTS: dict[str, Callable[[int, int, int, int], int]] = {
    "That is the size of the full change: d_in × d_out a layer. LoRA never stores that product, only its two "
    "factors.": lambda layers, d_in, d_out, r: layers * d_in * d_out,
    "r × d_in × d_out would be r full matrices. A has r × d_in weights and B has d_out × r: add, don't multiply.": (
        lambda layers, d_in, d_out, r: layers * r * d_in * d_out
    ),
    "Right for one layer. There are `layers` of them.": lambda layers, d_in, d_out, r: r * (d_in + d_out),
    "That is A alone. B leads back up to the layer's outputs.": lambda layers, d_in, d_out, r: layers * r * d_in,
    "That is B alone. A leads down from the layer's inputs.": lambda layers, d_in, d_out, r: layers * r * d_out,
    "2 r d_in is right for square layers only. B has d_out rows.": lambda layers, d_in, d_out, r: 2 * layers * r * d_in,
    "2 r d_out is right for square layers only. A has d_in columns.": lambda layers, d_in, d_out, r: (
        2 * layers * r * d_out
    ),
    "The frozen W is counted along. It is neither added nor trained.": lambda layers, d_in, d_out, r: (
        layers * (d_in * d_out + r * (d_in + d_out))
    ),
    "There is an r × r matrix too many: B follows right after A.": lambda layers, d_in, d_out, r: (
        layers * (r * (d_in + d_out) + r * r)
    ),
    "Biases are counted along, as an adapter has them. LoRA adds none: the layer's own bias stays as it is.": (
        lambda layers, d_in, d_out, r: layers * (r * (d_in + d_out) + r + d_out)
    ),
}


@torch.no_grad()
def _fill(module: nn.Module, std: float, seed: int = 0) -> None:
    draw = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        p.copy_(std * torch.randn(p.shape, generator=draw))


@contextmanager
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _adapter_fault(make: Callable[[int, int], nn.Module]) -> str | None:
    with _seeded():
        module, h = make(HIDDEN, WIDTH), torch.randn(8, 5, HIDDEN)
    if module is None or module is Ellipsis:
        return None
    if not isinstance(module, nn.Module):
        return "module"
    start = module(h)
    if start is None or start is Ellipsis:
        return None
    if not isinstance(start, Tensor) or start.shape != h.shape:
        return "shape"
    weights = list(module.parameters())
    wanted = 2 * HIDDEN * WIDTH + WIDTH + HIDDEN
    extra = sum(p.numel() for p in weights) - wanted
    if _normalises(module, h):
        return "norm"
    stuck, gated = _stuck(module, h, steps=1), extra > 0 and _stuck(module, h, steps=0)
    _fill(module, 0.0)
    with torch.no_grad():
        if not module(h).any():
            return "residual"
        moved = (start - h).flatten(0, 1)
        if moved.abs().max() > 1e-5:
            return "bias" if (moved - moved[0]).abs().max() < 1e-5 else "start"
        if stuck:
            return "dead"
        _fill(module, 1.0)
        added = (module(h) - h).flatten(0, 1)
        # of an affine map, the mean's value is the mean of the values
        middle = h.flatten(0, 1).mean(0, keepdim=True)
        if torch.allclose(module(middle[None])[0] - middle, added.mean(0, keepdim=True), atol=1e-4):
            return "linear"
        if torch.linalg.matrix_rank(added - added.mean(0), rtol=1e-4) > WIDTH:
            return "after"
    return "gate" if gated else FINE if extra == 0 else "count"


def _stuck(module: nn.Module, h: Tensor, steps: int) -> bool:
    """Whether no matrix gets a gradient, at the start and after so many steps of a copy.

    After one step a factor that starts at 0 lets it through.
    """
    module = copy.deepcopy(module)
    for _ in range(steps + 1):
        module.zero_grad()
        module(h).pow(2).sum().backward()
        if any(p.grad is not None and p.grad.any() for p in module.parameters() if p.ndim > 1):
            return False
        with torch.no_grad():
            for p in module.parameters():
                p.sub_(0.01 * (p.grad if p.grad is not None else torch.zeros_like(p)))
    return True


@torch.no_grad()
def _normalises(module: nn.Module, h: Tensor) -> bool:
    """Whether h comes out with mean 0 and variance 1, where the matrices and biases add nothing to it."""
    module = copy.deepcopy(module)
    for name, p in module.named_parameters():
        if p.ndim > 1 or name.endswith("bias"):
            p.zero_()
    return torch.allclose(module(h), nn.functional.layer_norm(h, h.shape[-1:]), atol=1e-4)
