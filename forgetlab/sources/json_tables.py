"""Tables in JSON: a list of objects or strings, or one of them per line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from forgetlab.sources.dotted import dotted
from forgetlab.sources.examples import Examples, Kind
from forgetlab.sources.messages import whole_text
from forgetlab.sources.notes import skipped
from forgetlab.sources.tables import LABEL_NAMES, TEXT_NAMES, Column, Table, fold_name, too_wide
from forgetlab.sources.tagged_rows import tagged

Objects = list[tuple[int, dict[str, Any]]]  # with the line or entry that each is


def json_table(path: Path, objects: Objects, unit: str) -> Table:
    """The objects, with a column for each of their keys."""
    names = list(dict.fromkeys(name for _, item in objects for name in item))
    too_wide(path, len(names))
    nested = frozenset(name for _, item in objects for name, value in item.items() if isinstance(value, list | dict))
    rows = [(i, [_cell(item.get(name)) for name in names]) for i, item in objects]
    some = (name for _, item in objects[:100] for name, value in dotted(item) if "." in name and isinstance(value, str))
    return Table(names, rows, [], nested=nested, within=next(some, ""), unit=unit)


def json_tags(path: Path, objects: Objects, words: Column, tags: Column, kind: Kind | None) -> Examples | None:
    """The objects as words with their tags, where they hold lists of both; else None."""
    rows = [item for _, item in objects]
    plain = {fold_name(name) for row in rows[:1] for name, value in row.items() if not isinstance(value, list | dict)}
    if kind is None and all(plain.intersection(usual.split()) for usual in (TEXT_NAMES, LABEL_NAMES)):
        return None  # texts with labels, whose lists may be anything
    return tagged(path, rows, dict.fromkeys(name for row in rows for name in row), words, tags, kind)


def json_objects(path: Path, content: str) -> tuple[Objects, list[str], str]:
    """The objects of a list or of lines, notes on what was left out, and what they are numbered by."""
    unit, items = json_items(content)
    items = [(i, {"text": item} if isinstance(item, str) else item) for i, item in items]
    objects = [(i, item) for i, item in items if isinstance(item, dict)]
    bad = [i for i, item in items if not isinstance(item, dict)]
    notes = skipped(path, bad, len(items), unit, 'objects such as {"text": "…", "label": "…"}')
    return objects, notes, unit


def json_items(content: str) -> tuple[str, list[tuple[int, Any]]]:
    """("entry", the numbered values of a list) or ("line", those of the lines), None for a line that is not JSON."""
    whole = _parsed(content)
    if isinstance(whole, list) or (isinstance(whole, dict) and "\n" in content.strip()):
        return "entry", list(enumerate(whole if isinstance(whole, list) else [whole], 1))
    return "line", [(i, _parsed(line)) for i, line in enumerate(content.split("\n"), 1) if line.strip()]


def starts_with_object(content: str) -> bool:
    """Whether the first line is a JSON object, as in JSON lines."""
    return isinstance(_parsed(content.strip().split("\n", 1)[0]), dict)


def _parsed(content: str) -> Any:
    """The JSON value, or None where it is not JSON."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return whole_text(value).strip()
    if isinstance(value, list | dict):
        return "[…]" if value else ""  # such a column is not read
    return "" if value is None or value != value else json.dumps(value)  # pandas writes NaN for what is missing
