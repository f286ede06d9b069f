"""laplace-torch, with the backends that it recommends."""

from typing import Any

import torch
from laplace.curvature import BackPackEF, BackPackGGN
from torch import nn

PEER = "laplace-torch"
NOTES = {
    "fisher_exact": "BackPackGGN.diag, documented as a sum over the batch",
    "fisher_empirical": "BackPackEF.diag, documented as a sum over the batch",
}


def linear(weights: Any) -> nn.Linear:
    W = torch.tensor(weights)
    model = nn.Linear(W.shape[1], W.shape[0], bias=False)
    model.weight.data.copy_(W)
    return model


def fisher_exact(weights: Any, inputs: Any) -> Any:
    model, x = linear(weights), torch.tensor(inputs)
    model.output_size = len(weights)
    y = torch.zeros(len(inputs), dtype=torch.long)
    return BackPackGGN(model, "classification").diag(x, y)[1].view_as(model.weight)


def fisher_empirical(weights: Any, inputs: Any, labels: Any) -> Any:
    model = linear(weights)
    model.output_size = len(weights)
    found = BackPackEF(model, "classification").diag(torch.tensor(inputs), torch.tensor(labels))
    return found[1].view_as(model.weight)
