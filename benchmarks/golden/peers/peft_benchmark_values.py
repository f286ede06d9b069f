"""The forgetting metric of peft's MetaMathQA benchmark, from a checkout: GOLDEN_CHECKOUTS/peft."""

import ast
import math
import os
from pathlib import Path
from typing import Any

import torch
from table_model import table_model, words_of

PEER = "peft (benchmark script in its repository, 026d1e01)"
NOTES = {
    "perplexity": "exp of calculate_mean_per_token_loss, which its metric takes before and after; corrected in its "
    "repository by pull request 3419 (July 2026)"
}
FILE = Path(os.environ["GOLDEN_CHECKOUTS"], "peft/method_comparison/MetaMathQA/run.py")


def perplexity(table: Any, texts: Any, end: int) -> float:
    model, tokenizer = table_model(table, end)
    # the function alone: the script asks for a GPU when it is imported
    tree = ast.parse(FILE.read_text(encoding="utf-8"))
    wanted = next(n for n in tree.body if getattr(n, "name", "") == "calculate_mean_per_token_loss")
    room: dict[str, Any] = {"torch": torch}
    exec(compile(ast.Module([wanted], []), str(FILE), "exec"), room)
    plain = model.forward
    model.forward = lambda pad_token_id=None, **batch: plain(**batch)  # later versions of GPT-2 refuse it
    return math.exp(room[wanted.name](model, tokenizer, words_of(texts), batch_size=3, max_length=64))
