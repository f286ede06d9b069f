"""train.c compiled: to WebAssembly for the page, and for this machine, as tests and the still picture want it."""

from __future__ import annotations

import ctypes
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from book import texts as held
from book.texts import NEW, TAGS, TEXT

SOURCE = Path(__file__).with_name("train.c")
# No fused or reordered sums: every browser and this machine then find the same bits.
PLAIN = ["-O3", "-std=c11", "-ffp-contract=off", "-fno-math-errno", "-fno-sanitize=all", "-Wall", "-Wextra"]
WASM = ["--target=wasm32-freestanding", "-msimd128", "-mbulk-memory", "-nostdlib", "-Wl,--no-entry", "-Wl,--strip-all"]
HERE = ["-shared", "-fPIC", "-mcpu=baseline", "-nostdlib"]  # memcpy and memset are the process's
PARTS = {"start": 0, "theta": 1, "grad": 2, "omega": 3, "data": 4, "found": 5, "batch": 6}
Settings = Mapping[str, Any]
DEFAULTS: Settings = {"method": "none", "lam": 100.0, "lr": 1e-3, "steps": 100, "seed": 0, "samples": 100}


def has_compiler() -> bool:
    """Whether ziglang is installed, the compiler from PyPI."""
    return find_spec("ziglang") is not None


def compiled(folder: Path, sizes: str, wasm: bool) -> Path:
    """train.c with its sizes as a file in `folder`: train.wasm, or a library for this machine."""
    (folder / "sizes.h").write_text(sizes, encoding="utf-8")
    target = folder / ("train.wasm" if wasm else "train.so")
    command = [sys.executable, "-m", "ziglang", "cc", *PLAIN, *(WASM if wasm else HERE), f"-I{folder}"]
    done = subprocess.run([*command, str(SOURCE), "-o", str(target)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"train.c could not be compiled:\n{done.stderr}")
    return target


class Program:
    """The library for this machine, filled with weights and texts; worker.js does the same in the page."""

    def __init__(self, library: Path, weights: bytes, data: bytes) -> None:
        self.c = ctypes.CDLL(str(library))
        self.c.where.restype = ctypes.c_void_p
        for name in ("gradient", "step", "drift"):
            getattr(self.c, name).restype = ctypes.c_double
        self.c.begin.argtypes = [ctypes.c_int, ctypes.c_double, ctypes.c_double]
        for name, content in (("start", weights), ("data", data)):
            if self.c.bytes(PARTS[name]) != len(content):
                raise RuntimeError(f"{name}: {len(content):,} bytes, the program wants {self.c.bytes(PARTS[name]):,}")
            ctypes.memmove(self.c.where(PARTS[name]), content, len(content))
        if bad := self.c.wrong():
            raise RuntimeError(f"text {bad - 1} is longer, or has other tokens, than the program can hold")

    def part(self, name: str, kind: Any = np.float32) -> Any:
        """A part of the program's memory as an array that can be read and written."""
        size, where = self.c.bytes(PARTS[name]), self.c.where(PARTS[name])
        return np.frombuffer((ctypes.c_char * size).from_address(where), dtype=kind)

    def scores(self) -> dict[str, float]:
        """The three scores of the weights as they are."""
        found = self.part("found", np.float64)
        self.c.score(NEW)
        accuracy = found[0] / found[1]
        self.c.score(TEXT)
        nll = found[0] / found[1]
        self.c.score(TAGS)
        return {"accuracy": accuracy, "nll": nll, "f1": 2 * found[0] / max(1.0, found[1] + found[2])}

    def run(self, settings: Settings) -> Iterator[dict[str, Any]]:
        """A run's records; a loss that is no longer finite ends it."""
        chosen = {**DEFAULTS, **settings}
        self.c.begin(chosen["seed"], chosen["lr"], chosen["lam"] if chosen["method"] != "none" else 0)
        if chosen["method"] == "EWC":
            for kind in (TEXT, TAGS):
                if not self.c.fisher(kind, chosen["samples"]):
                    raise RuntimeError(f"there are not {chosen['samples']} texts to measure the Fisher information on")
        yield {"step": 0, "loss": None, **self.scores(), "drift": 0.0}
        every, sum_, since = max(5, chosen["steps"] // 10), 0.0, 0
        for step in range(1, chosen["steps"] + 1):
            sum_, since = sum_ + self.c.step(), since + 1
            if step % every and step < chosen["steps"] and math.isfinite(sum_):
                continue
            yield {"step": step, "loss": sum_ / since, **self.scores(), "drift": self.c.drift()}
            if not math.isfinite(sum_):
                return
            sum_, since = 0.0, 0


def made(folder: Path) -> Program:
    """The program for this machine with the shipped model and texts."""
    model, tasks = held.opened()
    found = held.sets(model, tasks)
    weights = b"".join(p.numpy().tobytes() for p in held.parameters(model, tasks).values())
    return Program(compiled(folder, held.sizes(model, tasks, found), wasm=False), weights, held.packed(found))
