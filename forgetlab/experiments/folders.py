"""What folders a comparison may write to: checked before anything is loaded, so that it imports nothing heavy."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from forgetlab.errors import ForgetlabError
from forgetlab.sources.files import file_path
from forgetlab.sources.json_files import DRAFT, read_json

RUNS, MANIFEST, LOCK, LOG = "runs", "sweep.json", "lock", "log.txt"  # of a sweep, below the report's folder
OWN_NAMES = re.compile(
    rf"{re.escape(MANIFEST)}|{LOCK}|{re.escape(LOG)}|tensorboard|wandb|[0-9a-f]{{16}}\.json|\..*{re.escape(DRAFT)}"
)
REPORTS = ("results.json", "diff.json", f"{RUNS}/{MANIFEST}")
REPORT_DRAFT, MODEL_DRAFT = ".report-", ".model-"
CARD = "forgetlab.json"  # in the folder of a saved model: what it is, and which files are its own


def check_folder(folder: str | Path) -> None:
    """Raise ForgetlabError where a report may not be written: a file, or a folder that holds something else."""
    folder = file_path(folder)
    try:
        there = [path.name for path in folder.glob("*") if not path.name.startswith(REPORT_DRAFT)]
        fine = folder.is_dir() or not folder.exists()
        fine = fine and (not there or any(_ours(folder / name) for name in REPORTS) or _only_runs(folder, there))
    except OSError:  # a file
        fine = False
    if not fine:
        raise ForgetlabError(f"{folder} is no empty folder and holds no report of forgetlab; choose another folder")
    _check_writing(folder, "the report")


def check_apart(folder: str | Path, *others: str | Path) -> None:
    """Raise ForgetlabError for a folder of models that is one of the others, such as the report's, or is a file."""
    folder = file_path(folder)
    for other in others:
        if folder.resolve() == Path(other).expanduser().resolve():
            raise ForgetlabError(f"a model cannot be saved in {folder}, where another thing lies: choose a new folder")
    if os.path.lexists(folder) and not folder.is_dir():
        raise ForgetlabError(f"{folder} is no folder: choose another one for the models")
    _check_writing(folder, "a model")


def check_model_folder(folder: str | Path) -> None:
    """Raise ForgetlabError where a model may not be saved: at a file, or over what no comparison has saved."""
    folder = file_path(folder)
    try:
        there = [path.name for path in folder.glob("*") if not path.name.startswith(MODEL_DRAFT)]
        fine = (folder.is_dir() or not folder.exists()) and (not there or read_json(folder / CARD) is not None)
    except OSError:
        fine = False
    if not fine:
        raise ForgetlabError(f"{folder} is no empty folder and holds no model saved by compare; choose another folder")
    _check_writing(folder, "a model")


def _check_writing(folder: Path, what: str) -> None:
    near = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        tempfile.TemporaryDirectory(dir=near, prefix=REPORT_DRAFT).cleanup()  # rights alone do not tell
    except OSError as error:
        raise ForgetlabError(f"cannot write {what} to {folder}: {error.strerror or error}") from error


def _ours(path: Path) -> bool:
    try:
        return "forgetlab" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):  # not there, damaged, or of another program
        return False


def _only_runs(out: Path, there: Sequence[str]) -> bool:
    """Whether what is there in a folder is a sweep's own files alone, damaged or not: none of it is anybody else's."""
    return there == [RUNS] and all(OWN_NAMES.fullmatch(path.name) for path in (out / RUNS).iterdir())
