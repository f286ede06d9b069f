"""The terms of the field, each at three levels of expertise; `data/glossary/terms.json` holds them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape

import ipywidgets as widgets

from forgetlab.errors import one_of, unknown
from forgetlab.sources.shipped import data_folder
from forgetlab.teaching import compat
from forgetlab.teaching.notebook import Living

LEVELS = ("beginner", "practitioner", "expert")


@dataclass(frozen=True)
class Term:
    """One term. beginner, practitioner, expert: its definition for each; source: where it comes from.

    lessons: the numbers of the lessons that use it. upto: the highest level that is still offered it; a beginner
    sees all terms, an expert only those that are not plain to an expert.
    """

    term: str
    beginner: str
    practitioner: str
    expert: str
    source: str
    lessons: tuple[str, ...]
    upto: str = "expert"

    def at(self, level: str) -> str:
        """The definition for a level."""
        return {"beginner": self.beginner, "practitioner": self.practitioner, "expert": self.expert}[level]


@cache
def glossary() -> tuple[Term, ...]:
    """All terms, in alphabetical order."""
    file = data_folder() / "glossary" / "terms.json"
    entries = json.loads(file.read_text(encoding="utf-8"))["terms"]
    made = [Term(**{**entry, "lessons": tuple(entry["lessons"])}) for entry in entries]
    return tuple(sorted(made, key=lambda term: term.term.casefold()))


def offered(level: str, lesson: str | None = None) -> list[Term]:
    """The terms that a level is offered, of one lesson ("00" to "13") or of all."""
    one_of("level", level, LEVELS)
    known = sorted({number for term in glossary() for number in term.lessons})
    if lesson is not None and lesson not in known:
        raise unknown("lesson", lesson, known)
    return [
        term
        for term in glossary()
        if (lesson is None or lesson in term.lessons) and LEVELS.index(level) <= LEVELS.index(term.upto)
    ]


class Terms(Living):
    """A level selector and the terms it offers: hover for the definition, or tap to unfold it."""

    def __init__(self, lesson: str | None, level: str = "beginner") -> None:
        self.lesson = lesson
        self.level = compat.choice("level", level, LEVELS)
        self.listed = widgets.HTML()
        self.level.observe(lambda _: self._show(), "value")
        super().__init__([self.level, self.listed])
        self._show()

    def still(self) -> dict[str, str]:
        words = offered("beginner", self.lesson)
        return {
            "text/plain": "\n".join(f"{term.term}: {term.beginner}" for term in words),
            "text/html": folded(words, "beginner"),
        }

    def _show(self) -> None:
        level = str(self.level.value)
        words = offered(level, self.lesson)
        self.listed.value = folded(words, level) if words else "<p>No term here is new to this level.</p>"


def terms(lesson: str, level: str = "beginner") -> Terms:
    """The terms of a lesson ("00" to "13") as a widget with a level selector."""
    return Terms(lesson, level)


def table(level: str = "beginner") -> Terms:
    """All terms of the handbook as a widget with a level selector."""
    return Terms(None, level)


def folded(words: Sequence[Term], level: str) -> str:
    """Terms as HTML: each unfolds to its definition and source, and shows it when the mouse rests on it."""
    return "".join(
        f'<details style="display:inline-block;vertical-align:top;margin:0 14px 4px 0;max-width:640px">'
        f'<summary title="{escape(term.at(level))}" style="cursor:help;text-decoration:underline dotted">'
        f"{escape(term.term)}</summary>"
        f'<p style="line-height:1.4;margin:2px 0 6px 12px">{escape(term.at(level))} '
        f"<small>({escape(term.source)})</small></p></details>"
        for term in words
    )
