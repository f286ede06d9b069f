"""Files of any usual format read as examples: loading, decoding, finding out what the file holds."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import replace
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any, get_args

from forgetlab.errors import ForgetlabError, shown, unknown, whole
from forgetlab.sources.conll import looks_like_conll, read_conll
from forgetlab.sources.csv_tables import csv_table
from forgetlab.sources.dotted import with_dotted
from forgetlab.sources.examples import Examples, Kind, take
from forgetlab.sources.json_tables import json_items, json_objects, json_table, json_tags, starts_with_object
from forgetlab.sources.notes import count
from forgetlab.sources.packed import LARGEST, packed_rows, unpacked
from forgetlab.sources.paragraphs import passages
from forgetlab.sources.prefixed import prefixed_table
from forgetlab.sources.rows import Wanted, chats_in, of_rows
from forgetlab.sources.tables import Column, Table, examples_in

JSON_SUFFIXES = {".json", ".jsonl", ".ndjson"}
CSV_SUFFIXES = {".csv", ".tsv", ".tab", ".psv"}
PACKED_SUFFIXES = {".parquet", ".arrow", ".gz", ".bz2", ".xz"}
TABLES = ("labelled", "pairs", "chat", "completions")  # the kinds that only tables make
CONLL_SUFFIXES = {".conll", ".conllu", ".iob", ".iob2", ".bio"}


def read(
    path: str | PathLike[str],
    *,
    text: Column = None,
    label: Column = None,
    pair: Column = None,
    prompt: Column = None,
    answer: Column = None,
    kind: Kind | None = None,
    limit: int | None = None,
) -> Examples:
    """Read a file of CSV, TSV, JSON, JSON lines, Parquet, Arrow, CoNLL columns or plain text, gzipped or not.

    text, label, pair: columns, by name or 0-based number, within JSON's objects by a dotted name, "data.review"; found
    by their usual names or their contents where left out (for CoNLL columns: `text` is the token, `label` the tag;
    first and last where left out). prompt, answer: columns of what is asked and what is to be written after it.
    kind: what is wanted; the richest kind that the file has where left out.
    limit: the most examples to keep, spread evenly over the file (many files are sorted by class).
    Raises ForgetlabError for a file that cannot be read, is not text, or lacks what was asked for.

    >>> from forgetlab.sources import data_folder
    >>> examples = read(data_folder() / "tasks" / "sentiment.test.jsonl")
    >>> examples.kind, len(examples)
    ('labelled', 512)
    """
    if kind is not None and kind not in get_args(Kind):
        raise unknown("kind of examples", kind, get_args(Kind))
    if limit is not None:
        whole("limit", limit)
    if (pair is not None and kind not in (None, "pairs")) or (label is not None and kind == "text"):
        raise ForgetlabError(f'kind="{kind}" has no {"label" if pair is None else "pair"}: leave it or the kind out')
    if (prompt, answer) != (None, None) and kind not in (None, "chat", "completions"):
        raise ForgetlabError(
            f'kind="{kind}" has no {"answer" if prompt is None else "prompt"}: leave it or the kind out'
        )
    path = file_path(path)
    inner, raw = unpacked(path, _load(path))
    wanted = Wanted(text, label, pair, prompt, answer, kind)
    notes: list[str] = []
    if (packed := packed_rows(inner, raw)) is not None:
        found = of_rows(inner, *packed, wanted)
    else:
        content, notes = _decode(inner, raw)
        found = _parse(inner, content, wanted)
    if kind == "text" and found.words is not None:
        found = Examples("text", tuple(" ".join(words) for words in found.words), notes=found.notes)
    if not len(found):
        raise ForgetlabError(f"{path}: no examples found ({'; '.join(found.notes) or 'nothing below the header'})")
    if limit is not None and limit < len(found):
        notes.append(f"{limit} of {len(found)} examples kept, spread evenly over the file")
        found = take(found, [i * len(found) // limit for i in range(limit)])
    return replace(found, notes=(*notes, *found.notes))


def _parse(path: Path, content: str, wanted: Wanted) -> Examples:
    """The examples in the format that the options, the suffix and the content speak for, in this order."""
    text, label, pair, kind = wanted.text, wanted.label, wanted.pair, wanted.kind
    suffix = path.suffix.lower()
    lines = content.split("\n")
    is_table = kind in TABLES or any(column is not None for column in wanted.columns())
    is_conll = suffix in CONLL_SUFFIXES or (suffix not in JSON_SUFFIXES and not is_table and looks_like_conll(lines))
    if suffix in JSON_SUFFIXES or starts_with_object(content):
        return _of_json(path, content, wanted)
    if kind == "tags" or (is_conll and kind in (None, "text")):
        return read_conll(path, lines, text, label)
    may_begin = kind in (None, "labelled") and (pair, wanted.prompt, wanted.answer) == (None, None, None)
    if may_begin and (begun := prefixed_table(path, lines)) is not None:
        return examples_in(path, begun, text, label, pair, kind)
    content = re.sub(r"\Asep=.\n", "\n", content)  # Excel's first line
    is_table = is_table or suffix in CSV_SUFFIXES
    if is_table or kind != "text":
        table = csv_table(path, content, wanted.columns(), is_table)
        if table is not None:
            return _chats_in_table(path, table, wanted) or examples_in(path, table, text, label, pair, kind)
    return Examples("text", tuple(passages(content)))


def _of_json(path: Path, content: str, wanted: Wanted) -> Examples:
    """The examples in JSON's objects."""
    objects, notes, unit = json_objects(path, content)
    rows = with_dotted([item for _, item in objects], wanted.columns())
    objects = [(i, dict(item)) for (i, _), item in zip(objects, rows, strict=True)]
    found = chats_in(path, objects, unit, wanted)
    if found is None and wanted.kind in (None, "tags") and wanted.pair is None:
        found = json_tags(path, objects, wanted.text, wanted.label, wanted.kind)
    if found is None:
        table = json_table(path, objects, unit)
        found = examples_in(path, table, wanted.text, wanted.label, wanted.pair, wanted.kind)
    return replace(found, notes=(*notes, *found.notes))


