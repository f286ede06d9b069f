"""curvlinops: the diagonal by multiplying unit vectors."""

from typing import Any

import torch
from curvlinops import EFLinearOperator, GGNLinearOperator
from torch import nn

PEER = "curvlinops-for-pytorch"
NOTES = {
    "fisher_exact": "diagonal of GGNLinearOperator with the mean loss",
    "fisher_empirical": "diagonal of EFLinearOperator with the mean loss",
}


def linear(weights: Any) -> nn.Linear:
    W = torch.tensor(weights)
    model = nn.Linear(W.shape[1], W.shape[0], bias=False)
    model.weight.data.copy_(W)
    return model


def diagonal(kind: Any, weights: Any, inputs: Any, labels: Any) -> Any:
    model = linear(weights)
    params = dict(model.named_parameters()) if kind is None else list(model.parameters())
    data = [(torch.tensor(inputs), torch.tensor(labels))]
    operator = kind(model, nn.CrossEntropyLoss(), params, data)
    return (operator @ torch.eye(model.weight.numel())).diagonal().view_as(model.weight)


def fisher_exact(weights: Any, inputs: Any) -> Any:
    return diagonal(GGNLinearOperator, weights, inputs, [0] * len(inputs))


def fisher_empirical(weights: Any, inputs: Any, labels: Any) -> Any:
    return diagonal(EFLinearOperator, weights, inputs, labels)
