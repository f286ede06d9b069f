"""Tasks in which the model learns from what it writes itself: prompts, and the answers that it gives at each step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from forgetlab.errors import ForgetlabError, number, shown, whole
from forgetlab.metrics.tally import Tally
from forgetlab.models.model import Model, evaluating
from forgetlab.sources import Examples, split
from forgetlab.tasks.base import Scores, Task, _to
from forgetlab.tasks.encoding import asked
from forgetlab.tasks.probes import need_causal
from forgetlab.tasks.writing import rollouts

Also = Callable[[list[str]], Mapping[str, float]]
AT_ONCE = 128  # answers written side by side: bounds the memory of a large model's keys and values


@dataclass(frozen=True)
class Answers:
    """What a model wrote to prompts, as (N, L) tensors on the CPU.

    ids: prompt, answer, padding. scored: 1 at the answer's tokens, its end token among them. lengths: (N,) tokens of
    prompt and answer. ended: (N,) whether it came to its end token. texts: prompt and answer in words.
    answers: the answer alone.
    """

    ids: Tensor
    scored: Tensor
    lengths: Tensor
    ended: Tensor
    texts: list[str]
    answers: list[str]


class OnPolicy(Task):
    """Prompts, and what the model of the moment answers to them, drawn from the run's generator in eval mode.

    Arguments as in `Rewarded`. Answers are written one length of prompt at a time, so nothing is padded while writing.
    """

    def __init__(
        self,
        name: str,
        prompts: Sequence[str],
        test: Sequence[str] | None,
        samples: int,
        max_tokens: int,
        temperature: float,
        tries: int,
        also: Also | None,
    ) -> None:
        self.samples, self.tries, self.max_tokens = (
            whole(what, value) for what, value in (("samples", samples), ("tries", tries), ("max_tokens", max_tokens))
        )
        self.temperature, self.also = number("temperature", temperature, 0, 1000, above=True), also
        train = _prompts(name, "prompts", prompts)
        if test is None:
            train, held = split(train)
        else:
            held = _prompts(name, "test", test)
        super().__init__(name, train, held)

    def prepare(self, model: Model, seed: int = 0) -> None:
        need_causal(f"the task {self.name}", model, ", it cannot write: choose one that does, such as tiny-gpt")
        for side in ("train", "test"):
            encoded, examples = self.encoded(model, side), self.train if side == "train" else self.test
            assert examples is not None
            longest = int(encoded.lengths.argmax())
            if encoded.lengths[longest] >= model.max_length:
                raise ForgetlabError(
                    f"{self.name}: the prompt {shown(examples.texts[longest])} has {model.max_length} tokens or more, "
                    f"all that {model.name} takes: nothing could be written; shorten it"
                )

    def remarks(self, model: Model, *splits: str, limit: int | None = None) -> list[str]:
        notes = super().remarks(model, *splits, limit=limit)
        longest = max(int(self.encoded(model, side).lengths.max()) for side in ("train", "test"))
        if "train" in splits and (room := model.max_length - longest) < self.max_tokens:
            notes.append(f"{self.name}: {model.name} has room for {room} tokens after the longest prompt")
        return notes

    def remarks_on(self, batch: Mapping[str, Tensor]) -> list[str]:
        if bool(batch["ended"].any()):
            return []
        return [
            f"{self.name}: there were steps in which no answer came to its end within {self.max_tokens} tokens; they "
            "count as far as they went: raise max_tokens, or have the reward ask for an end"
        ]

    def items(self) -> int:
        return len(self.test) * self.tries

    def classes(self) -> Sequence[object]:
        return [i // self.tries for i in range(self.items())]

    def answers(self, model: Model, side: str, rows: Tensor, generator: torch.Generator) -> Answers:
        """An answer to each of the prompts `rows` of "train" or "test"; a row may stand there more than once."""
        encoded, eos = self.encoded(model, side), model.tokenizer.eos_token_id
        lengths = encoded.lengths[rows]
        written: list[Tensor] = [torch.empty(0)] * len(rows)
        with evaluating(model):
            for length in lengths.unique().tolist():
                most = min(self.max_tokens, model.max_length - length)
                for some in (lengths == length).nonzero().squeeze(1).split(min(AT_ONCE, self.rows_at_once)):
                    prompts, which = rows[some].unique(return_inverse=True)
                    starts = encoded.columns["input_ids"][prompts, :length]
                    found = rollouts(model, starts, which, generator, self.temperature, most)
                    for row, answer in zip(some.tolist(), found, strict=True):
                        written[row] = answer
        ended = torch.tensor([len(answer) > 0 and int(answer[-1]) == eos for answer in written])
        asked_of = [encoded.columns["input_ids"][row, :length] for row, length in zip(rows, lengths, strict=True)]
        whole = [torch.cat(both) for both in zip(asked_of, written, strict=True)]
        counts = torch.tensor([len(row) for row in whole])
        ids = pad_sequence(whole, batch_first=True, padding_value=model.tokenizer.pad_token_id)
        place = torch.arange(ids.shape[1])
        scored = ((place >= lengths.unsqueeze(1)) & (place < counts.unsqueeze(1))).long()
        decode = model.tokenizer.batch_decode
        begin = 0 if model.tokenizer.bos_token_id is None else 1
        # every other mark is shown: a reward must see what it pays for
        texts = decode([row[begin : len(row) - int(e)].tolist() for row, e in zip(whole, ended, strict=True)])
        alone = decode([answer[: len(answer) - int(e)].tolist() for answer, e in zip(written, ended, strict=True)])
        return Answers(ids, scored, counts, ended, texts, alone)

    def columns(self, found: Answers) -> dict[str, Tensor]:
        """A batch of answers, a prediction at each of their tokens, on the CPU; "ended": (N, 1)."""
        batch = {
            "input_ids": found.ids,
            "attention_mask": (torch.arange(found.ids.shape[1]) < found.lengths.unsqueeze(1)).long(),
            "scored": found.scored,
            "ended": found.ended.unsqueeze(1),
        }
        places = asked(batch).flatten().nonzero().squeeze(1)
        return batch | {"places": places, "targets": found.ids.flatten()[places + 1]}

    def batch(self, model: Model, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """`samples` answers to each prompt of `index`."""
        found = self.answers(model, "train", index.repeat_interleave(self.samples), generator)
        return _to(self.columns(found), model.device)

    def _collate(self, model: Model, split: str, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return self.encoded(model, split).take(index)

    def logits(self, model: Model, batch: Mapping[str, Tensor]) -> Tensor:
        return model.lm_logits(model.hidden(batch).flatten(0, 1)[batch["places"]]).float()

    def _scored(self, model: Model, limit: int | None) -> tuple[Scores, Tally | None]:
        rows = self.sample(limit) // self.tries
        found = self.answers(model, "test", rows, torch.Generator().manual_seed(0))
        main, tally = self.judged(model, found)
        written = found.scored.sum(1) - found.ended.long()
        scores = {
            "distinct": len(set(found.answers)) / len(found.answers),
            "length": float(written.double().mean()),
            "ended": float(found.ended.double().mean()),
        }
        return main | scores | dict(self.also(found.texts) if self.also else {}), tally

    @abstractmethod
    def judged(self, model: Model, found: Answers) -> tuple[Scores, Tally]:
        """The main score of answers to test prompts, and what it is made of, answer by answer."""


def _prompts(name: str, what: str, texts: Sequence[str]) -> Examples:
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts) or not len(texts):
        raise ForgetlabError(f"{name}: {what} must be a list of texts, such as ['the film'], got {shown(texts)}")
    if "" in (text.strip() for text in texts):
        raise ForgetlabError(f"{name}: {what} hold an empty text; expected words to write on from")
    return Examples("text", tuple(texts))
