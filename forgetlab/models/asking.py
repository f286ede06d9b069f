"""What a model answers to one sentence: words for a gap, tags, a class, the next word, a continuation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from forgetlab.errors import ForgetlabError
from forgetlab.models.heads import Head
from forgetlab.models.model import Model

__all__ = ["Reading", "answer", "continuation", "fills", "labels", "next_words", "read"]

LONGEST = 1000  # characters of a sentence
WRITTEN = 24  # tokens of a continuation
GAP = re.compile(r"\[mask\]", re.IGNORECASE)  # for every model, whatever its own mask token is called
Guess = tuple[str, float]  # a word or label, and its probability


@dataclass(frozen=True)
class Reading:
    """A sentence as a model reads it.

    words: as typed. ids: of its tokens, marks included. spans: the places in `ids` of each word's tokens.
    gaps: which words are a mask token. notes: what was cut, and words that the model does not know.
    """

    words: list[str]
    ids: list[int]
    spans: list[list[int]]
    gaps: list[int]
    notes: list[str]


def checked(text: str) -> str:
    """The sentence in one line; raises ForgetlabError where it is empty or has more than LONGEST characters."""
    if len(text) > LONGEST:
        raise ForgetlabError(f"the sentence has {len(text):,} characters; up to {LONGEST:,} can be asked about")
    if not (line := " ".join(text.split())):
        raise ForgetlabError("the sentence is empty; type some words, such as “anna flew to [MASK] .”")
    return line


def read(model: Model, text: str) -> Reading:
    """A sentence for a model; [MASK] marks a gap, and for a causal model the place from where it writes on.

    Raises ForgetlabError for what `checked` refuses, for another special mark than [MASK], and for [MASK] where the
    tokenizer of a model that does not write has no such token.

    >>> read(model, "the film was [MASK].").words
    ['the', 'film', 'was', '[MASK]', '.']
    """
    tokenizer, line = model.tokenizer, checked(text)
    if model.causal:
        line = GAP.split(line)[0].rstrip()
    elif GAP.search(line):
        if tokenizer.mask_token is None:
            raise ForgetlabError(f"{model.name} has no mask token: leave [MASK] out")
        line = GAP.sub(lambda _: tokenizer.mask_token, line)
    for mark in tokenizer.all_special_tokens:
        if mark in line and mark != tokenizer.mask_token:
            raise ForgetlabError(f"{mark} is a special mark of {model.name} and no word: leave it out")
    room = model.max_length - 1 - WRITTEN if model.causal else model.max_length
    options: dict[str, Any] = {"truncation": True, "max_length": room, "add_special_tokens": not model.causal}
    encoded = tokenizer(line, return_offsets_mapping=True, **options)
    begin = [tokenizer.bos_token_id] if model.causal and tokenizer.bos_token_id is not None else []
    if not (ids := begin + list(encoded["input_ids"])):
        raise ForgetlabError(f"{model.name} has no token to begin from: type some words before [MASK]")
    places: dict[int, list[int]] = {}
    for place, word in enumerate(encoded.word_ids()):
        if word is not None:
            places.setdefault(word, []).append(place + len(begin))
    spans = list(places.values())
    ends = [tuple(encoded["offset_mapping"][place - len(begin)] for place in (s[0], s[-1])) for s in spans]
    words = [line[first[0] : last[1]].strip() for first, last in ends]
    gaps = [i for i, span in enumerate(spans) if ids[span[0]] == tokenizer.mask_token_id]
    rest = line[ends[-1][1][1] :].strip() if ends else ""
    notes = [f"too long for {model.name}: it read the first {len(words)} words only"] if rest else []
    unknown = [i for i, span in enumerate(spans) if tokenizer.unk_token_id in [ids[place] for place in span]]
    return Reading(words, ids, spans, gaps, notes + _unknown_words(model, [words[i] for i in unknown]))


def fills(model: Model, reading: Reading, top: int = 5) -> list[tuple[str, list[Guess]]]:
    """For each gap (without one: for each word, hidden in its turn) the word and its `top` most probable fills."""
    hidden = reading.gaps or range(len(reading.words))
    if not hidden:
        return []
    ids = torch.tensor([reading.ids] * len(hidden))
    for row, word in enumerate(hidden):
        ids[row, reading.spans[word]] = model.tokenizer.mask_token_id
    firsts = torch.tensor([reading.spans[word][0] for word in hidden])
    at_gaps = model.hidden(_batch(model, ids))[torch.arange(len(ids)), firsts]
    guesses = _best(model, model.lm_logits(at_gaps), top)
    return [(reading.words[word], own) for word, own in zip(hidden, guesses, strict=True)]


def labels(model: Model, reading: Reading, head: str) -> list[list[Guess]]:
    """The labels of a head with their probabilities, the likeliest first: one list, or for a token head one a word."""
    logits = model.logits(_batch(model, torch.tensor([reading.ids])), head)[0]
    made = model.heads[head]
    assert isinstance(made, Head)
    rows = logits[[span[0] for span in reading.spans]] if made.level == "token" else logits.unsqueeze(0)
    ranked = _probabilities(rows).sort(dim=-1, descending=True, stable=True)
    pairs = zip(ranked.values.tolist(), ranked.indices.tolist(), strict=True)
    return [[(made.labels[i], p) for p, i in zip(*row, strict=True)] for row in pairs]


def next_words(model: Model, reading: Reading, top: int = 5) -> list[Guess]:
    """The `top` most probable next words (tokens) of a causal model."""
    last = model.hidden(_batch(model, torch.tensor([reading.ids])))[:, -1]
    return _best(model, model.lm_logits(last), top)[0]


def continuation(model: Model, reading: Reading, *, seed: int) -> str:
    """What a causal model writes on, up to its end token or WRITTEN tokens, drawn with `seed`."""
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same draws on every device
    feed, past, written = torch.tensor([reading.ids], device=model.device), None, []
    for _ in range(WRITTEN):
        out = model.backbone(input_ids=feed, past_key_values=past, use_cache=True)
        past = out.past_key_values
        chances = _probabilities(model.lm_logits(out.last_hidden_state[:, -1]))
        feed = torch.multinomial(chances, 1, generator=generator).to(model.device)
        if int(feed) == model.tokenizer.eos_token_id:
            break
        written.append(int(feed))
    return str(model.tokenizer.decode(written, skip_special_tokens=True)).strip()


def answer(model: Model, text: str, *, seed: int = 0, heads: Sequence[str] = ()) -> dict[str, Any]:
    """All of it as plain values: "words", "gaps", "notes", and as the model can "fills" or "next" and "continuation".

    heads: named heads to ask too; "heads" holds what `labels` gives for each. seed: of the continuation.
    Raises ForgetlabError for what `read` refuses, and where the weights are no longer finite (a diverged run).
    """
    with torch.inference_mode():
        reading = read(model, text)
        found: dict[str, Any] = {"words": reading.words, "gaps": reading.gaps, "notes": reading.notes, "heads": {}}
        if model.lm_kind == "masked":
            found["fills"] = fills(model, reading)
        elif model.lm_kind == "causal":
            found["next"] = next_words(model, reading)
            found["continuation"] = continuation(model, reading, seed=seed)
        for head in heads:
            found["heads"][head] = labels(model, reading, head)
    return found


def _unknown_words(model: Model, words: Sequence[str]) -> list[str]:
    shown = []
    for word in dict.fromkeys(word.lower() for word in words):
        near = get_close_matches(word[:30], [*model.tokenizer.get_vocab()], n=1, cutoff=0.75)
        shown.append(word[:30] + (f" (near: {near[0]})" if near else ""))
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return [f"not in {model.name}'s vocabulary: {', '.join(shown[:5])}{more}"] if shown else []


def _batch(model: Model, ids: Tensor) -> dict[str, Tensor]:
    return {"input_ids": ids.to(model.device), "attention_mask": torch.ones_like(ids).to(model.device)}


def _probabilities(logits: Tensor) -> Tensor:
    """(…, classes) on the CPU; rounded nowhere, so that each row still has the sum 1."""
    chances = logits.float().softmax(-1).cpu()
    if not bool(chances.isfinite().all()):
        raise ForgetlabError("the weights are no longer finite: this model has no answer")
    return chances


def _best(model: Model, logits: Tensor, top: int) -> list[list[Guess]]:
    best = _probabilities(logits).topk(top)
    pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    return [[(model.tokenizer.decode([i]).strip(), p) for p, i in zip(*row, strict=True)] for row in pairs]
