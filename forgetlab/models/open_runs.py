"""The runs under way: those on a model, of which there is one at a time, and the end of all with the interpreter.

A run is under way from its first `next` until its generator is exhausted or closed, or nobody holds it any more.
"""

from __future__ import annotations

import atexit
import inspect
import sys
import weakref
from collections.abc import Generator
from contextlib import suppress
from types import FrameType
from typing import Any, TypeVar, cast

from torch import nn

from forgetlab.errors import ForgetlabError

G = TypeVar("G", bound=Generator[Any, None, None])
_under_way: weakref.WeakKeyDictionary[Generator[Any, None, None], weakref.ref[nn.Module]] = weakref.WeakKeyDictionary()


def under_way(run: G, model: nn.Module) -> G:
    """The same generator, noted as a run on the model; it is closed, if nobody has done so, at the interpreter's end.

    Left to Python's own end, it would find its modules empty and print an error.
    """
    _under_way[run] = weakref.ref(model)
    return run


def refuse_second(model: nn.Module) -> None:
    """Raise ForgetlabError where a run on the model is open: what it froze or added would take part in the next one."""
    if _open_runs(model):
        raise ForgetlabError(
            f"{_called(model)} is in a run that is still open: take its generator to the end, close() it, or call "
            "model.restore(), which closes it"
        )


def close_runs(model: nn.Module) -> None:
    """End the open runs on a model. Raises ForgetlabError where one is at work in another thread."""
    for run in _open_runs(model):  # the outermost first: it closes the runs within it
        if inspect.getgeneratorstate(run) == inspect.GEN_RUNNING:
            raise ForgetlabError(f"{_called(model)} is being trained in another thread: end that run there first")
        run.close()


def _open_runs(model: nn.Module) -> list[Generator[Any, None, None]]:
    """Runs on a model that have begun and not ended, in the order they were made; without those that call this."""
    found = []
    for run, of in list(_under_way.items()):
        if of() is model:
            state = inspect.getgeneratorstate(run)
            if state == inspect.GEN_SUSPENDED or (state == inspect.GEN_RUNNING and not _calls_this(run)):
                found.append(run)
    return found


def _calls_this(run: Generator[Any, None, None]) -> bool:
    """Whether a run at work is so in the calls that led here, such as a sequence at its next task, not elsewhere."""
    own, frame = getattr(run, "gi_frame", None), cast(FrameType | None, sys._getframe(1))
    while frame is not None and frame is not own:
        frame = frame.f_back
    return frame is not None


def _called(model: nn.Module) -> str:
    return str(getattr(model, "name", type(model).__name__))


@atexit.register
def _close_all() -> None:
    for run in list(_under_way):
        with suppress(ValueError):  # it is at work in another thread
            run.close()
