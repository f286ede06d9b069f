"""Lines that begin with their label: TREC's `LABEL:fine text`, fastText's `__label__x text`, a digit and a text."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from forgetlab.sources.notes import skipped
from forgetlab.sources.tables import MOST_CLASSES, Table

_LINE = re.compile(
    r"(?:__label__(?P<word>\S+)|(?P<coarse>[A-Z]{2,}):(?P<fine>[a-z]\w*)|(?P<digit>\d))\s+(?P<text>\S.*)"
)
_ENOUGH = 0.95  # of the lines


def prefixed_table(path: Path, lines: list[str]) -> Table | None:
    """The label and the text of each line, TREC's with both of its labels; None where the lines do not begin so.

    lines: of the whole file. One form holds for all of them, and its labels must recur: a numbered list has no classes.
    """
    found = [(i, _LINE.fullmatch(line.strip())) for i, line in enumerate(lines, 1) if line.strip()]
    forms = Counter(next(name for name in ("word", "coarse", "digit") if m[name]) for _, m in found if m)
    form, fitting = forms.most_common(1)[0] if forms else ("", 0)
    rows = [(i, m) for i, m in found if m and m[form]]
    classes = {m[form] for _, m in rows}
    if fitting < _ENOUGH * len(found) or not 2 <= len(classes) <= MOST_CLASSES or 2 * len(classes) > len(rows):
        return None
    bad = [i for i, m in found if not (m and m[form])]
    notes = skipped(path, bad, len(found), "line", "a label and a text")
    if form == "coarse":
        fine = len({m["fine"] for _, m in rows})
        notes.append(
            f"lines of LABEL:fine text: the {len(classes)} labels are taken; label=fine for the {fine} fine ones"
        )
        return Table(["label", "fine", "text"], [(i, [m["coarse"], m["fine"], m["text"]]) for i, m in rows], notes)
    notes.append(f"lines of a label and a text: {len(classes)} labels such as {rows[0][1][form]!r}")
    return Table(["label", "text"], [(i, [m[form], m["text"]]) for i, m in rows], notes)
