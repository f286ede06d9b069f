"""The small head of each labelled task, on the backbone's hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Level = Literal["sequence", "token"]


class Head(nn.Module):
    """A linear head on the backbone's hidden states.

    level "sequence": the mean over a text's tokens (encoder) or its last token (causal) → (B, labels);
    level "token": every token → (B, L, labels).
    It computes in its own precision, float32, whatever the backbone's.
    """

    def __init__(self, width: int, labels: Sequence[str], level: Level, *, last_token: bool, seed: int) -> None:
        super().__init__()
        self.labels = tuple(labels)
        self.level = level
        self.last_token = last_token
        self.linear = nn.utils.skip_init(nn.Linear, width, len(labels))  # torch's global generator is not ours
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.linear.weight, std=0.02, generator=generator)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        return self.linear(self.features(hidden, attention_mask))

    def features(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """What the linear layer sees of hidden states (B, L, width): (B, width), or all of them."""
        hidden = hidden.to(self.linear.weight.dtype)
        if self.level == "token":
            return hidden
        if self.last_token:
            places = torch.arange(hidden.shape[1], device=hidden.device)
            last = (attention_mask * places).argmax(dim=1)
            return hidden[torch.arange(len(hidden), device=hidden.device), last]
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1)
