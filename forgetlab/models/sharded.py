"""Models whose weights are spread over several processes (FSDP2): each holds a piece of every weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from forgetlab.errors import ForgetlabError

T = TypeVar("T")


def is_sharded(weight: Tensor) -> bool:
    """Whether a weight is one of which this process holds a piece."""
    return _several() and isinstance(weight, _dtensor())


def within(model: nn.Module, work: Callable[[], T]) -> T:
    """`work()`, as a forward pass of the model's own: FSDP brings the pieces together only around such a one.

    Of an ordinary model it is just `work()`. Not to be called within itself.
    """
    root = _root(model) if _several() else None
    if root is None:
        return work()
    if not hasattr(root, "_of_forgetlab"):
        root._of_forgetlab = lambda call: call()
        torch.distributed.fsdp.register_fsdp_forward_method(root, "_of_forgetlab")
    return cast(T, root._of_forgetlab(work))


def whole(value: Tensor) -> Tensor:
    """A value that every process has in full; an ordinary tensor as it is."""
    return cast(Any, value).full_tensor() if is_sharded(value) else value


def like(value: Tensor, weight: Tensor) -> Tensor:
    """A tensor on the device and in the type of a weight, and in pieces as it is."""
    if is_sharded(weight) and not is_sharded(value):
        from torch.distributed.tensor import distribute_tensor

        spread = cast(Any, weight)
        value = distribute_tensor(value.to(spread.device), spread.device_mesh, spread.placements)
    return value.to(weight.device, weight.dtype)


def in_one_place(model: nn.Module, name: str) -> None:
    """Raise ForgetlabError for weights on several devices, or left on a disk until a forward pass brings them.

    What is computed from the weights themselves (drift, importances, copies, penalties) would be wrong, without a word.
    Processes that share a model are left alone: FSDP brings the weights there later.
    """
    hooked = any(getattr(getattr(module, "_hf_hook", None), "offload", False) for module in model.modules())
    places = {str(p.device) for p in model.parameters()}
    if (hooked or len(places) > 1 or "meta" in places) and not _several():
        where = "on a disk or another device, from where they come as they are used" if hooked else " and ".join(places)
        raise ForgetlabError(
            f"{name}: its weights are {where}: expected all of them in memory on one device (device_map='cuda:0', or "
            "CUDA_VISIBLE_DEVICES=0); one that is too large for a card is spread over processes (FSDP)"
        )


def _several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _dtensor() -> type:
    from torch.distributed.tensor import DTensor

    return DTensor


def _root(model: nn.Module) -> Any:
    from torch.distributed.fsdp import FSDPModule

    return next((module for module in model.modules() if isinstance(module, FSDPModule)), None)
