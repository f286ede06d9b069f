"""CoNLL columns: a token and its tag on each line, blank lines between sentences."""

from __future__ import annotations

import re
from pathlib import Path

from forgetlab.errors import ForgetlabError
from forgetlab.sources.examples import Examples
from forgetlab.sources.notes import skipped
from forgetlab.sources.tables import Column, Rows, Table, fold_name, usual_width

TOKEN_NAMES = {"token", "tokens", "word", "words", "form", "text"}
TAG_NAMES = {"tag", "tags", "label", "labels", "ner", "nertag", "nertags", "pos", "upos", "bio", "iob"}

_TAG = re.compile(r"[BILUESM][-_]\S+|[A-Z][A-Z0-9$_-]*|[^\w\s]+")


def looks_like_conll(lines: list[str]) -> bool:
    """Whether the lines are columns that end in tags, rather than a table or prose."""
    rows, separator, width = _shape(lines[:2000])
    if width < 2 or len(rows) < 2:
        return False
    tags = [row[-1] for _, row in rows]
    apart = rows[-1][0] - rows[0][0] >= len(rows) and separator in ("\t", None)  # blank lines between
    if sum(not re.search(r"\w", tag) for tag in tags) > 0.5 * len(rows):
        return False  # lines of prose that end in full stops
    tag_like = sum(bool(_TAG.fullmatch(tag)) for tag in tags) >= 0.95 * len(rows)
    return (
        (apart or any(re.match(r"[BILUESM]-\S", tag) for tag in tags))
        and sum(len(row) == width for _, row in rows) >= 0.95 * len(rows)
        and sum(" " in row[0] for _, row in rows) <= 0.1 * len(rows)
        and (tag_like or tags.count("O") > 0.3 * len(rows))
    )


def read_conll(path: Path, lines: list[str], token: Column, tag: Column) -> Examples:
    """The sentences with a tag for each token; a sentence with a broken line is left out.

    token, tag: columns, by name or number; first and last where None (of CoNLL-U: form and universal tag).
    Raises ForgetlabError where the lines are no columns, or most of them do not fit.
    """
    rows, separator, width = _shape(lines)
    if width < 2 or sum(" " in row[0] for _, row in rows) > 0.5 * len(rows):
        raise ForgetlabError(f"{path}: expected lines of one token and its tag, blank lines between sentences")
    table = Table([str(i) for i in range(width)], [], [], header=False)
    number, first = rows[0]
    if fold_name(first[0]) in TOKEN_NAMES and fold_name(first[-1]) in TAG_NAMES:
        table = Table(first, [], [f"line {number} taken as the header"])
        lines = [*lines[: number - 1], "", *lines[number:]]
    conllu = path.suffix.lower() == ".conllu" and width > 3  # its columns are fixed: number, form, lemma, tag, …
    at_token, at_tag = table.find(token), table.find(tag)
    at_token = at_token if at_token is not None else 1 if conllu else 0
    at_tag = at_tag if at_tag is not None else 3 if conllu else width - 1
    known = {row[-1] for _, row in rows}
    sentences: list[list[tuple[str, str]]] = [[]]
    spoiled, bad = set(), []  # sentences and lines, by number
    for number, line in enumerate(lines, 1):
        cells = _cells(line, separator, width)
        if not line.strip() or line.startswith("-DOCSTART-"):
            sentences.append([])
        elif line.startswith("#") and (len(cells) != width or (line[1] == " " and cells[-1] not in known)):
            continue  # a comment; but "# O" is a token
        elif len(cells) != width or not (cells[at_token] and cells[at_tag]):
            spoiled.add(len(sentences))
            bad.append(number)
        elif not conllu or cells[0].isdecimal():  # "3-4" is a word that is given in parts too
            sentences[-1].append((cells[at_token], cells[at_tag]))
    kept = [pairs for i, pairs in enumerate(sentences, 1) if pairs and i not in spoiled]
    notes = table.notes + skipped(path, bad, len(rows), "line", f"{width} columns", " with the sentence")
    words = tuple(tuple(word for word, _ in pairs) for pairs in kept)
    tags = tuple(tuple(tag for _, tag in pairs) for pairs in kept)
    return Examples("tags", (), words=words, tags=tags, notes=tuple(notes))


def _shape(lines: list[str]) -> tuple[Rows, str | None, int]:
    """Numbered lines of cells without comments, the separator (None: spaces), the usual number of columns."""
    apart = ("-DOCSTART-", "# ")
    body = [(i, line) for i, line in enumerate(lines, 1) if line.strip() and not line.startswith(apart)]

    def usual(separator: str | None) -> bool:
        return sum(len(line.split(separator)) > 1 for _, line in body) > 0.9 * len(body)

    separator = next((s for s in ("\t", None, ",", ";", "|") if usual(s)), None)
    width = usual_width([(i, line.rstrip().split(separator)) for i, line in body])
    return [(i, _cells(line, separator, width)) for i, line in body], separator, width


def _cells(line: str, separator: str | None, width: int) -> list[str]:
    # From the right, so that a token may hold the separator ("," between commas).
    cells = line.split() if separator is None else line.rstrip().rsplit(separator, width - 1)
    return [cell.strip() for cell in cells]
