"""soup-cli."""

from typing import Any

from soup_cli.commands.shrink import _perplexity
from soup_cli.eval.calibrate import kl_divergence
from soup_cli.utils.diagnose.forgetting import score_forgetting
from table_model import table_model, words_of

PEER = "soup-cli"
NOTES = {
    "perplexity": "of `soup shrink`, documented as each text weighing the same, for ratios only",
    "kept_share": "score of `soup diagnose`, with its tolerance of 0.02, documented so",
}


def kl_before_after(before: Any, after: Any) -> float:
    return sum(map(kl_divergence, before, after)) / len(before)


def kl_after_before(before: Any, after: Any) -> float:
    return kl_before_after(after, before)


def perplexity(table: Any, texts: Any, end: int) -> float:
    model, tokenizer = table_model(table, end)
    return _perplexity(model, tokenizer, words_of(texts), "cpu")


def kept_share(before: float, after: float, guess: float) -> float:
    return score_forgetting({"task": before}, {"task": after}).score
