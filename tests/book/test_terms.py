"""What the book makes of texts and cells, without a browser: which words are terms, where they lead, what is folded."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("docutils", reason="Sphinx is not installed: pip install -r requirements-book.txt")

from docutils import nodes
from docutils.core import publish_doctree
from docutils.utils.math import MathError

from book.reading import cells, formulas, glossary, terms
from forgetlab.teaching.glossary import LEVELS
from forgetlab.teaching.glossary import glossary as entries

TEXT = """
The lesson on fine-tuning
=========================

Fine tuning changes weights; **fine-tuning** is not pre‑training, but Pre-training came first. A loss-like thing.

A section on the loss
---------------------

``loss`` and `loss <elsewhere.html>`_ and :math:`loss` are none. Losses are, and the loss is met already.

* Two KL divergences, one forward KL; entropies and a perplexity ratio, not its perplexity.

.. figure:: nothing.png
   :alt: loss

   The perplexity of a figure.

Deeper, of one section
~~~~~~~~~~~~~~~~~~~~~~

The loss again, Adam’s second moment, EWC, ewc and (elastic weight consolidation).

Another
-------

The losses, the record, the task.
"""


def marked(text: str, lesson: str) -> tuple[list[tuple[str, str]], nodes.document]:
    doctree = publish_doctree(text, settings_overrides={"report_level": 5, "doctitle_xform": False})
    before = doctree.astext()
    terms.mark(doctree, lesson, "glossary.html")
    assert doctree.astext() == before  # no word is lost or changed
    found = [node for node in doctree.findall(nodes.reference) if terms.CLASS in node["classes"]]
    return [(node.astext(), node["refuri"].removeprefix("glossary.html#term-")) for node in found], doctree


def test_the_first_of_each_term_in_a_section_is_marked_the_longest_first() -> None:
    found, doctree = marked(TEXT, "13")
    assert found == [
        *(("Fine tuning", "fine-tuning"), ("weights", "weight-parameter"), ("pre‑training", "pre-training")),
        *(("Losses", "loss"), ("KL divergences", "kl-divergence"), ("forward KL", "kl-direction-forward-reverse")),
        *(("entropies", "entropy"), ("perplexity ratio", "perplexity-ratio"), ("perplexity", "perplexity")),
        *(("Adam’s second moment", "adam-s-second-moment"), ("EWC", "ewc-elastic-weight-consolidation")),
        ("losses", "loss"),
    ]
    outside = (nodes.title, nodes.caption, nodes.literal, nodes.math)
    assert not [one for kind in outside for node in doctree.findall(kind) for one in node.findall(nodes.reference)]


def test_everyday_words_are_terms_only_where_the_glossary_says_so() -> None:
    text = "The task, a step, one record."
    assert [words for words, _ in marked(text, "03")[0]] == ["task", "step", "record"]
    assert marked(text, "10")[0] == []


def test_each_way_of_saying_leads_to_one_term_and_each_term_has_its_place() -> None:
    known = {term.term for term in entries()}
    assert set(terms.SAID) <= known
    ways = [re.sub("[-–]", " ", words).lower() for term in entries() for words in terms.said(term)]
    assert sorted(ways) == sorted(set(ways))
    places = [glossary.place(term) for term in entries()]
    assert len(set(places)) == len(entries()) > 150
    for lesson in sorted({term.lessons[0] for term in entries()}):
        ways = [(words, term) for term in entries() if term.lessons[0] == lesson for words in terms.said(term)]
        text = "\n".join(f"{i}{i}\n====\n\nSo {words} it is.\n" for i, (words, _) in enumerate(ways, 100))
        led = [(words, glossary.place(term).removeprefix("term-")) for words, term in ways]
        assert marked(f"A lesson\n********\n\n{text}", lesson)[0] == led


def test_the_script_holds_each_definition_as_html() -> None:
    told = json.loads(re.fullmatch(r"\(globalThis.*\)\.glossary = (\{.*\});\n", glossary.script())[1])
    for term in entries():
        entry = told[glossary.place(term)]
        assert entry["upto"] == term.upto
        for level in LEVELS:
            assert re.sub("</?code>", "`", entry[level]) == re.sub("[&<>\"']", _entity, term.at(level))
    assert "<code>" in json.dumps(told)


def _entity(found: re.Match[str]) -> str:
    return {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"}[found[0]]


def test_cells_are_folded_answered_in_the_page_or_named() -> None:
    """Of every lesson: one set-up, no quiz that is left a still one, a word below every lab and exercise."""
    for path in sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9]*.ipynb")):
        text = path.read_text(encoding="utf-8")
        before, after = (json.loads(one)["cells"] for one in (text, cells.as_book(text)))
        assert len(before) == len(after)
        folded = [cell for cell in after if "hide-cell" in cell["metadata"].get("tags", ())]
        assert ["setup" in cell["metadata"]["tags"] for cell in folded] == [True]
        assert folded[0]["metadata"]["mystnb"]["code_prompt_show"].startswith("Set-up: ")
        for old, new in zip(before, after, strict=True):
            assert old["source"] == new["source"]
            shown, said = json.dumps(old.get("outputs")), json.dumps(new.get("outputs"))
            assert shown.count("forgetlab-asked") == said.count("class='forgetlab-question'")
            lab = re.search(r"\blabs\.\w+\.show\(\)", "".join(old["source"]))
            if old["cell_type"] == "code" and (lab or "exercise" in old["metadata"]):
                assert "open this lesson in Jupyter" in said


def test_a_formula_is_mathml_with_what_docutils_lacks() -> None:
    made = formulas.mathml(r"\big[1 \dots n\big] \mathrel{-}= \lVert w\rVert < 2", block=True)
    assert re.sub(r"<[^>]*>|\s", "", made) == "[1…n]−=‖w‖&lt;2"
    assert 'display="block"' in made
    assert r'alttext="\big[1 \dots n\big] \mathrel{-}= \lVert w\rVert &lt; 2"' in made
    assert made.count('stretchy="false">‖') == 2
    with pytest.raises(MathError):
        formulas.mathml(r"\unheardof")
