"""The embedded tasks by name, from the shipped files or, at another point of the similarity dial, made anew."""

from __future__ import annotations

import json
import math
from typing import Any

from forgetlab.errors import ForgetlabError, a_seed, number, one_of, unknown, whole
from forgetlab.models.model import Model
from forgetlab.sources import Examples, Kind
from forgetlab.sources.shipped import data_folder
from forgetlab.tasks import CausalLM, Classification, MaskedLM, Tagging, Task
from forgetlab.tasks.descriptions import DESCRIPTIONS
from forgetlab.tasks.policy_gradient import Advantage
from forgetlab.tasks.praise import praise
from forgetlab.tasks.probes import Cloze, KShot, MinimalPairs
from forgetlab.tasks.writing import Writing

Row = dict[str, Any]

SPLITS = ("test", "validation", "heldout")
TESTS, VALIDATION = 512, 1280  # rows of a split; drawn for one, before those that the test has are left out


def task(
    name: str,
    *,
    similarity: float = 1.0,
    split: str = "test",
    seed: int = 0,
    size: int | None = None,
    turned: float | None = None,
    samples: int | None = None,
    advantage: Advantage | None = None,
) -> Task:
    """An embedded task by name, "sentiment" or "causal-lm:notices".

    similarity: how much vocabulary and structure the task's texts share with the pre-training text, 0 to 1
    (only reviews have unfamiliar words and structures, so it matters for sentiment and the reviews register).
    split: what is scored: "test", "validation" (to choose on: none of them is a training or a test text), or "heldout"
    (every text holds a name or noun that no labelled training text has).
    size: training examples (default: all that are shipped). turned: of sentiment, the share of reviews whose words are
    turned by not, never, far, but, although or denied, 0 to 1: how hard it is (None: the shipped ones, about a half).
    samples, advantage: of praise and praise:hole, how they are trained (`tasks.Rewarded`: 8, "group").
    Raises ForgetlabError for an unknown name.

    >>> review = task("sentiment").train
    >>> review.texts[0], review.labels[0]
    ('elena loved the films .', 'positive')
    """
    base, _, register = name.partition(":")
    if base not in DESCRIPTIONS:
        raise unknown("task", name, DESCRIPTIONS)
    one_of("split", split, SPLITS)
    similarity, seed = number("similarity", similarity, 0, 1), a_seed(seed)
    size = None if size is None else whole("size", size)
    if turned is not None and base != "sentiment":
        raise ForgetlabError(f"turned is the dial of sentiment, which {name} has not: leave it out")
    rewarded = name in ("praise", "praise:hole")
    if (samples, advantage) != (None, None) and not rewarded:
        dial = "advantage" if samples is None else "samples"
        raise ForgetlabError(f"{dial} is a dial of praise, which {name} has not: leave it out")
    if base == "praise":
        if odd := "similarity" if similarity != 1 else "split" if split != "test" else "":
            raise ForgetlabError(f"{name} has no {odd}: its test prompts have nouns of their own; leave it out")
        return praise(name, size=size, seed=seed, samples=samples or 8, advantage=advantage or "group")
    turned = 0.0 if base == "plain" else None if turned is None else number("turned", turned, 0, 1)
    dials = [] if similarity == 1.0 else [f"{similarity:g}"]
    dials += [] if turned is None or base == "plain" else [f"turned={turned:g}"]
    full_name = f"{name}@{','.join(dials)}" if dials else name

    def rows(source: str, part: str, count: int | None = None) -> list[Row]:
        return _rows("sentiment" if source == "plain" else source, part, similarity, seed, count, turned)

    scored = "validation" if split == "validation" else "test"  # of what has no held-out words

    if base in ("masked-lm", "causal-lm"):
        source = f"text:{register or 'general'}"
        train, test = rows(source, "train", size), rows(source, scored)
        if base == "masked-lm":
            floor = math.exp(sum(row["gap_nats"] for row in test) / len(test))
            return MaskedLM(full_name, _examples(train), _examples(test), floor, gaps=[row["gap"] for row in test])
        predictions = sum(len(row["text"].split()) + 1 for row in test)
        floor = math.exp(sum(row["nats"] for row in test) / predictions)
        return CausalLM(full_name, _examples(train), _examples(test), floor)
    if register:
        raise ForgetlabError(f"unknown task {name!r}; only masked-lm and causal-lm take a register, try {base!r}")
    if base in ("entities", "sentiment", "plain", "register", "acceptability", "entailment"):
        make = Tagging if base == "entities" else Classification
        return make(full_name, _examples(rows(base, "train", size)), _examples(rows(base, split)), head=base)
    if base == "minimal-pairs":
        found = rows(base, scored)
        return MinimalPairs(full_name, [row["good"] for row in found], [row["bad"] for row in found])
    if base == "cloze":
        found = rows(base, scored)
        questions, choices = ([row[key] for row in found] for key in ("text", "choices"))
        return Cloze(full_name, questions, choices, [row["choices"].index(row["answer"]) for row in found])
    if base == "k-shot":
        return KShot(full_name, _examples(rows("register", "train", 200)), _examples(rows("register", scored)))
    return Writing(full_name)


def default_watch(model: Model) -> list[str]:
    """Names of the embedded tasks that make sense to watch on this model."""
    if model.lm_kind == "causal":
        return ["causal-lm", "minimal-pairs", "cloze", "writing"]
    names = ["masked-lm"] if model.lm_kind == "masked" else []
    names += [head for head in ("entities", "register", "acceptability", "entailment") if head in model.heads]
    return [*names, "minimal-pairs", "k-shot"] if model.lm_kind else [*names, "k-shot"]


def _rows(
    source: str, part: str, similarity: float, seed: int, size: int | None, turned: float | None = None
) -> list[Row]:
    from forgetlab.sources.world import examples

    if part == "validation":  # of the same side of the split, drawn anew, the test texts left out
        tests = [_words(row) for row in _rows(source, "test", similarity, seed, None, turned)]
        drawn = examples.rows(source, "test", similarity=similarity, seed=seed + 1, size=VALIDATION, turned=turned)
        return [row for row in drawn if _words(row) not in tests][: size or TESTS]
    path = data_folder() / "tasks" / f"{source.replace(':', '-')}.{part}.jsonl"
    if similarity == 1.0 and seed == 0 and turned is None and path.is_file():
        with path.open(encoding="utf-8") as file:
            found = [json.loads(line) for line in file]
        if size is None or size <= len(found):
            return found[:size]
    return examples.rows(source, part, similarity=similarity, seed=seed, size=size, turned=turned)  # type: ignore[arg-type]


def _words(row: Row) -> str:
    """What a row asks of, to tell two rows apart."""
    return " ".join(row["words"]) if "words" in row else str(row.get("text", row.get("good")))


def _examples(rows: list[Row]) -> Examples:
    def column(name: str) -> tuple[Any, ...] | None:
        return tuple(row[name] for row in rows) if name in rows[0] else None

    if "words" in rows[0]:
        words, tags = (tuple(tuple(row[name]) for row in rows) for name in ("words", "tags"))
        return Examples("tags", (), words=words, tags=tags)
    kind: Kind = "pairs" if "pair" in rows[0] else "labelled" if "label" in rows[0] else "text"
    return Examples(kind, column("text") or (), column("pair"), column("label"))
