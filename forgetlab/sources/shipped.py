"""Where the shipped data lies, in a checkout and in an installed wheel, and the hashes that vouch for it."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

from forgetlab.errors import ForgetlabError

_PACKAGE = Path(__file__).resolve().parents[1]


def data_folder() -> Path:
    """The shipped `data/` folder: inside an installed package, or beside it in a checkout.

    >>> sorted(path.name for path in data_folder().iterdir() if path.is_dir())
    ['forecast', 'glossary', 'models', 'quiz', 'records', 'tasks', 'world']
    """
    for folder in (_PACKAGE / "data", _PACKAGE.parent / "data"):
        if (folder / "world" / "lexicon.txt").is_file():
            return folder
    raise ForgetlabError(f"the data folder is missing beside {_PACKAGE}; reinstall forgetlab")


def carried(name: str) -> Path:
    """A folder of the repository that the wheel carries too: "notebooks" or "benchmarks/results"."""
    for folder in (_PACKAGE / "data" / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise ForgetlabError(f"the folder {name} is missing beside {_PACKAGE}; reinstall forgetlab")


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def manifest() -> dict[str, str]:
    """Relative path → SHA-256 of every shipped file, as `make data` wrote them."""
    path = data_folder() / "manifest.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def inputs() -> dict[str, str]:
    """The part of the manifest that the numbers of a run depend on: a question or a kept result changes none."""
    return {name: digest for name, digest in manifest().items() if name.startswith(("models/", "tasks/", "world/"))}


def check_shipped(folder: Path) -> None:
    """Raise ForgetlabError where a shipped file below `folder` is missing or not the one that was shipped."""
    root = data_folder()
    prefix = folder.relative_to(root).as_posix() + "/"
    for name, digest in manifest().items():
        if name.startswith(prefix) and not (root / name).is_file():
            raise ForgetlabError(f"{name} is missing from the shipped data; reinstall forgetlab")
        if name.startswith(prefix) and sha256(root / name) != digest:
            raise ForgetlabError(f"{name} is not the shipped file (its hash differs); reinstall forgetlab")
