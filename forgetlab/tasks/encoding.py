"""Texts as padded tensors, encoded once and cut into batches without touching the tokenizer again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from forgetlab.errors import ForgetlabError
from forgetlab.models.model import Model
from forgetlab.sources import Examples
from forgetlab.tasks.chat import chat_rows, completion_rows, marks

IGNORE = -100
EVALUATION_BATCH = 128


@dataclass
class Encoded:
    """Token ids of many texts, on the CPU.

    columns: name → (N, L) of input_ids, attention_mask and, where the model has them, token_type_ids; of completions
    and chats also "scored", 1 at the tokens that are to be written and 0 elsewhere.
    lengths: (N,) tokens of each. words: (N, L) index of the word that a token begins, or IGNORE.
    cut: (N,) bool, whether a text was longer than the model takes and lost its end.
    """

    columns: dict[str, Tensor]
    lengths: Tensor
    words: Tensor
    cut: Tensor
    without: dict[str, int] = field(default_factory=dict)  # of chats: why some have no answer to learn, and how many

    @property
    def answered(self) -> Tensor:
        """(N,) bool, whether a text has a token to learn and to score after its first one."""
        counted = self.columns.get("scored", self.columns["attention_mask"])
        return counted[:, 1:].any(1)

    @property
    def truncated(self) -> int:
        """How many texts were cut."""
        return int(self.cut.sum())

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, index: Tensor) -> dict[str, Tensor]:
        """The rows of `index`, padding trimmed to the longest of them."""
        longest = int(self.lengths[index].max())
        return {name: column[index, :longest] for name, column in self.columns.items()}

    def evaluation_batches(self, rows: Tensor | None = None) -> Iterator[Tensor]:
        """These row numbers (None: all) in batches of similar length."""
        rows = torch.arange(len(self)) if rows is None else rows
        yield from rows[torch.argsort(self.lengths[rows], stable=True)].split(EVALUATION_BATCH)


def encode(examples: Examples, tokenizer: Any, max_length: int, *, begin: bool = False, end: bool = False) -> Encoded:
    """Encode every example for one tokenizer.

    examples: of any kind; pairs become one sequence of two segments. max_length: in tokens; longer texts are
    cut and counted. begin: put the begin token, where there is one, in the place of the tokenizer's own marks, as a
    causal language model wants it; end: and the end token at the end, where it has room.
    A completion is the tokens of the prompt, then those of the answer: one that is too long loses the beginning of its
    prompt first, the end of its answer only where that alone is too long. A chat is what `chat.tokens_of` makes of it.
    """
    if not len(examples):
        raise ForgetlabError("there is no text to encode")
    if examples.kind in ("completions", "chat") and not begin:
        raise ForgetlabError(
            f"prompts and answers ({examples.kind}) need a causal language model: an encoder writes nothing"
        )
    if examples.kind == "completions":
        texts = [*zip(examples.texts, examples.pairs or (), strict=True)]
        written = completion_rows(texts, tokenizer, max_length, marks(tokenizer, True, end))
        return _padded([_scored(*row) for row in written], tokenizer)
    if examples.turns is not None:
        said, without = chat_rows(examples.turns, tokenizer, max_length, marks(tokenizer, True, end))
        return replace(_padded([_scored(*row) for row in said], tokenizer), without=without)
    options: dict[str, Any] = {"add_special_tokens": not begin}
    if examples.words is not None:
        encodings = tokenizer([list(words) for words in examples.words], is_split_into_words=True, **options)
    elif examples.pairs is not None:
        encodings = tokenizer(list(examples.texts), list(examples.pairs), **options)
    else:
        encodings = tokenizer(list(examples.texts), **options)
    # looked up once: on a tokenizer these are slow properties
    first, last = marks(tokenizer, begin, end)
    rows = [_row(encodings, i, max_length, first, last, begin) for i in range(len(encodings["input_ids"]))]
    return _padded(rows, tokenizer)


def _padded(rows: Sequence[dict[str, Any]], tokenizer: Any) -> Encoded:
    longest = max(len(row["input_ids"]) for row in rows)
    padding = dict.fromkeys(rows[0], 0) | {"input_ids": tokenizer.pad_token_id, "words": IGNORE}
    columns = {
        name: torch.tensor([row[name] + [padding[name]] * (longest - len(row[name])) for row in rows])
        for name in rows[0]
        if name != "cut"
    }
    return Encoded(
        words=columns.pop("words"),
        columns=columns,
        lengths=columns["attention_mask"].sum(1),
        cut=torch.tensor([row["cut"] for row in rows]),
    )


def _row(encodings: Any, i: int, max_length: int, begin: list[int], end: list[int], causal: bool) -> dict[str, Any]:
    ids = list(encodings["input_ids"][i])
    word_ids = encodings.word_ids(i)
    words = [
        w if w is not None and w != before else IGNORE
        for w, before in zip(word_ids, [None, *word_ids[:-1]], strict=True)
    ]
    types = list(encodings["token_type_ids"][i]) if "token_type_ids" in encodings else None
    room = max_length - len(begin)
    cut = len(ids) > room
    if cut and not causal:  # keep the closing mark of an encoder's sequence
        ids, words = [*ids[: room - 1], ids[-1]], [*words[: room - 1], words[-1]]
        types = [*types[: room - 1], types[-1]] if types else None
    elif len(ids) >= room:  # the text before its end mark
        ids, words, end = ids[:room], words[:room], []
    ids = [*begin, *ids, *end]
    row: dict[str, Any] = {
        "input_ids": ids,
        "attention_mask": [1] * len(ids),
        "words": [IGNORE] * len(begin) + words + [IGNORE] * len(end),
        "cut": cut,
    }
    if types is not None:
        row["token_type_ids"] = ([0] * len(begin) + types + [0] * len(end))[: len(ids)]
    return row


def _scored(ids: list[int], scored: list[int], cut: bool) -> dict[str, Any]:
    words = [IGNORE] * len(ids)
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "scored": scored, "words": words, "cut": cut}


def asked(batch: Mapping[str, Tensor]) -> Tensor:
    """(B, L) bool: the places of a causal batch whose next token counts: an answer's ("scored"), else every token."""
    return F.pad(batch.get("scored", batch["attention_mask"])[:, 1:], (0, 1)).bool()


