"""JSON files that appear whole or not at all, with a digest that vouches for what they hold."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

DIGEST, DRAFT = "digest", ".part"


def write_json(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Write plain values with their digest to a file, as `write_whole` does. Returns the content as read back."""
    plain = plain_values(content)
    write_whole(path, json.dumps({**plain, DIGEST: digest(plain)}, allow_nan=False).encode())
    return plain


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all, in a folder made for it.

    It is on the disk when this returns, where the platform can say so.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{secrets.token_hex(4)}{DRAFT}")
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the name without the content
        draft.replace(path)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def read_json(path: Path) -> dict[str, Any] | None:
    """What `write_json` wrote, or None where nothing is there, or not what was written."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # the last of brackets without end
        return None
    return found if isinstance(found, dict) and found.pop(DIGEST, None) == digest(found) else None


def digest(content: Any) -> str:
    """SHA-256 of plain values, the same for any order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sync_folder(folder: Path) -> None:
    """See to it that the names in a folder are on the disk; not every platform can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def plain_values(content: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has it: tuples are lists, every key is a word."""
    return json.loads(json.dumps(dict(content), allow_nan=False))
