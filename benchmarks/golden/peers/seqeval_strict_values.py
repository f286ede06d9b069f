"""seqeval, strict mode with the scheme IOB2."""

from typing import Any

from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.scheme import IOB2

PEER = "seqeval"
NOTES = {"entity_f1": "mode='strict', scheme=IOB2"}


def entity_f1(predicted: Any, gold: Any) -> dict[str, float]:
    scores = {"precision": precision_score, "recall": recall_score, "f1": f1_score}
    return {name: score(gold, predicted, mode="strict", scheme=IOB2) for name, score in scores.items()}
