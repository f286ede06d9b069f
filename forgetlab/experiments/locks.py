"""One process at a time in a folder: a lock file says whose it is, and that of a dead process is taken over.

A file made with O_EXCL works on every platform and over a network, where the locks of operating systems do not.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import forgetlab
from forgetlab.errors import ForgetlabError

TRIES, PAUSE = 20, 0.05  # how often and how long, in seconds, to wait for a lock that is being written just now


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, in folders made for it; those that stay empty go with it.

    Raises ForgetlabError where a process that lives holds it, or one of another machine, and where the disk refuses.
    """
    made = [folder for folder in path.parents if not folder.exists()]
    text = json.dumps({"forgetlab": forgetlab.__version__, **_me(), "token": secrets.token_hex(8)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _take(path, text)
    except OSError as error:
        _remove(made)
        raise ForgetlabError(f"cannot write to {path.parent}: {error.strerror or error}") from error
    try:
        yield
    finally:
        if _text(path) == text:
            with suppress(OSError):
                path.unlink()
        _remove(made)


def _take(path: Path, text: str) -> None:
    for _ in range(TRIES):
        try:
            file = path.open("x", encoding="utf-8")
        except FileExistsError:
            there = _text(path)
            if there is None and not path.is_file():
                if path.exists():
                    raise
                continue  # it has just gone
            owner = _owner(there)
            if owner and _lives(owner):
                raise ForgetlabError(
                    f"{path.parent} is in use by process {owner['pid']} on {owner['host']}: wait for it, or choose "
                    f"another folder; if it no longer runs, delete {path}"
                ) from None
            if owner:
                _push_aside(path, there)
            else:
                time.sleep(PAUSE)
            continue
        try:
            with file:
                file.write(text)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return
    _push_aside(path, _text(path))  # nobody takes so long to write a line: its process died meanwhile
    with path.open("x", encoding="utf-8") as file:
        file.write(text)


def _push_aside(path: Path, stale: str | None) -> None:
    """Remove a stale lock, and no other that another process put in its place meanwhile."""
    aside = path.with_name(f".{secrets.token_hex(4)}.part")
    with suppress(OSError):  # another process was faster
        path.rename(aside)
        if _text(aside) == stale:
            aside.unlink()
        else:
            aside.rename(path)


def _me() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": platform.node(), "born": _born(os.getpid())}


def _lives(owner: dict[str, Any]) -> bool:
    """Whether the process that wrote a lock may still be there; of another machine's nothing is known."""
    if owner["host"] != platform.node():
        return True
    if owner["born"] and (born := _born(owner["pid"])) is not None:
        return born == owner["born"]  # a number is given to another process some day
    return (_alive_on_windows if sys.platform == "win32" else _alive)(owner["pid"])


def _born(pid: int) -> str | None:
    """When a process began, as this boot of a Linux counts it: "" for one that ended, None where that is not told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    try:
        state, *more = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else f"{boot}/{more[18]}"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        pass
    return True


def _alive_on_windows(pid: int) -> bool:
    """There, os.kill(pid, 0) would end the process."""
    import ctypes

    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined, unused-ignore]
    handle = kernel.OpenProcess(0x00100000, False, pid)  # SYNCHRONIZE
    if not handle:
        return kernel.GetLastError() == 5  # denied: it is there, and another user's
    try:
        return kernel.WaitForSingleObject(handle, 0) == 0x102  # WAIT_TIMEOUT: it has not ended
    finally:
        kernel.CloseHandle(handle)


def _owner(text: str | None) -> dict[str, Any] | None:
    """What a lock says, or None where it says nothing (yet)."""
    try:
        found = json.loads(text or "")
        pid, host, born = found["pid"], found["host"], found["born"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return {"pid": pid, "host": host, "born": born} if type(pid) is int and pid > 0 else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()  # those with something in them stay
