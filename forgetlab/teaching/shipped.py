"""The tables that lessons quote, shown in the notebook: a link to a file leads nowhere where a lesson stands alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from forgetlab.errors import one_of, unknown
from forgetlab.sources.shipped import carried

DIGITS = ("method", "lam", "ACC", "BWT", "ΣF")


def results(name: str = "remedies", only: Sequence[str] = (), columns: Sequence[str] = ()) -> None:
    """Show a table of results that goes with forgetlab: "remedies", "fidelity" or "rewards".

    remedies: every remedy at its best strength on the embedded world. fidelity: EWC and L2 over λ on permuted digits
    (average accuracy and backward transfer in points, the sum of the Fisher information), means over seeds. rewards:
    demonstrations and rewards at equal reward.
    only: the rows to show, in this order, by what stands in their first column (none: all). columns: how the headings
    of the columns begin that are shown beside it (none: all).
    Raises ForgetlabError for another name, row or column.

    >>> results("remedies", only=["none", "ewc"], columns=["entities"])  # doctest: +ELLIPSIS
    ## sentiment: ...
    """
    from IPython import get_ipython
    from IPython.display import display

    one_of("table", name, ("remedies", "fidelity", "rewards"))
    folder = carried("benchmarks/results")
    if name == "fidelity":
        text = _digits(json.loads((folder / "fidelity.json").read_text(encoding="utf-8"))["digits"]["grid"])
    else:
        text = (folder / f"{name}.md").read_text(encoding="utf-8")
    if only or columns:
        text = excerpt(text, only, columns)
    if get_ipython() is None:
        print(text)
    else:
        display({"text/markdown": text, "text/plain": text}, raw=True)


def excerpt(text: str, only: Sequence[str] = (), columns: Sequence[str] = ()) -> str:
    """The tables of a Markdown text cut down to some rows and columns, each under its heading and its “Before: …”."""
    tables = [Table(block) for block in text.split("\n\n") if block.startswith("|")]
    for kind, wanted, known in (
        ("row", only, [row[0] for table in tables for row in table.rows]),
        ("column", columns, [head for table in tables for head in table.head]),
    ):
        for one in wanted:
            if not any(found == one or (kind == "column" and found.startswith(one)) for found in known):
                raise unknown(kind, one, list(dict.fromkeys(known)))
    shown: list[str] = []
    waiting: list[str] = []  # headings, and lines that lead to a table: shown if it is
    for block in text.split("\n\n"):
        if block.startswith("|"):
            if table := Table(block).cut(only, columns):
                shown += [*waiting, table]
            waiting = [line for line in waiting if line.startswith("#")] if not table else []
        elif block.startswith("## "):
            waiting = [block]
        elif block.startswith("Before:") or block.endswith(":"):
            waiting.append(block)
    return "\n\n".join(shown)


class Table:
    """A table written in Markdown: the headings, and the cells of each row."""

    def __init__(self, block: str) -> None:
        self.head, _, *self.rows = (
            [cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.splitlines()
        )

    def cut(self, only: Sequence[str], columns: Sequence[str]) -> str:
        """Some rows and columns, "" where nothing of them is in it."""
        rows = [row for name in only for row in self.rows if row[0] == name] if only else self.rows
        places = [i for i, head in enumerate(self.head) if i and (not columns or head.startswith(tuple(columns)))]
        if not rows or not places:
            return ""
        lines = [self.head, ["---"] * len(self.head), *rows]
        return "\n".join("| " + " | ".join(line[i] for i in (0, *places)) + " |" for line in lines)


def _digits(grid: list[dict[str, Any]]) -> str:
    rows = [DIGITS, ["---"] * len(DIGITS), *([_cell(run.get(column, "")) for column in DIGITS] for run in grid)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return f"{fmean(value):.4g}"
    return value if isinstance(value, str) else f"{value:,g}"
