"""The layers of a small BERT on the CPU, each as one step of autograd.

At 64 columns half of a layer's time goes into starting some eighty operations, into masks, and into attention kernels
made for long texts. Here a layer is two dozen operations, forward and backward written out. The numbers are
transformers' own up to rounding. Whatever makes a model unusual (hooks, adapters, LoRA, dropout, another precision,
another device, vmap, a compiler) has it run as transformers wrote it, and so does eager attention. Additions that are
switched off do not count: the old tasks' outputs must stay the same to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

aten = torch.ops.aten
WIDEST = 128  # columns; above, the matrix products are what takes the time
VECTOR = 16  # floats: torch's softmax takes ten times as long for a row of 15 as for a row of 16
BERT_MODULE = "transformers.models.bert.modeling_bert"
TORCH_KINDS = {nn.ModuleList, nn.Linear, nn.LayerNorm, nn.Dropout, nn.ReLU}
LORA_MODULE = "peft.tuners.lora"
IDLE_HOOKS = "transformers.utils.output_capturing"  # stay for good after output_hidden_states, and do nothing
Shape = tuple[int, int, int]  # rows, length, heads


def hidden_states(backbone: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """The last hidden states (B, L, width) of a backbone that `fits`. batch: token ids, mask and any types, (B, L)."""
    bert, mask = cast(Any, backbone), batch["attention_mask"].bool()
    x = bert.embeddings(input_ids=batch["input_ids"], token_type_ids=batch.get("token_type_ids"))
    rows, length, width = x.shape
    heads = bert.config.num_attention_heads
    away = None
    if length < VECTOR or not mask.all():
        away = F.pad(1 - mask.to(x.dtype), (0, _padded(length) - length), value=1.0) * torch.finfo(x.dtype).min
        away = away[:, None, None].expand(rows, heads, 1, -1).reshape(rows * heads, 1, -1)
    x = x.view(rows * length, width)
    for layer in bert.encoder.layer:
        norms = (layer.attention.output.LayerNorm, layer.output.LayerNorm)
        weights = [w for module in (*_products(layer), *norms) for w in (module.weight, module.bias)]
        eps = (norms[0].eps, norms[1].eps)
        x = cast(Tensor, Layer.apply(x, away, (rows, length, heads), eps, *weights))
    return x.view(rows, length, width)


def fits(backbone: nn.Module, batch: Mapping[str, Tensor]) -> bool:
    """Whether `hidden_states` may stand for the backbone's own forward pass on this batch.

    It may where every module that it passes over is as transformers made it and nobody listens to it.
    """
    bert, mask = cast(Any, backbone), batch.get("attention_mask")
    kind = type(backbone)
    if kind.__name__ != "BertModel" or kind.__module__ != BERT_MODULE or not _untouched(backbone):
        return False
    config = bert.config
    if config.hidden_size > WIDEST or config.is_decoder or config._attn_implementation != "sdpa":
        return False
    if mask is None or mask.dim() != 2 or mask.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or _has_any_global_hook():
        return False
    if getattr(bert, "pooler", None) is not None and not all(map(_untouched, bert.pooler.modules())):
        return False
    return _plain(bert.encoder, config.num_attention_heads)


def _plain(encoder: nn.Module, heads: int) -> bool:
    """Whether all of BERT's layers are transformers' own in float32, with a ReLU each and without dropout.

    Asked at every pass, so it reads the modules' own tables.
    """
    modules, relus = [encoder], 0
    for module in modules:
        kind = type(module)
        if kind.__module__.startswith(LORA_MODULE) and not module.active_adapters and not module.merged:
            module = cast(nn.Module, module._modules["base_layer"])  # LoRA that is switched off
            kind = type(module)
        if not (kind in TORCH_KINDS or kind.__module__ == BERT_MODULE) or not _untouched(module):
            return False
        modules += cast(Any, module._modules).values()
        relus += kind is nn.ReLU
        if kind is nn.Dropout:
            if module.training and module.p:
                return False
        elif kind.__name__ == "BertSelfAttention":
            if not _plain_attention(cast(Any, module), heads):
                return False
        elif kind is nn.Linear or kind is nn.LayerNorm:
            for weight in module._parameters.values():  # None: no bias
                if type(weight) not in (nn.Parameter, Tensor) or cast(Tensor, weight).dtype != torch.float32:
                    return False
    return relus == len(cast(Any, encoder).layer)


def _plain_attention(attention: Any, heads: int) -> bool:
    size = attention.query.out_features // heads
    if attention.num_attention_heads != heads or getattr(attention, "scaling", size**-0.5) != size**-0.5:
        return False
    return not (attention.training and attention.dropout.p)


def _untouched(module: nn.Module) -> bool:
    """Whether a module has the forward pass that its class came with, and nobody listens to it."""
    kind = type(module)
    if module.__dict__.keys() & {"forward", "feed_forward_chunk"} or module._compiled_call_impl is not None:
        return False
    if kind is not nn.ModuleList and kind.forward.__module__ != kind.__module__:
        return False
    if module._backward_hooks or module._backward_pre_hooks:
        return False
    if not module._forward_hooks and not module._forward_pre_hooks:
        return True
    return all(map(_is_idle, (*module._forward_hooks.values(), *module._forward_pre_hooks.values())))


def _is_idle(hook: Any) -> bool:
    """Whether a hook does nothing: transformers' own, or that of adapters or columns that are switched off."""
    owner = getattr(hook, "__self__", None)
    return getattr(hook, "__module__", "") == IDLE_HOOKS or (owner is not None and getattr(owner, "on", None) is False)


