"""The lessons as pages to read: terms with tips, questions that answer, code that is folded. An extension of Sphinx."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from book.reading import cells, formulas, glossary, terms

STATIC = Path(__file__).parent / "static"
LESSON = re.compile(r"(\d\d)_\w+")
SCRIPTS = ("glossary.js", "reading.js", "questions.js")  # the first is written here


def setup(app: Any) -> dict[str, bool]:
    """As Sphinx asks of an extension."""
    app.connect("config-inited", lambda _, config: config.html_static_path.append(str(STATIC)))
    app.connect("builder-inited", _with_definitions)
    app.connect("source-read", _with_cells)
    app.connect("doctree-resolved", _with_terms)
    app.add_css_file("reading.css")
    for script in SCRIPTS:
        app.add_js_file(script, loading_method="defer")
    cells.name_folds(app)
    formulas.add(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _with_definitions(app: Any) -> None:
    folder = Path(app.outdir) / "_static"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SCRIPTS[0]).write_text(glossary.script(), encoding="utf-8")


def _with_cells(app: Any, docname: str, source: list[str]) -> None:
    if LESSON.fullmatch(docname):
        source[0] = cells.as_book(source[0])


def _with_terms(app: Any, doctree: Any, docname: str) -> None:
    if found := LESSON.fullmatch(docname):
        terms.mark(doctree, found[1], app.builder.get_relative_uri(docname, glossary.PAGE))
