"""Bottleneck adapters: a small network after each block of a frozen model."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forgetlab.errors import flag, whole
from forgetlab.models.addition import Addition
from forgetlab.models.model import Model
from forgetlab.remedies.architectures.frozen import Additive, blocks, linear
from forgetlab.training.method import Run, Setting


class Adapters(Additive):
    """Train a bottleneck after each transformer block, and the new head; the model itself is frozen.

    h ← h + W_up GELU(W_down h), with W_up = 0 at the start, so that training starts from the pre-trained function.
    Adds layers · (2 · hidden · width + width + hidden) weights.

    width: of the bottleneck. shared: False keeps the adapters to the new task, so that every other task's outputs stay
    bit-identical, and it must be known which task a text belongs to; True sends all tasks through them, and they may
    forget. Raises ForgetlabError for other values, or for a model whose blocks are not found.
    Source: Houlsby et al. 2019, section 2.1. Theirs are two a block, inside the residual connections of attention and
    feed-forward, and the layer norms are trained along; here there is one, on the block's output, as in Bapna & Firat
    2019 without their layer norm, and no old weight moves.

    >>> first = next(finetune(model, new, methods=[Adapters(width=16)]))
    >>> first.costs["added_parameters"]  # 3 · (2 · 64 · 16 + 16 + 64)
    6384.0
    """

    name = "adapters"
    main = Setting("width", 1, 256)

    def __init__(self, width: int = 16, shared: bool = False) -> None:
        self.width = whole("width", width)
        self.shared = flag("shared", shared)

    def make(self, run: Run, key: str) -> Addition:
        stack = blocks(run.model)
        return _Stack(len(stack), run.model.config.hidden_size, self.width, run.generator).to(run.model.device)


class _Stack(Addition):
    def __init__(self, count: int, hidden: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Adapter(hidden, width, generator) for _ in range(count))

    def attach(self, model: Model) -> None:
        for block, adapter in zip(blocks(model), self.layers, strict=True):
            assert isinstance(adapter, _Adapter)
            self.handles.append(block.register_forward_hook(adapter.after))

    def switch(self, on: bool) -> None:
        self.on = on
        for adapter in self.layers:
            assert isinstance(adapter, _Adapter)
            adapter.on = on


class _Adapter(nn.Module):
    on = False

    def __init__(self, hidden: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.down = linear(hidden, width, generator)
        self.up = linear(width, hidden, generator, zero=True)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.up(F.gelu(self.down(h)))

    def after(self, block: nn.Module, inputs: Any, output: Any) -> Any:
        """A hook on a block: its output is the hidden states, or a tuple that starts with them."""
        if not self.on:
            return output
        return (self(output[0]), *output[1:]) if isinstance(output, tuple) else self(output)