def inner_tokens(ids: Tensor, tokenizer: Any) -> Tensor:
    """Which token ids are of the text itself, not padding or marks; a bool tensor like `ids`."""
    return ~torch.isin(ids, torch.tensor(sorted(set(tokenizer.all_special_ids)), device=ids.device))


def text_tokens(ids: Tensor, tokenizer: Any) -> Tensor:
    """The same with the words that the tokenizer does not know, which count, or they would be for free."""
    unknown, marks = tokenizer.unk_token_id, (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    inner = inner_tokens(ids, tokenizer)
    return inner if unknown is None or unknown in marks else inner | (ids == unknown)


def unknown_share(encoded: Encoded, tokenizer: Any) -> float:
    """Share of tokens that the tokenizer does not know (0 where it knows everything, as byte-level ones do)."""
    if tokenizer.unk_token_id in (None, tokenizer.bos_token_id, tokenizer.eos_token_id):  # GPT-2 has one mark for all
        return 0.0
    mask = encoded.columns["attention_mask"].bool()
    return float((encoded.columns["input_ids"][mask] == tokenizer.unk_token_id).float().mean())


def longer(model: Model) -> str:
    """In words, that a model takes longer texts than it is given; "" where it does not."""
    if model.positions <= model.max_length:
        return ""
    return f" ({model.name} takes {model.positions} tokens: max_length={model.positions})"


def label_ids(labels: Sequence[str], names: Sequence[str]) -> Tensor:
    """(N,) class numbers of label names."""
    numbers = {name: i for i, name in enumerate(names)}
    return torch.tensor([numbers[label] for label in labels], dtype=torch.long)
