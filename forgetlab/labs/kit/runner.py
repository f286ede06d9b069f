"""Runs a generator for a lab, piece by piece, so that a newer request can take the place of the one under way.

Three drivers. "inline": to the end, then return (tests, plain execution). "cooperative": an asyncio task that gives
way to the kernel after each piece; the default in JupyterLab. Its run ends at the kernel's interrupt too, unless it
is in a subshell thread, as JupyterLab asks for: interrupts do not reach one, only `stop` does. "synchronous": to the
end as well, but the kernel's interrupt stops it and keeps what was reached; the default on Colab, where updates from
tasks are not rendered.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from threading import RLock, current_thread, main_thread
from typing import Any, Generic, Literal, TypeVar

from forgetlab.errors import in_words, unknown

T = TypeVar("T")
Driver = Literal["inline", "cooperative", "synchronous"]
Phase = Literal["idle", "preparing", "running", "stopping"]
DRIVERS = ("inline", "cooperative", "synchronous")


def pick_driver() -> Driver:
    """FORGETLAB_DRIVER, else what suits the place this runs in."""
    if asked := os.environ.get("FORGETLAB_DRIVER"):
        if asked not in DRIVERS:
            raise unknown("driver", asked, DRIVERS)
        return asked  # type: ignore[return-value]
    if "google.colab" in sys.modules:
        return "synchronous"
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return "inline"
    return "cooperative"


class Runner(Generic[T]):
    """One run at a time; the newest request wins.

    on_item(item): called for each piece. on_end(why): "done", "stopped" or "error: …" in words; not called for a run
    that another one takes the place of. driver: one of DRIVERS (default: picked when a run starts). Both are called
    in the thread that runs. Kernels may run a widget's callbacks in more than one thread, even those of one widget:
    `turn` is held while a piece is worked, and is to be held by whoever touches what the work touches.
    """

    def __init__(
        self, on_item: Callable[[T], None], on_end: Callable[[str], None], driver: Driver | None = None
    ) -> None:
        if driver is not None and driver not in DRIVERS:
            raise unknown("driver", driver, DRIVERS)
        self.driver = driver
        self.turn = RLock()
        self._on_item, self._on_end = on_item, on_end
        self._requests = count(1)
        self._newest = 0  # the number of the newest request: a run that finds another number gives up
        self._tasks: set[Any] = set()
        self._work: Iterator[T] | None = None
        self._number = 0  # the request that the present run is of; 0: none
        self.begun = False  # whether the newest run has come to its first piece

    @property
    def phase(self) -> Phase:
        """How the run under way stands: "preparing" until its first piece is there, "stopping" once it is to end."""
        if self._number == 0:
            return "idle"
        if self._number != self._newest:
            return "stopping"
        return "running" if self.begun else "preparing"

    @property
    def running(self) -> bool:
        """Whether a run is under way."""
        return self.phase != "idle"

    def start(self, make: Callable[[], Iterator[T]]) -> None:
        """Take the place of any run under way. make: begins the work; called when its turn has come."""
        driver = self.driver or pick_driver()
        self.stop()  # before the wait for a turn: a run in another thread ends at its next piece
        with self.turn:
            self._close()
            self.begun = False
            number = self._newest = self._number = next(self._requests)
        if driver == "cooperative":
            task = asyncio.get_running_loop().create_task(self._cooperate(make, number))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            for _ in self._pieces(make, number, rest=0.001):  # long enough for another thread to take its turn
                pass

    def stop(self) -> None:
        """End the run under way at its next piece, which tells of it; what was reached stays."""
        self._newest = next(self._requests)

    def drop(self) -> None:
        """End the run under way before anything else is done, and without a word: something else is to be shown."""
        self.stop()
        with self.turn:
            self._close()

    async def _cooperate(self, make: Callable[[], Iterator[T]], number: int) -> None:
        await asyncio.sleep(0)  # moves that are already queued supersede this one before it begins
        pieces = self._pieces(make, number)
        while True:
            with _at_interrupt(self.stop):
                if next(pieces, "end") == "end":
                    return
                await asyncio.sleep(0.001)  # long enough for the kernel to take a message

    def _pieces(self, make: Callable[[], Iterator[T]], number: int, rest: float = 0.0) -> Iterator[None]:
        """Do one piece of work at each step. Its turn ends with the piece; then `rest` seconds go by."""
        why = "done"
        try:
            while True:
                with self.turn:
                    if number != self._newest:
                        why = "stopped"
                        break
                    if self._work is None:
                        self._work = iter(make())
                    item = next(self._work)
                    self.begun = True
                    self._on_item(item)
                time.sleep(rest)  # here, where an interrupt is caught
                yield
        except StopIteration:
            pass
        except KeyboardInterrupt:
            why = "stopped"
        except Exception as error:  # the kernel would lose it: a lab must show it
            why = in_words(error)
        with self.turn:
            if self._number == number:
                self._close()
                self._on_end(why)

    def _close(self) -> None:
        """End the present run, before anything else touches the same model."""
        work, self._work, self._number = self._work, None, 0
        if (close := getattr(work, "close", None)) is not None:
            close()


@contextmanager
def _at_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """Let SIGINT call `stop`: a kernel ignores it outside its messages, and raising in its event loop would end it.

    A message that the kernel takes meanwhile sets a handler of its own: one that is not ours stays.
    """
    if current_thread() is not main_thread():
        yield
        return

    def ours(*_: Any) -> None:
        stop()

    before = signal.signal(signal.SIGINT, ours)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is ours:
            signal.signal(signal.SIGINT, before)
