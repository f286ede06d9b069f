"""A table of named columns, and the choice of those that hold the texts, second sentences and labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from forgetlab.errors import ForgetlabError, unknown
from forgetlab.sources.examples import Examples, Kind
from forgetlab.sources.notes import count

Column = str | int | None
Rows = list[tuple[int, list[str]]]  # with the line that each row starts on

MOST_CLASSES = 50  # a column with more distinct values is not taken for labels unless it is named so

# Usual column names, the most telling first; compared without case, spaces and punctuation.
TEXT_NAMES = (
    "text sentence review reviewtext content tweet comment message body description document passage "
    "question query utterance premise sentence1 question1 text1 texta sentencea headline title"
)
LABEL_NAMES = (
    "labeltext labelname goldlabel label labels sentiment class category target polarity tag topic intent "
    "emotion stars rating score y"
)
PAIR_NAMES = [
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("texta", "textb"),
    ("sentencea", "sentenceb"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "passage"),
]
USUAL_NAMES = {*TEXT_NAMES.split(), *LABEL_NAMES.split(), *(name for names in PAIR_NAMES for name in names)}


@dataclass
class Table:
    """Rows of stripped cells, as many in each row as there are names."""

    names: list[str]  # "0", "1", … where there is no header
    rows: Rows
    notes: list[str]
    header: bool = True
    nested: frozenset[str] = frozenset()  # columns that hold lists or objects (JSON)
    unit: str = "line"  # what the rows are numbered by

    def column(self, index: int) -> list[str]:
        return [row[index] for _, row in self.rows]

    def find(self, asked: Column) -> int | None:
        """The number of the column that was asked for by name or number."""
        if asked is None:
            return None
        if str(asked) in self.names:
            return self.names.index(str(asked))
        if str(asked).isdecimal() and int(asked) < len(self.names):
            return int(asked)
        if (index := self.usual([fold_name(str(asked))])) is not None:
            return index
        error = unknown("column", asked, self.names)
        raise error if self.header else ForgetlabError(f"{error} (no header row seen: columns have numbers)")

    def usual(self, names: Iterable[str], taken: Sequence[int | None] = ()) -> int | None:
        """The first column with one of these folded names, the first name first."""
        folded = [fold_name(name) for name in self.names]
        return next((i for n in names for i, f in enumerate(folded) if f == n and i not in taken), None)


def fold_name(name: str) -> str:
    """A column name without case, spaces and punctuation."""
    return re.sub(r"[\W_]+", "", name.lower())


def is_number(cell: str) -> bool:
    """Whether the cell is a number, with a decimal point or comma."""
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True


def usual_width(rows: Rows) -> int:
    """The number of cells that most rows have, 0 without rows."""
    return Counter(len(row) for _, row in rows).most_common(1)[0][0] if rows else 0


def examples_in(path: Path, table: Table, text: Column, label: Column, pair: Column, kind: Kind | None) -> Examples:
    """The examples in the columns asked for, or else in the likeliest ones; rows with an empty cell left out.

    Raises ForgetlabError where the table has no column for what was asked, or one of lists or objects.
    """
    names, notes = table.names, table.notes
    at_text, at_pair, at_label = _columns(path, table, text, label, pair, kind)
    chosen = [i for i in (at_text, at_pair, at_label) if i is not None]
    if len({*chosen}) < len(chosen):
        raise ForgetlabError(f"{path}: text, label and pair must be different columns among {_listed(names)}")
    for i in chosen:
        if names[i] in table.nested:
            raise ForgetlabError(f"{path}: column {names[i]!r} holds lists or objects; expected plain strings")
    full = [row for _, row in table.rows if all(row[i] for i in chosen)]
    empty = [line for line, row in table.rows if not all(row[i] for i in chosen)]
    if empty:
        what = " or ".join(names[i] for i in chosen)
        notes.append(f"{count(len(empty), 'row')} with empty {what} skipped (first: {table.unit} {empty[0]})")

    for i in dict.fromkeys(chosen):
        if names.count(names[i]) > 1:
            notes.append(f"{names.count(names[i])} columns are called {names[i]!r}: the first is read")
    if at_label is not None and _is_measure([row[at_label] for row in full]):
        raise ForgetlabError(
            f"{path}: column {names[at_label]!r} holds numbers of many values, such as {full[0][at_label]}, and only "
            "classes are learned here: round it to a few values, name another label column, or give kind=text (--kind)"
        )

    def column(i: int | None) -> tuple[str, ...] | None:
        return None if i is None else tuple(row[i] for row in full)

    given: Kind = "text" if at_label is None else "labelled" if at_pair is None else "pairs"
    return Examples(given, column(at_text) or (), column(at_pair), column(at_label), notes=tuple(notes))


def _is_measure(labels: Sequence[str]) -> bool:
    """Whether labels are something measured rather than classes: fractions, and too many of them to recur much."""
    values = {*labels}
    if not all(map(is_number, values)) or all(float(v.replace(",", ".")).is_integer() for v in values):
        return False
    return len(values) > MOST_CLASSES or 2 * len(values) > len(labels)


def _columns(
    path: Path, table: Table, text: Column, label: Column, pair: Column, kind: Kind | None
) -> tuple[int, int | None, int | None]:
    """The numbers of the columns of texts, second sentences and labels: as asked, else by name, else a guess."""
    names = table.names

    def missing(what: str, option: str) -> ForgetlabError:
        lists = " (lists and objects are not read)" if table.nested else ""
        return ForgetlabError(
            f"{path}: no {what} among {_listed(names)}{lists}; name it: {option}=NAME, --{option} NAME"
        )

    at_text, at_label, at_pair = table.find(text), table.find(label), table.find(pair)
    if text is None and pair is None and kind in (None, "pairs"):
        found = [(table.usual([first]), table.usual([second])) for first, second in PAIR_NAMES]
        at_text, at_pair = next((places for places in found if None not in places), (None, None))
    if at_text is None:
        at_text = table.usual(TEXT_NAMES.split(), (at_label, at_pair))
    if at_text is None:
        free = [i for i in range(len(names)) if i not in (at_label, at_pair) and names[i] not in table.nested]
        if not free:
            raise missing("text column", "text")
        at_text = max(free, key=lambda i: sum(map(len, table.column(i))))
        if len(free) > 1:
            table.notes.append(f"text column {names[at_text]!r}: it has the longest texts")
    if at_label is None and kind != "text":
        at_label = table.usual(LABEL_NAMES.split(), (at_text, at_pair))
        if at_label is None and (at_label := _few_valued(table, (at_text, at_pair))) is not None:
            table.notes.append(f"label column {names[at_label]!r}: it has few different values")
    if kind == "pairs" and at_pair is None:
        raise missing("second sentence", "pair")
    if at_label is None and (kind in ("labelled", "pairs") or pair is not None):
        raise missing("label column", "label")
    return at_text, None if at_label is None or kind == "labelled" else at_pair, at_label


def _few_valued(table: Table, taken: Sequence[int | None]) -> int | None:
    """The column that looks most like labels: few values, each used again; names rather than numbers."""
    ranks = []
    for i, name in enumerate(table.names):
        values = {*table.column(i)} - {""}
        recur = 2 <= len(values) <= MOST_CLASSES and 2 * len(values) <= len(table.rows)
        if recur and i not in taken and name not in table.nested:
            ranks.append((all(map(is_number, values)), len(values), i))
    return min(ranks)[2] if ranks else None


def _listed(names: list[str]) -> str:
    return ", ".join([repr(name[:30]) for name in names[:10]] + ["…"] * (len(names) > 10))
