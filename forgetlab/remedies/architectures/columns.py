"""Progressive columns: a new network beside the frozen one, reading its hidden states."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forgetlab.errors import ForgetlabError, whole
from forgetlab.models.addition import Addition
from forgetlab.models.model import Model
from forgetlab.remedies.architectures.frozen import Additive, blocks, linear
from forgetlab.tasks import OnPolicy
from forgetlab.training.method import Run, Setting


class ProgressiveColumns(Additive):
    """Train a new column of transformer blocks beside the frozen model, and the new head on both.

    With h_0 … h_{L−1} the inputs of the old model's blocks and h its last hidden states (after the final norm), the
    new column is g_l = Block_l(g_{l−1} + U_l h_{l−1}), g_0 = 0, and the new task's hidden states are
    h + V norm(g_L), with V = 0 at the start, so that training starts from the pre-trained function. Every other task
    reads h alone: its outputs stay bit-identical, and it must be known which task a text belongs to.
    Adds L (12 w² + 13 w + (hidden + 1) w) + 2 w + (w + 1) hidden weights for a column of width w.

    width: of the new column (None: the model's own). Its blocks have as many attention heads as the model's where that
    divides the width, else the greatest common divisor. Raises ForgetlabError for another width, for a model whose
    blocks are not found, or when the column is run on top of a key-value cache, since it keeps none.
    Source: Rusu et al. 2016, eq. 1 and 2. Here the columns are transformers; lateral connections are linear, without
    the adapters' nonlinearity; the input is the old model's embedding; the output layer sees the old column through
    the identity, not a learned matrix; and every new column reads the first one only, not those in between.

    >>> first = next(finetune(model, new, methods=[ProgressiveColumns(width=16)]))
    >>> first.costs["added_parameters"]
    14080.0
    """

    name = "columns"
    main = Setting("width", 1, 128)

    def __init__(self, width: int | None = 16) -> None:
        self.width = None if width is None else whole("width", width)

    def setup(self, run: Run) -> None:
        if isinstance(run.task, OnPolicy):
            raise ForgetlabError(
                f"{run.task.name} has the model write at each step, and a progressive column keeps no key-value cache "
                "for that: take adapters or lora"
            )
        super().setup(run)

    def make(self, run: Run, key: str) -> Addition:
        model, stack = run.model, blocks(run.model)
        hidden = model.config.hidden_size
        width = self.width or hidden
        heads = math.gcd(width, model.config.num_attention_heads)
        return _Column(len(stack), hidden, width, heads, model.causal, run.generator).to(model.device)


class _Column(Addition):
    def __init__(
        self, count: int, hidden: int, width: int, heads: int, causal: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.causal = causal
        self.layers = nn.ModuleList(_Layer(hidden, width, heads, generator) for _ in range(count))
        self.norm = nn.LayerNorm(width)
        self.out = linear(width, hidden, generator, zero=True)
        self.seen: list[Tensor] = []

    def attach(self, model: Model) -> None:
        for block in blocks(model):
            self.handles.append(block.register_forward_pre_hook(self.see, with_kwargs=True))
        self.handles.append(model.backbone.register_forward_hook(self.speak, with_kwargs=True))

    def see(self, block: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        """A hook before each block of the old column: keep h_{l−1}."""
        if self.on:
            self.seen.append(inputs[0] if inputs else named["hidden_states"])

    def speak(self, backbone: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        """A hook after the old column: add what the new one says to its last hidden states."""
        if not self.on:
            return output
        seen, self.seen = self.seen[-len(self.layers) :], []  # a forward that failed midway leaves some behind
        if named.get("past_key_values") is not None:
            raise ForgetlabError("a progressive column keeps no key-value cache: give use_cache=False")
        mask = self._mask(seen[0], named.get("attention_mask"))
        g: Tensor | float = 0.0
        for layer, h in zip(self.layers, seen, strict=True):
            g = layer(g, h, mask)
        output.last_hidden_state = output.last_hidden_state + self.out(self.norm(g))
        return output

    def _mask(self, h: Tensor, tokens: Tensor | None) -> Tensor:
        """(B or 1, 1, L, L), True where row i may look at column j."""
        length = h.shape[1]
        seen = torch.ones(1, 1, length, length, dtype=torch.bool, device=h.device)
        if self.causal:
            seen = seen.tril()
        if tokens is not None:
            seen = seen & tokens.bool()[:, None, None, :]
        # padding looks at itself: a softmax over nothing is nan in some versions of torch
        return seen | torch.eye(length, dtype=torch.bool, device=h.device)


class _Layer(nn.Module):
    """A pre-norm transformer block with a lateral connection: Block(g + U h)."""

    def __init__(self, hidden: int, width: int, heads: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = heads
        self.lateral = linear(hidden, width, generator)
        self.norm_1 = nn.LayerNorm(width)
        self.attend = linear(width, 3 * width, generator)
        self.mix = linear(width, width, generator)
        self.norm_2 = nn.LayerNorm(width)
        self.up = linear(width, 4 * width, generator)
        self.down = linear(4 * width, width, generator)

    def forward(self, g: Tensor | float, h: Tensor, mask: Tensor) -> Tensor:
        x = g + self.lateral(h)
        query, key, value = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.attend(self.norm_1(x)).chunk(3, dim=-1)
        )
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.mix(found.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))
