"""Values within objects by a dotted name, such as "data.review.body"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from forgetlab.errors import unknown
from forgetlab.sources.tables import Column

DEEPEST = 8  # objects within objects that are looked into for a name


def with_dotted(rows: Sequence[Mapping[str, Any]], asked: Iterable[Column]) -> Sequence[Mapping[str, Any]]:
    """The rows with a column for each dotted name that was asked for: "a.b" is {"a": {"b": …}}, "a.0" a list's first.

    >>> with_dotted([{"data": {"review": "good"}}], ["data.review"])[0]["data.review"]
    'good'
    """
    for name in asked:
        if isinstance(name, str) and "." in name and not any(name in row for row in rows):
            within = [_within(row, name) for row in rows]
            if all(value is None for value in within):
                raise unknown("column", name, dict.fromkeys(n for row in rows[:100] for n, _ in dotted(row)))
            rows = [{**row, name: value} for row, value in zip(rows, within, strict=True)]
    return rows


def _within(value: Any, name: str) -> Any:
    for part in name.split("."):
        if isinstance(value, list) and part.isdecimal():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            value = value.get(part) if isinstance(value, Mapping) else None
    return value


def dotted(row: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The names and values of a row, and of what is within its objects."""
    for name, value in row.items():
        yield before + name, value
        if isinstance(value, Mapping) and before.count(".") < DEEPEST:
            yield from dotted(value, f"{before}{name}.")
