"""avalanche-lib."""

from typing import Any

import torch
from avalanche.evaluation.metrics.forgetting_bwt import BWT, Forgetting
from avalanche.evaluation.metrics.forward_transfer import ForwardTransfer
from avalanche.training.plugins import EWCPlugin
from torch import nn
from torch.utils.data import TensorDataset

PEER = "avalanche-lib"
NOTES = {
    "forgetting_measure": "Forgetting, documented as first minus last value; the mean over the tasks before the last",
    "backward_transfer": "BWT, documented as −Forgetting",
    "fisher_empirical": "importances of EWCPlugin, in one batch of all examples",
}


def over_tasks(metric: Any, R: Any) -> float:
    for j in range(len(R) - 1):
        metric.update(j, R[j][j], initial=True)
        metric.update(j, R[-1][j])
    return sum(metric.result().values()) / (len(R) - 1)


def forgetting_measure(R: Any) -> float:
    return over_tasks(Forgetting(), R)


def backward_transfer(R: Any) -> float:
    return over_tasks(BWT(), R)


def forward_transfer(R: Any, baseline: Any) -> float:
    metric = ForwardTransfer()
    for j in range(1, len(R)):
        metric.update(j, baseline[j], initial=True)
        metric.update(j, R[j - 1][j])
    return sum(metric.result().values()) / (len(R) - 1)


def fisher_empirical(weights: Any, inputs: Any, labels: Any) -> Any:
    W = torch.tensor(weights)
    model = nn.Linear(W.shape[1], W.shape[0], bias=False)
    model.weight.data.copy_(W)
    data = TensorDataset(torch.tensor(inputs), torch.tensor(labels), torch.zeros(len(labels), dtype=torch.long))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plugin, loss = EWCPlugin(ewc_lambda=1.0), nn.CrossEntropyLoss()
    found = plugin.compute_importances(model, loss, optimizer, data, "cpu", len(labels))
    return found["weight"].data