def _chats_in_table(path: Path, table: Table, wanted: Wanted) -> Examples | None:
    """The rows of a table with a header as conversations or completions, where they are; else None."""
    if not table.header:
        return None
    cells = [(line, [cell or None for cell in row]) for line, row in table.rows]
    rows = [(line, dict(zip(table.names, row, strict=True))) for line, row in cells]
    if (found := chats_in(path, rows, table.unit, wanted)) is None:
        return None
    notes = (*table.notes, *found.notes)
    if found.kind != "completions":
        return replace(found, notes=notes)
    spaced = _spaced(found)
    rejected = found.rejected and _spaced(found.rejected)
    said = "cells lose the spaces at their ends: one is put before each answer"
    return replace(spaced, notes=(said, *notes), rejected=rejected)


def _spaced(examples: Examples) -> Examples:
    return replace(examples, pairs=tuple(f" {answer}" for answer in examples.pairs or ()))


def read_rows(path: str | PathLike[str]) -> list[tuple[str, Any]]:
    """The values in a file of JSON, of its list or of its lines, or of Parquet, each with where it stands: "line 3".

    A line that is not JSON gives None; another file has no rows at all. Raises ForgetlabError for a file that cannot
    be read or is not text.
    """
    path, raw = unpacked(file_path(path), _load(file_path(path)))
    if (packed := packed_rows(path, raw)) is not None:
        return [(f"row {number}", row) for number, row in enumerate(packed[0], 1)]
    content, _ = _decode(path, raw)
    if path.suffix.lower() not in JSON_SUFFIXES and not starts_with_object(content):
        return []
    unit, items = json_items(content)
    return [(f"{unit} {number}", item) for number, item in items]


