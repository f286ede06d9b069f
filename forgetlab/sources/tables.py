"""A table of named columns, and the choice of those that hold the texts, second sentences and labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from forgetlab.errors import ForgetlabError, unknown
from forgetlab.sources.examples import Examples, Kind
from forgetlab.sources.notes import count

Column = str | int | None
Rows = list[tuple[int, list[str]]]  # with the line that each row starts on

MOST_CLASSES = 50  # a column with more distinct values is not taken for labels unless it is named so
MOST_COLUMNS = 10_000  # a table of texts and labels has fewer
FEW_EMPTY, MOSTLY_EMPTY = 0.05, 0.5  # shares of rows: what a guessed column may lack; what makes it no column of labels

# Usual column names, the most telling first; compared without case, spaces and punctuation.
TEXT_NAMES = (
    "text sentence review reviewtext content tweet comment message body description document passage "
    "question query utterance premise sentence1 question1 text1 texta sentencea headline title"
)
LABEL_NAMES = (
    "labeltext labelname goldlabel label labels sentiment class category target polarity tag topic intent "
    "emotion stars rating score y"
)
PAIR_NAMES = (
    "premise hypothesis, sentence1 sentence2, question1 question2, text1 text2, texta textb, sentencea sentenceb, "
    "question sentence, question passage, query passage"
)
# two columns of which the second answers the first, or one of whole conversations
ANSWER_NAMES = (
    *("prompt completion", "prompt response", "instruction output", "instruction response", "chosen rejected"),
    *("messages", "conversations"),
)
SUCH = (
    '{"text": "…", "label": "…"}, {"tokens": […], "ner_tags": […]}, {"messages": […]} or {"prompt": "…", '
    '"completion": "…"}'
)
OTHERS = ", or kind=text for texts alone, or prompt=NAME,answer=NAME for answers"
USUAL_NAMES = {*TEXT_NAMES.split(), *LABEL_NAMES.split(), *PAIR_NAMES.replace(",", "").split()}


@dataclass
class Table:
    """Rows of stripped cells, as many in each row as there are names."""

    names: list[str]  # "0", "1", … where there is no header
    rows: Rows
    notes: list[str]
    header: bool = True
    nested: frozenset[str] = frozenset()  # columns that hold lists or objects (JSON)
    within: str = ""  # the dotted name of a text within an object
    unit: str = "line"  # what the rows are numbered by

    def column(self, index: int) -> list[str]:
        """The cells of a column."""
        return [row[index] for _, row in self.rows]

    @cached_property
    def folded(self) -> list[str]:
        return [fold_name(name) for name in self.names]

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
        places = ((n, i) for n in names if n in self.folded for i, f in enumerate(self.folded) if f == n)
        return next((i for _, i in places if i not in taken), None)

    def empty(self, index: int) -> float:
        """The share of rows that have nothing in a column."""
        return sum(not row[index] for _, row in self.rows) / max(1, len(self.rows))


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

    Raises ForgetlabError where the table has no column for what was asked, or one of lists or objects, where nothing
    tells which of several columns holds the labels, and where a guess would cost rows.
    """
    names, notes = table.names, table.notes
    too_wide(path, len(names))
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
        _check_guess(path, table, [(at_text, text, "text"), (at_label, label, "label")], len(empty))
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


def too_wide(path: Path, columns: int) -> None:
    """Raise ForgetlabError for more columns than a table of texts has."""
    if columns > MOST_COLUMNS:
        raise ForgetlabError(
            f"{path}: {columns:,} columns; expected a table of texts and labels, of {MOST_COLUMNS:,} columns at most"
        )


