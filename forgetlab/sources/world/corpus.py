"""Texts and labels drawn from the grammar, split so that no test text is ever in a training split.

A text's split is a hash of the text itself: whatever is drawn, in any task, at any size and seed,
a text stands always on the same side (a pair goes by its first sentence). That leaves its probability
under the source untouched.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from hashlib import blake2b
from random import Random
from typing import Literal

from forgetlab.errors import ForgetlabError, one_of
from forgetlab.sources.shipped import data_folder
from forgetlab.sources.world.grammar import Grammar, Sample
from forgetlab.sources.world.inside import Parser

Split = Literal["train", "test", "heldout"]
TEST_SHARE = 0.15

# register → symbol of the grammar; the last two are not in the pre-training text
REGISTERS = {
    "general": "General",
    "news": "News",
    "reviews": "Review",
    "stories": "Story",
    "howto": "Howto",
    "riddles": "Riddle",
    "notices": "Notice",
    "clinic": "Clinic",
}
PRETRAINED = ("news", "reviews", "stories", "howto", "riddles")


@cache
def grammar(similarity: float = 1.0) -> Grammar:
    """The embedded language at a point of the similarity dial (1: the pre-training language)."""
    return Grammar(data_folder() / "world", similarity)


@cache
def parser(similarity: float = 1.0) -> Parser:
    """The exact parser of that language. At 0.5 it accepts familiar and novel words alike."""
    return Parser(grammar(similarity))


def side(text: str) -> Literal["train", "test"]:
    """The side of the split that a text is on, by its hash."""
    digest = blake2b(text.encode(), digest_size=4).digest()
    return "test" if int.from_bytes(digest, "big") < TEST_SHARE * 2**32 else "train"


def draw(symbol: str, split: Split, rng: Random, *, similarity: float = 1.0, labelled: bool = True) -> Iterator[Sample]:
    """Endless distinct texts of one split.

    labelled: keep held-out names and nouns out of "train" and "test", and in every text of "heldout".
    Without it (pre-training text) held-out words are ordinary ones: nothing about them is labelled.
    """
    one_of("split", split, ("train", "test", "heldout"))
    source = grammar(similarity)
    wanted = "train" if split == "train" else "test"
    seen: set[str] = set()
    misses = 0
    while misses < 100_000:
        sample = source.sample(symbol, rng)
        text = sample.text
        if (
            side(text.partition(" ||| ")[0]) != wanted
            or text in seen
            or (labelled and sample.heldout != (split == "heldout"))
        ):
            misses += 1
            continue
        misses = 0
        if wanted == "test":  # repeats are part of a training distribution, not of a test set
            seen.add(text)
        yield sample
    raise ForgetlabError(f"the language has no further {split} text of {symbol} to draw")


def register_symbol(register: str) -> str:
    """The grammar's symbol for a register; raises for an unknown one."""
    one_of("register", register, REGISTERS)
    return REGISTERS[register]


# -- breaking a sentence: acceptability and minimal pairs -------------------------------------------------

PHENOMENA = ("agreement", "pronoun", "order", "coreference")


def broken(sample: Sample, phenomenon: str, rng: Random) -> list[str] | None:
    """The same words with one fault of the given kind, or None where the text offers no place for it.

    The parser confirms that the result is not in the language. A held-out word is brought in only where the text
    has one already.
    """
    one_of("phenomenon", phenomenon, PHENOMENA)
    words = sample.words
    places = list(range(len(words)))
    rng.shuffle(places)
    for i in places:
        for change in _changes(sample, i, phenomenon, rng):
            if change != words and not parser(0.5).accepts(change):
                return change
    return None


def _changes(sample: Sample, i: int, phenomenon: str, rng: Random) -> Iterator[list[str]]:
    words = sample.words
    if phenomenon == "agreement" and words[i] in _other_number():
        yield [*words[:i], _other_number()[words[i]], *words[i + 1 :]]
    elif phenomenon == "pronoun" and words[i] in _OTHER_GENDER:
        yield [*words[:i], _OTHER_GENDER[words[i]], *words[i + 1 :]]
    elif phenomenon == "order" and i + 1 < len(words) - 1:
        yield [*words[:i], words[i + 1], words[i], *words[i + 2 :]]
    elif phenomenon == "coreference" and words[i] in words[:i]:
        for cls in grammar().classes.values():
            if words[i] in cls.index and cls.words[cls.index[words[i]]].tag == sample.tags[i]:
                word = cls.words[rng.randrange(len(cls.words))]
                if word.text not in words and (sample.heldout or not word.heldout):
                    yield [*words[:i], word.text, *words[i + 1 :]]


_OTHER_GENDER = {"he": "she", "she": "he", "him": "her", "his": "her", "her": "his"}
_VERBS = ("plan", "know", "motion", "be", "was", "pron", "this", "have", "do", "waive")


@cache
def _other_number() -> dict[str, str]:
    """Singular ↔ plural of every verb and demonstrative."""
    classes = grammar().classes
    pairs = {}
    for name in _VERBS:
        for one, many in zip(classes[f"{name}.sg"].words, classes[f"{name}.pl"].words, strict=True):
            pairs[one.text] = many.text
            pairs[many.text] = one.text
    return pairs


# -- riddles as cloze questions -----------------------------------------------------------------------


def cloze(sample: Sample) -> tuple[str, list[str], str]:
    """(question without its last word, candidates in the order of the text, answer) of a riddle."""
    *question, answer, _stop = sample.words
    kind = next(name for name in ("spot", "first_name") if answer in grammar().classes[name].index)
    known = grammar().classes[kind].index
    candidates = list(dict.fromkeys(word for word in question if word in known))
    return " ".join(question), candidates, answer


# -- text written by a model --------------------------------------------------------------------------


def sentences(text: str) -> list[list[str]]:
    """The sentences of a text as word lists, each with its closing mark; a rest without one counts as well."""
    found: list[list[str]] = [[]]
    for word in text.split():
        found[-1].append(word)
        if word in (".", "?"):
            found.append([])
    return [sentence for sentence in found if sentence]


def fluency(texts: list[str]) -> float:
    """Share of sentences that are in the language, in [0, 1]; 0 for no sentence at all.

    >>> fluency(["the film was good .", "film the was ."])
    0.5
    """
    marks = [parser(0.5).accepts_sentence(s) for text in texts for s in sentences(text)]
    return sum(marks) / len(marks) if marks else 0.0


def coherence(texts: list[str]) -> float:
    """Share of the texts of two sentences or more whose facts agree (the whole text is in the language)."""
    marks = [parser(0.5).accepts(text.split()) for text in texts if len(sentences(text)) > 1]
    return sum(marks) / len(marks) if marks else 0.0


def vocabulary() -> list[str]:
    """Every word of the world, novel ones included."""
    return grammar(0.5).vocabulary()
