"""NNGeometry."""

from typing import Any

import torch
from nngeometry.metrics import FIM
from nngeometry.object import PMatDiag
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

PEER = "nngeometry"
NOTES = {"fisher_exact": "FIM(…, PMatDiag, variant='classif_logits')"}


def linear(weights: Any) -> nn.Linear:
    W = torch.tensor(weights)
    model = nn.Linear(W.shape[1], W.shape[0], bias=False)
    model.weight.data.copy_(W)
    return model


def fisher_exact(weights: Any, inputs: Any) -> Any:
    model, data = linear(weights), TensorDataset(torch.tensor(inputs), torch.zeros(len(inputs), dtype=torch.long))
    return (
        FIM(model, DataLoader(data, batch_size=2), PMatDiag, variant="classif_logits").get_diag().view_as(model.weight)
    )
