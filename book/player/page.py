"""The labs in the pages of Sphinx: each lab's picture becomes an element that player.js takes over.

Without scripts and in print the picture stays, with its words and the table of its numbers.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes

from book.player import records
from book.player.tables import table
from book.reading.cells import LAB
from forgetlab.labs import LABS

HERE = Path(__file__).parent
COLAB = re.compile(r"https://colab\.research\.google\.com/github/[\w./-]+\.ipynb")
SCRIPTS = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "plots.js", "lines.js", "numbers.js", "simulated.js")
LAST = "player/player.js"  # it begins


def setup(app: Any) -> dict[str, bool]:
    """As Sphinx asks of an extension."""
    app.connect("doctree-resolved", with_labs)
    app.connect("html-page-context", with_scripts)
    app.connect("build-finished", with_files)
    return {"parallel_read_safe": True, "parallel_write_safe": False}


def shown(doctree: nodes.document) -> Iterator[tuple[str, nodes.Element]]:
    """(lab, container of what its cell shows) of every lab in a page."""
    for cell in doctree.findall(nodes.container):
        if "cell" not in cell["classes"]:
            continue
        code = next(iter(cell.findall(nodes.literal_block)), None)
        found = LAB.search(code.astext()) if code is not None else None
        outputs = [one for one in cell.findall(nodes.container) if "cell_output" in one["classes"]]
        if found and found[1] in LABS and outputs:
            yield found[1], outputs[0]


def with_labs(app: Any, doctree: nodes.document, docname: str) -> None:
    """Wrap what the labs' cells show."""
    source = Path(app.srcdir) / f"{docname}.ipynb"
    colab = COLAB.search(source.read_text(encoding="utf-8")) if source.exists() else None
    names = []
    for name, output in shown(doctree):
        names.append(name)
        links = {"notebook": f"_sources/{docname}.ipynb"} | ({"colab": colab[0]} if colab else {})
        data = " ".join(f'data-{key}="{escape(value)}"' for key, value in {"lab": name, **links}.items())
        start = nodes.raw("", f'<div class="forgetlab-lab" {data}>', format="html")
        end = nodes.raw("", f"{still(app, name)}</div>", format="html")
        output.children = [start, *output.children, end]
    pages(app)[docname] = names


def still(app: Any, name: str) -> str:
    """Words and table of the picture that a lab opens on, made once."""
    kept = app.__dict__.setdefault("_forgetlab_stills", {})
    if name not in kept:
        found = records.opening(name)
        words = f"<p>{escape(found['words'])}</p>" if found else ""
        kept[name] = (
            f'{words}<details class="fl-numbers"><summary>Its numbers</summary>{table(found)}</details>'
            if found
            else ""
        )
    return str(kept[name])


def pages(app: Any) -> dict[str, list[str]]:
    """The labs of each page so far."""
    found: dict[str, list[str]] = app.__dict__.setdefault("_forgetlab_pages", {})
    return found


def with_scripts(app: Any, pagename: str, templatename: str, context: Any, doctree: Any) -> None:
    """Load the player, and the runs of the page's labs, in a page that shows one."""
    if not (names := pages(app).get(pagename)):
        return
    app.add_css_file("player/player.css")
    for script in scripts(names):
        app.add_js_file(script, loading_method="defer")


def scripts(names: Iterable[str]) -> list[str]:
    """What a page with these labs loads, in this order."""
    return [*(f"player/{one}" for one in SCRIPTS), *(f"records/{one}.js" for one in dict.fromkeys(names)), LAST]


def with_files(app: Any, error: Exception | None) -> None:
    """Write the runs of all labs that some page shows, and the player beside them."""
    if error or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    (static / "player" / "vendor").mkdir(parents=True, exist_ok=True)
    for path in (*HERE.glob("*.js"), *HERE.glob("*.css"), *HERE.glob("vendor/*")):
        shutil.copy(path, static / "player" / path.relative_to(HERE))
    for name in sorted({name for names in pages(app).values() for name in names}):
        records.written(name, static / "records")
