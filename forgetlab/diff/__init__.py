"""What did a fine-tune cost? Two finished models, before and after: `python -m forgetlab diff BEFORE AFTER`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forgetlab.diff.models.pair import Pair
    from forgetlab.diff.order import Order
    from forgetlab.diff.run import execute

_HOMES = {"Order": "order", "Pair": "models.pair", "execute": "run"}
__all__ = ["Order", "Pair", "execute"]


def __getattr__(name: str) -> Any:  # at first use: what is refused waits for no torch
    if name not in _HOMES:
        raise AttributeError(f"module 'forgetlab.diff' has no attribute {name!r}")
    return getattr(import_module(f"forgetlab.diff.{_HOMES[name]}"), name)
