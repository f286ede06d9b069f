"""The prompts of a task, answered anew by the model as it is: rehearsal that keeps no old answer."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from forgetlab.models.model import Model
from forgetlab.sources.examples import take
from forgetlab.tasks.chat import mark_ids
from forgetlab.tasks.encoding import IGNORE, Encoded
from forgetlab.tasks.language import CausalLM
from forgetlab.tasks.writing import rollouts

AT_ONCE = 128  # answers written side by side: bounds the memory of a large model's keys and values


@torch.no_grad()
def answered_anew(
    old: CausalLM, model: Model, count: int, generator: torch.Generator, temperature: float, max_tokens: int
) -> CausalLM:
    """A task like `old`, of completions or chats, whose answers are the model's own to `count` of its prompts.

    Of a conversation what stands before its first answer is the prompt. An answer goes to the mark that ends such
    answers in the data, to the end token, or to `max_tokens`. The data's own answers serve for nothing else.
    """
    encoded = old.encoded(model, "train")
    ids, scored = encoded.columns["input_ids"], encoded.columns["scored"]
    begins, ends = scored.argmax(1), _end_marks(ids, scored, mark_ids(model.tokenizer))
    rows = torch.randperm(old.size(), generator=generator)
    rows = rows[(begins[rows] > 0) & encoded.answered[rows]][:count]
    whole, lengths = dict[int, Tensor](), begins[rows]
    for length in lengths.unique().tolist():
        most = min(max_tokens, model.max_length - length)
        for some in rows[lengths == length].split(AT_ONCE):
            starts = ids[some, :length]
            answers = rollouts(model, starts, torch.arange(len(some)), generator, temperature, most)
            for row, start, answer in zip(some.tolist(), starts, answers, strict=True):
                over = torch.isin(answer, ends).nonzero().flatten()[:1] + 1
                whole[row] = torch.cat([start, answer[: int(over) if len(over) else None]])
    task = CausalLM(old.name, take(old.train, rows.tolist()) if old.train else None, old.test)
    written = [whole[row] for row in rows.tolist()]
    padded = pad_sequence(written, batch_first=True, padding_value=model.tokenizer.pad_token_id)
    counts, place = torch.tensor([len(row) for row in written]), torch.arange(padded.shape[1])
    there = place < counts.unsqueeze(1)
    columns = {"input_ids": padded, "attention_mask": there.long()}
    columns["scored"] = (there & (place >= lengths.unsqueeze(1))).long()
    words = torch.full_like(padded, IGNORE)
    task.keep(model, "train", Encoded(columns, counts, words, torch.zeros(len(rows), dtype=torch.bool)))
    return task


def _end_marks(ids: Tensor, scored: Tensor, marks: set[int]) -> Tensor:
    """The marks that are the last one of an answer in the data."""
    found = set()
    for row, counts in zip(ids.tolist(), scored.tolist(), strict=True):
        start = counts.index(1) if 1 in counts else len(row)
        stop = counts.index(0, start) if 0 in counts[start:] else len(row)
        found.update([token for token in row[start:stop] if token in marks][-1:])
    return torch.tensor(sorted(found), dtype=torch.long)
