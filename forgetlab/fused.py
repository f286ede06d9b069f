"""The layers of a small BERT on the CPU, each as one step of autograd.

At 64 columns half of a layer's time goes into starting some eighty operations, into masks, and into attention kernels
made for long texts. Here a layer is two dozen operations, forward and backward written out. The numbers are
transformers' own up to rounding. Whatever makes a model unusual (hooks, adapters, LoRA, dropout, another precision,
another device, vmap, a compiler) has it run as transformers wrote it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

aten = torch.ops.aten
WIDEST = 128  # columns; above, the matrix products are what takes the time
VECTOR = 16  # floats: torch's softmax takes ten times as long for a row of 15 as for a row of 16
BERT = "transformers.models.bert.modeling_bert"
PLAIN = {nn.Linear, nn.Embedding, nn.LayerNorm, nn.Dropout, nn.ModuleList, nn.ReLU, nn.Tanh}
Shape = tuple[int, int, int]  # rows, length, heads


def fits(backbone: nn.Module, batch: Mapping[str, Tensor]) -> bool:
    """Whether `hidden_states` may stand for the backbone's own forward pass on this batch."""
    config: Any = backbone.config
    if type(backbone).__name__ != "BertModel" or config.hidden_act != "relu" or config.hidden_size > WIDEST:
        return False
    if config.is_decoder or config._attn_implementation != "sdpa":
        return False
    if backbone.training and (config.hidden_dropout_prob or config.attention_probs_dropout_prob):
        return False
    if batch["input_ids"].device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return all(_plain(module) for module in backbone.modules())


def _plain(module: nn.Module) -> bool:
    kind = type(module)
    hooked = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return (kind in PLAIN or kind.__module__ == BERT) and not hooked and module._compiled_call_impl is None


def hidden_states(backbone: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """The last hidden states (B, L, width) of a backbone that `fits`. batch: as the backbone takes it."""
    bert, mask = cast(Any, backbone), batch["attention_mask"]
    x = bert.embeddings(input_ids=batch["input_ids"], token_type_ids=batch.get("token_type_ids"))
    rows, length, width = x.shape
    heads = bert.config.num_attention_heads
    away = None
    if length < VECTOR or not mask.all():
        away = F.pad(1 - mask.to(x.dtype), (0, _padded(length) - length), value=1.0) * torch.finfo(x.dtype).min
        away = away[:, None, None].expand(rows, heads, 1, -1).reshape(rows * heads, 1, -1)
    x = x.view(rows * length, width)
    for layer in bert.encoder.layer:
        x = cast(Tensor, Layer.apply(x, away, (rows, length, heads), bert.config.layer_norm_eps, *_weights(layer)))
    return x.view(rows, length, width)


def _weights(layer: Any) -> list[Tensor]:
    own, out = layer.attention.self, layer.attention.output
    linear = (own.query, own.key, own.value, out.dense, layer.intermediate.dense, layer.output.dense)
    return [w for module in (*linear, out.LayerNorm, layer.output.LayerNorm) for w in (module.weight, module.bias)]


class Layer(torch.autograd.Function):
    """A BERT layer: attention, sum and norm, two products with a ReLU between, sum and norm."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, away: Tensor | None, shape: Shape, eps: float, *w: Tensor) -> Tensor:
        """x: (rows · length, width). away: added to the scores, (rows · heads, 1, length). w: as `_weights` says."""
        wq, bq, wk, bk, wv, bv, wo, bo, w1, b1, w2, b2, g1, c1, g2, c2 = w
        width = x.shape[1]
        w_qkv = torch.cat((wq, wk, wv))
        qkv = torch.addmm(torch.cat((bq, bk, bv)), x, w_qkv.t())
        q, k, v = split = _by_head(qkv, 3, shape)
        scale = 1 / math.sqrt(q.shape[-1])
        if away is None:
            scores = torch.bmm(q, k.transpose(1, 2)).mul_(scale)
        else:
            scores = torch.baddbmm(away, q, k.transpose(1, 2), alpha=scale)
        p = torch.softmax(scores, -1)
        seen = _by_token(torch.bmm(p, v), 1, shape)
        z1 = torch.addmm(bo, seen, wo.t()).add_(x)
        a, mean1, rstd1 = aten.native_layer_norm(z1, (width,), g1, c1, eps)
        f = torch.addmm(b1, a, w1.t()).relu_()
        z2 = torch.addmm(b2, f, w2.t()).add_(a)
        y, mean2, rstd2 = aten.native_layer_norm(z2, (width,), g2, c2, eps)
        ctx.shape, ctx.scale = shape, scale
        ctx.save_for_backward(
            x, w_qkv, split, p, seen, z1, mean1, rstd1, a, f, z2, mean2, rstd2, wo, w1, w2, g1, c1, g2, c2
        )
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        x, w_qkv, split, p, seen, z1, mean1, rstd1, a, f, z2, mean2, rstd2, wo, w1, w2, g1, c1, g2, c2 = (
            ctx.saved_tensors
        )
        q, k, v = split
        width = [x.shape[1]]
        every = [True, True, True]
        dz2, dg2, dc2 = aten.native_layer_norm_backward(dy, z2, width, mean2, rstd2, g2, c2, every)
        df = dz2 @ w2
        aten.threshold_backward.grad_input(df, f, 0, grad_input=df)
        da = torch.addmm(dz2, df, w1)
        dz1, dg1, dc1 = aten.native_layer_norm_backward(da, z1, width, mean1, rstd1, g1, c1, every)
        d_seen = _by_head(dz1 @ wo, 1, ctx.shape)[0]
        d_split = torch.empty_like(split)
        torch.bmm(p.transpose(1, 2), d_seen, out=d_split[2])
        ds = aten._softmax_backward_data(torch.bmm(d_seen, v.transpose(1, 2)), p, -1, p.dtype).mul_(ctx.scale)
        torch.bmm(ds, k, out=d_split[0])
        torch.bmm(ds.transpose(1, 2), q, out=d_split[1])
        d_qkv = _by_token(d_split, 3, ctx.shape)
        dx = torch.addmm(dz1, d_qkv, w_qkv)
        dw = (d_qkv.t() @ x).chunk(3)
        db = d_qkv.sum(0).chunk(3)
        weights = (dw[0], db[0], dw[1], db[1], dw[2], db[2], dz1.t() @ seen, dz1.sum(0))
        return dx, None, None, None, *weights, df.t() @ a, df.sum(0), dz2.t() @ f, dz2.sum(0), dg1, dc1, dg2, dc2


def _padded(length: int) -> int:
    return max(length, VECTOR)


def _by_head(x: Tensor, parts: int, shape: Shape) -> Tensor:
    """(rows · length, parts · width) → (parts, rows · heads, padded length, width of a head), padded with zeros."""
    rows, length, heads = shape
    split = x.view(rows, length, parts, heads, -1).permute(2, 0, 3, 1, 4)
    if length < VECTOR:
        padded = x.new_zeros(parts, rows, heads, VECTOR, split.shape[-1])
        padded[:, :, :, :length] = split
        split = padded
    return split.reshape(parts, rows * heads, _padded(length), split.shape[-1])


def _by_token(x: Tensor, parts: int, shape: Shape) -> Tensor:
    """The way back from `_by_head`."""
    rows, length, heads = shape
    split = x.view(parts, rows, heads, _padded(length), -1)[:, :, :, :length]
    return split.permute(1, 3, 0, 2, 4).reshape(rows * length, -1)
