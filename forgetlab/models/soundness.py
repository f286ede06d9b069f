"""What a model's folder must hold before anything that it says is believed: damage is said in words, at loading."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import torch

from forgetlab.errors import ForgetlabError
from forgetlab.models.model import Model

# sizes of a model, by their names in configs; each is at most the number of weights in the file
SIZES = re.compile(r"(^|_)(n_\w+|num_\w+|dim|size)$")
LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\..*weight$")
TRIAL = ("The cat sat on the mat .", "a b")


def json_in(path: Path, given: str) -> Any:
    """What a JSON file holds. Raises ForgetlabError, in words, where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        what = "holds no JSON in UTF-8" if isinstance(error, ValueError) else f"cannot be read ({type(error).__name__})"
        raise ForgetlabError(f"{given}: its {path.name} {what}") from None


def check_config(folder: Path, given: str) -> None:
    """Raise ForgetlabError for a config.json that asks for a larger model than the weights beside it can fill.

    Such a one would be built for minutes before the weights are found not to fit.
    """
    from safetensors import safe_open

    config = json_in(folder / "config.json", given)
    if not isinstance(config, dict):
        raise ForgetlabError(f"{given}: its config.json holds no settings, but a {type(config).__name__}")
    tensors, weights = 0, 0
    for file in folder.glob("*.safetensors"):
        if file.name != "heads.safetensors":
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118, it is no dict
                    shape = opened.get_slice(name).get_shape()
                    tensors, weights = tensors + 1, weights + int(torch.tensor(shape or [1]).prod())
    for name, value in config.items():
        most = tensors if re.search(r"layer|block", name) else weights
        if SIZES.search(name) and isinstance(value, int | float) and tensors and value > most:
            raise ForgetlabError(
                f"{given}: its config.json says {name} = {value}, its file has {tensors} tensors, {weights:,} weights"
            )


def check_unused(body: Any, unexpected: Any, given: str) -> None:
    """Raise ForgetlabError where the file has more layers than the config: cut off they would not be missed."""
    count = getattr(body.config, "num_hidden_layers", None)
    numbers = [int(found[1]) for name in unexpected if (found := LAYER.search(name))]
    if isinstance(count, int) and any(number >= count for number in numbers):
        raise ForgetlabError(f"{given}: its config.json says {count} layers, its file has {1 + max(numbers)}")


@torch.no_grad()
def check_model(model: Model, given: str) -> None:
    """Raise ForgetlabError for weights that are no numbers, a tokenizer without words, or a text that does not pass."""
    for name, p in model.named_parameters():
        if not torch.isfinite(p).all():
            raise ForgetlabError(f"{given}: {name} holds values that are not finite numbers: the file is damaged")
    _check_tokenizer(model.tokenizer, given)
    tokenizer, rows = model.tokenizer, len(cast(Any, model.backbone).get_input_embeddings().weight)
    encoded = tokenizer(list(TRIAL), padding=True, truncation=True, max_length=model.max_length, return_tensors="pt")
    marks = [mark for mark in (tokenizer.bos_token_id, tokenizer.eos_token_id) if mark is not None]
    if (most := max(int(encoded["input_ids"].max()), *marks, 0)) >= rows:
        raise ForgetlabError(
            f"{given}: its tokenizer gives the token {most}, its model has {rows} embeddings: they are of two models"
        )
    batch = {name: column.to(model.device) for name, column in encoded.items()}
    hidden = model.hidden(batch)
    mask = batch["attention_mask"]
    outputs = [hidden[mask.bool()]] + [head(hidden, mask).flatten(0, -2) for head in model.heads.values()]
    outputs += [model.lm_logits(outputs[0])] if model.lm_kind else []
    if not all(torch.isfinite(output).all() for output in outputs):
        raise ForgetlabError(f"{given}: what the model answers to a text is not a finite number: its file is damaged")


def _check_tokenizer(tokenizer: Any, given: str) -> None:
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):  # what transformers makes up where there are no files
        raise ForgetlabError(
            f"{given} has no tokenizer: expected tokenizer.json, vocab.txt or the like beside config.json (write it "
            "there with tokenizer.save_pretrained(FOLDER))"
        )
    if not getattr(tokenizer, "is_fast", False):
        raise ForgetlabError(
            f"{given}: its tokenizer {type(tokenizer).__name__} does not say which words its tokens are of; expected "
            "one that transformers can open as a fast tokenizer"
        )
