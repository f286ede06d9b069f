"""Losses that weigh examples by how sure a model is of them: of benchmarks/not_kept.py, no part of the library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from forgetlab.tasks import Classification


def dft(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean of −sg(p_y) log p_y: the cross-entropy weighed by the probability of the right class (2508.05629, eq. 9)."""
    losses = F.cross_entropy(logits, targets, reduction="none")
    return (losses.detach().neg().exp() * losses).mean()


def stm(before: Tensor, share: float) -> Tensor:
    """(N,) weights: 1 where the loss of the model before is among the `share` lowest, else 0 (2501.14315, section 3).

    There the threshold is a perplexity, 2.5, over which lie a quarter of the tokens; here it is the share itself.
    """
    return (before <= before.quantile(share)).float()


def flow(before: Tensor, times: float = 1.0) -> Tensor:
    """(N,) weights exp(−f_i(θ₀)/τ) from the losses of the model before (2502.02797, algorithm 1). τ: times · median."""
    return (-before / (times * before.median())).exp()


class DFT(Classification):
    def loss(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        return dft(self.logits(model, batch), batch["targets"])


class Weighed(Classification):
    """Each training example counts for its weight: mean over the batch of w_i CE_i, with weights of mean 1."""

    weights: Tensor

    def batch(self, model: Any, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return super().batch(model, index, generator) | {"weights": self.weights[index]}

    def loss(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        return (
            batch["weights"] * F.cross_entropy(self.logits(model, batch), batch["targets"], reduction="none")
        ).mean()
