"""The tables that lessons quote, shown in the notebook: a link to a file leads nowhere where a lesson stands alone."""

from __future__ import annotations

import json
from statistics import fmean
from typing import Any

from forgetlab.errors import unknown
from forgetlab.sources.shipped import carried

DIGITS = ("method", "lam", "ACC", "BWT", "ΣF")


def results(name: str = "remedies") -> None:
    """Show a table of results that goes with forgetlab: "remedies" or "fidelity".

    remedies: every remedy at its best strength on the embedded world. fidelity: EWC and L2 over λ on permuted digits
    (average accuracy and backward transfer in points, the sum of the Fisher information), means over seeds.
    Raises ForgetlabError for another name.

    >>> results("fidelity")  # doctest: +ELLIPSIS
    | method | lam | ACC | BWT | ΣF |
    ...
    """
    from IPython import get_ipython
    from IPython.display import display

    if name not in ("remedies", "fidelity"):
        raise unknown("table", name, ("remedies", "fidelity"))
    folder = carried("benchmarks/results")
    if name == "remedies":
        text = (folder / "remedies.md").read_text(encoding="utf-8")
    else:
        text = _digits(json.loads((folder / "fidelity.json").read_text(encoding="utf-8"))["digits"]["grid"])
    if get_ipython() is None:
        print(text)
    else:
        display({"text/markdown": text, "text/plain": text}, raw=True)


def _digits(grid: list[dict[str, Any]]) -> str:
    rows = [DIGITS, ["---"] * len(DIGITS), *([_cell(run.get(column, "")) for column in DIGITS] for run in grid)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return f"{fmean(value):.4g}"
    return value if isinstance(value, str) else f"{value:,g}"
