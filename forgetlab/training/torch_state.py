"""What torch keeps once for the whole process, and a run wants for itself: the generators of dropout, threads."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from forgetlab.models.seeds import derived

SMALL = 500_000  # weights


def is_small(model: nn.Module) -> bool:
    """Whether a step of a model takes longer to launch than to compute."""
    return sum(p.numel() for p in model.parameters()) <= SMALL


def drops_out(model: nn.Module) -> bool:
    """Whether a model in training draws from torch's global generators: dropout does, and takes no other.

    Some families drop out without a module for it, or add noise: their config says so.
    """
    settings = vars(getattr(model, "config", None) or object) if hasattr(model, "config") else {}
    asked = [v for name, v in settings.items() if ("drop" in name or "jitter" in name) and isinstance(v, int | float)]
    return any(v > 0 for v in asked) or any(m.p > 0 for m in model.modules() if isinstance(m, _DropoutNd))


def apart(model: nn.Module) -> AbstractContextManager[Any]:
    """Within it dropout may draw, or be seeded anew: the global generators are as before afterwards."""
    if not drops_out(model):
        return nullcontext()
    device = next(model.parameters()).device
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


class TorchState:
    """A run's own state: set while it computes, put away at each yield.

    The generators are set for models that drop out only. They are the process's: another thread that draws from them
    meanwhile gets other numbers, and so does the run.
    The number of threads is each thread's own: one that is at work keeps its number and its bits. One that first uses
    torch while a run is at work begins with the run's number.
    A small model on the CPU takes one thread for each piece of work: the numbers then do not depend on how many cores
    there are, or how many processes share them. What a second core is good for is another piece (`spare_threads`).
    """

    def __init__(self, model: nn.Module, seed: int) -> None:
        device = next(model.parameters()).device
        self._model = model
        self._cuda = device if device.type == "cuda" else None
        self._threads = 1 if device.type == "cpu" and is_small(model) else torch.get_num_threads()
        self._seed = derived("dropout", seed)
        self._own: tuple[Tensor, Tensor | None] | None = None  # once it has drawn
        self._theirs: tuple[Tensor, Tensor | None] | None = None  # while the run has its own in place

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
        self._their_threads = torch.get_num_threads()
        if self._threads != self._their_threads:
            torch.set_num_threads(self._threads)
        if drops_out(self._model):  # LoRA may bring its own: asked each time
            self._theirs = self._get()
            if self._own is None:
                torch.manual_seed(self._seed)
            else:
                self._set(self._own)

    def __exit__(self, *_: object) -> None:
        if self._theirs is not None:
            self._own = self._get()
            self._set(self._theirs)
            self._theirs = None
        if self._threads != self._their_threads:
            torch.set_num_threads(self._their_threads)
