"""Runs a generator for a lab, piece by piece, so that a newer request can take the place of the one under way.

Two drivers. "thread": in a thread of its own, so that the page's messages are taken while a piece is worked; the
default where an event loop runs, as in a kernel. The kernel's interrupt ends such a run where the main thread began
it and no cell computes; `stop` always does. "inline": to the end, then return; the default elsewhere, and on Colab,
where updates from other threads are not rendered. There the interrupt ends a run, and what was reached is kept.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from itertools import count
from threading import RLock, Thread, current_thread, get_ident, main_thread
from typing import Any, Generic, Literal, TypeVar, get_args

from forgetlab.errors import in_words, one_of

T = TypeVar("T")
Driver = Literal["inline", "thread"]
Phase = Literal["idle", "preparing", "running", "stopping"]
DRIVERS = get_args(Driver)
REST = 0.001  # seconds between two pieces: long enough for another thread to take its turn
PATIENCE = 10.0  # seconds for a run to end when Python does


def pick_driver() -> Driver:
    """FORGETLAB_DRIVER, else what suits the place this runs in."""
    if asked := os.environ.get("FORGETLAB_DRIVER"):
        one_of("driver", asked, DRIVERS)
        return asked  # type: ignore[return-value]
    return "thread" if _loop() and "google.colab" not in sys.modules else "inline"


def _loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class Runner(Generic[T]):
    """One run at a time; the newest request wins.

    on_item(item): called for each piece. on_end(why): "done", "stopped" or "error: …" in words; not called for a run
    that another one takes the place of. driver: one of DRIVERS (default: picked when a run starts). Both are called
    in the thread that runs, and kernels may run a widget's callbacks in more than one thread: `turn` is held meanwhile,
    and is to be held by whoever touches what the two touch. It is free while a piece is worked.
    """

    def __init__(
        self, on_item: Callable[[T], None], on_end: Callable[[str], None], driver: Driver | None = None
    ) -> None:
        if driver is not None:
            one_of("driver", driver, DRIVERS)
        self.driver = driver
        self.turn = RLock()
        self._at_work = RLock()  # held while a piece is worked; taken before `turn` by whoever needs both
        self._on_item, self._on_end = on_item, on_end
        self._requests = count(1)
        self._newest = 0  # the number of the newest request: a run that finds another number gives up
        self._work: Iterator[T] | None = None
        self._number = 0  # the request that the present run is of; 0: none
        self._worker: int | None = None  # the thread that works a piece, where it may be broken off
        self._breaking = RLock()  # held while `_worker` is set or used
        self._tasks: set[Any] = set()
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
        self.drop()
        with self.turn:
            self.begun = False
            number = self._newest = self._number = next(self._requests)
        if driver == "inline":
            self._run(make, number, False)
            return
        # a copy of the context: a kernel keeps there which message its answers belong to
        thread = Thread(target=copy_context().run, args=(self._run_apart, make, number), daemon=True)
        thread.start()
        if current_thread() is main_thread() and (loop := _loop()):
            task = loop.create_task(self._heed_interrupts(thread))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        """End the run under way, which tells of it; what was reached stays. In a thread of its own it ends at once."""
        self._newest = next(self._requests)
        with self._breaking:
            worker, self._worker = self._worker, None  # a second interrupt would meet what comes after the piece
            if worker not in (None, get_ident()):
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(worker), ctypes.py_object(KeyboardInterrupt))

    def drop(self) -> None:
        """End the run under way before anything else is done, and without a word: something else is to be shown."""
        self._number = 0  # before it ends: it tells of nothing any more
        self.stop()
        with self._at_work, self.turn:
            self._close()

    def _run_apart(self, make: Callable[[], Iterator[T]], number: int) -> None:
        thread = current_thread()

        def leave() -> None:  # Python ends after it: a thread that is killed within torch takes the process down
            self.stop()
            thread.join(PATIENCE)

        atexit.register(leave)
        try:
            self._run(make, number, True)
        finally:
            atexit.unregister(leave)

    def _run(self, make: Callable[[], Iterator[T]], number: int, apart: bool) -> None:
        """Work one piece after the other. apart: in a thread of its own, which may be broken off within a piece."""
        why = "done"
        try:
            while True:
                with self._at_work:
                    item = self._piece(make, number, apart)
                with self.turn:
                    if number == self._number:
                        self.begun = True
                        self._on_item(item)
                time.sleep(REST)  # here, where an interrupt is caught
        except StopIteration:
            pass
        except KeyboardInterrupt:
            why = "stopped"
        except Exception as error:  # the kernel would lose it: a lab must show it
            why = in_words(error)
        with self._at_work, self.turn:
            if number == self._number:
                self._close()
                self._on_end(why)

    def _piece(self, make: Callable[[], Iterator[T]], number: int, apart: bool) -> T:
        with self._breaking:
            if number != self._newest:
                raise KeyboardInterrupt
            self._worker = get_ident() if apart else None
        try:
            if self._work is None:
                self._work = iter(make())
            return next(self._work)
        finally:
            with self._breaking:
                self._worker = None

    def _close(self) -> None:
        """End the present run, before anything else touches the same model."""
        work, self._work, self._number = self._work, None, 0
        if (close := getattr(work, "close", None)) is not None:
            close()

    async def _heed_interrupts(self, thread: Thread) -> None:
        with _at_interrupt(self.stop):
            while thread.is_alive():
                await asyncio.sleep(0.02)


@contextmanager
def _at_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """Let SIGINT call `stop`: a kernel ignores it outside its messages, and raising in its event loop would end it.

    A message that the kernel takes meanwhile sets a handler of its own: one that is not ours stays.
    """

    def ours(*_: Any) -> None:
        stop()

    before = signal.signal(signal.SIGINT, ours)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is ours:
            signal.signal(signal.SIGINT, before)