def file_path(path: str | PathLike[str]) -> Path:
    """A path with "~" in full; raises ForgetlabError for a home that is not known, and for names that no file has."""
    try:
        found = Path(path).expanduser()
        os.stat(found)
    except RuntimeError:
        raise ForgetlabError(f"no file or folder {path}: the home of {Path(path).parts[0]} is not known here") from None
    except ValueError:
        raise ForgetlabError(
            f"no file or folder {shown(str(path))}: names have no NUL and no half characters"
        ) from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ForgetlabError(f"no file or folder {shown(str(path))}: none has so long a name") from None
    return found


_BOMS = [
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),  # before UTF-16, whose mark it starts with
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
]
_BINARIES = {
    b"\x28\xb5\x2f\xfd": "a zstd archive; unpack it first",
    b"PK\x03\x04": "a zip archive (.xlsx, .docx and .pt files are too); unpack it, or save it as CSV or text",
    b"\x1f\x8b": "an archive within an archive; unpack it first",
    b"%PDF-": "a PDF; save it as text",
    b"SQLite format 3": "an SQLite database; export a table as CSV",
}
_NOT_CP1252 = {0x81, 0x8D, 0x8F, 0x90, 0x9D}


def _load(path: Path) -> bytes:
    try:
        if path.is_dir():
            files = sorted(entry.name for entry in path.iterdir() if entry.is_file())
            raise ForgetlabError(f"{path} is a folder; give a file{f', such as {files[0]}' if files else ''}")
        if not path.exists():
            folder = path.parent
            if not folder.is_dir():
                raise ForgetlabError(f"no file {path}: there is no folder {folder}")
            names = sorted(entry.name for entry in folder.iterdir())
            near = get_close_matches(path.name, names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else "nothing there has a similar name"
            raise ForgetlabError(f"no file {path}; {hint}")
        if not path.is_file():
            raise ForgetlabError(f"{path} is not an ordinary file")
        if (size := path.stat().st_size) > LARGEST:
            raise ForgetlabError(
                f"{path} has {size / 1e9:.1f} GB; at most {LARGEST / 1e9:g} GB are read: give a part of it"
            )
        return path.read_bytes()
    except OSError as error:
        raise ForgetlabError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error


def _decode(path: Path, raw: bytes) -> tuple[str, list[str]]:
    """The text with "\\n" line ends, and notes on how it was decoded."""
    notes = []
    looks_like = next((what for magic, what in _BINARIES.items() if raw.startswith(magic)), None)
    if raw[8:9] == b"{" and int.from_bytes(raw[:8], "little") < len(raw):
        looks_like = "a safetensors file: weights, not data"
    if looks_like is not None:
        raise ForgetlabError(f"{path} looks like {looks_like}")
    encoding = next((encoding for mark, encoding in _BOMS if raw.startswith(mark)), "utf-8")
    try:
        content = raw.decode(encoding)
    except UnicodeDecodeError:
        if encoding in ("utf-16", "utf-32"):
            raise ForgetlabError(f"{path} is marked as {encoding} but is not; save it as UTF-8") from None
        content = raw.decode("utf-8", "replace")
        broken = content.count("\ufffd")
        if sum(character > "\x7f" for character in content) > 10 * broken:
            notes.append(f"{count(broken, 'broken byte')} in the UTF-8 read as \ufffd")
        else:
            encoding = "cp1252" if _NOT_CP1252.isdisjoint(raw) else "latin-1"
            content = raw.decode(encoding)
            notes.append(f"read as {encoding} (not UTF-8)")
    if "\0" in content:
        raise ForgetlabError(f"{path} looks like a binary file (it has NUL bytes); expected text, best in UTF-8")
    content = content.removeprefix("\ufeff")
    if not content.strip():
        raise ForgetlabError(f"{path} is empty")
    return content.replace("\r\n", "\n").replace("\r", "\n"), notes
