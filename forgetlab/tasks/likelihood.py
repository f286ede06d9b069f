"""How probable a model finds a text, or an option after its context; for any vocabulary and any length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from forgetlab.models.model import Model
from forgetlab.sources import Examples
from forgetlab.tasks.encoding import EVALUATION_BATCH, encode, text_tokens
from forgetlab.tasks.language import in_pieces


def log_probabilities(model: Model, texts: Sequence[str], at_once: int = EVALUATION_BATCH) -> Tensor:
    """(N,) log-probability of each text in nats; for a masked model its pseudo-log-likelihood. at_once: texts.

    Causal: Σ log p(token | all before it) over the text's own tokens, and the end token where the model's pre-training
    had it (`Model.end_mark`). Without a begin token nothing stands before the first token, and it does not count.
    """
    examples = Examples(kind="text", texts=tuple(texts))
    causal = model.lm_kind == "causal"
    encoded = encode(examples, model.tokenizer, model.max_length, begin=causal, end=causal and model.end_mark)
    total = torch.empty(len(encoded))
    with torch.no_grad():  # within `Task.scored` in inference mode too, but where FSDP forbids it
        for index in (i for batch in encoded.evaluation_batches() for i in batch.split(at_once)):
            batch = {k: v.to(model.device) for k, v in encoded.take(index).items()}
            inner = batch["attention_mask"].bool() if model.causal else text_tokens(batch["input_ids"], model.tokenizer)
            total[index] = _sums(model, batch, inner).cpu()
    return total


def answer_log_probabilities(
    model: Model, examples: Examples, at_once: int = EVALUATION_BATCH
) -> tuple[Tensor, Tensor]:
    """(N,) log-probability in nats of each answer of completions or chats after what it answers, and (N,) its tokens.

    Causal models: Σ log p(token | all before it) over the tokens that such a task learns.
    """
    encoded = encode(examples, model.tokenizer, model.max_length, begin=True, end=model.end_mark)
    total = torch.empty(len(encoded))
    with torch.no_grad():
        for index in (i for batch in encoded.evaluation_batches() for i in batch.split(at_once)):
            batch = {k: v.to(model.device) for k, v in encoded.take(index).items()}
            total[index] = _sums(model, batch, batch["scored"].bool()).cpu()
    return total, encoded.columns["scored"][:, 1:].sum(1)


def option_log_probabilities(
    model: Model, contexts: Sequence[str], options: Sequence[str], at_once: int = EVALUATION_BATCH
) -> tuple[Tensor, Tensor]:
    """(N,) log-probability in nats of each option after its context, and (N,) how many tokens the option has.

    The two are joined by a space. Causal: Σ log p(token | all before it). Masked: each token of the option hidden in
    turn, the context in sight. A context that is too long loses its beginning, never the option.
    """
    tokenizer = model.tokenizer
    whole = [f"{c} {o}".strip() for c, o in zip(contexts, options, strict=True)]
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    before = {c: len(tokenizer(c, add_special_tokens=False)["input_ids"]) for c in dict.fromkeys(contexts)}
    begin, end = _marks(model)
    rows, counts = [], []
    for context, row in zip(contexts, ids, strict=True):
        kept = row[-(model.max_length - len(begin) - len(end)) :]
        unseen = 1 if model.causal and not begin else 0  # nothing stands before the first token
        counts.append(max(0, min(len(row) - before[context], len(kept) - unseen)))
        rows.append(torch.tensor([*begin, *kept, *end]))
    lengths, numbers = torch.tensor([len(row) for row in rows]), torch.tensor(counts)
    total = torch.empty(len(rows))
    with torch.no_grad():
        for index in torch.argsort(lengths, stable=True).split(at_once):
            padded = pad_sequence([rows[i] for i in index.tolist()], True, tokenizer.pad_token_id)
            places, length = torch.arange(padded.shape[1]), lengths[index].unsqueeze(1)
            batch = {"input_ids": padded, "attention_mask": (places < length).long()}
            last = length - len(end)
            own = (places < last) & (places >= last - numbers[index].unsqueeze(1))
            batch = {name: column.to(model.device) for name, column in batch.items()}
            total[index] = _sums(model, batch, own.to(model.device)).cpu()
    return total, numbers


def _marks(model: Model) -> tuple[list[int], list[int]]:
    """The special tokens that stand before and after a text: a causal model's begin token, an encoder's both."""
    if model.causal:
        begin = model.tokenizer.bos_token_id
        return ([] if begin is None else [begin]), []
    marks = model.tokenizer("")["input_ids"]
    return marks[:1], marks[1:]


def _sums(model: Model, batch: Mapping[str, Tensor], counted: Tensor) -> Tensor:
    """(B,) Σ log p(token | what the model sees) over the tokens that are `counted`, a (B, L) bool tensor."""
    return (_causal_sums if model.causal else _masked_sums)(model, batch, counted)


def _causal_sums(model: Model, batch: Mapping[str, Tensor], counted: Tensor) -> Tensor:
    targets = batch["input_ids"][:, 1:]
    pieces = in_pieces(model, model.hidden(batch)[:, :-1].flatten(0, 1), targets.flatten())
    nll = torch.cat([F.cross_entropy(model.lm_logits(h).float(), t, reduction="none") for h, t in pieces])
    return -(nll.view(targets.shape) * counted[:, 1:]).sum(1)


def _masked_sums(model: Model, batch: Mapping[str, Tensor], counted: Tensor) -> Tensor:
    ids = batch["input_ids"]
    rows, places = counted.nonzero(as_tuple=True)
    total = torch.zeros(len(ids), device=ids.device)
    for r, p in zip(rows.split(512), places.split(512), strict=True):  # one row for each token hidden
        part = {name: column[r] for name, column in batch.items()}
        own = torch.arange(len(r), device=ids.device)
        part["input_ids"] = part["input_ids"].clone()
        targets = part["input_ids"][own, p].clone()
        part["input_ids"][own, p] = model.tokenizer.mask_token_id
        logp = model.lm_logits(model.hidden(part)[own, p]).float().log_softmax(-1)
        total.index_add_(0, r, logp.gather(1, targets.unsqueeze(1)).squeeze(1))
    return total
