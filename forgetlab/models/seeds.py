"""One seed for many uses: each draws from a stream of its own, told apart by its name."""

from __future__ import annotations

import zlib

import torch


def derived(use: str, seed: int) -> int:
    """The seed of one use of a seed, such as a head of that name.

    >>> derived("labels", 0) == derived("masks", 0)
    False
    """
    return zlib.crc32(f"{use}/{seed}".encode())


def stream(use: str, seed: int) -> torch.Generator:
    """A generator on the CPU for one use of a seed. Two that began from the seed itself would draw the same numbers.

    >>> bool(torch.equal(torch.rand(4, generator=stream("labels", 0)), torch.rand(4, generator=stream("masks", 0))))
    False
    """
    return torch.Generator().manual_seed(derived(use, seed))
