"""The handbook as a static site: `make book`. Built without a network, and read without one."""

import json
import re
import sys
from pathlib import Path
from typing import Any

project = "forgetlab"
author = "the forgetlab founders"
copyright = "MIT"
sys.path.insert(0, str(Path(__file__).parents[1]))  # for the book's own extensions
extensions = ["myst_nb", "book.reading", "book.player.page"]
root_doc = "index"
nb_execution_mode = "off"  # the lessons are committed executed
nb_render_markdown_format = "gfm"  # what cells show in Markdown has tables
myst_enable_extensions = ["dollarmath", "amsmath"]
suppress_warnings = ["myst.header"]
html_theme = "sphinx_book_theme"
html_use_index = False  # of no terms: the glossary is a page
html_show_search_summary = False  # it would ask a server
html_title = "forgetlab: the handbook of forgetting"
html_context = {"default_mode": "auto"}  # light or dark as the reader's system is
html_theme_options = {"home_page_in_toc": True, "show_toc_level": 2}
html_math_renderer = "mathml"  # of book.reading

# what `make colab` writes before a neighbour's name, but in badges
ELSEWHERE = re.compile(
    r"(?<!badge\.svg\)\]\()https://[\w./-]+/blob/main/(?:notebooks/(?=\d\d_)|benchmarks/results/(?=remedies|rewards))"
)
LESSONS = sorted(path.stem for path in (Path(__file__).parents[1] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
MORE = ("remedies", "rewards", "rewards-table", "real-models", "your-data", "strengths", "glossary", "api")
# made by book/build.py, no page of Sphinx's; two lessons lead to it as the index does
TRAINS = (
    '<p><a href="watch-it-forget.html"><b>Watch it forget, then pull it back</b></a>: a page in which the model trains '
    "while you look, without a kernel or a network.</p>"
)


def with_contents(app: Any, docname: str, source: list[str]) -> None:
    """The lessons in their order, below the index; the tables and what lessons lead to are pages of the book."""
    source[0] = ELSEWHERE.sub("", re.sub(r"\.\./(benchmarks/results|docs)/", "", source[0]))
    if docname in (LESSONS[0], LESSONS[6]):
        notebook = json.loads(source[0])
        below_title = {"cell_type": "markdown", "id": "trains", "metadata": {}, "source": TRAINS}
        source[0] = json.dumps({**notebook, "cells": [notebook["cells"][0], below_title, *notebook["cells"][1:]]})
    if docname == root_doc:
        source[0] = source[0].replace("\n\n|", f"\n\n{TRAINS}\n\n|", 1)
        source[0] += "\n```{toctree}\n:hidden:\n\n" + "\n".join([*LESSONS, *MORE]) + "\n```\n"


def with_alt_text(app: Any, doctree: Any, docname: str) -> None:
    """Pictures of cells get the words that stand beside them in the notebook."""
    import nbformat
    from docutils import nodes

    if docname not in LESSONS:
        return
    notebook = nbformat.read(Path(app.srcdir) / f"{docname}.ipynb", as_version=4)
    words = [
        str(output.data["text/plain"])
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {}) and "text/html" not in output.data
    ]
    pictures = [node for node in doctree.findall(nodes.image) if re.search(r"jupyter_execute", node["uri"])]
    if len(words) != len(pictures):
        raise RuntimeError(f"{docname}: {len(pictures)} pictures, {len(words)} alt texts")
    for node, alt in zip(pictures, words, strict=True):
        node["alt"] = alt


def setup(app: Any) -> None:
    app.connect("source-read", with_contents)
    app.connect("doctree-resolved", with_alt_text)
