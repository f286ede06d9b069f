"""A transformers causal model whose next-token probabilities are a table, p(b | a) = table[a][b], and its tokenizer.

For implementations that take a model: GPT-2 without layers, whose LayerNorm of one-hot embeddings the LM head undoes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast


def table_model(table: Sequence[Sequence[float]], end: int) -> tuple[Any, Any]:
    """(model, tokenizer): words "0", "1", …; the end token also pads; no begin token; float64, eval mode."""
    V = len(table)
    config = GPT2Config(
        vocab_size=V, n_embd=2 * V, n_layer=0, n_head=1, n_positions=64, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).double().eval()
    with torch.no_grad():
        model.transformer.wpe.weight.zero_()
        model.transformer.wte.weight.copy_(torch.eye(V, 2 * V))
        each = torch.arange(V).unsqueeze(1)
        hidden = model.transformer(each, attention_mask=torch.ones_like(each)).last_hidden_state.squeeze(1)  # (V, 2V)
        wanted = torch.tensor(table, dtype=torch.float64).log()
        model.lm_head.weight.copy_((torch.linalg.pinv(hidden) @ wanted).T)  # hidden Wᵀ = ln table: rows are independent
    words = Tokenizer(WordLevel({**{str(i): i for i in range(V) if i != end}, "<end>": end}, unk_token="<end>"))
    words.pre_tokenizer = WhitespaceSplit()
    return model, PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", pad_token="<end>")


def words_of(texts: Sequence[Sequence[int]]) -> list[str]:
    return [" ".join(map(str, text)) for text in texts]
