"""Runs that nobody has ended when the interpreter ends are closed while the modules that they need are still whole."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Generator
from contextlib import suppress
from typing import Any, TypeVar

G = TypeVar("G", bound=Generator[Any, None, None])
_under_way: weakref.WeakSet[Generator[Any, None, None]] = weakref.WeakSet()


def closed_at_exit(run: G) -> G:
    """The same generator: left to Python's own end, it would find its modules empty and print an error."""
    _under_way.add(run)
    return run


@atexit.register
def _close_all() -> None:
    for run in list(_under_way):
        with suppress(ValueError):  # it is at work in another thread
            run.close()
