"""torch's own kl_div, as called without options."""

import warnings
from typing import Any

import torch
import torch.nn.functional as F

PEER = "torch"
NOTES = dict.fromkeys(
    ("kl_before_after", "kl_after_before"),
    "F.kl_div with its default reduction='mean'; its documentation says that 'batchmean' is the divergence",
)


def kl_before_after(before: Any, after: Any) -> Any:
    warnings.simplefilter("ignore")
    p, log_q = torch.tensor(before).softmax(-1), torch.tensor(after).log_softmax(-1)
    return F.kl_div(log_q, p)


def kl_after_before(before: Any, after: Any) -> Any:
    return kl_before_after(after, before)
