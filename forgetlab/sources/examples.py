"""Examples, wherever they come from, and their split into sides that share no text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from forgetlab.errors import ForgetlabError, number
from forgetlab.sources.messages import Turn
from forgetlab.sources.notes import count

Kind = Literal["text", "labelled", "pairs", "tags", "completions", "chat"]


@dataclass(frozen=True)
class Examples:
    """What was read: parallel tuples, one entry per example, and notes on what was done on the way."""

    kind: Kind
    texts: tuple[str, ...]  # empty for tags; of completions the prompts, of chats what stands before the first answer
    pairs: tuple[str, ...] | None = None  # the second sentence of each pair; of completions the answers
    labels: tuple[str, ...] | None = None  # class names
    words: tuple[tuple[str, ...], ...] | None = None
    tags: tuple[tuple[str, ...], ...] | None = None
    notes: tuple[str, ...] = ()
    turns: tuple[tuple[Turn, ...], ...] | None = None  # of chats
    rejected: Examples | None = None  # of preferences: the same examples with their other side

    def __len__(self) -> int:
        return len(self.texts if self.words is None else self.words)


def split(examples: Examples, *, test: float = 0.2, seed: int = 0) -> tuple[Examples, Examples]:
    """Split into (train, test) by a hash of each text.

    test: its share, about. The hash decides, so that equal texts (but for case and spaces) stand on
    one side, and a text stands on the same side whatever else is in the file; only where a side would be
    empty, the text nearest to it moves. Pairs go by their first sentence.
    Raises ForgetlabError for a share that leaves nothing to train on, and for fewer than 4 different texts.

    >>> examples = Examples("text", tuple(f"text {i}" for i in range(100)))
    >>> [len(side) for side in split(examples, test=0.2)]
    [83, 17]
    """
    number("test", test, 0, 1, above=True, below=True)
    texts = examples.texts if examples.words is None else [" ".join(words) for words in examples.words]
    keys = [folded(text) for text in texts]
    places = {key: _place(key, seed) for key in keys}
    if len(places) < 4:
        raise ForgetlabError(f"{count(len(places), 'different text')}: expected at least 4 to split")
    tests = min(max(sum(place < test for place in places.values()), 1), len(places) - 1)
    held = set(sorted(places, key=places.__getitem__)[:tests])
    train = take(examples, [i for i, key in enumerate(keys) if key not in held])
    return train, take(examples, [i for i, key in enumerate(keys) if key in held])


def folded(text: str) -> str:
    """The text without what does not tell texts apart: case and the number of spaces."""
    return " ".join(text.lower().split())


def _place(key: str, seed: int) -> float:
    """A number from 0 to 1 that depends on nothing but these two."""
    digest = hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8, key=str(seed).encode()[:64])
    return int.from_bytes(digest.digest(), "big") / 2**64


def take(examples: Examples, keep: Sequence[int]) -> Examples:
    """The examples with these numbers, in this order, with all the notes."""
    names = ("texts", "pairs", "labels", "words", "tags", "turns")
    columns: dict[str, Any] = {n: tuple(v[i] for i in keep) for n in names if (v := getattr(examples, n))}
    return replace(examples, **columns, rejected=examples.rejected and take(examples.rejected, keep))
