"""Which tokens of a text are rare, names or numbers: by the letters alone, for word pieces and byte-level BPE alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

CLASSES = ("numbers", "names", "rare", "other")
RULES = {
    "numbers": "of a word with a digit in it",
    "names": "of a word that begins with a capital, not at a sentence's start, and is not I",
    "rare": "of the least frequent tokens, which together are a tenth of those that are scored",
    "other": "all others",
}
RARE = 0.1  # of the scored tokens, or all that stand there once, if these are more
SPACES = ("Ġ", "▁")  # what byte-level BPE and SentencePiece write for the space before a word
OPENING = "\"'“”‘’«»([{`*_-–—"
CUT = "\ufffd"  # what a part of a letter is shown as
ENDING = ".!?:…\n"


def classes(texts: Sequence[Sequence[int]], tokenizer: Any) -> list[list[int]]:
    """For each token of each text its number in CLASSES, by its word alone: rare ones are not told yet ("other").

    texts: token ids. A word is in the class with all its tokens.
    """
    ids = sorted({token for text in texts for token in text})
    raw = dict(zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True))
    letters = {i: _letters(word, tokenizer) for i, word in raw.items()}
    spaced = any(word.startswith(SPACES) for word in tokenizer.get_vocab())
    marks = set(tokenizer.all_special_ids)
    return [_of_text(text, raw, letters, spaced, marks, tokenizer) for text in texts]


def _of_text(
    text: Sequence[int], raw: dict[int, str], letters: dict[int, str], spaced: bool, marks: set[int], tokenizer: Any
) -> list[int]:
    words: list[list[int]] = []  # of each word its places
    for place, token in enumerate(text):
        before = text[place - 1] if place else None
        joined = before is not None and token not in marks and before not in marks
        if joined and spaced:  # a space or a mark of punctuation begins a word
            assert before is not None
            joined = not raw[token].startswith(SPACES) and _is_word(letters[token]) and _is_word(letters[before])
        elif joined:
            joined = raw[token].startswith("##")
        if joined:
            words[-1].append(place)
        else:
            words.append([place])
    found, start = [CLASSES.index("other")] * len(text), True
    for places in words:
        if text[places[0]] in marks:
            continue
        word = "".join(letters[text[place]] for place in places)
        if CUT in word:  # a letter of several bytes, in several tokens
            word = tokenizer.convert_tokens_to_string([raw[text[place]] for place in places]).lstrip()
        bare = word.strip(" " + OPENING)
        kind = "other"
        if any(letter.isdigit() for letter in word):
            kind = "numbers"
        elif bare[:1].isupper() and bare != "I" and not start:
            kind = "names"
        for place in places:
            found[place] = CLASSES.index(kind)
        start = (start and not bare) or word.rstrip(" " + OPENING).endswith(tuple(ENDING))
    return found


def _letters(word: str, tokenizer: Any) -> str:
    """A token as a reader sees it, without the sign of a space or of a word's going on."""
    if word.startswith("##"):
        return word[2:]
    shown = tokenizer.convert_tokens_to_string([word]) if not word.isascii() else word
    return shown.lstrip(" ▁Ġ")


def _is_word(letters: str) -> bool:
    return all(letter.isalnum() or letter == CUT for letter in (letters[:1], letters[-1:]))


def with_rare(kinds: Tensor, tokens: Tensor) -> Tensor:
    """(n,) class numbers with the rarest of the "other" tokens as "rare". tokens: (n,) ids of all that are scored."""
    often = tokens.bincount()[tokens]
    most = int((often.bincount().cumsum(0) <= RARE * len(tokens)).nonzero().max())  # tokens as rare as that or rarer
    rare = (often <= max(1, most)) & (kinds == CLASSES.index("other"))
    return torch.where(rare, CLASSES.index("rare"), kinds)
