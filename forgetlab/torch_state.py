"""What torch keeps once for the whole process, and a run wants for itself: random generators, number of threads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SMALL = 500_000  # weights


def is_small(model: nn.Module) -> bool:
    """Whether a step of a model takes longer to launch than to compute."""
    return sum(p.numel() for p in model.parameters()) <= SMALL


class TorchState:
    """A run's own state: set while it computes, put away at each yield.

    A small model on the CPU takes one thread for each piece of work: the numbers then do not depend on how many cores
    there are, or how many processes share them. What a second core is good for is another piece (`spare_threads`).
    """

    def __init__(self, model: nn.Module, device: torch.device, seed: int) -> None:
        self._cuda = device if device.type == "cuda" else None
        self._threads = 1 if device.type == "cpu" and is_small(model) else torch.get_num_threads()
        with torch.random.fork_rng(devices=[device] if self._cuda else []):
            torch.manual_seed(seed)
            self._own = self._get()

    @property
    def spare_threads(self) -> int:
        """How many threads torch has elsewhere, where this run takes but one for each piece of work; else 1."""
        return torch.get_num_threads() if self._threads == 1 else 1

    def _get(self) -> tuple[Tensor, Tensor | None]:
        return torch.get_rng_state(), torch.cuda.get_rng_state(self._cuda) if self._cuda else None

    def _set(self, state: tuple[Tensor, Tensor | None]) -> None:
        torch.set_rng_state(state[0])
        if state[1] is not None:
            torch.cuda.set_rng_state(state[1], self._cuda or "cuda")

    def __enter__(self) -> None:
        self._theirs, self._their_threads = self._get(), torch.get_num_threads()
        self._set(self._own)
        torch.set_num_threads(self._threads)

    def __exit__(self, *_: object) -> None:
        self._own = self._get()
        self._set(self._theirs)
        torch.set_num_threads(self._their_threads)