def _check_guess(path: Path, table: Table, chosen: Iterable[tuple[int | None, Column, str]], lost: int) -> None:
    """Raise ForgetlabError where a column that nobody named is the reason why many rows are left out.

    One with a usual name may lack half of its cells (some texts have no label yet), a guess hardly any.
    """
    for i, asked, what in chosen:
        if i is None or asked is not None:
            continue
        share, named = table.empty(i), table.folded[i] in USUAL_NAMES and table.header
        if share > MOSTLY_EMPTY or (not named and share * len(table.rows) > 1 + FEW_EMPTY * len(table.rows)):
            raise ForgetlabError(
                f"{path}: column {table.names[i]!r} looks like the {what} but is empty in {share:.0%} of "
                f"{count(len(table.rows), 'row')}, and {lost} would be left out; name the {what} column among "
                f"{_listed(table.names)}: {what}=NAME, --{what} NAME"
            )


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

    def missing(what: str, option: str, other: str = "") -> ForgetlabError:
        lists = " (lists and objects are not read)" if table.nested else ""
        lists = f" (what is within objects has a dotted name: {option}={table.within})" if table.within else lists
        return ForgetlabError(
            f"{path}: no {what} among {_listed(names)}{lists}; name it: {option}=NAME, --{option} NAME{other}"
        )

    at_text, at_label, at_pair = table.find(text), table.find(label), table.find(pair)
    if text is None and pair is None and kind in (None, "pairs"):
        found = [
            (table.usual([first]), table.usual([second])) for first, second in map(str.split, PAIR_NAMES.split(","))
        ]
        at_text, at_pair = next((places for places in found if None not in places), (None, None))
    if at_text is None:
        at_text = table.usual(TEXT_NAMES.split(), (at_label, at_pair))
    if at_text is None:
        free = [i for i in range(len(names)) if i not in (at_label, at_pair) and names[i] not in table.nested]
        if not free:
            raise missing("text column", "text", f"; expected rows such as {SUCH}")
        at_text = max(free, key=lambda i: sum(map(len, table.column(i))))
        if len(free) > 1:
            table.notes.append(f"text column {names[at_text]!r}: it has the longest texts")
    if at_label is None and kind != "text":
        at_label = _usual_label(table, (at_text, at_pair))
        if at_label is None and (at_label := _few_valued(path, table, (at_text, at_pair))) is not None:
            table.notes.append(f"label column {names[at_label]!r}: it has few different values")
    if kind == "pairs" and at_pair is None:
        raise missing("second sentence", "pair")
    plain = sum(name not in table.nested for name in names)
    if at_label is None and (kind in ("labelled", "pairs") or pair is not None or (kind is None and plain > 1)):
        raise missing("label column", "label", "" if kind or pair is not None else OTHERS)
    return at_text, None if at_label is None or kind == "labelled" else at_pair, at_label


def _usual_label(table: Table, taken: Sequence[int | None]) -> int | None:
    """The column with the most telling name, one that is mostly empty only where there is no other."""
    found = [i for name in LABEL_NAMES.split() for i, f in enumerate(table.folded) if f == name and i not in taken]
    found.sort(key=lambda i: table.empty(i) > MOSTLY_EMPTY)
    if len(found) > 1:
        others = ", ".join(repr(table.names[i]) for i in found[1:5])
        table.notes.append(f"label column {table.names[found[0]]!r}, by its name; not {others}")
    return found[0] if found else None


def _few_valued(path: Path, table: Table, taken: Sequence[int | None]) -> int | None:
    """The one column that looks like labels: few values, each used again, hardly a cell empty.

    Raises ForgetlabError where several do: a guess between them would be right by luck.
    """
    found = {}
    for i, name in enumerate(table.names):
        values = {*table.column(i)} - {""}
        recur = 2 <= len(values) <= MOST_CLASSES and 2 * len(values) <= len(table.rows)
        if recur and i not in taken and name not in table.nested and table.empty(i) <= MOSTLY_EMPTY:
            found[i] = values
    if len(found) > 1:
        told = [
            f"{table.names[i]!r} ({', '.join(sorted(values)[:3])}{', …' if len(values) > 3 else ''})"
            for i, values in [*found.items()][:5]
        ]
        raise ForgetlabError(
            f"{path}: the labels may be in any of {len(found)} columns: {', '.join(told)}; name one: label=NAME, "
            "--label NAME, or give kind=text for the texts alone"
        )
    return next(iter(found), None)


def _listed(names: list[str]) -> str:
    return ", ".join([repr(name[:30]) for name in names[:10]] + ["…"] * (len(names) > 10))
