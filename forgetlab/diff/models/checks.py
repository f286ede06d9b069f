"""Whether two folders hold the same model with other weights: its sizes, its settings, its words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from forgetlab.diff.order import other_architecture
from forgetlab.errors import ForgetlabError, shown
from forgetlab.models.loading import in_words
from forgetlab.models.model import Model, quiet_transformers

# settings that do not change what a backbone computes in eval mode from the tokens of BEFORE
FREE = re.compile(
    r"architectures|.*label.*|.*dtype|transformers_version|_.*|use_cache|problem_type|vocab_size|.*_token_id|.*drop.*"
    r"|.*classifier.*|finetuning_task|output_.*|return_dict.*|gradient_checkpointing|initializer.*|init_.*|end_mark"
    r"|add_pooling_layer|pruned_heads|task_specific_params|pooler_.*|summary_.*|base_model_.*|auto_map|quantization.*"
)
TRIAL = ("The cat sat on the mat .", "Anna's 3 dogs, in Paris!", "naïve café", "a b")


def check_config(before: Any, after: Any, given: str) -> None:
    """Raise ForgetlabError where a setting differs that changes what a backbone computes."""
    old, new = before.to_dict(), after.to_dict()
    for name in ["model_type", *sorted(old.keys() | new.keys())]:
        if old.get(name) != new.get(name) and not FREE.fullmatch(name):
            raise other_architecture(given, name, new.get(name), old.get(name))


def check_tokenizer(model: Model, folder: Path, given: str, notes: list[str]) -> None:
    """Raise ForgetlabError where a folder's tokenizer is not BEFORE's. One that lacks a tokenizer is noted."""
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")):
        notes.append(f"{given} has no tokenizer; BEFORE's is used")
        return
    with quiet_transformers(), in_words(given):
        theirs = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    ours, own = model.tokenizer.get_vocab(), theirs.get_vocab()
    if odd := next((word for word, number in ours.items() if own.get(word) != number), None):
        told = f"{shown(odd)} is its word {own[odd]}, BEFORE's {ours[odd]}" if odd in own else f"it lacks {shown(odd)}"
        raise ForgetlabError(f"{given} has another vocabulary: {told}; expected the model that BEFORE became")
    for text in TRIAL:
        if theirs(text)["input_ids"] != model.tokenizer(text)["input_ids"]:
            raise ForgetlabError(f"{given}: its tokenizer cuts {text!r} into other tokens than BEFORE's")
