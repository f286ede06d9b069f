"""torch_cka: two models on a loader; here each picks its features out of the rows, in one batch."""

import warnings
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch_cka import CKA

PEER = "torch-cka"
NOTES = {"linear_cka_unbiased": "in one batch; over several it averages HSIC_1 of the batches (Nguyen et al. 2021)"}


class Columns(nn.Module):
    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop, self.layer = start, stop, nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x[:, self.start : self.stop])


def linear_cka_unbiased(X: Any, Y: Any) -> Any:
    warnings.simplefilter("ignore")
    x, y = torch.tensor(X), torch.tensor(Y)
    models = Columns(0, x.shape[1]), Columns(x.shape[1], x.shape[1] + y.shape[1])
    cka = CKA(*models, "first", "second", ["layer"], ["layer"])
    cka.compare(DataLoader(TensorDataset(torch.cat([x, y], dim=1)), batch_size=len(x)))
    return cka.export()["CKA"][0, 0]
