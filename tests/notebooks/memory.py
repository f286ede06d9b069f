"""How much memory a lesson takes: the most that its kernel and the processes it starts hold together (Linux).

Each lesson of the suite is looked at while it runs (test_notebooks.py).

python -m tests.notebooks.memory [NN …]
Runs the lessons one after the other and writes benchmarks/results/memory.json.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from tests.notebooks.execute import execute, lessons

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "memory.json"
BINDER = 2e9  # bytes that mybinder.org gives
EVERY = 0.1  # seconds between looks


def held() -> int:
    """Bytes that all processes started from here hold now; what several share counts once (proportional set size)."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has just ended
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


@contextmanager
def watched(every: float = EVERY) -> Iterator[list[int]]:
    """Within it somebody looks; the one number of the list is the most that was held, in bytes."""
    over, most = threading.Event(), [0]

    def look() -> None:
        while not over.wait(every):
            most[0] = max(most[0], held())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield most
    finally:
        over.set()
        looking.join()


if __name__ == "__main__":
    found: dict[str, int] = {}
    for path in lessons():
        if len(sys.argv) == 1 or path.name[:2] in sys.argv[1:]:
            with watched() as most:
                execute(path)
            found[path.stem] = round(most[0] / 1e6)
            print(f"{path.stem}: {found[path.stem]:,} MB", flush=True)
    if len(sys.argv) == 1:
        result = {"torch": torch.__version__, "peak of a lesson, MB": found}
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
