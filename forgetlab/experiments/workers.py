"""Where runs are computed: in this process, in several, or on a Dask cluster. A recipe goes in, plain values come out.

Each process loads a recipe's model and tasks once and keeps them; no model travels.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from forgetlab.errors import ForgetlabError
from forgetlab.experiments.recipes import Bench, Recipe, describe, finished, prepare
from forgetlab.experiments.saving import write_draft
from forgetlab.metrics.schema import BenchFacts, RunResult
from forgetlab.models.loading import shipped_models

PATIENCE = 10  # seconds for a scheduler, and for its first worker, to answer
SMALL = 50_000_000  # bytes of weights: below it, one thread a process is the fastest

_ready: dict[Any, tuple[Bench, Any]] = {}  # the bench of this process, and how what it learned first was learned
_told: Callable[..., None] | None = None  # in a process of `several`: passes its records on
_alone = threading.Lock()  # a Dask worker may call from several threads, and a model is for one at a time


@dataclass
class Pool:
    """An executor of runs. size: how many it can compute at once, asked anew each time."""

    executor: Executor
    size: Callable[[], int]
    cluster: bool = False


def facts(recipe: Recipe, timed: bool = False) -> BenchFacts:
    """`recipes.describe` of the recipe's bench, with "seconds": what a plain run takes (0 unless `timed`)."""
    with _alone:
        bench = _bench(recipe)
        seconds = 0.0
        if timed:
            run = bench.run(replace(recipe, methods="none"))
            first, second = next(run), next(run)
            run.close()  # type: ignore[attr-defined]
            seconds = first.seconds + (second.seconds - first.seconds) * recipe.steps / max(1, second.step)
        return {**describe(bench), "seconds": seconds}


def compute(recipe: Recipe, on_record: Callable[..., None] | None = None, save: str = "") -> RunResult:
    """One run as plain values, with its "seconds"; one that cannot start has "error", the reason.

    save: where the model is written as the run leaves it, unless it diverged.
    """
    with _alone:
        bench, start = _bench(recipe), time.perf_counter()
        try:
            run = finished(bench, recipe, on_record or _told)
        except ForgetlabError as error:
            return {"recipe": {"methods": recipe.methods}, "key": recipe.key(), "records": [], "error": str(error)}
        seconds = time.perf_counter() - start
        if save and run["records"][-1]["status"] != "diverged":
            write_draft(bench, Path(save))
        return {**run, "seconds": seconds}


