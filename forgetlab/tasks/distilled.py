"""Distillation on policy: the model writes, and a teacher says at each token what it would have written there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from forgetlab.errors import ForgetlabError
from forgetlab.metrics.tally import Tally
from forgetlab.models.model import Model, evaluating
from forgetlab.tasks.base import Scores, _to
from forgetlab.tasks.on_policy import Also, Answers, OnPolicy


class Distilled(OnPolicy):
    """A teacher's distribution, learned at the places that the model itself comes to.

    L = mean over the tokens of the model's own answers of KL(p ‖ q), with p the model's distribution of that token and
    q the teacher's, exact over the vocabulary. Which answers are written is taken as given: no gradient goes there.

    teacher: a causal Model of the same vocabulary, which is not changed; it goes to the device of the model. samples:
    answers to each prompt of a step. Other arguments as in `Rewarded`; the temperature is of p and of q.
    Scores, of answers to the test prompts: "kl" that mean (0 at best), "distinct", "length", "ended", and `also`'s.
    Raises ForgetlabError for a teacher that is no causal model, has another vocabulary, or is the model itself.
    Source: Agarwal et al. 2024 (GKD), eq. 3 with λ = 1 and the reverse KL; not their mix with a data set's answers.

    >>> late = Distilled("late", ["the film", "the plot"], load("tiny-gpt"), test=["the song"], max_tokens=8)
    >>> round(next(finetune(load("tiny-gpt"), late, batch_size=2)).scores["late"]["kl"], 6)  # they begin alike
    0.0
    """

    metric = "kl"
    kind = "distillation"
    higher_is_better = False

    def __init__(
        self,
        name: str,
        prompts: Sequence[str],
        teacher: Model,
        *,
        test: Sequence[str] | None = None,
        samples: int = 1,
        max_tokens: int = 48,
        temperature: float = 1.0,
        tries: int = 1,
        also: Also | None = None,
    ) -> None:
        if not isinstance(teacher, Model) or teacher.lm_kind != "causal":
            given = teacher.name if isinstance(teacher, Model) else type(teacher).__name__
            raise ForgetlabError(f"teacher must be a causal language model, such as load('tiny-gpt'), got {given}")
        super().__init__(name, prompts, test, samples, max_tokens, temperature, tries, also)
        self.teacher = teacher

    def prepare(self, model: Model, seed: int = 0) -> None:
        super().prepare(model, seed)
        if self.teacher is model:
            raise ForgetlabError(f"{self.name}: the teacher is the model itself; load another one")
        if self.teacher.tokenizer.get_vocab() != model.tokenizer.get_vocab():
            raise ForgetlabError(f"{self.name}: {self.teacher.name} and {model.name} have not the same vocabulary")

    def loss(self, model: Model, batch: Mapping[str, Tensor]) -> Tensor:
        return self._distances(model, batch).mean()

    def _distances(self, model: Model, batch: Mapping[str, Tensor]) -> Tensor:
        """(places,) KL(p ‖ q) = Σ p (log p − log q)."""
        self.teacher.to(model.device)
        with torch.no_grad(), evaluating(self.teacher):
            taught = (self.logits(self.teacher, batch) / self.temperature).log_softmax(-1)
        own = (self.logits(model, batch) / self.temperature).log_softmax(-1)
        return F.kl_div(taught, own, reduction="none", log_target=True).sum(-1)

    def judged(self, model: Model, found: Answers) -> tuple[Scores, Tally]:
        batch = self.columns(found)
        owners, distances = self.owners(batch), self._distances(model, _to(batch, model.device)).cpu().double()
        both = torch.stack([distances, torch.ones_like(distances)], dim=1)
        items = torch.zeros(len(found.texts), 2, dtype=torch.float64).index_add_(0, owners, both)
        return {"kl": float(self.main_score(items.sum(0)))}, Tally(("kl", "tokens"), items)
