"""Rows of conversations, prompts with completions, instructions and preferences, found by their columns' names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from forgetlab.errors import ForgetlabError, unknown
from forgetlab.sources import answers
from forgetlab.sources.examples import Examples, Kind
from forgetlab.sources.messages import LeftOut, Turn, is_messages, plain_layout
from forgetlab.sources.notes import count
from forgetlab.sources.tables import Column, fold_name

Rows = Sequence[tuple[int, Mapping[str, Any]]]  # each with the line or entry that it is
Columns = dict[str, str]  # what a column means → its name

NAMES = {  # compared without case, spaces and punctuation
    "messages": ("messages", "conversations", "conversation"),
    "prompt": ("prompt",),
    "completion": ("completion", "response"),
    "instruction": ("instruction",),
    "input": ("input", "context"),
    "output": ("output", "response"),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "system": ("system", "systemprompt"),
    "label": ("label",),
}
# form → the columns that make it, those that it reads too, its reader; the first that fits
FORMS: dict[str, tuple[tuple[str, ...], tuple[str, ...], answers.Reader]] = {
    "chosen and rejected": (("chosen", "rejected"), ("prompt", "system"), answers.of_preference),
    "messages": (("messages",), ("system", "tools", "functions"), answers.of_messages),
    "prompt and completion": (("prompt", "completion"), ("system", "label"), answers.of_completion),
    "instruction and output": (("instruction", "output"), ("input", "system"), answers.of_instruction),
}
SUCH = {
    "chosen and rejected": '{"prompt": "…", "chosen": "…", "rejected": "…"}',
    "messages": '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}',
    "prompt and completion": '{"prompt": "…", "completion": "…"}',
    "instruction and output": '{"instruction": "…", "input": "…", "output": "…"}',
}


def conversations(
    where: Path,
    rows: Rows,
    unit: str = "row",
    *,
    text: Column = None,
    prompt: Column = None,
    answer: Column = None,
    kind: Kind | None = None,
) -> Examples | None:
    """The rows as examples of kind "chat" or "completions"; None where they are of another kind and none was asked for.

    Turns make a chat. Strings of a prompt and a completion are joined as they are, unless kind="chat" makes turns of
    them; an instruction with its output is a chat, unless kind="completions". Of preferences the chosen side is what is
    learned, the other is in `rejected`. text: the column of messages, prompt, answer: the columns of these two, where
    they have other names. kind="text": each row whole, as plain text.
    Raises ForgetlabError for rows of several forms in one file, and where most rows cannot be read.
    """
    rows = _from_strings(where, rows, unit)
    asked = prompt is not None or answer is not None
    columns = _columns(where, rows, text, prompt, answer)
    if kind is None and not asked and "label" not in columns and any("label" in row for _, row in rows[:1]):
        return None  # texts with classes
    forms = [_form(row, columns) for _, row in rows]
    found = Counter(form for form in forms if form)
    if kind not in ("chat", "completions") and not asked and 2 * found.total() <= len(rows):
        if text is None and found["messages"]:  # nothing else holds lists of messages
            first = rows[forms.index("messages")][0]
            raise ForgetlabError(
                f"{where}: rows of several kinds: {found['messages']} with messages (first: {unit} {first}), "
                f"{len(rows) - found['messages']} without; part it into files of one kind each"
            )
        return None
    if not found:
        raise ForgetlabError(f"{where}: no row is of kind {kind}; expected rows such as {' or '.join(SUCH.values())}")
    if len(found) > 1:
        told = [f"{found[form]} with {form} (first: {unit} {rows[forms.index(form)][0]})" for form in found]
        raise ForgetlabError(f"{where}: rows of several kinds: {', '.join(told)}; part it into files of one kind each")
    (form,) = found
    if form == "messages" and kind == "completions":
        raise ForgetlabError(f"{where}: its rows are conversations, not completions: leave the kind out, or kind=chat")
    sides, notes = _read(where, rows, unit, form, columns, kind)
    one, *other = (_examples(where, side, kind) for side in zip(*sides, strict=True))
    return replace(one, notes=tuple(notes), rejected=other[0] if other and kind != "text" else None)


def _from_strings(where: Path, rows: Rows, unit: str) -> Rows:
    """The rows with messages as lists where a table holds them as strings of JSON.

    Raises ForgetlabError where these are no JSON, such as what pandas writes of Python's lists.
    """
    places = [(i, key) for i, (_, row) in enumerate(rows) for key, value in row.items() if _is_string_of(key, value)]
    found, bad = [(number, dict(row)) for number, row in rows], 0
    for i, key in places:
        try:
            found[i][1][key] = json.loads(found[i][1][key])
        except (ValueError, RecursionError):
            bad += 1
    if bad and 2 * bad > len(places):
        number, key = rows[places[0][0]][0], places[0][1]
        raise ForgetlabError(
            f"{where}, {unit} {number}: {key!r} holds messages as a string that is no JSON; write them as JSON lines, "
            "with pandas by df.to_json(FILE, orient='records', lines=True)"
        )
    return found if places else rows


def _is_string_of(key: str, value: Any) -> bool:
    return isinstance(value, str) and fold_name(key) in NAMES["messages"] and value.lstrip()[:1] == "["


def _columns(where: Path, rows: Rows, text: Column, prompt: Column, answer: Column) -> Columns:
    """Which column means what: as asked, else by its usual name."""
    keys = list(dict.fromkeys(key for _, row in rows for key in row))
    folded: dict[str, str] = {}
    for key in keys:
        folded.setdefault(fold_name(key), key)

    def column(name: Column) -> str:
        known = name if name in keys else folded.get(fold_name(str(name)))
        if known is None and str(name).isdecimal() and int(str(name)) < len(keys):
            known = keys[int(str(name))]
        if known is None:
            raise unknown("column", name, keys)
        return str(known)

    if text is not None:
        return {"messages": column(text)} if column(text) and _holds_messages(rows, column(text)) else {}
    usual = {what: next((folded[n] for n in names if n in folded), "") for what, names in NAMES.items()}
    usual = {what: name for what, name in usual.items() if name}
    for what, kind in (("messages", list), ("label", bool)):  # others are texts and classes
        if what in usual and not any(isinstance(row.get(usual[what]), kind) for _, row in rows):
            del usual[what]
    if prompt is None and answer is None:
        return usual | {name: name for name in ("tools", "functions") if name in keys}
    both = {
        "prompt": column(prompt) if prompt is not None else usual.get("prompt", usual.get("instruction")),
        "completion": column(answer) if answer is not None else usual.get("completion", usual.get("output")),
    }
    if missing := next((what for what, name in both.items() if name is None), None):
        what = "answer" if missing == "completion" else missing
        raise ForgetlabError(f"{where}: no {what} among {', '.join(map(repr, keys[:10]))}; name it: {what}=NAME")
    return {what: str(name) for what, name in both.items()} | {k: usual[k] for k in ("system",) if k in usual}


def _holds_messages(rows: Rows, column: str) -> bool:
    return any(is_messages(row.get(column)) for _, row in rows)


def _form(row: Mapping[str, Any], columns: Columns) -> str | None:
    """The form of a row: the first whose columns all hold something."""

    def holds(what: str) -> bool:
        return what in columns and row.get(columns[what]) is not None

    return next((form for form, (needed, *_) in FORMS.items() if all(map(holds, needed))), None)


def _read(
    where: Path, rows: Rows, unit: str, form: str, columns: Columns, kind: Kind | None
) -> tuple[list[answers.Sides], list[str]]:
    """What the rows say; notes on the rows that were left out, and on what in them is not read."""
    needed, more, reader = FORMS[form]
    own = {what: columns[what] for what in (*needed, *more) if what in columns}
    sides, reasons, fields, others = [], dict[str, list[int]](), set[str](), dict[str, None]()
    for number, row in rows:
        others |= dict.fromkeys(name for name, value in row.items() if value and name not in own.values())
        try:
            if any(row.get(own[what]) is None for what in needed):
                raise LeftOut(f"no {form}")
            sides.append(reader({what: row.get(name) for what, name in own.items()}, kind, fields))
        except LeftOut as reason:
            reasons.setdefault(str(reason), []).append(number)
    notes = [
        f"{count(len(lines), 'row')} of {len(rows)} left out: {reason} (first: {unit} {lines[0]})"
        for reason, lines in sorted(reasons.items(), key=lambda item: -len(item[1]))
    ]
    if 2 * len(sides) < len(rows):
        raise ForgetlabError(f"{where}: {'; '.join(notes)}; expected rows such as {SUCH[form]}")
    if others:
        notes.append(f"read as {form}; not read: {_listed(others)}")
    if fields:
        notes.append(f"of the messages not read: {_listed(sorted(fields))}")
    return sides, notes


def _listed(names: Sequence[str] | dict[str, None]) -> str:
    return ", ".join([repr(name[:30]) for name in [*names][:8]] + ["…"] * (len(names) > 8))


def _examples(where: Path, sides: Sequence[tuple[Turn, ...]], kind: Kind | None) -> Examples:
    """One side of all rows. The text of an example is what stands before its first answer: it decides on a split."""
    plain = [turns[0].role == answers.PROMPT for turns in sides]
    if kind == "text":
        both = zip(sides, plain, strict=True)
        return Examples("text", tuple("".join(t.text for t in s) if p else plain_layout(s)[0] for s, p in both))
    if any(plain) != all(plain) or (kind == "completions" and not all(plain)):
        raise ForgetlabError(
            f"{where}: {sum(plain)} rows of strings and {len(plain) - sum(plain)} of messages: expected one of these "
            "two, or kind=chat"
        )
    before = [takewhile(lambda turn: not turn.scored, turns) for turns in sides]
    prompts = tuple("\n".join(turn.text for turn in turns) for turns in before)
    if all(plain):
        return Examples("completions", prompts, tuple(turns[1].text for turns in sides))
    return Examples("chat", prompts, turns=tuple(sides))