def _products(layer: Any) -> tuple[Any, ...]:
    own = layer.attention.self
    return own.query, own.key, own.value, layer.attention.output.dense, layer.intermediate.dense, layer.output.dense


class Layer(torch.autograd.Function):
    """A BERT layer: attention, sum and norm, two products with a ReLU between, sum and norm."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, away: Tensor | None, shape: Shape, eps: tuple[float, float], *w: Tensor) -> Tensor:
        """x: (rows · length, width). away: added to the scores, (rows · heads, 1, length). w: weights and biases."""
        wq, bq, wk, bk, wv, bv, wo, bo, w1, b1, w2, b2, g1, c1, g2, c2 = w
        width = x.shape[1]
        w_qkv = torch.cat((wq, wk, wv))
        qkv = torch.addmm(torch.cat((bq, bk, bv)), x, w_qkv.t())
        q, k, v = split = _by_head(qkv, 3, shape)
        scale = 1 / math.sqrt(q.shape[-1])
        if away is None:  # S = q kᵀ/√d + m, P = softmax S
            scores = torch.bmm(q, k.transpose(1, 2)).mul_(scale)
        else:
            scores = torch.baddbmm(away, q, k.transpose(1, 2), alpha=scale)
        p = torch.softmax(scores, -1)
        seen = _by_token(torch.bmm(p, v), 1, shape)
        z1 = torch.addmm(bo, seen, wo.t()).add_(x)  # a = norm(x + W_o (P v) + b_o)
        a, mean1, rstd1 = aten.native_layer_norm(z1, (width,), g1, c1, eps[0])
        f = torch.addmm(b1, a, w1.t()).relu_()  # y = norm(a + W_2 max(0, W_1 a + b_1) + b_2)
        z2 = torch.addmm(b2, f, w2.t()).add_(a)
        y, mean2, rstd2 = aten.native_layer_norm(z2, (width,), g2, c2, eps[1])
        ctx.shape, ctx.scale = shape, scale
        ctx.save_for_backward(
            x, w_qkv, split, p, seen, z1, mean1, rstd1, a, f, z2, mean2, rstd2, wo, w1, w2, g1, c1, g2, c2
        )
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        """The gradients of `forward`'s arguments; those of the weights as none where no weight is trained."""
        if torch.is_grad_enabled() or torch._C._functorch.is_legacy_batchedtensor(dy):
            raise RuntimeError(
                "the layers of a small BERT have no second derivative on the CPU, and no batched gradients; with "
                'model.body.set_attn_implementation("eager") they run as transformers wrote them, which has both'
            )
        x, w_qkv, split, p, seen, z1, mean1, rstd1, a, f, z2, mean2, rstd2, *weights = ctx.saved_tensors
        wo, w1, w2, g1, c1, g2, c2 = weights
        q, k, v = split
        trained, width = any(ctx.needs_input_grad[4:]), [x.shape[1]]
        wanted = [True, trained, trained]
        dz2, dg2, dc2 = aten.native_layer_norm_backward(dy, z2, width, mean2, rstd2, g2, c2, wanted)
        df = dz2 @ w2
        aten.threshold_backward.grad_input(df, f, 0, grad_input=df)
        da = torch.addmm(dz2, df, w1)
        dz1, dg1, dc1 = aten.native_layer_norm_backward(da, z1, width, mean1, rstd1, g1, c1, wanted)
        d_seen = _by_head(dz1 @ wo, 1, ctx.shape)[0]
        d_split = torch.empty_like(split)
        torch.bmm(p.transpose(1, 2), d_seen, out=d_split[2])  # dv = Pᵀ d(P v)
        ds = aten._softmax_backward_data(torch.bmm(d_seen, v.transpose(1, 2)), p, -1, p.dtype).mul_(ctx.scale)
        torch.bmm(ds, k, out=d_split[0])  # dS = P ∘ (dP − Σ P dP), dq = dS k/√d, dk = dSᵀ q/√d
        torch.bmm(ds.transpose(1, 2), q, out=d_split[1])
        d_qkv = _by_token(d_split, 3, ctx.shape)
        dx = torch.addmm(dz1, d_qkv, w_qkv) if ctx.needs_input_grad[0] else None
        if not trained:
            return dx, None, None, None, *[None] * 16
        (dwq, dwk, dwv), (dbq, dbk, dbv) = (d_qkv.t() @ x).chunk(3), d_qkv.sum(0).chunk(3)
        return (
            *(dx, None, None, None, dwq, dbq, dwk, dbk, dwv, dbv, dz1.t() @ seen, dz1.sum(0)),
            *(df.t() @ a, df.sum(0), dz2.t() @ f, dz2.sum(0), dg1, dc1, dg2, dc2),
        )


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
