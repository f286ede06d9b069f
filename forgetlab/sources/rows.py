"""Rows of named values, from the hub or a Parquet file, as examples of whatever kind they hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from forgetlab.errors import ForgetlabError, one_of, shown
from forgetlab.sources.conversations import conversations
from forgetlab.sources.dotted import with_dotted
from forgetlab.sources.examples import Examples, Kind
from forgetlab.sources.notes import count
from forgetlab.sources.tables import Column, Table, examples_in, fold_name
from forgetlab.sources.tagged_rows import tagged

LONGEST = 100_000  # characters of one text: beyond, it is cut
CHAT = (None, "chat", "completions", "text")  # the kinds that conversations can make


@dataclass(frozen=True)
class Wanted:
    """The columns that were asked for, and the kind of examples."""

    text: Column = None
    label: Column = None
    pair: Column = None
    prompt: Column = None
    answer: Column = None
    kind: Kind | None = None

    def columns(self) -> tuple[Column, ...]:
        """All of them, asked for or not."""
        return (self.text, self.label, self.pair, self.prompt, self.answer)

    def may_be_chat(self) -> bool:
        """Whether rows of conversations would be what is wanted."""
        given = self.kind in ("chat", "completions") or (self.prompt, self.answer) != (None, None)
        return given or (self.kind in CHAT and self.label is None and self.pair is None)


def chats_in(where: Path, rows: Sequence[tuple[int, Mapping[str, Any]]], unit: str, wanted: Wanted) -> Examples | None:
    """The rows as conversations or completions, where they are and may be; else None."""
    if not wanted.may_be_chat() or (wanted.kind == "text" and wanted.text is not None):
        return None
    named = {"text": wanted.text, "prompt": wanted.prompt, "answer": wanted.answer}
    return conversations(where, rows, unit, kind=wanted.kind, **named)


def from_rows(rows: Iterable[Mapping[str, Any]], **wanted: Any) -> Examples:
    """Examples from rows of your own: a list of dicts, as in a file of JSON lines, or a `datasets.Dataset`.

    wanted: text, label, pair, prompt, answer, kind, as in `read`. Raises ForgetlabError where `read` would.

    >>> ask, say = {"role": "user", "content": "two and two?"}, {"role": "assistant", "content": "four"}
    >>> from_rows([{"messages": [ask, say]}]).turns[0][1]
    Turn(role='assistant', text='four', scored=True)
    """
    for name in wanted:
        one_of("option", name, [field.name for field in fields(Wanted)])
    listed = list(rows)
    if odd := next((row for row in listed if not isinstance(row, Mapping)), None):
        raise ForgetlabError(f"rows must be dicts such as {{'text': '…', 'label': '…'}}, got {shown(odd)}")
    found = of_rows(Path("rows"), listed, getattr(rows, "features", None) or {}, Wanted(**wanted))
    if not len(found):
        raise ForgetlabError(f"no examples found ({'; '.join(found.notes) or 'there are no rows'})")
    return found


def of_rows(where: Path, rows: Sequence[Mapping[str, Any]], features: Any, wanted: Wanted) -> Examples:
    """The examples in rows of named values. features: the columns; those of `datasets` know the names of classes."""
    rows = with_dotted(rows, wanted.columns())
    if (found := chats_in(where, [*enumerate(rows, 1)], "row", wanted)) is not None:
        return found
    features = {**dict.fromkeys(name for row in rows for name in row), **features}
    if (found := tagged(where, rows, features, wanted.text, wanted.label, wanted.kind)) is not None:
        return found
    table = _table(where, rows, features, (wanted.text, wanted.label, wanted.pair))
    return examples_in(where, table, wanted.text, wanted.label, wanted.pair, wanted.kind)


def _table(where: Path, rows: Sequence[Mapping[str, Any]], features: Any, asked: Sequence[Column]) -> Table:
    """The rows as text, class numbers as their names."""
    columns = list(features)
    nested = frozenset(c for c in columns if rows and isinstance(rows[0].get(c), list | dict))
    classes = {c: names for c in columns if (names := getattr(features[c], "names", None))}
    if asked[1] in columns and str(getattr(features[asked[1]], "dtype", "")).startswith("float"):
        raise ForgetlabError(f"{where}: {asked[1]!r} holds real numbers, a regression; expected classes")
    table = Table(columns, [], [], nested=nested, unit="row")
    label = table.find(asked[1])
    at = label if label is not None else next((i for i, c in enumerate(columns) if fold_name(c) == "label"), None)
    hidden = cut = 0
    for number, row in enumerate(rows):
        cells = []
        for column in columns:
            value = row.get(column)
            if column in classes and isinstance(value, int):
                value = classes[column][value] if value >= 0 else None
            text = "" if value is None else str(value).strip()
            cut += len(text) > LONGEST
            cells.append(text[:LONGEST])
        if at is not None and columns[at] in classes and not cells[at]:
            hidden += 1
            continue
        table.rows.append((number, cells))
    if hidden:
        table.notes.append(f"{count(hidden, 'row')} without a label left out")
    if cut:
        table.notes.append(f"{count(cut, 'text')} longer than {LONGEST:,} characters cut")
    return table
