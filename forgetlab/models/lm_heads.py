"""The language-model heads of transformers' families: what stands between the last hidden states and the logits."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from forgetlab.errors import ForgetlabError


def lm_logits(body: nn.Module, hidden: Tensor) -> Tensor:
    """Logits (..., vocabulary) of a transformers model from its backbone's last hidden states (..., width)."""
    model, config = cast(Any, body), cast(Any, body).config
    logits = _head(model, hidden)
    if (scale := getattr(config, "logit_scale", None)) is not None:  # Cohere
        logits = logits * scale
    if (scale := getattr(config, "logits_scaling", None)) is not None:  # Granite
        logits = logits / scale
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:  # Gemma 2
        logits = cap * torch.tanh(logits / cap)
    return logits


def _head(model: Any, hidden: Tensor) -> Tensor:
    for attribute in ("cls", "lm_head", "embed_out"):  # BERT; RoBERTa, GPT-2, Llama, Qwen; GPT-NeoX
        if hasattr(model, attribute):
            return getattr(model, attribute)(hidden)
    if hasattr(model, "vocab_projector"):  # DistilBERT
        changed = model.activation(model.vocab_transform(hidden))
        return model.vocab_projector(model.vocab_layer_norm(changed))
    if hasattr(model, "generator_lm_head"):  # ELECTRA
        return model.generator_lm_head(model.generator_predictions(hidden))
    if hasattr(model, "lm_predictions"):  # DeBERTa-v2 with its own head (legacy=False)
        return model.lm_predictions(hidden, model.base_model.embeddings.word_embeddings)
    if hasattr(model, "decoder") and hasattr(model, "head"):  # ModernBERT
        return model.decoder(model.head(hidden))
    if hasattr(model, "predictions"):  # ALBERT
        return model.predictions(hidden)
    raise _unknown(model)


@torch.no_grad()
def check_lm_head(body: nn.Module) -> None:
    """Raise ForgetlabError where `lm_logits` gives other logits than the model's own forward pass, asked of one text.

    A family may scale or bend its logits in a way of its own, which would give wrong perplexities without a word.
    """
    model = cast(Any, body)
    ids = torch.tensor([[1, 2, 3]], device=model.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    theirs = model(**inputs).logits
    ours = lm_logits(model, model.base_model(**inputs).last_hidden_state)
    if not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4, equal_nan=True):
        raise _unknown(model)


def _unknown(model: Any) -> ForgetlabError:
    return ForgetlabError(
        f"{type(model).__name__}: its language-model head is of a kind that forgetlab does not know; without it (write "
        "the backbone with transformers: model.base_model.save_pretrained(FOLDER)) it serves for labelled tasks"
    )
