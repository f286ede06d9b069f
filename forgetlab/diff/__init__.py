"""What did a fine-tune cost? Two finished models, before and after: `python -m forgetlab diff BEFORE AFTER`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from forgetlab.diff.order import Order

if TYPE_CHECKING:
    from forgetlab.diff.models.pair import Pair
    from forgetlab.diff.run import execute

__all__ = ["Order", "Pair", "execute"]


def __getattr__(name: str) -> Any:  # at first use: what is refused waits for no torch
    if name not in __all__:
        raise AttributeError(f"module 'forgetlab.diff' has no attribute {name!r}")
    return getattr(import_module(f"forgetlab.diff.{'models.pair' if name == 'Pair' else 'run'}"), name)
