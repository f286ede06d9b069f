"""Tables in CSV, TSV and their kin: delimiter, quoting and header are found out, as no file says them."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from forgetlab.errors import ForgetlabError
from forgetlab.sources.notes import count, skipped
from forgetlab.sources.tables import (
    ANSWER_NAMES,
    USUAL_NAMES,
    Column,
    Rows,
    Table,
    fold_name,
    is_number,
    too_wide,
    usual_width,
)

_NONE = "\x1f"  # the delimiter of a single column: a character that no text has
_END = "\ue000end"
MOST_MARKS = 20


def csv_table(path: Path, content: str, columns: Sequence[Column], must: bool) -> Table | None:
    """The rows under their header, if they have one; None where the content is plain text.

    columns: those that were asked for, which a header must have. must: whether it is a table in any case.
    Raises ForgetlabError for a quote that is never closed, and where most rows differ in length.
    """
    asked = {fold_name(name) for name in columns if isinstance(name, str) and not name.isdecimal()} - {""}
    if must:  # before anything is split, which takes time
        too_wide(path, max(map(_first_line(content).count, ",;\t|")) // 10)
    mark = _delimiter(content, path.suffix.lower(), asked, must)
    if mark is None:
        return None
    first = _first_line(content)
    too_wide(path, first.count(mark) + 1)
    named = _is_header(first.split(mark), asked)
    rows, width, _ = _rows(content, mark, len(next(csv.reader([first], delimiter=mark))) if named else 0)
    unclosed = [line for line, row in rows if not row]
    if unclosed:
        raise ForgetlabError(f'{path}: a quote (") opened at line {unclosed[0]} or below is never closed')
    shown = {"\t": "tab", _NONE: "no delimiter"}.get(mark, mark)
    bad = [line for line, row in rows if len(row) != width]
    notes = skipped(path, bad, len(rows), "line", f"{count(width, 'cell')} with delimiter {shown!r}")
    rows = [(line, row) for line, row in rows if len(row) == width]
    if rows and _has_header([row for _, row in rows], asked):
        return Table([" ".join(name.split()) for name in rows[0][1]], rows[1:], notes)
    notes.append("no header row seen: columns have numbers, from 0")
    return Table([str(i) for i in range(width)], rows, notes, header=False)


def _first_line(content: str) -> str:
    return content.lstrip("\n").split("\n", 1)[0]


def _delimiter(content: str, suffix: str, asked: set[str], must: bool) -> str | None:
    """The character between columns; `_NONE` for a single one; None where it is no table and need not be."""
    sample = content if len(content) < 200_000 else content[:200_000].rpartition("\n")[0] or content
    first = _first_line(sample)
    alone = fold_name(first)
    if must and not re.search("[,;\t|]", first) and (alone in USUAL_NAMES | asked or _asks({alone})):
        return _NONE
    tabs = suffix in (".tsv", ".tab")
    common = "\t,;|" if tabs else ",;\t|"
    # Any other mark is taken only between column names, where few marks stand.
    others = sorted(set(re.findall(r"[^\w\s\\\"'.-]", first[:10_000])) - {*common})
    found = []
    for mark in [*common, *others[:MOST_MARKS]]:
        if mark not in first:
            continue
        rows, width, share = _rows(sample, mark)
        if _is_header(first.split(mark), asked):
            if must or (share >= 0.9 and len(rows) > 1):
                found.append((True, share, mark))
        elif width > 1 and mark in common and (must or mark == "\t"):
            # Prose has commas too, and some lines have equally many: there, only tabs are proof.
            enough = 0.0 if tabs and mark == "\t" else 0.7 if must else 0.95
            if share >= enough:
                found.append((False, share, mark))
    return max(found, key=lambda item: item[:2])[2] if found else _NONE if must else None


def _rows(content: str, mark: str, width: int = 0) -> tuple[Rows, int, float]:
    """The rows, how many cells they have (`width`, or the usual number), and the share that has so many.

    Three ways of quoting are tried: "" in quotes, a backslash in quotes, quotes as plain letters (usual in
    TSV). A misread quote swallows delimiters, so the largest share wins.
    A last row whose quote is never closed comes back without cells.
    """
    quotings = ((True, None), (True, "\\"), (False, None)) if '"' in content else ((False, None),)
    best: tuple[float, int, Rows, int] = (-1.0, 0, [], 0)
    for quotes, escape in quotings:
        rows = _split(content, mark, quotes, escape)
        cells = width or usual_width(rows)
        good = sum(len(row) == cells for _, row in rows)
        best = max(best, (good / max(len(rows), 1), good, rows, cells), key=lambda one: one[:2])
    share, _, rows, cells = best
    return rows, cells, share


def _split(content: str, mark: str, quotes: bool, escape: str | None) -> Rows:
    rows: Rows = []
    with _cells_of_any_size():
        reader = csv.reader(
            io.StringIO(f"{content}\n{_END}", newline=""),
            delimiter=mark,
            quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
            escapechar=escape,
            skipinitialspace=mark != "\t",
        )
        line = 1
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append((line, [cell.strip() for cell in row]))
            line = reader.line_num + 1
    number, last = rows.pop()
    return rows if last == [_END] else [*rows, (number, [])]  # the quote ran over the end


@contextmanager
def _cells_of_any_size() -> Iterator[None]:
    limit = csv.field_size_limit(2**31 - 1)  # the setting is global
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _is_header(cells: list[str], asked: set[str]) -> bool:
    """Whether the first line, cut at a delimiter, shows a column name."""
    names = {fold_name(cell) for cell in cells}
    known = not names.isdisjoint(USUAL_NAMES | asked) or _asks(names)
    return len(cells) > 1 and max(map(len, cells)) <= 40 and known


def _asks(names: set[str]) -> bool:
    """Whether columns are of prompts and answers, which have names of their own."""
    return any({*both.split()} <= names for both in ANSWER_NAMES)


def _has_header(rows: list[list[str]], asked: set[str]) -> bool:
    """Whether the first row names the columns; in doubt it does not: no row of data may be lost."""
    first, below = rows[0], rows[1:]
    names = {fold_name(cell) for cell in first}
    if not names.isdisjoint(asked) or _asks(names) or (len(first) > 1 and first == [str(i) for i in range(len(first))]):
        return True
    filled = [cell for cell in first if cell]
    # "text,text,label" names columns all the same
    twice = len({*filled}) < len(filled) and len(names & USUAL_NAMES) < 2
    if twice or any(len(cell) > 40 or is_number(cell) for cell in filled):
        return False
    columns = list(zip(*below, strict=True))
    if any(cell and cell in column for cell, column in zip(first, columns, strict=bool(below))):
        return False
    if not names.isdisjoint(USUAL_NAMES):
        return bool(below) or names <= USUAL_NAMES
    # No usual name: short cells over texts of several words, and a word over numbers or values that recur.
    if not any(sum(cell.count(" ") for cell in column) >= 2 * len(column) for column in columns):
        return False
    if any(cell and all(map(is_number, column)) for cell, column in zip(first, columns, strict=True)):
        return True
    return not any(" " in cell for cell in first) and any(
        min(Counter(filter(None, c)).values(), default=0) > 1 for c in columns
    )
