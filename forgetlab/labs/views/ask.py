"""The answers of a model before and after a run, side by side as HTML tables. What was typed is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import zip_longest
from typing import Any, TypedDict

from forgetlab.plots.style import COLORS, FAINT, INK

Answer = Mapping[str, Any]  # what `asking.answer` gives, or {"refused": why}
Guess = Sequence[Any]  # (word, probability)
TAGS = "entities"  # the head that tags every word
BEFORE, AFTER = COLORS[1], COLORS[0]


class Answers(TypedDict):
    """Of the model before the run and of the one it makes."""

    before: Answer
    after: Answer


def card(source: str, content: str) -> str:
    """The frame of the page. source: "live" or "cached"."""
    return (
        f'<div style="background:#fff;color:{INK};padding:6px 8px;font-size:14px;line-height:1.35">'
        f'<div style="text-align:right;font-style:italic;color:{FAINT}">{escape(source)}</div>{content}</div>'
    )


def page(text: str, before: Answer, after: Answer, step: int, note: str = "") -> str:
    """Every answer to a sentence. step: of the model "after". note: a remark above."""
    notes = [note, *before.get("notes", ()), f"after: {after['refused']}" if "refused" in after else ""]
    parts = [f'<p style="margin:0 0 4px;overflow-wrap:anywhere"><b>“{escape(text)}”</b></p>']
    parts += [f'<p style="margin:0 0 4px;overflow-wrap:anywhere">{escape(words)}.</p>' for words in notes if words]
    heads = ("before", f"after {step} steps")
    tables = (
        f'<div style="break-inside:avoid">{table(title, heads, rows)}</div>' for title, rows in _sections(before, after)
    )
    return "".join([*parts, f'<div style="columns:2 220px;column-gap:16px">{"".join(tables)}</div>'])


def told(text: str, before: Answer, after: Answer, step: int) -> str:
    """The answers in words, for a screen reader."""
    if "refused" in after:
        return f"“{text}”, after {step} steps: {after['refused']}."
    said = []
    if "next" in before:
        said.append(f"next word {_best(before['next'])} before, {_best(after['next'])} after")
        said.append(f"it wrote “{before['continuation']}” before, “{after['continuation']}” after")
    if _in_turn(before):
        words, old, new = len(before["words"]), _right(before), _right(after)
        said.append(f"of {words} words hidden in turn it guessed {old} before, {new} after")
    else:
        for (_, old), later in zip(before.get("fills", ()), after.get("fills", ()), strict=True):
            said.append(f"the gap filled with {_best(old)} before, {_best(later[1])} after")
    for head, rows in before["heads"].items():
        later = after["heads"][head]
        if head == TAGS:
            changed = sum(old[0][0] != new[0][0] for old, new in zip(rows, later, strict=True))
            said.append(f"{changed} of {len(rows)} entity tags changed")
        else:
            said.append(f"{head} {_best(rows[0])} before, {_best(later[0])} after")
    return f"“{text}”, after {step} steps: {'; '.join(said)}."


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], first: int | None = None) -> str:
    """An HTML table. heads: of the columns after the first, in plain words; rows: label and cells, as safe HTML.

    first: width of the column of labels in per cent.
    """
    first = first or ((25 if len(heads) < 3 else 31) if max(len(row[0]) for row in rows) > 2 else 8)
    cell = "padding:2px 4px;text-align:left;vertical-align:top;overflow-wrap:anywhere;border-bottom:1px solid #e4e4e4"
    head = f'<tr><td style="{cell};width:{first}%"></td>'
    head += "".join(f'<th scope="col" style="{cell}">{escape(words)}</th>' for words in heads) + "</tr>"
    lines = "".join(
        f'<tr><th scope="row" style="{cell};font-weight:normal">{label}</th>'
        + "".join(f'<td style="{cell}">{part}</td>' for part in cells)
        + "</tr>"
        for label, *cells in rows
    )
    return (
        '<table style="width:100%;table-layout:fixed;border-collapse:collapse;margin:0 0 10px">'
        f'<caption style="text-align:left;font-weight:bold;padding:4px 0;color:{INK}">{escape(title)}</caption>'
        f"{head}{lines}</table>"
    )


def _sections(before: Answer, after: Answer) -> Iterable[tuple[str, list[Sequence[str]]]]:
    """(title, rows of (label, cell before, cell after)) of each table."""
    both = (before, after)
    if "next" in before:
        columns = [answer.get("next", []) for answer in both]
        yield "The next word", _ranked(*columns)
        yield "It writes on", [("", *(escape(answer.get("continuation", "–")) or "(nothing)" for answer in both))]
    fills = [answer.get("fills", []) for answer in both]
    if _in_turn(before):
        guessed: list[Sequence[str]] = [
            (escape(word), _bar(guesses[0], BEFORE, word), _bar(later[1][0] if later else None, AFTER, word))
            for (word, guesses), later in zip_longest(*fills)
        ]
        yield "Each word hidden in its turn: the best guess (✓: the word itself)", guessed
    else:
        for i, ((_, guesses), later) in enumerate(zip_longest(*fills)):
            title = "In the gap" if len(fills[0]) == 1 else f"In gap {i + 1}"
            yield title, _ranked(guesses, later[1] if later else [])
    for head, rows in before.get("heads", {}).items():
        later = after.get("heads", {}).get(head, [])
        if head == TAGS:
            pairs = zip_longest(before["words"], rows, later)
            yield "Entity tags (≠: changed)", [(escape(w), _tag(old), _tag(new, old)) for w, old, new in pairs]
        else:
            yield f"{head.capitalize()} (before: a head not yet trained)", _by_label(rows[0], later[0] if later else [])


def _in_turn(answer: Answer) -> bool:
    return "fills" in answer and not answer["gaps"]


def _right(answer: Answer) -> int:
    return sum(guesses[0][0] == word.lower() for word, guesses in answer.get("fills", ()))


def _ranked(old: Sequence[Guess], new: Sequence[Guess]) -> list[Sequence[str]]:
    pairs = enumerate(zip_longest(old, new), 1)
    return [(f"{i}.", _bar(first, BEFORE), _bar(second, AFTER)) for i, (first, second) in pairs]


def _by_label(old: Sequence[Guess], new: Sequence[Guess]) -> list[Sequence[str]]:
    after = {label: ("", p) for label, p in new}
    return [
        (escape(label), _bar(("", p), BEFORE), _bar(after.get(label), AFTER)) for label, p in sorted(map(tuple, old))
    ]


def _bar(guess: Guess | None, color: str, right: str | None = None) -> str:
    if guess is None:
        return "–"
    word, p = guess
    mark = " ✓" if right is not None and right.lower() == word else ""
    bar = f'<div style="height:5px;width:{max(1, round(100 * p))}%;background:{color}"></div>'
    return f"{escape(word)} {percent(p)}{mark}{bar}"


def _tag(guesses: Sequence[Guess] | None, before: Sequence[Guess] | None = None) -> str:
    if not guesses:
        return "–"
    tag, p = guesses[0]
    shown = f"{escape(tag)} {percent(p)}"
    return f'<b style="color:{AFTER}">≠ {shown}</b>' if before and before[0][0] != tag else shown


def _best(guesses: Sequence[Guess]) -> str:
    return f"{guesses[0][0]} {percent(guesses[0][1])}"


def percent(p: float) -> str:
    """A probability in whole per cent."""
    return f"{100 * p:.0f}\u202f%" if p >= 0.005 else "<\u202f1\u202f%"
