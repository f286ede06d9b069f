"""Exercises on the learner's own data: a split that leaks nothing, a corpus's perplexity, what a score hides."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from forgetlab.metrics import perplexity
from forgetlab.sources.examples import folded
from forgetlab.teaching.exercises.checking import Verdict, diagnose

Texts = Sequence[str]
Numbers = Sequence[float]


def check_disjoint(function: Callable[[Texts, Texts], int]) -> Verdict:
    """Judge a learner's count of leaks between the sides of a split.

    function: (train texts, test texts) → how many entries of test are also in train, compared without case and
    without the number of spaces.
    """
    return diagnose(function, LEAKS, leaks, LEAK_MISTAKES, "Any number above 0 means: part of the test was practised.")


def leaks(train: Texts, test: Texts) -> int:
    """Entries of test that stand in train too, but for case and spaces."""
    seen = {folded(text) for text in train}
    return sum(folded(text) in seen for text in test)


LEAKS: tuple[tuple[list[str], list[str]], ...] = (
    (["A b c", "d e"], ["x y", "a  B c", "d e"]),
    (["Fine film", "fine film", "Dull"], ["dull ", "Dull", "FINE film", "new"]),
    (["one", "two"], ["three", "four", "five"]),
    (["two  words", "left"], ["two words", "LEFT", "right"]),
    (["same text"], ["same text", "Same\ttext", "same", "text"]),
)
LEAK_MISTAKES: dict[str, Callable[[Texts, Texts], object]] = {
    "Only identical strings are counted. “Fine film” and “fine  FILM” are one text to the model: bring both to lower "
    "case and to single spaces before they are compared.": lambda train, test: sum(text in set(train) for text in test),
    "Case is ignored, but runs of spaces and tabs still make two texts of one. Cut each text into words and join "
    "them with one space.": lambda train, test: sum(t.lower() in {s.lower() for s in train} for t in test),
    "Spaces are evened out, but upper and lower case still make two texts of one. Compare in lower case.": (
        lambda train, test: sum(_spaced(text) in {_spaced(s) for s in train} for text in test)
    ),
    "Each different text is counted once. A test set that holds a leaked text three times is wrong in three "
    "places: count the entries of test, not the shared texts.": (
        lambda train, test: len({folded(text) for text in train} & {folded(text) for text in test})
    ),
    "The entries of train are counted. What matters is how much of the *test* was seen in training.": (
        lambda train, test: leaks(test, train)
    ),
    "That is the number of test texts that are clean. The leak is the rest.": (
        lambda train, test: len(test) - leaks(train, test)
    ),
    "That is the leaked share. The exercise asks for the number of entries.": (
        lambda train, test: leaks(train, test) / len(test)
    ),
}


def check_perplexity(function: Callable[[Numbers, Numbers], float]) -> Verdict:
    """Judge a learner's perplexity of a corpus.

    function: (mean loss of each batch in nats, tokens of each batch) → exp of the mean loss of a token.
    """
    praise = "Every token counts once, so the number does not change with the batch size."
    return diagnose(function, BATCHES, corpus_perplexity, PERPLEXITY_MISTAKES, praise)


def corpus_perplexity(losses: Numbers, tokens: Numbers) -> float:
    """exp(Σ mean loss · tokens / Σ tokens)."""
    return perplexity(np.multiply(losses, tokens), tokens)


BATCHES: tuple[tuple[list[float], list[float]], ...] = (
    ([1.0, 3.0], [90, 10]),
    ([2.0, 2.5, 4.0], [128, 64, 8]),
    ([0.5], [7]),
    ([3.1, 2.2, 2.9, 1.4], [5, 50, 40, 300]),
)
PERPLEXITY_MISTAKES: dict[str, Callable[[Numbers, Numbers], object]] = {
    "The batches are averaged as if they were equally large. A last batch of a few tokens then weighs as much as a "
    "full one: weight each loss with its number of tokens.": lambda losses, tokens: math.exp(np.mean(losses)),
    "Perplexities are averaged. The exponential must come last, after the mean of the losses: averaged perplexities "
    "are never smaller than the true one, and one hard batch rules them.": lambda losses, tokens: np.mean(
        np.exp(losses)
    ),
    "Perplexities are averaged, weighted with the tokens. The weights are right, the order is not: take the mean of "
    "the losses first and the exponential of it last.": lambda losses, tokens: np.average(
        np.exp(losses), weights=tokens
    ),
    "2 is raised to the loss. These losses are in nats (the natural logarithm, as torch gives them), so the base is "
    "e; base 2 belongs to losses in bits.": lambda losses, tokens: 2 ** math.log(corpus_perplexity(losses, tokens)),
    "That is the mean loss of a token in nats. Perplexity is its exponential.": lambda losses, tokens: math.log(
        corpus_perplexity(losses, tokens)
    ),
    "The losses are added as they are and divided by the tokens. Each is a mean already: multiply it by its tokens "
    "to have the sum back.": lambda losses, tokens: math.exp(np.sum(losses) / np.sum(tokens)),
    "The losses are weighted with the tokens and then divided by the number of batches. Divide by the number of "
    "tokens.": lambda losses, tokens: _exp(np.dot(losses, tokens) / len(losses)),
}


def check_flips(function: Callable[[Texts, Texts, Texts], tuple[int, int]]) -> Verdict:
    """Judge a learner's count of the questions that a fine-tune has lost and gained.

    function: (answers before, answers after, right answers) → (how many turned wrong, how many turned right).
    """
    praise = "The two add up to far more than the score has moved by: a score shows only their difference."
    return diagnose(function, EXAMS, flipped, FLIP_MISTAKES, praise)


def flipped(before: Texts, after: Texts, gold: Texts) -> tuple[int, int]:
    """(1 → 0, 0 → 1): questions that were right and are wrong, and that were wrong and are right."""
    pairs = [(old == key, new == key) for old, new, key in zip(before, after, gold, strict=True)]
    return pairs.count((True, False)), pairs.count((False, True))


EXAMS: tuple[tuple[list[str], list[str], list[str]], ...] = (
    (list("aabbcc"), list("abbbca"), list("aabbcb")),
    (list("abcabcab"), list("bbcaccca"), list("abcabcba")),
    (list("aaaa"), list("aaaa"), list("abab")),
    (list("ccccba"), list("ccccab"), list("bbbbba")),
    (list("cab"), list("bbb"), list("aaa")),
)
FLIP_MISTAKES: dict[str, Callable[[Texts, Texts, Texts], object]] = {
    "That is what the score moved by, on the side where it went. A question lost and another one gained cancel in it: "
    "count both, question by question.": lambda before, after, gold: _net(before, after, gold),
    "Every changed answer is counted. A wrong answer that turns into another wrong one is neither lost nor gained: "
    "compare both with the right answer.": lambda before, after, gold: (
        (changed := sum(old != new and new != key for old, new, key in zip(before, after, gold, strict=True))),
        sum(old != new for old, new in zip(before, after, strict=True)) - changed,
    ),
    "The two are in the other order: first what was lost, then what was gained.": lambda before, after, gold: flipped(
        before, after, gold
    )[::-1],
    "All that is wrong afterwards and all that is right afterwards are counted. A question that was wrong before "
    "cannot be lost.": lambda before, after, gold: (
        sum(new != key for new, key in zip(after, gold, strict=True)),
        sum(new == key for new, key in zip(after, gold, strict=True)),
    ),
    "Shares, not numbers: the exercise asks how many questions.": lambda before, after, gold: tuple(
        count / len(gold) for count in flipped(before, after, gold)
    ),
}


def _net(before: Texts, after: Texts, gold: Texts) -> tuple[int, int]:
    lost, gained = flipped(before, after, gold)
    return max(0, lost - gained), max(0, gained - lost)


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
