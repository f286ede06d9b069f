"""Whether a file can be read as asked, told from its options and contents without torch, before a model is loaded."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, get_args

from forgetlab import sources
from forgetlab.errors import ForgetlabError
from forgetlab.sources import Examples, Kind
from forgetlab.sources.files import read_rows
from forgetlab.tasks.source_names import OPTIONS, is_file, parsed

WHOLE = ("k", "limit", "samples")
READ_AS = {
    "k-shot": "labelled",
    "generation": "text",
    "preferences": None,
}  # kinds of task, not of data
COLUMNS = ("text", "label", "pair", "prompt", "answer")
LARGE = 20_000_000  # bytes: a larger file is read once, when it is needed


def check_file(source: str | PathLike[str], **given: Any) -> None:
    """Raise ForgetlabError for a file that `task_from(source, model, **given)` cannot read; other sources pass."""
    there, options = options_of(source, {**dict.fromkeys(OPTIONS), **given})
    kind, test = options["kind"], options["test"]
    if not is_file(there) or Path(there).expanduser().stat().st_size > LARGE:
        return
    if kind not in (None, *READ_AS, *get_args(Kind)):  # rows of probes
        return
    columns = {key: options[key] for key in COLUMNS}
    if kind is None and {*columns.values()} == {None} and read_rows(there):
        return  # rows that may be a probe's
    read: dict[str, Any] = {**columns, "kind": READ_AS.get(kind or "", kind), "limit": options["limit"]}
    examples = sources.read(Path(there), **read)
    if kind in ("generation", "preferences"):
        return
    if test is None:
        sides(there, examples)
    else:
        sources.read(Path(test), **{**read, "kind": examples.kind})


def options_of(source: str | PathLike[str], given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name in a source, and its options with those of a call; those at its end are text."""
    found = parsed(source)
    for key, value in found.options.items():
        if given[key] is not None and str(given[key]) != value:
            raise ForgetlabError(f"{found.name}: {key} is given twice, as {value!r} and as {given[key]!r}")
        if key in WHOLE and not (value.isdecimal() and int(value[:18])):
            raise ForgetlabError(f"{found.name}: {key} must be a whole number above 0, got {value!r}")
        given[key] = int(value[:18]) if key in WHOLE else value
    return found.name, given


def sides(name: str, examples: Examples, seed: int = 0) -> tuple[Examples, Examples]:
    """A fifth for the test, where a source has no side of its own for it."""
    try:
        return sources.split(examples, test=0.2, seed=seed)
    except ForgetlabError as error:  # it knows no file
        raise ForgetlabError(f"{name}: {error}, or a file of its own for the test: test=FILE") from None
