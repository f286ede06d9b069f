"""Language modelling: predict hidden words from both sides, or each token from the ones before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from forgetlab.encoding import inner_tokens, text_tokens
from forgetlab.errors import ForgetlabError
from forgetlab.models import Model
from forgetlab.sources import Examples
from forgetlab.tasks.base import Scores, Task
from forgetlab.tasks.tally import Tally, by_item

MASK_RATE = 0.15
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
            hidden, done = model.hidden(batch).flatten(0, 1)[batch["places"]], 0
            for some, targets in in_pieces(model, hidden, batch["targets"]):
                rows = batch["rows"][done : done + len(targets)]
                done += len(targets)
                yield {"targets": targets, "rows": rows}, model.lm_logits(some).float()

    def scores_of(
        self, predictions: Iterable[tuple[Mapping[str, Tensor], Tensor]], count: int
    ) -> tuple[Scores, Tally | None]:
        nll, rows = [], []
        for batch, logits in predictions:
            nll.append(F.cross_entropy(logits, batch["targets"], reduction="none"))
            rows.append(batch["rows"])
        losses = torch.cat(nll)
        tally = Tally(("nll", "tokens"), by_item([losses, torch.ones_like(losses)], torch.cat(rows), count))
        sums = tally.items.sum(0)
        return {"perplexity": float(self.main_score(sums)), "loss": float(sums[0] / sums[1])}, tally

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
    """Predict each token from the ones before it, the end of the text included."""

    kind = "causal-lm"

    def _collate(self, model: Model, split: str, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        batch = self.encoded(model, split).take(index)
        ids = batch["input_ids"]
        following = F.pad(batch["attention_mask"][:, 1:], (0, 1)).bool()  # places whose next token is real
        targets = F.pad(ids[:, 1:], (0, 1))[following]
        return batch | {"places": following.flatten().nonzero().squeeze(1), "targets": targets}


class MaskedLM(LanguageModel):
    """Predict hidden words from both sides.

    Training hides 15 % of the tokens anew at each step (80 % mask, 10 % random, 10 % kept: BERT).
    Testing hides one word of each text (`gaps`) where the exact floor is known, else a fixed 15 %.
    """

    kind = "masked-lm"
    mask_rate = MASK_RATE

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


def in_pieces(model: Model, hidden: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(places, width) hidden states and their (places,) targets, few enough at once for the logits of a vocabulary."""
    places = max(1, LOGITS_AT_ONCE // model.config.vocab_size)
    yield from zip(hidden.split(places), targets.split(places), strict=True)
