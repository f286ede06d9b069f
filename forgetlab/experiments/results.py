"""Results by what defines them: recorded ones, which are shipped, then a cache of this machine's own.

A recorded or kept result that cannot be read, or one that cannot be written, costs a new computation, never an error.
Each file carries a digest of its content, so that one that was damaged or changed by hand counts as none instead of
giving another number.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from forgetlab.sources.json_files import DRAFT, digest, plain_values, read_json, write_json, write_whole
from forgetlab.sources.shipped import data_folder, inputs

# To be raised by a change of what any run computes, or of what a lab keeps of it: then `make records`. What is kept or
# recorded under another number counts as none. A release that changes no number leaves it.
NUMBERS = 1
CACHE_BYTES = 50_000_000


def key(name: str, settings: Mapping[str, Any]) -> str:
    """A stable name: a hash of what is computed, its settings, the shipped data and the version of the numbers."""
    return f"{name}-{digest([name, dict(settings), _data(), NUMBERS])[:16]}"


def get(name: str, settings: Mapping[str, Any]) -> Any | None:
    """The stored result, or None where there is none that is whole and of these settings. It is the caller's own."""
    if (run := shipped(name, settings)) is not None:
        return run
    found = read_json(cache_folder() / f"{key(name, settings)}.json")
    if found and found.get("settings") == plain_values(settings) and found.get("name", name) == name:
        return found.get("result")
    return None


def put(name: str, settings: Mapping[str, Any], result: Any) -> str:
    """Keep a result of plain values in the cache, where the oldest files make room above CACHE_BYTES.

    Returns "" or, where it could not be written, the reason in words.
    """
    folder = cache_folder()
    path = folder / f"{key(name, settings)}.json"
    try:
        write_json(path, {"name": name, "settings": dict(settings), "result": result})
        _make_room(folder, path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return f"the result could not be kept in {folder}: {reason}"
    return ""


def record(name: str, runs: Iterable[tuple[Mapping[str, Any], Any]]) -> Path:
    """Ship (settings, result of plain values) of a name, in place of what was; the same runs give the same bytes."""
    pairs = [(json.dumps(settings), json.dumps(result, allow_nan=False)) for settings, result in runs]
    body = "\n".join(map("\t".join, pairs)).encode()
    path = record_file(name)
    write_whole(path, gzip.compress(f"{_head(body)}\n".encode() + body, mtime=0))
    return path


def shipped(name: str, settings: Mapping[str, Any]) -> Any | None:
    """The recorded result of these settings, or None."""
    run = _recorded(name).get(_said(settings))
    return None if run is None else json.loads(run[1])


def recorded(name: str) -> list[tuple[dict[str, Any], Any]]:
    """All that is shipped of a name: (settings, result), in the order in which they were recorded."""
    return [(json.loads(settings), json.loads(result)) for settings, result in _recorded(name).values()]


def cache_folder() -> Path:
    """FORGETLAB_CACHE, else forgetlab/ in the user's cache folder."""
    if own := os.environ.get("FORGETLAB_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forgetlab"


def shipped_folder() -> Path:
    """The recorded results: NAME.json.gz has a line that vouches for the rest, then settings, tab, result of each."""
    return data_folder() / "records"


def record_file(name: str) -> Path:
    """Where the recorded runs of a name are shipped."""
    return shipped_folder() / f"{name}.json.gz"


def _head(body: bytes) -> str:
    return json.dumps({"numbers": NUMBERS, "data": _data(), "sha256": hashlib.sha256(body).hexdigest()})


def _said(settings: Mapping[str, Any]) -> str:
    return json.dumps(dict(settings), sort_keys=True)


def _recorded(name: str) -> dict[str, tuple[str, str]]:
    """{settings in sorted order: (settings, result)} as JSON: parsed one by one, when it is asked for."""
    path = record_file(name)
    try:
        stat = path.stat()
    except OSError:
        return {}
    return _read(path, stat.st_ino, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=32)
def _read(path: Path, *state: int) -> dict[str, tuple[str, str]]:
    """The runs of a file; none where it is damaged, or of other numbers or data."""
    try:
        head, _, body = gzip.decompress(path.read_bytes()).partition(b"\n")
        if head.decode() != _head(body):
            return {}
        pairs = [line.split("\t") for line in body.decode().split("\n") if line]
        return {_said(json.loads(settings)): (settings, result) for settings, result in pairs}
    except (OSError, EOFError, ValueError, zlib.error):
        return {}


def _make_room(folder: Path, newest: Path) -> None:
    mine = [*folder.glob("*.json"), *folder.glob(f".*{DRAFT}")]  # a killed process leaves its draft
    files = sorted(mine, key=lambda path: path.stat().st_mtime)
    total = sum(path.stat().st_size for path in files)
    for path in files:
        if total <= CACHE_BYTES:
            return
        if path != newest:
            total -= path.stat().st_size
            path.unlink(missing_ok=True)


@cache
def _data() -> str:
    return digest(inputs())
