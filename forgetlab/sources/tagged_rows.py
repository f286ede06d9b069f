"""Rows that hold a list of words and a list of their tags, as the hub's data sets of entities do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetlab.errors import ForgetlabError
from forgetlab.sources.examples import Examples, Kind
from forgetlab.sources.notes import count
from forgetlab.sources.tables import Column

WORDS, TAGS = ("tokens", "words", "token"), ("ner_tags", "tags", "pos_tags", "labels", "label")


def tagged(
    where: Path, rows: Sequence[Mapping[str, Any]], features: Any, text: Column, label: Column, kind: Kind | None
) -> Examples | None:
    """The rows as words with their tags; None where they are something else.

    features: the columns; those of a hub set know the names of their tags, else the tags must be names.
    """
    lists = [column for column in features if rows and isinstance(rows[0].get(column), list)]
    words = str(text) if text is not None else next((c for c in WORDS if c in lists), None)
    tags = str(label) if label is not None else next((c for c in TAGS if c in lists), None)
    if kind not in (None, "tags") or words is None or tags is None or not {words, tags} <= {*lists}:
        if kind == "tags":
            have = ", ".join(lists) or "none"
            raise ForgetlabError(f"{where}: tags need a column of lists of words and one of tags; lists are: {have}")
        return None
    names = getattr(getattr(features[tags], "feature", None), "names", None)
    lists_of = [(row, row.get(words), row.get(tags)) for row in rows]
    whole = [row for row, w, t in lists_of if isinstance(w, list) and isinstance(t, list) and w and len(w) == len(t)]
    odd = [tag for row in whole for tag in row[tags] if not isinstance(tag, str)]
    if names is None and odd:
        raise ForgetlabError(
            f"{where}: column {tags!r} holds {odd[0]!r}; expected names of tags, such as 'B-PER' and 'O'"
        )
    spoilt = len(rows) - len(whole)
    notes = [f"{count(spoilt, 'row')} without a tag for each word skipped"] if spoilt else []
    return Examples(
        "tags",
        (),
        words=tuple(tuple(map(str, row[words])) for row in whole),
        tags=tuple(tuple(names[tag] if names else str(tag) for tag in row[tags]) for row in whole),
        notes=tuple(notes),
    )
