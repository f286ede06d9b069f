"""Plain text cut into passages of about 80 words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from forgetlab.errors import ForgetlabError

PASSAGE_WORDS = 80
ENOUGH = 100  # passages to train a language model on

# A sentence end; a line end; as the last resort any word, and very long "words" cut.
_CUTS = [
    re.compile(r".+?(?:[.!?…][\"'”’)\]]*(?=\s|$)|[。！？]|$)", re.S),
    re.compile(r".+"),
    re.compile(r"\S{1,800}"),
]


def passages(content: str) -> list[str]:
    """Cut plain text into its paragraphs, and long paragraphs at sentence ends into pieces of about 80 words.

    content: paragraphs with blank lines between them; without any blank line, each line is a passage.

    >>> passages("One paragraph.\\n\\nAnother one.")
    ['One paragraph.', 'Another one.']
    """
    content = content.strip()
    blocks = re.split(r"\n\s*\n", content)
    if len(blocks) == 1:
        blocks = content.split("\n")
    return [piece for block in blocks if block.strip() for piece in _pieces(block)]


def check_enough(texts: Sequence[str]) -> None:
    """Raise ForgetlabError for fewer passages than a language model can be trained on."""
    if len(texts) < ENOUGH:
        raise ForgetlabError(
            f"a language model needs more text: {len(texts)} passages given, {ENOUGH} or more expected"
        )


def _pieces(block: str) -> Iterable[str]:
    total = _length(block)
    aim = total / -(-total // PASSAGE_WORDS)  # even pieces, rather than full ones and a scrap
    piece: list[str] = []
    length = 0
    for unit, words in _units(block, total, _CUTS):
        if length and (length >= aim or length + words > PASSAGE_WORDS):
            yield " ".join(piece)
            piece, length = [], 0
        piece += unit.split()
        length += words
    if piece:
        yield " ".join(piece)


def _units(block: str, words: int, cuts: Sequence[re.Pattern[str]]) -> Iterable[tuple[str, int]]:
    """The block, of so many words, in units that a piece never divides, with their words: sentences, lines, words."""
    if words <= PASSAGE_WORDS or not cuts:
        yield block, words
    elif len(cuts) == 1:  # no word is too long
        yield from ((word := found[0], max(1, len(word) // 10)) for found in cuts[0].finditer(block))
    else:
        for found in cuts[0].finditer(block):
            yield from _units(found[0], _length(found[0]), cuts[1:])


def _length(block: str) -> int:
    """Words; or a tenth of the characters, for scripts that put no spaces between words."""
    return max(len(block.split()), len(block) // 10)
