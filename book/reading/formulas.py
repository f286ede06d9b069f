"""Formulas as MathML, which browsers draw themselves: without scripts, in print, and read out by screen readers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml

NAME = "mathml"
# commands that docutils does not know, and what it has in their place
COMMANDS = ((r"\\dots\b", r"\\ldots"), (r"\\big\b", ""), (r"\\mathrel\b", ""))
# the bars of a norm do not grow, and “−=” is one sign
SIGNS = (
    (r"<mo( class=\"\w+\")?>([‖∥])</mo>", r'<mo\1 stretchy="false">\2</mo>'),
    (r"<mo>([−+])</mo>\s*<mo>=</mo>", r"<mo>\1=</mo>"),
)


def mathml(formula: str, block: bool = False) -> str:
    """A formula in TeX as MathML. Raises docutils' MathError for a command that it does not know."""
    made = _changed(str(latex2mathml.tex2mathml(_changed(formula, COMMANDS), as_block=block)), SIGNS)
    return made.replace("<math ", f'<math alttext="{escape(formula)}" ', 1)


def _changed(text: str, changes: Sequence[tuple[str, str]]) -> str:
    for pattern, other in changes:
        text = re.sub(pattern, other, text)
    return text


def add(app: Any) -> None:
    """Make it a way of Sphinx to render formulas."""
    app.add_html_math_renderer(NAME, inline_renderers=(_inline, None), block_renderers=(_block, None))


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math" tabindex="0">{mathml(node.astext(), block=True)}</div>')
    raise nodes.SkipNode
