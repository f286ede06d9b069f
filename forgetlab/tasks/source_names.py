"""What a user writes for a source of data: a file, a hub data set or this machine's text, with options at its end."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from forgetlab import sources
from forgetlab.errors import ForgetlabError, one_of, shown, unknown
from forgetlab.sources.files import CONLL_SUFFIXES, CSV_SUFFIXES, JSON_SUFFIXES, PACKED_SUFFIXES
from forgetlab.sources.hub_data import PREFIX
from forgetlab.tasks.descriptions import DESCRIPTIONS

FILES = {*JSON_SUFFIXES, *CSV_SUFFIXES, *CONLL_SUFFIXES, *PACKED_SUFFIXES, ".txt", ".md"}
MACHINE_TEXT = ("python-docs", "python-source", "licences")
DIALS = ("samples", "advantage")  # of praise
OPTIONS = (
    *("text", "label", "pair", "prompt", "answer", "kind", "split", "test", "name", "k", "limit", "turned"),
    *DIALS,
)
_OPTION = r"\s*\w+=[^,]*"
_OPTIONS = re.compile(rf"{_OPTION}(?:,{_OPTION})*")
LONGEST = 1000  # characters of a source


@dataclass(frozen=True)
class Source:
    """A source and its options, such as {"text": "3", "label": "1"}, those of `task_from` as text."""

    name: str
    options: dict[str, str] = field(default_factory=dict)


def parsed(given: str | os.PathLike[str]) -> Source:
    """ "cola.tsv:text=3,label=1" in its parts; a file of that very name is no name with options.

    Raises ForgetlabError for an option that there is not, or that has no value or two.

    >>> parsed("C:/data/cola.tsv:text=3,label=1")
    Source(name='C:/data/cola.tsv', options={'text': '3', 'label': '1'})
    """
    name, listed = _cut(os.fspath(given))
    options: dict[str, str] = {}
    for part in filter(None, listed.split(",")):
        option, _, value = (piece.strip() for piece in part.partition("="))
        one_of(f"option of {name}", option, OPTIONS)
        if not value or option in options:
            raise ForgetlabError(f"{name}: {option} has {'two values' if value else 'no value'}")
        options[option] = value
    return Source(name, options)


def _cut(given: str) -> tuple[str, str]:
    """The name and its options: the longest name that is a file, else what stands before the first option."""
    if len(given) > LONGEST or is_file(given):
        return given, ""
    colons = [i for i, letter in enumerate(given) if letter == ":" and _OPTIONS.fullmatch(given, i + 1)]
    at = next((i for i in reversed(colons) if is_file(given[:i])), colons[0] if colons else len(given))
    return given[:at], given[at + 1 :]


def parted(listed: str) -> list[str]:
    """Sources in a list with commas: not at those before another option, nor at those in the name of a file there is.

    >>> parted("cola.tsv:text=3,label=1, licences")
    ['cola.tsv:text=3,label=1', 'licences']
    """
    pieces, found = listed.split(","), []
    while pieces:
        ends = range(min(len(pieces), 20), 1, -1)  # a name with more commas has to stand alone
        taken = next((n for n in ends if is_file(_cut(",".join(pieces[:n]).strip())[0])), 1)
        while taken < len(pieces) and re.fullmatch(_OPTION, pieces[taken]) and not is_file(pieces[taken].strip()):
            taken += 1
        found.append(",".join(pieces[:taken]).strip())
        pieces = pieces[taken:]
    return [name for name in found if name]


def is_file(name: str) -> bool:
    """Whether there is a file of this name, "~" in full."""
    return bool(name) and _there(name, Path.is_file)


def source_files(given: Iterable[str]) -> list[Path]:
    """The files among the sources: what results made from them depend on."""
    return [Path(name).expanduser() for name in (parsed(one).name for one in given) if is_file(name)]


def is_hub_name(source: str) -> bool:
    """Whether a source is "owner/name" of the hub: one slash, no such file, and no folder that it could be in."""
    if source.startswith(PREFIX):
        return True
    plain = source.partition("@")[0].partition(":")[0]
    if not re.fullmatch("[^/.~][^/]*/[^/]+", plain) or "\\" in source or not plain.isprintable():
        return False
    if Path(plain).suffix.lower() in FILES:
        return False  # a file whose folder is misspelt
    return not _there(plain, Path.exists) and not _there(plain.partition("/")[0], Path.is_dir)


def is_embedded(name: str) -> bool:
    """Whether a name is that of an embedded task, and of no file."""
    return name.partition(":")[0] in DESCRIPTIONS and not is_file(name)


def check_source(source: str | os.PathLike[str]) -> None:
    """Raise ForgetlabError, with the nearest name that there is, for a source that cannot be one; nothing is read."""
    name = parsed(source).name
    if name in MACHINE_TEXT or is_embedded(name) or is_file(name):
        return
    if len(name) > LONGEST:
        raise ForgetlabError(f"a name of {len(name):,} characters is no task and no file: {shown(name)}")
    if is_hub_name(name):
        return
    if not any(mark in name for mark in "./\\~\0"):
        raise unknown("task or file", name, [*DESCRIPTIONS, *MACHINE_TEXT])
    sources.read(name)  # says what is wrong, and the nearest name


def titles(source: str) -> list[str]:
    """What a task of this source may be called, the first that is free (`short_name`); [] where its dials name it.

    >>> titles("cola.tsv:name=cola"), titles("entities")
    (['cola'], ['entities'])
    """
    given = parsed(source)
    if "name" in given.options:
        return [given.options["name"]]
    if is_embedded(given.name):
        return [] if given.options else [given.name]
    return _titles(given.name)


def _titles(source: str) -> list[str]:
    if is_hub_name(source):
        names = [source.removeprefix(PREFIX).partition("@")[0].rpartition("/")[2].replace(":", "-")]
    else:
        names = [Path(source).stem, Path(source).name] if is_file(source) else [source]
    names = ["".join(c if c.isprintable() else "\ufffd" for c in name).replace(".", "-") for name in names]
    return [*names, f"{names[-1]}-data"]


def short_name(source: str) -> str:
    """What a task of this source is called: a head's name may hold no dot, and "train" is taken (`free_name`).

    Letters that cannot be shown, as in a file's name that is not UTF-8, are marked.
    """
    from forgetlab.models.model import free_name  # torch knows which names are taken

    *names, last = _titles(source)
    return next((name for name in names if free_name(name)), last)


def _there(name: str, what: object) -> bool:
    try:
        return bool(what(Path(name).expanduser()))  # type: ignore[operator]
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, a home that is not known
        return False
