"""pyrecall: a score for each prompt, a mean for each category."""

from typing import Any

from pyrecall.detector import CategoryComparison
from pyrecall.utils import compute_log_likelihood_batch
from table_model import table_model, words_of

PEER = "pyrecall"
NOTES = {
    "perplexity": "its score of a category: the mean over texts of exp(−mean loss), documented so",
    "kept_share": "pct_change of a category",
}


def perplexity(table: Any, texts: Any, end: int) -> float:
    model, tokenizer = table_model(table, end)
    scores = compute_log_likelihood_batch(model, tokenizer, [""] * len(texts), words_of(texts))
    return sum(scores) / len(scores)


def kept_share(before: float, after: float, guess: float) -> float:
    return CategoryComparison("skill", before, after).pct_change
