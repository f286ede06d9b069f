"""Labels and entities: Matthews correlation, entity F1."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction as F
from typing import Any

from benchmarks.golden.exact import dec, mean
from benchmarks.golden.values import Value

THREE = {"labels": [0, 0, 1, 1, 2, 2, 2, 1, 0, 2], "predictions": [0, 1, 1, 1, 2, 0, 2, 1, 0, 2]}
TWO = {"labels": [0, 0, 1, 1, 1, 1, 0, 1], "predictions": [0, 1, 1, 1, 1, 1, 0, 1]}
TAGS = {
    "predicted": [
        ["B-PER", "I-PER", "O", "I-LOC"],
        ["B-ORG", "I-ORG", "O", "B-PER", "O"],
        ["B-LOC", "I-LOC", "I-LOC", "O"],
    ],
    "gold": [
        ["B-PER", "I-PER", "O", "B-LOC"],
        ["I-ORG", "I-ORG", "O", "B-PER", "I-LOC"],
        ["B-LOC", "B-LOC", "I-LOC", "O"],
    ],
}


def table(labels: Sequence[int], predictions: Sequence[int]) -> list[list[int]]:
    """Counts, gold by predicted."""
    both, classes = list(zip(labels, predictions, strict=True)), range(max(*labels, *predictions) + 1)
    return [[both.count((t, p)) for p in classes] for t in classes]


def matthews(**k: Any) -> Decimal:
    C = table(**k)
    t, p = [sum(row) for row in C], [sum(column) for column in zip(*C, strict=True)]
    n, right = sum(t), sum(C[i][i] for i in range(len(C)))
    above = n * right - sum(a * b for a, b in zip(t, p, strict=True))
    return dec(above) / dec((n * n - sum(a * a for a in t)) * (n * n - sum(b * b for b in p))).sqrt()


def accuracy(labels: Sequence[int], predictions: Sequence[int]) -> F:
    return mean(F(a == b) for a, b in zip(labels, predictions, strict=True))


def kappa(**k: Any) -> F:
    C = table(**k)
    n = sum(map(sum, C))
    chance = sum(F(sum(C[i]) * sum(row[i] for row in C), n * n) for i in range(len(C)))
    return (accuracy(**k) - chance) / (1 - chance)


def entities(tags: Sequence[str], strict: bool = False) -> set[tuple[int, int, str]]:
    """Spans (start, end, type). An I- after O or after another type begins an entity, or, `strict` (IOB2), is none."""
    found, start, kind = set(), 0, ""
    for i, tag in enumerate([*tags, "O"]):
        mark, _, this = tag.partition("-")
        if kind and (mark != "I" or this != kind):
            found.add((start, i, kind))
            kind = ""
        if this and not kind and (mark == "B" or not strict):
            start, kind = i, this
    return found


def tokens(tags: Sequence[str]) -> set[tuple[int, str]]:
    return {(i, tag[2:]) for i, tag in enumerate(tags) if tag != "O"}


def f1(predicted: Sequence[Any], gold: Sequence[Any], of: Any = entities, kind: str = "") -> dict[str, F]:
    """kind: entities of this type alone."""
    hits = found = there = 0
    for p, g in zip(predicted, gold, strict=True):
        a, b = ({one for one in of(tags) if one[-1] == kind or not kind} for tags in (p, g))
        hits, found, there = hits + len(a & b), found + len(a), there + len(b)
    return {"precision": F(hits, found), "recall": F(hits, there), "f1": F(2 * hits, found + there)}


def macro(**k: Any) -> dict[str, F]:
    found = [f1(**k, kind=kind) for kind in ("PER", "LOC", "ORG")]
    return {name: mean(one[name] for one in found) for name in found[0]}


VALUES = (
    Value(
        "matthews",
        "R_K = (n Σ_k C_kk − Σ_k t_k p_k) / √((n² − Σ t_k²)(n² − Σ p_k²))",
        "Matthews 1975; Gorodkin 2004, eq. 8",
        "C: counts, gold by predicted; t and p its margins",
        matthews,
        [THREE, TWO],
        conventions={
            "Cohen's kappa": kappa,
            "accuracy": accuracy,
            "its square (mean square contingency)": lambda **k: matthews(**k) ** 2,
        },
    ),
    Value(
        "entity_f1",
        "precision = hits / predicted, recall = hits / gold, F1 = 2·hits / (predicted + gold), over entities (micro)",
        "Tjong Kim Sang & De Meulder 2003 (conlleval); seqeval's default mode",
        "an entity counts when extent and type are exact; an I- after O or after another type begins one",
        f1,
        [TAGS],
        conventions={
            "strict IOB2: an I- that follows no B- or I- of its type is no entity": lambda **k: f1(
                **k, of=lambda tags: entities(tags, strict=True)
            ),
            "the mean over the types (macro)": macro,
        },
        mistakes={"over tokens instead of entities": lambda **k: f1(**k, of=tokens)},
    ),
)