def threads_for(recipe: Recipe, processes: int | None, jobs: float) -> tuple[int, int]:
    """(processes, threads of each), for so many runs at most.

    processes None: for a small model on the CPU one process a core with one thread each, so that the numbers do not
    depend on how many cores there are; for others one process with torch's threads.
    """
    cores = torch.get_num_threads()  # heeds OMP_NUM_THREADS
    if processes is not None:
        return processes, max(1, cores // processes)
    on_cpu = recipe.device == "cpu" or (recipe.device == "auto" and not torch.accelerator.is_available())
    if not on_cpu or not _is_small(recipe.model):
        return 1, cores
    return max(1, int(min(cores, jobs))), 1


@contextmanager
def here(threads: int, on_record: Callable[..., None] | None = None) -> Iterator[Pool]:
    """This process, one run after the other; on_record: called at each record, for progress."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield Pool(_Inline(on_record), lambda: 1)
    finally:
        torch.set_num_threads(before)


@contextmanager
def several(processes: int, threads: int, on_record: Callable[..., None] | None = None) -> Iterator[Pool]:
    """So many new processes with so many threads each; on_record: called in a thread, for progress."""
    context = multiprocessing.get_context("spawn")  # a fork would copy torch's locks as they happen to stand
    before = {child.pid for child in multiprocessing.active_children()}
    told = context.SimpleQueue() if on_record else None
    listener = threading.Thread(target=_listen, args=(told, on_record), daemon=True)
    executor = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(threads, told))
    if told:
        listener.start()
    try:
        yield Pool(executor, lambda: processes)
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            if child.pid not in before:
                child.terminate()  # a run in the middle is not waited for
        raise
    executor.shutdown()
    if told:
        told.put(None)
        listener.join()


@contextmanager
def cluster(address: str) -> Iterator[Pool]:
    """The workers of a Dask scheduler, such as tcp://10.0.0.1:8786: as many runs at once as it has workers.

    A run whose worker dies is given to another one. Raises ForgetlabError where dask is missing, where nothing
    answers at the address, and where there is no worker.
    """
    try:
        distributed = import_module("distributed")
    except ImportError:
        raise ForgetlabError('--cluster needs Dask: pip install "forgetlab[cluster]"') from None
    logs = import_module("logging").getLogger("distributed")
    level = logs.level
    logs.setLevel("CRITICAL")  # what goes wrong is said once, below
    try:
        # knock first: a Client that finds nobody leaves its thread behind
        distributed.utils.LoopRunner().run_sync(_knock, address)
        client = distributed.Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        logs.setLevel(level)
        raise ForgetlabError(f"no Dask scheduler answers at {address} ({_short(error)})") from None
    try:
        with suppress(distributed.TimeoutError):
            client.wait_for_workers(1, timeout=PATIENCE)
        if not client.nthreads():
            raise ForgetlabError(f"the Dask scheduler at {address} has no worker: start one with dask worker {address}")
        executor = client.get_executor(pure=False, retries=0)
        yield Pool(executor, lambda: max(1, len(client.nthreads())), cluster=True)
    finally:
        with suppress(Exception):
            client.close()
        logs.setLevel(level)


def explain(error: Exception, pool: Pool) -> Exception:
    """What a lost process or cluster means, in words; another error stays as it is."""
    if isinstance(error, ForgetlabError):
        return error
    if pool.cluster:
        return ForgetlabError(f"the cluster could not compute a run ({_short(error)})")
    if type(error).__name__ == "BrokenProcessPool":
        return ForgetlabError("a process ended in the middle of a run (out of memory?); try fewer --processes")
    return error


async def _knock(address: str) -> None:
    comm = await import_module("distributed.comm").connect(address, timeout=PATIENCE)
    comm.abort()


class _Inline(Executor):
    def __init__(self, on_record: Callable[..., None] | None) -> None:
        self.on_record = on_record

    def submit(self, function: Callable[..., Any], /, *args: Any, **more: Any) -> Future[Any]:
        if function is compute:
            more["on_record"] = self.on_record
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **more))
        except Exception as error:
            future.set_exception(error)
        return future


def _listen(told: Any, on_record: Callable[..., None]) -> None:
    while (record := told.get()) is not None:
        on_record(*record)


def _begin(threads: int, told: Any = None) -> None:
    """The start of a process: Ctrl-C is the parent's business, and where the parent dies, so does the child.

    told: a queue for (recipe, record), the items of scores left out.
    """
    global _told
    if told:
        _told = lambda recipe, record: told.put((recipe, replace(record, tallies={})))  # noqa: E731
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _bench(recipe: Recipe) -> Bench:
    base = replace(recipe, methods="none", seed=0, steps=1, every=1, limit=None)
    learning = (base.lr, base.batch_size, base.precision)
    base = replace(base, lr=1.0, batch_size=1, precision="float32")  # they matter where a task is learned first
    files = [Path(name) for name in (base.new, *base.watch, base.model)]
    files += sorted(files[-1].glob("*")) if files[-1].is_dir() else []
    stamps = [(str(f), f.stat().st_mtime_ns, f.stat().st_size) for f in files if f.is_file()]
    key = (base, tuple(stamps))  # a cluster's process lives longer than a file may stay as it is
    bench, learned_with = _ready.get(key, (None, None))
    if bench is None or (bench.learned and learned_with != learning):
        _ready.clear()
        bench = prepare(replace(recipe, methods="none", seed=0))
        _ready[key] = bench, learning
    return bench


def _is_small(model: str) -> bool:
    folder = Path(model).expanduser()
    if folder.is_dir():
        return 0 < sum(file.stat().st_size for file in folder.glob("*.safetensors")) < SMALL
    return model in shipped_models()


def _short(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
