"""finetunecheck: two checkpoints, scores by category."""

from typing import Any

import numpy as np
import torch
from finetunecheck.deep_analysis.calibration import CalibrationAnalyzer
from finetunecheck.deep_analysis.perplexity import PerplexityAnalyzer
from finetunecheck.deep_analysis.representation import CKAAnalyzer
from finetunecheck.forgetting import metrics
from finetunecheck.models import CategoryScore
from table_model import table_model, words_of

PEER = "finetunecheck"
NOTES = {
    "backward_transfer": "given R[j, j] as the base's score of category j and R[T, j] as the fine-tuned one's: "
    "the package compares two checkpoints",
    "kept_share": "capability_retention_rate: fine-tuned / base, documented as a ratio",
    "perplexity": "mean_ppl_base of its report; the package reports the distribution over texts",
    "linear_cka_biased": "CKAAnalyzer.linear_cka, documented as Kornblith's",
    "expected_calibration_error": "10 bins unless told",
}


def score(name: str, value: float) -> CategoryScore:
    return CategoryScore(category=name, mean_score=value, std_score=0.0, num_samples=1, status="MEASURED")


def backward_transfer(R: Any) -> Any:
    before, after = (
        {str(j): score(str(j), x) for j, x in enumerate(s)} for s in ([R[j][j] for j in range(len(R))], R[-1])
    )
    return metrics.backward_transfer(before, after, [str(len(R) - 1)])


def kept_share(before: float, after: float, guess: float) -> Any:
    return metrics.capability_retention_rate({"c": score("c", before)}, {"c": score("c", after)})["c"]


def linear_cka_biased(X: Any, Y: Any) -> float:
    return CKAAnalyzer.linear_cka(torch.tensor(X), torch.tensor(Y))


def perplexity(table: Any, texts: Any, end: int) -> float:
    model, tokenizer = table_model(table, end)
    return float(PerplexityAnalyzer().compute_perplexities(model, tokenizer, words_of(texts), "cpu").mean())


def expected_calibration_error(probabilities: Any, labels: Any, bins: int) -> float:
    p = np.array(probabilities)
    return CalibrationAnalyzer(num_bins=bins).compute_ece(p.max(1), (p.argmax(1) == labels).astype(float))[0]
