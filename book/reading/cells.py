"""A lesson's cells as the book has them: the set-up folded, questions and words to answer in the page, labs named."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from html import escape
from typing import Any

from book.reading.glossary import PAGE, place
from book.reading.terms import CLASS
from forgetlab.teaching.glossary import Term, glossary, offered
from forgetlab.teaching.questions import FINAL, Question, find, questions
from forgetlab.teaching.quiz import as_html

SETUP = "Set-up: adds forgetlab where it is missing, and says which versions run"
SHOWS = re.compile(
    r'(?P<ask>\bask\("(?P<id>[\w-]+)"\))|(?P<terms>\bterms\("(?P<lesson>\d\d)"\))|(?P<quiz>\bfinal_quiz\(\))'
    r"|(?P<table>\btable\(\))"
)
LAB = re.compile(r"\blabs\.(\w+)\.show\(\)")

Cell = dict[str, Any]


def as_book(notebook: str) -> str:
    """A notebook's JSON with its cells as the book has them."""
    read = json.loads(notebook)
    for cell in read["cells"]:
        if cell["cell_type"] == "code":
            _change(cell)
    return json.dumps(read)


def _change(cell: Cell) -> None:
    tags = cell["metadata"].setdefault("tags", [])
    if "setup" in tags:
        tags.append("hide-cell")
        cell["metadata"]["mystnb"] = {"code_prompt_show": SETUP, "code_prompt_hide": SETUP}
    if "exercise" in cell["metadata"]:
        _add(
            cell,
            "<p class='forgetlab-still'>An exercise: open this lesson in Jupyter to fill the gap and check it.</p>",
        )
    source = "".join(cell["source"]).strip()
    if lab := LAB.search(source):
        named = f"Still picture of the lab <i>{lab[1]}</i>: open this lesson in Jupyter to move its controls."
        _add(cell, f"<p class='forgetlab-still'>{named}</p>")
    shows = SHOWS.fullmatch(source.rpartition("\n")[2])
    if shows is None:
        return
    tags.append("remove-input")  # one call, of which the page shows more than the code says
    if shows["ask"]:
        html = question(find(shows["id"]))
    elif shows["quiz"]:
        listed = "".join(f"<li>{question(one)}</li>" for one in questions(FINAL))
        html = f"<div class='forgetlab-quiz'><ol>{listed}</ol></div>"
    else:
        html = words(offered("beginner", shows["lesson"]) if shows["terms"] else glossary())
    (output,) = cell["outputs"]
    output["data"] = {"text/html": html, "text/plain": output["data"]["text/plain"]}


def _add(cell: Cell, html: str) -> None:
    cell["outputs"].append({"output_type": "display_data", "metadata": {}, "data": {"text/html": html}})


def words(terms: Iterable[Term]) -> str:
    """Terms as a list of links; the script hides what is plain to the reader's level."""
    links = (f"<li><a class='{CLASS}' href='{PAGE}.html#{place(t)}'>{escape(t.term)}</a></li>" for t in terms)
    return f"<ul class='forgetlab-words'>{''.join(links)}</ul>"


def question(asked: Question) -> str:
    """The question to read, its answer folded, and what the script makes a form of."""
    return (
        f"<div class='forgetlab-question'>{as_html(asked)}<script type='application/json'>{data(asked)}</script></div>"
    )


def data(asked: Question) -> str:
    """The question as JSON that may stand in a page."""
    told: dict[str, Any] = {
        "id": asked.id,
        "topic": asked.topic,
        "kind": asked.kind,
        "ask": asked.ask,
        "why": asked.why,
    }
    if asked.kind == "numeric":
        told |= {"answer": asked.answer, "tolerance": asked.tolerance, "unit": asked.unit, "traps": asked.traps}
    else:
        told["options"] = [{"text": one.text, "right": one.right, "why": one.why} for one in asked.options]
    return json.dumps(told, ensure_ascii=False).replace("<", r"\u003c")


def name_folds(app: Any) -> None:
    """Folded code is called by its words: MyST-NB would tell a screen reader “Toggle hidden content”."""
    from myst_nb.sphinx_ import HideCodeCellNode, depart_HideCellInput

    def visit(writer: Any, node: Any) -> None:
        words = escape(node["prompt_show"])
        classes = " ".join(["admonition hide", *node["classes"]])
        writer.body.append(f'<details class="{classes}"><summary>{words}</summary>\n')

    app.add_node(HideCodeCellNode, override=True, html=(visit, depart_HideCellInput))
