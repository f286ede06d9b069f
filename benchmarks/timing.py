"""A stopwatch that waits for the device, and the device's rate."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch


def wait(device: str) -> None:
    """Until a card has done what it was given; a CPU has, when a call returns."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], Any], device: str) -> float:
    """Of a call, to the end of what it gives a card to do."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


def of_one_core(work: Callable[[], Any]) -> float:
    """Seconds of a processor that a call takes on one thread: those of other programs on the machine do not count."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    start = time.process_time()
    work()
    taken = time.process_time() - start
    torch.set_num_threads(threads)
    return taken


def matrix_rate(side: int, device: str, dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations per second of a product of two square matrices."""
    a = torch.randn(side, side, device=device, dtype=dtype)

    def ten() -> None:
        for _ in range(10):
            a @ a

    ten()
    return 10 * 2 * side**3 / median(seconds(ten, device) for _ in range(5))
