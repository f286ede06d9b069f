"""Where memory ends: the error known by its many names, and the peak of a run."""

from __future__ import annotations

import gc

import torch

_WORDS = ("out of memory", "can't allocate memory", "not enough memory")  # CUDA and MPS; the CPU's allocators


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a device, or the machine, has no memory left."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _WORDS)


def free(device: torch.device) -> None:
    """Give back what the allocator of a device holds but nothing uses."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def start_peak(device: torch.device) -> None:
    """Count the peak from here on (CUDA only)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> float | None:
    """The most bytes that tensors held on a device since `start_peak`; None where nobody counts (not CUDA)."""
    return float(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else None
