"""What the labs on sequences share: small questions about the embedded texts, and remedies that know earlier tasks.

A tiny BERT learns each question in some thirty steps, so that a sequence takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from forgetlab.errors import one_of
from forgetlab.experiments.sequences import Remedy, consolidated, from_seen
from forgetlab.sources import Examples
from forgetlab.tasks import Classification, Task, embedded

__all__ = ["QUESTIONS", "REMEDIES", "question"]

PRONOUNS = {"he", "she", "it", "they", "him", "her", "them", "his", "their"}
# the question in words, the task whose texts are asked, and (words, tag or label of the text) → answer, None: not asked
Labeller = Callable[[Sequence[str], Any], str | None]


def _people(words: Sequence[str], tags: Sequence[str]) -> str | None:
    names = {word for word, tag in zip(words, tags, strict=True) if tag == "B-PER"}
    return ("one" if len(names) == 1 else "more") if names else None


QUESTIONS: dict[str, tuple[str, str, Labeller]] = {
    "register": ("which of five registers is it?", "register", lambda words, label: label),
    "acceptability": ("is it in the language or broken?", "acceptability", lambda words, label: label),
    "place": ("does it name a place?", "entities", lambda words, tags: "yes" if "B-LOC" in tags else "no"),
    "people": ("does it name one person, or more?", "entities", _people),
    "sentences": ("one sentence, two or three?", "entities", lambda words, tags: str(min(3, words.count(".")))),
    "pronoun": ("does it hold a pronoun?", "entities", lambda words, tags: "yes" if PRONOUNS & set(words) else "no"),
    "acceptability, short": (
        "the same, texts of up to 14 words",
        "acceptability",
        lambda words, label: label if len(words) < 15 else None,
    ),
    "acceptability, long": (
        "the same, longer texts",
        "acceptability",
        lambda words, label: label if len(words) >= 15 else None,
    ),
}

REMEDIES: dict[str, Callable[[int], Remedy | None]] = {  # made anew for each run, from its seed
    "none": lambda seed: None,
    "l2sp": lambda seed: from_seen("l2sp:lam=0.1"),
    "ewc": lambda seed: consolidated(3e4, examples=100, seed=seed),
    "online-ewc": lambda seed: consolidated(3e4, gamma=0.5, examples=100, seed=seed),
    "lwf": lambda seed: from_seen("lwf"),
    "replay": lambda seed: from_seen("replay:ratio=0.5,memory=100"),
}


def question(name: str) -> Task:
    """A task by the name of its question, one of QUESTIONS; classes are equally frequent, so that chance is known.

    "acceptability, short" and "…, long" share a head: one question in two domains. Raises ForgetlabError for others.
    """
    one_of("question", name, QUESTIONS)
    _, source, label = QUESTIONS[name]
    texts = embedded.task(source)
    assert texts.train is not None
    return Classification(name, _asked(texts.train, label), _asked(texts.test, label), head=name.partition(",")[0])


def _asked(examples: Examples, label: Labeller) -> Examples:
    """The texts with their answers, the classes in turn as in the other embedded tasks."""
    words = examples.words or [text.split() for text in examples.texts]
    known: Sequence[Any] = examples.tags or examples.labels or ()
    by_class: dict[str, list[str]] = {}
    for text, own in zip(words, known, strict=True):
        if (answer := label(text, own)) is not None:
            by_class.setdefault(answer, []).append(" ".join(text))
    names = sorted(by_class)
    texts = [text for row in zip(*(by_class[name] for name in names), strict=False) for text in row]
    return Examples(kind="labelled", texts=tuple(texts), labels=tuple(names * (len(texts) // len(names))))
