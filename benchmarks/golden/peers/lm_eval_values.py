"""lm-evaluation-harness: rolling log-likelihoods over tokens."""

import math
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from table_model import table_model, words_of

PEER = "lm-eval"
NOTES = {"perplexity": "exp(−Σ loglikelihood_rolling / tokens): the first token is scored after the end token"}


def perplexity(table: Any, texts: Any, end: int) -> float:
    model, tokenizer = table_model(table, end)
    harness = HFLM(pretrained=model, tokenizer=tokenizer, device="cpu")
    asked = [Instance("loglikelihood_rolling", {}, (text,), i) for i, text in enumerate(words_of(texts))]
    return math.exp(-sum(harness.loglikelihood_rolling(asked, disable_tqdm=True)) / sum(map(len, texts)))
