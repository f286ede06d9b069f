"""seqeval, default mode."""

from typing import Any

from seqeval.metrics import f1_score, precision_score, recall_score

PEER = "seqeval"
NOTES = {"entity_f1": "default mode; mode='strict' with scheme=IOB2 is another convention"}


def entity_f1(predicted: Any, gold: Any) -> dict[str, float]:
    found = precision_score(gold, predicted), recall_score(gold, predicted), f1_score(gold, predicted)
    return dict(zip(("precision", "recall", "f1"), found, strict=True))
