"""The rows of every embedded task's data, made from the grammar; `make data` writes them, a dial re-makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, cycle, islice
from random import Random
from typing import Any

from forgetlab.errors import one_of
from forgetlab.sources.world import corpus
from forgetlab.sources.world.corpus import PHENOMENA, PRETRAINED, Split, draw, register_symbol
from forgetlab.sources.world.grammar import Sample

Row = dict[str, Any]
SIZES: dict[Split, int] = {"train": 2000, "test": 512, "heldout": 256}
POLARITY = {"positive": "Reviewpos", "negative": "Reviewneg"}
TURNING = {"not", "never", "far", "but", "although", "denied", "no", "once"}  # the last two in unfamiliar reviews only


def rows(
    name: str,
    split: Split,
    *,
    similarity: float = 1.0,
    seed: int = 0,
    size: int | None = None,
    turned: float | None = None,
) -> list[Row]:
    """The rows of one split of an embedded task.

    name: a key of BUILDERS, or "text:REGISTER" for language-model text. similarity: the dial of corpus.grammar.
    turned: of sentiment, the share of reviews whose words are turned (None: the grammar's own, about a half).
    """
    one_of("split", split, SIZES)
    rng = Random(f"{name}/{split}/{seed}/{similarity}" + ("" if turned is None else f"/{turned:g}"))
    if name.startswith("text:"):
        found = _text(register_symbol(name[5:]), split, rng, similarity)
    else:
        one_of("task", name, BUILDERS)
        build = BUILDERS[name] if turned is None else partial(_reviews, turned=turned)
        found = build(split, rng, similarity)
    return list(islice(found, SIZES[split] if size is None else size))


def _text(symbol: str, split: Split, rng: Random, similarity: float) -> Iterator[Row]:
    """Texts; in a test split with a gap and the exact floors: −log p of the text and of the gap's word, in nats."""
    parser = corpus.parser(similarity)
    for sample in draw(symbol, split, rng, similarity=similarity, labelled=False):
        row: Row = {"text": sample.text}
        if split == "test":
            gap = rng.randrange(len(sample.words))
            row["nats"] = round(-sample.logprob, 6)
            row["gap"] = gap
            row["gap_nats"] = round(abs(parser.conditional(sample.words, gap, symbol)), 6)
        yield row


def _entities(split: Split, rng: Random, similarity: float) -> Iterator[Row]:
    for sample in draw("General", split, rng, similarity=similarity):
        if any(tag != "O" for tag in sample.tags):
            yield {"words": sample.words, "tags": sample.tags}


def _by_symbol(symbols: dict[str, str]) -> Callable[[Split, Random, float], Iterator[Row]]:
    """Labels in turn, so that every class is equally frequent."""

    def build(split: Split, rng: Random, similarity: float) -> Iterator[Row]:
        streams = [(label, draw(s, split, rng, similarity=similarity)) for label, s in symbols.items()]
        for label, stream in cycle(streams):
            yield {"text": next(stream).text, "label": label}

    return build


def _reviews(split: Split, rng: Random, similarity: float, turned: float) -> Iterator[Row]:
    """Reviews, `turned` of which hold a word that turns others, evenly spread over the rows and the labels."""

    def stream(symbol: str, turns: bool) -> Iterator[Sample]:
        drawn = draw(symbol, split, rng, similarity=similarity)
        return (sample for sample in drawn if TURNING.isdisjoint(sample.words) != turns)

    streams = {(label, turns): stream(s, turns) for label, s in POLARITY.items() for turns in (False, True)}
    for i in count():
        turns = int((i + 1) * turned) > int(i * turned)
        for label in POLARITY:
            yield {"text": next(streams[label, turns]).text, "label": label}


def _entailment(split: Split, rng: Random, similarity: float) -> Iterator[Row]:
    symbols = {"entails": "Entails", "neutral": "Neutral", "contradicts": "Contradicts"}
    for row in _by_symbol(symbols)(split, rng, similarity):
        text, _, pair = row["text"].partition(" ||| ")
        yield {"text": text, "pair": pair, "label": row["label"]}


def _acceptability(split: Split, rng: Random, similarity: float) -> Iterator[Row]:
    """Every second text is broken, the phenomena in turn; a text and its broken twin never stand together."""
    phenomena = cycle(PHENOMENA)
    stream = draw("General", split, rng, similarity=similarity)
    while True:
        yield {"text": next(stream).text, "label": "good"}
        words, phenomenon = _break_next(stream, next(phenomena), split, rng)[1:]
        yield {"text": " ".join(words), "label": "bad", "fault": phenomenon}


def _minimal_pairs(split: Split, rng: Random, similarity: float) -> Iterator[Row]:
    stream = draw("General", split, rng, similarity=similarity)
    for phenomenon in cycle(PHENOMENA):
        sample, words, _ = _break_next(stream, phenomenon, split, rng)
        yield {"good": sample.text, "bad": " ".join(words), "fault": phenomenon}


def _break_next(stream: Iterator[Sample], fault: str, split: Split, rng: Random) -> tuple[Sample, list[str], str]:
    side = "train" if split == "train" else "test"
    for sample in stream:
        words = corpus.broken(sample, fault, rng)
        if words and corpus.side(" ".join(words)) == side:
            return sample, words, fault
    raise AssertionError("the stream is endless")


def _cloze(split: Split, rng: Random, similarity: float) -> Iterator[Row]:
    for sample in draw("Riddle", split, rng, similarity=similarity):
        question, candidates, answer = corpus.cloze(sample)
        yield {"text": question, "choices": candidates, "answer": answer}


BUILDERS: dict[str, Callable[[Split, Random, float], Iterator[Row]]] = {
    "entities": _entities,
    "sentiment": _by_symbol(POLARITY),
    "register": _by_symbol({register: register_symbol(register) for register in PRETRAINED}),
    "acceptability": _acceptability,
    "entailment": _entailment,
    "minimal-pairs": _minimal_pairs,
    "cloze": _cloze,
}
