"""Tables in JSON: a list of objects or strings, or one of them per line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from forgetlab.sources.notes import skipped
from forgetlab.sources.tables import Table


def json_table(path: Path, content: str) -> Table:
    """The objects, with a column for each of their keys."""
    whole = _parsed(content)
    if isinstance(whole, list | dict):
        unit, items = "entry", list(enumerate(whole if isinstance(whole, list) else [whole], 1))
    else:
        lines = enumerate(content.split("\n"), 1)
        unit, items = "line", [(i, _parsed(line)) for i, line in lines if line.strip()]
    items = [(i, {"text": item} if isinstance(item, str) else item) for i, item in items]
    objects = [(i, item) for i, item in items if isinstance(item, dict)]
    bad = [i for i, item in items if not isinstance(item, dict)]
    notes = skipped(path, bad, len(items), unit, 'objects such as {"text": "…", "label": "…"}')
    names = list(dict.fromkeys(name for _, item in objects for name in item))
    nested = frozenset(name for _, item in objects for name, value in item.items() if isinstance(value, list | dict))
    rows = [(i, [_cell(item.get(name)) for name in names]) for i, item in objects]
    return Table(names, rows, notes, nested=nested, unit=unit)


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
    if isinstance(value, str):  # JSON allows half a surrogate pair, which is no text
        return re.sub("[\ud800-\udfff]", "\ufffd", value).strip()
    return "" if value is None or value != value else json.dumps(value)  # pandas writes NaN for what is missing
