"""Language modelling: predict hidden words from both sides, or each token from the ones before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from forgetlab.errors import ForgetlabError
from forgetlab.metrics.tally import Tally
from forgetlab.models.model import Model
from forgetlab.sources import Examples
from forgetlab.tasks.base import Scores, Task
from forgetlab.tasks.chat import layout
from forgetlab.tasks.encoding import asked, inner_tokens, text_tokens

LOGITS_AT_ONCE = 2**26  # in scoring: a quarter of a gigabyte


class LanguageModel(Task):
    """What both language-model tasks share: logits at chosen places only, and perplexity = exp(Σ NLL / Σ tokens)."""

    metric = "perplexity"
    higher_is_better = False
    scale = "ratio"

    def prepare(self, model: Model, seed: int = 0) -> None:
        wanted = "masked" if self.kind == "masked-lm" else "causal"
        if model.lm_kind != wanted:
            has = f"has a {model.lm_kind} language-model head" if model.lm_kind else "has no language-model head"
            raise ForgetlabError(f"the task {self.name} needs a {wanted} language model; {model.name} {has}")

    def logits(self, model: Model, batch: Mapping[str, Tensor]) -> Tensor:
        """(places, vocabulary) logits where the batch asks for a prediction."""
        return model.lm_logits(model.hidden(batch).flatten(0, 1)[batch["places"]]).float()

    def predictions(self, model: Model, limit: int | None) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        for batch in self.test_batches(model, limit):
            hidden, done = model.hidden(batch).flatten(0, 1), 0
            for some, targets in in_pieces(model, hidden[batch["places"]], batch["targets"]):
                own = slice(done, done + len(targets))
                done += len(targets)
                at = batch["places"][own] % batch["input_ids"].shape[1]  # places in the text
                yield {"targets": targets, "rows": batch["rows"][own], "at": at}, model.lm_logits(some).float()
            if "ends" in batch:
                ends = torch.full_like(batch["ends"], model.tokenizer.eos_token_id)
                for some, targets in in_pieces(model, hidden[batch["ends"]], ends):
                    yield {"targets": targets}, model.lm_logits(some).float()  # no item's: scored apart

    def scores_of(
        self, predictions: Iterable[tuple[Mapping[str, Tensor], Tensor]], count: int
    ) -> tuple[Scores, Tally | None]:
        nll, rows, ends = [], [], []
        for batch, logits in predictions:
            losses = F.cross_entropy(logits, batch["targets"], reduction="none")
            if "rows" in batch:
                nll.append(losses)
                rows.append(batch["rows"])
            else:
                ends.append(losses)
        losses = torch.cat(nll)
        if not len(losses):
            raise ForgetlabError(f"{self.name}: none of its test texts has a token that can be predicted")
        places = torch.stack([losses, torch.ones_like(losses)], dim=1).cpu().double()
        items = torch.zeros(count, 2, dtype=torch.float64).index_add_(0, torch.cat(rows).cpu(), places)
        tally, sums = Tally(("nll", "tokens"), items), items.sum(0)
        scores = {"perplexity": float(self.main_score(sums)), "loss": float(sums[0] / sums[1])}
        return scores | ({"end": float(torch.cat(ends).mean())} if ends else {}), tally

    def guesser(self, model: Model, limit: int | None = None) -> float | None:
        """Perplexity of the unigram model of this tokenizer, counted on the scored texts themselves."""
        batches = self.test_batches(model, limit)
        targets = torch.cat([batch["targets"] for batch in batches]).cpu()
        counts = self._seen(model, limit, targets).double()
        return float((-(counts / counts.sum()).log()[targets]).mean().exp())

    def _seen(self, model: Model, limit: int | None, targets: Tensor) -> Tensor:
        """(vocabulary,) how often each token stands in the scored texts."""
        return targets.bincount()


class CausalLM(LanguageModel):
    """Predict each token of a text from the ones before it.

    The begin token stands in front; where the tokenizer has none, the first token is not predicted.
    The end token closes a text, in training and in the perplexity, where the model's pre-training had it
    (`Model.end_mark`). For other models it is no part of either, and "end" is its own mean −log p, in nats, after
    texts that were not cut. So a perplexity is exp(−rolling log-likelihood / tokens).
    Of completions (a prompt and what is to be written after it) only the tokens of the answer are predicted, with the
    prompt in sight: the loss of supervised fine-tuning on demonstrations, which in training has the end token too, as
    the model is to learn to stop. Of chats those of the assistant's turns, each with its end, laid out by the
    tokenizer's chat template.

    >>> text = Examples("text", ("the cat sleeps.", "the dog barks."))
    >>> CausalLM("mine", None, text).metric
    'perplexity'
    """

    kind = "causal-lm"

    @property
    def on_answers(self) -> bool:
        """Whether it is on completions or chats, of which the answers alone are predicted."""
        return self.test.kind in ("completions", "chat")

    def remarks(self, model: Model, *splits: str, limit: int | None = None) -> list[str]:
        notes = super().remarks(model, *splits, limit=limit)
        templated = self.test.kind == "chat" and model.tokenizer.chat_template  # which has end marks of its own
        if self.on_answers:
            notes += [f"{self.name}: {note}" for note in (self._counted(model, splits), *self._lost(model, splits))]
        elif "test" in splits:
            notes += first_unscored(self.name, model)
        if "train" in splits and not (templated or model.end_mark or model.tokenizer.eos_token_id is None):
            notes.append(
                f"{self.name}: answers are trained with the end token behind them, which is no part of the perplexity"
                if self.on_answers
                else f"{self.name}: texts are trained without an end token, as nothing says that {model.name} was "
                "pre-trained with one (end_mark in its config would)"
            )
        return notes

    def _counted(self, model: Model, splits: Sequence[str]) -> str:
        """How answers are laid out, and how many of the tokens count."""
        sides = [(split, self.encoded(model, split)) for split in splits]
        told = [f"{int(e.columns['scored'].sum()):,} of {int(e.lengths.sum()):,} {split}" for split, e in sides]
        return f"{layout(self.test.kind, model.tokenizer)}; only the answers count, {' and '.join(told)} tokens"

    def _lost(self, model: Model, splits: Sequence[str]) -> Iterator[str]:
        for split in splits:
            encoded = self.encoded(model, split)
            if lost := int((~encoded.answered).sum()):
                yield f"{lost} of {len(encoded)} {split} examples have no answer ({'; '.join(encoded.without)})"

    def loss(self, model: Model, batch: Mapping[str, Tensor]) -> Tensor:
        if not len(batch["targets"]):  # answers that were cut off: nothing to learn
            return self.logits(model, batch).sum()
        return super().loss(model, batch)

    def _collate(self, model: Model, split: str, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        encoded = self.encoded(model, split)
        batch = encoded.take(index)
        ids = batch["input_ids"]
        following = asked(batch)
        targets = F.pad(ids[:, 1:], (0, 1))[following]
        batch |= {"places": following.flatten().nonzero().squeeze(1), "targets": targets}
        ends = not model.end_mark and model.tokenizer.eos_token_id is not None
        if split == "test" and ends and self.test.kind != "chat":
            whole = ~encoded.cut[index]
            last = torch.arange(len(index)) * ids.shape[1] + encoded.lengths[index] - 1
            batch["ends"] = last[whole]  # the places that the end token would follow
        return batch


class MaskedLM(LanguageModel):
    """Predict hidden words from both sides.

    Training hides 15 % of the tokens anew at each step (80 % mask, 10 % random, 10 % kept: BERT).
    Testing hides one word of each text (`gaps`) where the exact floor is known, else a fixed 15 %.

    >>> general = task("masked-lm")
    >>> round(general.floor, 2), general.metric  # no model can have a lower perplexity
    (2.18, 'perplexity')
    """

    kind = "masked-lm"
    mask_rate = 0.15

    def __init__(
        self,
        name: str,
        train: Examples | None,
        test: Examples,
        floor: float | None = None,
        gaps: Sequence[int] = (),
    ) -> None:
        super().__init__(name, train, test, floor)
        self._gaps = torch.tensor(gaps) if gaps else None

    def _collate(self, model: Model, split: str, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        encoded = self.encoded(model, split)
        batch = encoded.take(index)
        ids = batch["input_ids"]
        tokenizer = model.tokenizer
        if tokenizer.mask_token_id is None:
            raise ForgetlabError(f"{model.name}: its tokenizer has no mask token, which {self.name} needs")
        if split == "test" and self._gaps is not None:
            hidden = encoded.words[index, : ids.shape[1]] == self._gaps[index].unsqueeze(1)
            replaced = ids.masked_fill(hidden, tokenizer.mask_token_id)
        else:
            inner = inner_tokens(ids, tokenizer)
            draw = torch.rand(ids.shape, generator=generator).masked_fill(~inner, 2.0)
            lowest = draw == draw.min(dim=1, keepdim=True).values  # at least one in each text
            hidden = ((draw < self.mask_rate) | lowest) & inner
            how = torch.rand(ids.shape, generator=generator)
            random_ids = torch.randint(len(tokenizer), ids.shape, generator=generator)
            train = split == "train"
            replaced = ids.masked_fill(hidden & (how < 0.8) if train else hidden, tokenizer.mask_token_id)
            if train:
                replaced = torch.where(hidden & (how >= 0.9), random_ids, replaced)
        return batch | {
            "input_ids": replaced,
            "places": hidden.flatten().nonzero().squeeze(1),
            "targets": ids[hidden],
        }

    def _seen(self, model: Model, limit: int | None, targets: Tensor) -> Tensor:
        ids = self.encoded(model, "test").columns["input_ids"][self.sample(limit)]
        return ids[text_tokens(ids, model.tokenizer)].bincount()


def first_unscored(name: str, model: Model) -> list[str]:
    """A remark where texts are scored from their second token on: the causal model has no begin token."""
    if not model.causal or model.tokenizer.bos_token_id is not None:
        return []
    return [f"{name}: {model.name} has no begin token, so each text is scored from its second token on"]


def in_pieces(model: Model, hidden: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(places, width) hidden states and their (places,) targets, few enough at once for the logits of a vocabulary."""
    places = max(1, LOGITS_AT_ONCE // model.config.vocab_size)
    yield from zip(hidden.split(places), targets.split(places), strict=True)
