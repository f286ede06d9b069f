"""ckatorch."""

from typing import Any

import torch
from ckatorch.core import cka_base

PEER = "ckatorch"


def linear_cka_biased(X: Any, Y: Any) -> Any:
    return cka_base(torch.tensor(X), torch.tensor(Y))


def linear_cka_unbiased(X: Any, Y: Any) -> Any:
    return cka_base(torch.tensor(X), torch.tensor(Y), unbiased=True)
