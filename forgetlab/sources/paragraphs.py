"""Plain text cut into passages of about 80 words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

PASSAGE_WORDS = 80

# A sentence end; a line end; as the last resort any word, and very long "words" cut.
_CUTS = [
    re.compile(r".+?(?:[.!?…][\"'”’)\]]*(?=\s|$)|[。！？]|$)", re.S),
    re.compile(r".+"),
    re.compile(r"\S{1,800}"),
]


def passages(content: str) -> list[str]:
    """Cut plain text into its paragraphs, and long paragraphs at sentence ends into pieces of about 80 words.

    content: paragraphs with blank lines between them; without any blank line, each line is a passage.
    """
    content = content.strip()
    blocks = re.split(r"\n\s*\n", content)
    if len(blocks) == 1:
        blocks = content.split("\n")
    return [piece for block in blocks if block.strip() for piece in _pieces(block)]


def _pieces(block: str) -> Iterable[str]:
    total = _length(block)
    aim = total / -(-total // PASSAGE_WORDS)  # even pieces, rather than full ones and a scrap
    piece, length = "", 0
    for unit in _units(block, _CUTS):
        if length and (length >= aim or length + _length(unit) > PASSAGE_WORDS):
            yield piece
            piece, length = "", 0
        piece = f"{piece} {' '.join(unit.split())}".strip()
        length += _length(unit)
    if piece:
        yield piece


def _units(block: str, cuts: Sequence[re.Pattern[str]]) -> Iterable[str]:
    """The block in units that a piece never divides: sentences, else lines, else words."""
    if _length(block) <= PASSAGE_WORDS or not cuts:
        yield block
        return
    for part in cuts[0].findall(block):
        yield from _units(part, cuts[1:])


def _length(block: str) -> int:
    """Words; or a tenth of the characters, for scripts that put no spaces between words."""
    return max(len(block.split()), len(block) // 10)
