"""The glossary as a page of the book, where every underlined term leads, and as a script for the tips."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import escape
from itertools import groupby

from docutils.nodes import make_id

from forgetlab.teaching.glossary import LEVELS, Term, glossary

PAGE = "glossary"
OWN = "this handbook"  # as a source: of no tip
HEAD = """# The terms, at three levels

Every underlined word of the lessons leads here. Choose at the head of a page for whom the tips explain it; here all
three explanations stand.
"""


def place(term: Term) -> str:
    """Its id on the page."""
    return f"term-{make_id(term.term)}"


def page(lessons: Mapping[str, str]) -> str:
    """The page as Markdown. lessons: {number of a lesson: name of its file}."""
    parts = [HEAD]
    for letter, found in groupby(glossary(), key=lambda term: term.term[0].upper()):
        parts.append(f"## {letter}\n")
        parts += [_entry(term, lessons) for term in found]
    return "\n".join(parts)


def _entry(term: Term, lessons: Mapping[str, str]) -> str:
    told = "".join(f'<dt class="{level}">{level}</dt><dd>{formatted(term.at(level))}</dd>' for level in LEVELS)
    where = ", ".join(f"[{number}]({lessons[number]})" for number in term.lessons)
    source = term.source.replace("*", r"\*")
    return (
        f"({place(term)})=\n### {term.term}\n\n<dl class='forgetlab-levels'>{told}</dl>\n\n"
        f"Source: {source}. In the lessons {where}.\n"
    )


def formatted(words: str) -> str:
    """A definition as HTML; what stands between ` is code."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(words))


def script() -> str:
    """{id: {term, upto, level: definition, source}} as a script, since a page from a file can load no data."""
    told = {
        place(term): {
            "term": escape(term.term),
            "upto": term.upto,
            "source": escape(term.source) if term.source != OWN else "",
            **{level: formatted(term.at(level)) for level in LEVELS},
        }
        for term in glossary()
    }
    start = (
        "(globalThis.forgetlab ??= {records: {}, simulated: {}}).glossary = "  # as the player begins, whoever is first
    )
    return f"{start}{json.dumps(told, ensure_ascii=False)};\n"
