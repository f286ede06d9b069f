"""Opacus: gradients of single examples, which the caller squares."""

from typing import Any

import torch
from opacus import GradSampleModule
from torch import nn

PEER = "opacus"
NOTES = {"fisher_empirical": "mean of the squares of GradSampleModule's grad_sample"}


def linear(weights: Any) -> nn.Linear:
    W = torch.tensor(weights)
    model = nn.Linear(W.shape[1], W.shape[0], bias=False)
    model.weight.data.copy_(W)
    return model


def fisher_empirical(weights: Any, inputs: Any, labels: Any) -> Any:
    model = GradSampleModule(linear(weights))
    nn.functional.cross_entropy(model(torch.tensor(inputs)), torch.tensor(labels)).backward()
    return next(iter(model.parameters())).grad_sample.square().mean(0)
