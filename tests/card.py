"""A pretended GPU, as strict about devices as a real one, for machines that have none.

For torch a tensor on the card lies on the device "meta", with its numbers beside it, on the CPU; for whoever asks it is
on "cuda". So the ways that are for CUDA run, what mixes a tensor on the card with one on the CPU is refused, and it is
counted how often the CPU waits for the card. Not pretended: kernels, autocast, inference mode, memory, speed.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, cast
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
CROSSING = (aten._to_copy.default, aten.copy_.default)  # what reads one place and writes the other
INDEX = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
PATCHED: dict[str, Any] = {
    "cuda.is_available": lambda: True,
    "cuda.empty_cache": lambda: None,
    "cuda.reset_peak_memory_stats": lambda device: None,
    "cuda.max_memory_allocated": lambda device: 1,
    "cuda.get_device_name": lambda device=None: "a pretended card",
    "cuda.get_rng_state": lambda device: torch.get_rng_state(),
    "cuda.set_rng_state": lambda state, device: None,
    "inference_mode": lambda mode=True: torch.no_grad(),
}


class OnCard(Tensor):
    """A tensor on the card; `numbers` are its numbers, on the CPU."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> OnCard:
        like = {"strides": numbers.stride(), "storage_offset": numbers.storage_offset(), "dtype": numbers.dtype}
        made = Tensor._make_wrapper_subclass(cls, numbers.size(), device="meta", **like)
        made.numbers = numbers
        return made

    def data_ptr(self) -> int:
        return self.numbers.data_ptr()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} came when the pretended card was not at hand")


class Named(TorchFunctionMode):
    """What Python says is "cuda", torch hears as "meta"; and the other way round where Python asks for a device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return torch.device("cuda", 0) if func(*args).type == "meta" else func(*args)
        if func is Tensor.tolist:  # torch does not know it of other classes
            return Tensor.tolist(args[0].cpu())
        heard = (args, kwargs or {}) if func is torch.device else tree_map(meta, (args, kwargs or {}))
        if func is torch.tensor and "device" in heard[1]:  # for "meta" torch makes one that nobody is asked about
            return func(*heard[0], **{**heard[1], "device": None}).to(heard[1]["device"])
        return func(*heard[0], **heard[1])


class Card(TorchDispatchMode):
    """Computes on the CPU what is asked of the card. waits: who had the CPU wait for numbers from it, and how often."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        cards, to = [x for x in tensors if isinstance(x, OnCard)], kwargs.get("device")
        there = bool(cards) if to is None else to.type == "meta"  # where the result lies
        if func is aten.copy_.default:
            there = isinstance(args[0], OnCard)
        if not (cards or there):
            return func(*args, **kwargs)
        moved = set(map(id, tree_leaves(args[1]))) if func in INDEX and isinstance(args[0], OnCard) else set()
        strange = [x for x in tensors if not isinstance(x, OnCard) and x.dim() and id(x) not in moved]
        if (cards and strange and func not in CROSSING) or isinstance(kwargs.get("generator"), torch.Generator):
            raise RuntimeError(
                f"{func}: something on cuda:0 and something on the CPU, of shapes {[[*x.shape] for x in strange]}"
            )
        if cards and (not there or func is aten._local_scalar_dense.default):
            self.waits[asker()] += 1
        kwargs = {**kwargs, "device": torch.device("cpu")} if to is not None else kwargs
        found = func(*tree_map(bare, args), **tree_map(bare, kwargs))
        same = {id(x.numbers): x for x in cards}  # written in place: the same tensor
        put = lambda x: (same[id(x)] if id(x) in same else OnCard(x)) if isinstance(x, Tensor) else x  # noqa: E731
        return tree_map(put, found) if there else found


def asker() -> str:
    """The package that called torch."""
    frame, name = sys._getframe(), "torch"
    while name in ("torch", "tests.card"):
        frame = cast(FrameType, frame.f_back)
        name = frame.f_globals["__name__"]
        name = name if name == "tests.card" else name.partition(".")[0]
    return name


def bare(value: Any) -> Any:
    return value.numbers if isinstance(value, OnCard) else value


def meta(value: Any) -> Any:
    is_cuda = isinstance(value, torch.device | str) and str(value).partition(":")[0] == "cuda"
    return torch.device("meta") if is_cuda else value


@contextmanager
def pretended() -> Iterator[Card]:
    """Within it there is a card."""
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # a weight stays the same object when it is moved
    with ExitStack() as stack:
        for name, value in PATCHED.items():
            stack.enter_context(mock.patch(f"torch.{name}", value))
        try:
            stack.enter_context(Named())
            yield stack.enter_context(Card())
        finally:
            torch.__future__.set_swap_module_params_on_conversion(swaps)
