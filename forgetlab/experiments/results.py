"""Results by what defines them: shipped ones first, then a cache of this machine's own, as JSON written atomically.

A cache that cannot be read or written costs a new computation, never an error. Each file carries a digest of its
content, so that one that was damaged or changed by hand counts as none instead of giving another number.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import forgetlab
from forgetlab.sources.json_files import DRAFT, digest, plain_values, read_json, write_json
from forgetlab.sources.shipped import data_folder, inputs

CACHE_BYTES = 50_000_000


def key(name: str, settings: Mapping[str, Any]) -> str:
    """A stable name: a hash of what is computed, its settings, the shipped data and forgetlab's version."""
    return f"{name}-{digest([name, dict(settings), _data(), forgetlab.__version__])[:16]}"


def get(name: str, settings: Mapping[str, Any]) -> Any | None:
    """The stored result, or None where there is none that is whole and of these settings."""
    file = f"{key(name, settings)}.json"
    for folder in (shipped_folder(), cache_folder()):
        found = read_json(folder / file)
        if found and found.get("settings") == plain_values(settings) and found.get("name", name) == name:
            return found.get("result")
    return None


def put(name: str, settings: Mapping[str, Any], result: Any, folder: Path | None = None) -> str:
    """Store a result of plain values. Returns "" or, where it could not be written, the reason in words.

    folder: the cache unless given; in the cache the oldest files make room above CACHE_BYTES.
    """
    cached = folder is None
    folder = folder or cache_folder()
    path = folder / f"{key(name, settings)}.json"
    try:
        write_json(path, {"name": name, "settings": dict(settings), "result": result})
        if cached:
            _make_room(folder, path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return f"the result could not be kept in {folder}: {reason}"
    return ""


def cache_folder() -> Path:
    """FORGETLAB_CACHE, else forgetlab/ in the user's cache folder."""
    if own := os.environ.get("FORGETLAB_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forgetlab"


def shipped_folder() -> Path:
    """The results that labs open on."""
    return data_folder() / "results"


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
