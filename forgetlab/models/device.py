"""Where a model computes."""

from __future__ import annotations

import platform

import torch

from forgetlab.errors import ForgetlabError
from forgetlab.models.model import Model


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """ "auto" is CUDA, else MPS, else the CPU; anything else is what torch.device takes.

    >>> pick_device("cpu")
    device(type='cpu')
    """
    if str(device) != "auto":
        try:
            chosen = torch.device(device)
            torch.empty(0, device=chosen)
        except (RuntimeError, AssertionError) as error:
            raise ForgetlabError(
                f"device {device!r} is not at hand here ({str(error).splitlines()[0]}); try auto"
            ) from None
        return chosen
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def device_name(model: Model) -> str:
    """The card's name on CUDA, else the kind of device and processor."""
    if model.device.type == "cuda":
        return torch.cuda.get_device_name(model.device)
    return f"{model.device.type} ({platform.machine()})"
