"""How far the weights have moved, layer by layer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from forgetlab.errors import ForgetlabError

Weights = Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]

# A float32 norm of millions of weights is up to 0.4% off on the CPU; over pieces of this size, 0.005%.
_PIECE = 2**16
# The leftmost match decides: a layer inside a named head belongs to the head. embed_out: GPT-NeoX's LM head.
_LAYER = re.compile(
    r"(?:^|\.)(?:heads\.(?P<head>[^.]+)|(?:layers?|h|blocks?)\.(?P<layer>\d+)"
    r"|(?P<lm>(?:generator_)?lm_head|cls\.predictions|vocab_\w+|generator_predictions|embed_out)"
    r"|\w*embeddings?(?:_\w+)?|embed_\w+|wte|wpe)(?:\.|$)"
)


def layer_of(name: str) -> str:
    """The layer that a dotted parameter name of a transformers model belongs to.

    Returns "embeddings", "layer N", "lm head", "NAME head" for `heads.NAME.…`, or "other" (final norm).

    >>> layer_of("bert.encoder.layer.3.output.dense.weight"), layer_of("heads.sentiment.weight")
    ('layer 3', 'sentiment head')
    """
    found = _LAYER.search(name)
    if found is None:
        return "other"
    head, layer, lm = found.groups()
    return f"{head} head" if head else f"layer {layer}" if layer else "lm head" if lm else "embeddings"


def height(layer: str) -> tuple[int, int, str]:
    """Sorts names of layers from below: embeddings, layers by number, what stands above them, heads."""
    if layer.startswith("layer "):
        return 1, int(layer.removeprefix("layer ")), ""
    return {"embeddings": 0, "other": 2, "lm head": 3}.get(layer, 4), 0, layer


# What a matrix does in its layer, by the names of transformers' families; the first that is found decides.
_KINDS = {
    "norm": r"norm|(?:^|\.)ln_",
    "q, k, v": r"c_attn|query_key_value|qkv|self\.in_proj",  # in one matrix: GPT-2, GPT-NeoX, Phi-3, ModernBERT
    "query": r"(?:^|\.)q(?:uery)?(?:_(?:proj|lin))?\.",
    "key": r"(?:^|\.)k(?:ey)?(?:_(?:proj|lin))?\.",
    "value": r"(?:^|\.)v(?:alue)?(?:_(?:proj|lin))?\.",
    "attention out": r"att(?:ention|n)\S*\.(?:dense|o_proj|out_proj|out_lin|c_proj|o|wo)\.",
    "mlp in": r"intermediate\.dense|(?:gate|up)_proj|lin1|c_fc|h_to_4h|fc1|fc_in|\.(?:wi|w1|w3)\.|ffn\.(?:weight|bias)",
    "mlp out": r"output\.dense|down_proj|lin2|mlp\.c_proj|4h_to_h|fc2|fc_out|ffn_output|\.(?:wo|w2)\.",
}
KINDS = ("embeddings", *_KINDS, "head", "other")


def kind_of(name: str) -> str:
    """What the weights of a dotted parameter name of a transformers model do: one of KINDS.

    All of a head is "head"; what is not known is "other".

    >>> kind_of("bert.encoder.layer.3.output.dense.weight"), kind_of("model.layers.0.self_attn.q_proj.weight")
    ('mlp out', 'query')
    """
    layer = layer_of(name)
    if layer.endswith("head"):
        return "head"
    found = (kind for kind, names in _KINDS.items() if re.search(names, name.lower()))
    return next(found, "embeddings" if layer == "embeddings" else "other")


@dataclass(frozen=True)
class Drift:
    """L2 distance moved, also relative to the norm before (inf where that was 0), in all and per layer."""

    total: float
    relative: float
    per_layer: dict[str, float]
    relative_per_layer: dict[str, float]


@torch.no_grad()
def parameter_drift(before: Weights, after: Weights) -> Drift:
    """How far the weights have moved, in all and per layer (`layer_of`), in the unit of the weights.

    before, after: name → tensor (`named_parameters()`, a state dict). `before` must be a copy: a state dict
    is a view. Names only in `after` (new heads) and tensors not floating point are left out; weights tied in
    `after` count once. Returns a `Drift`.
    Raises ForgetlabError naming a parameter that is missing or has another shape.
    Source: ‖θ − θ₀‖₂, as penalised by L2-SP (Li et al. 2018); a norm, not a mean over parameters.
    Cost: fused per layer, the extra memory of one layer, one copy from the device.

    >>> parameter_drift({"wte.weight": torch.ones(4)}, {"wte.weight": torch.full((4,), 2.0)}).relative
    1.0
    """
    old, new = before if isinstance(before, Mapping) else dict(before), dict(after)
    layers: dict[str, list[str]] = {}
    seen: set[tuple[Any, ...]] = set()
    for name in old:
        a = new.get(name)
        if a is None:
            expected = "every name of before (tied weights: named_parameters() lists only the first)"
            raise ForgetlabError(f"parameter {name!r} is missing after; expected {expected}")
        here = a.to_local() if hasattr(a, "to_local") else a  # of torch's DTensor the piece that lies here
        storage = (a.device, here.data_ptr(), a.shape, a.stride())
        if a.is_floating_point() and storage not in seen:
            seen.add(storage)
            layers.setdefault(layer_of(name), []).append(name)
        else:
            _pair(name, old, a)
    if not layers:
        raise ForgetlabError("before holds no floating-point tensor; expected a mapping from name to tensor")
    device = new[next(iter(layers.values()))[0]].device
    ways, sizes = [], []
    for names in layers.values():  # one at a time: `before` may lie in a file
        pairs = [_pair(name, old, new[name]) for name in names]
        now, then = [one for one, _ in pairs], [one for _, one in pairs]
        ways.append(_norm(torch._foreach_sub(now, then), device))  # ‖θ − θ₀‖₂
        sizes.append(_norm(then, device))
    numbers = torch.stack(ways + sizes).tolist()  # the only wait for the device
    moved, size = numbers[: len(layers)], numbers[len(layers) :]
    total = math.hypot(*moved)
    relative = dict(zip(layers, map(_ratio, moved, size), strict=True))
    return Drift(total, _ratio(total, math.hypot(*size)), dict(zip(layers, moved, strict=True)), relative)


def _pair(name: str, before: Mapping[str, Tensor], a: Tensor) -> tuple[Tensor, Tensor]:
    """A weight after and before, in float32 or finer, as a norm in half precision overflows; on the first's device."""
    b = before[name]
    if a.shape != b.shape:
        raise ForgetlabError(f"parameter {name!r} has shape {[*a.shape]} after; expected {[*b.shape]}")
    now, then = (t.to(a.device, torch.promote_types(t.dtype, torch.float32)) for t in (a, b))
    return now, then


def _norm(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    if any(hasattr(tensor, "full_tensor") for tensor in tensors):
        each = [torch.linalg.vector_norm(tensor) for tensor in tensors]
        return torch.linalg.vector_norm(
            torch.stack([n.full_tensor() if hasattr(n, "full_tensor") else n for n in each])
        )
    pieces = [piece for tensor in tensors for piece in tensor.reshape(-1).split(_PIECE)]
    return torch.linalg.vector_norm(torch.stack([norm.to(device) for norm in torch._foreach_norm(pieces)]))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else (math.inf if part else 0.0)
