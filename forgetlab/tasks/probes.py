"""Tasks that are only scored: nothing is trained on them, so they show what a model knows by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from forgetlab import metrics
from forgetlab.errors import ForgetlabError, number, whole
from forgetlab.models.model import Model
from forgetlab.sources import Examples
from forgetlab.tasks import Scores, Tally, Task, first_unscored
from forgetlab.tasks.encoding import label_ids
from forgetlab.tasks.likelihood import log_probabilities


class Probe(Task):
    """A task without training data or loss."""

    has_loss = False

    def _collate(self, model: Model, split: str, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return self.encoded(model, split).take(index)

    def logits(self, model: Model, batch: Mapping[str, Tensor]) -> Tensor:
        raise ForgetlabError(f"{self.name} is a zero-shot task: it can be watched, not trained")


class ByLikelihood(Probe):
    """A probe that asks how probable texts are."""

    def prepare(self, model: Model, seed: int = 0) -> None:
        if model.lm_kind is None:
            raise ForgetlabError(f"the task {self.name} needs a language-model head, which {model.name} has not")

    def remarks(self, model: Model, *splits: str, limit: int | None = None) -> list[str]:
        return super().remarks(model, *splits, limit=limit) + first_unscored(self.name, model)


class MinimalPairs(ByLikelihood):
    """Share of pairs in which the model finds the good text more probable than its broken twin (BLiMP).

    Causal models: log-probability of the text. Masked models: pseudo-log-likelihood, each token hidden in turn
    (Salazar et al. 2020). Sums over a text, not divided by its length, as in BLiMP: best where both have the same.
    Raises ForgetlabError for no pairs and for lists that differ in length.
    """

    metric = "accuracy"
    kind = "minimal-pairs"

    def __init__(self, name: str, good: Sequence[str], bad: Sequence[str]) -> None:
        if len(good) != len(bad) or not good:
            raise ForgetlabError(f"{name}: {len(good)} good, {len(bad)} bad texts; expected as many, at least one")
        texts = tuple(t for pair in zip(good, bad, strict=True) for t in pair)
        super().__init__(name, None, Examples(kind="text", texts=texts))

    def items(self) -> int:
        return len(self.test) // 2

    def guesser(self, model: Model, limit: int | None = None) -> float | None:
        return 0.5

    def _scored(self, model: Model, limit: int | None) -> tuple[Scores, Tally | None]:
        texts = [text for i in self.sample(limit).tolist() for text in self.test.texts[2 * i : 2 * i + 2]]
        scores = log_probabilities(model, texts, self.rows_at_once)
        good, bad = scores[0::2], scores[1::2]
        right = (good > bad).double()  # a tie counts as wrong: the model sees no difference
        tally = answers(right.masked_fill(good.isnan() | bad.isnan(), torch.nan))
        return {"accuracy": float(self.main_score(tally.items.sum(0)))}, tally


class Cloze(ByLikelihood):
    """Share of questions whose right ending the model finds the most probable among the candidates."""

    metric = "accuracy"
    kind = "cloze"

    def __init__(
        self, name: str, questions: Sequence[str], choices: Sequence[Sequence[str]], answers: Sequence[str]
    ) -> None:
        texts = tuple(f"{q} {c} ." for q, cs in zip(questions, choices, strict=True) for c in cs)
        super().__init__(name, None, Examples(kind="text", texts=texts))
        self.choices = [tuple(cs) for cs in choices]
        self.answers = tuple(answers)

    def items(self) -> int:
        return len(self.choices)

    def guesser(self, model: Model, limit: int | None = None) -> float | None:
        """Chance: 1/K of K choices, averaged over the questions."""
        return chance([len(self.choices[i]) for i in self.sample(limit).tolist()])

    def _scored(self, model: Model, limit: int | None) -> tuple[Scores, Tally | None]:
        asked = self.sample(limit).tolist()
        own = blocks([len(choices) for choices in self.choices], asked)
        scores = log_probabilities(model, [self.test.texts[i] for i in own], self.rows_at_once)
        parts = scores.split([len(self.choices[i]) for i in asked])
        right = [self.choices[i][int(part.argmax())] == self.answers[i] for i, part in zip(asked, parts, strict=True)]
        tally = answers(torch.tensor(right))
        accuracy = float(self.main_score(tally.items.sum(0)))
        return {"accuracy": accuracy, "chance": chance([len(self.choices[i]) for i in asked])}, tally


class KShot(Probe):
    """Accuracy of a ridge classifier on the backbone's mean features, fitted on k examples a class.

    It asks whether the features still carry a distinction, whatever became of any trained head.
    Raises ForgetlabError for a k above what the smallest class has, and for test labels that the examples lack.
    """

    metric = "accuracy"
    kind = "k-shot"

    def __init__(self, name: str, examples: Examples, test: Examples, k: int = 8) -> None:
        super().__init__(name, examples, test)
        assert examples.labels is not None
        assert test.labels is not None
        counts = Counter(examples.labels)
        if unseen := sorted(set(test.labels) - set(counts)):
            raise ForgetlabError(f"{name}: the test labels {', '.join(map(repr, unseen))} are not in the examples")
        smallest = min(counts, key=lambda label: counts[label])
        if whole("k", k) > counts[smallest] or len(counts) < 2:
            raise ForgetlabError(
                f"{name}: k={k} examples of each of 2 classes or more are needed; of {len(counts)}, {smallest!r} has "
                f"{counts[smallest]}"
            )
        self.k = k
        self.labels = tuple(sorted(counts))
        self._targets = label_ids(examples.labels, self.labels), label_ids(test.labels, self.labels)

    def classes(self) -> Sequence[object]:
        return self._targets[1].tolist()

    def guesser(self, model: Model, limit: int | None = None) -> float | None:
        """Accuracy of the sample's most frequent class."""
        counts = self._targets[1][self.sample(limit)].bincount()
        return float(counts.max() / counts.sum())  # never below 1/K

    def _scored(self, model: Model, limit: int | None) -> tuple[Scores, Tally | None]:
        sample = self.sample(limit)
        train, test = self._features(model, "train"), self._features(model, "test", sample)
        right = metrics.kshot_hits(train, self._targets[0], test, self._targets[1][sample], k=self.k, seed=0)
        tally = answers(torch.from_numpy(right.mean(axis=0)))  # share of the draws that were right
        deviation = float(right.mean(axis=1).std(ddof=1))
        return {"accuracy": float(self.main_score(tally.items.sum(0))), "deviation": deviation}, tally

    def _features(self, model: Model, split: str, sample: Tensor | None = None) -> Tensor:
        encoded = self.encoded(model, split)
        sample = torch.arange(len(encoded)) if sample is None else sample
        rows = torch.empty(len(sample), model.config.hidden_size)
        for index in (i for batch in encoded.evaluation_batches(sample) for i in batch.split(self.rows_at_once)):
            batch = {k: v.to(model.device) for k, v in encoded.take(index).items()}
            mask = batch["attention_mask"].unsqueeze(-1)
            hidden = model.hidden(batch) * mask
            rows[torch.searchsorted(sample, index)] = (hidden.sum(1) / mask.sum(1)).float().cpu()
        return rows


class Writing(Probe):
    """What a causal model of the embedded language writes: the parser scores it, no judge model is needed.

    fluency: share of sentences in the language. coherence: share of longer texts whose facts agree.
    """

    metric = "fluency"
    kind = "writing"

    def __init__(self, name: str = "writing", count: int = 200) -> None:
        super().__init__(name, None, Examples(kind="text", texts=("",)))
        self.count = count

    def prepare(self, model: Model, seed: int = 0) -> None:
        if model.lm_kind != "causal":
            raise ForgetlabError(f"the task {self.name} needs a causal language model; {model.name} is none")

    def remarks(self, model: Model, *splits: str, limit: int | None = None) -> list[str]:
        return []

    def items(self) -> int:
        return self.count

    def _scored(self, model: Model, limit: int | None) -> tuple[Scores, Tally | None]:
        from forgetlab.sources.world import coherence, fluency

        texts = write(model, min(self.count, limit or self.count), seed=0)
        return {"fluency": fluency(texts), "coherence": coherence(texts)}, None


def answers(right: Tensor) -> Tally:
    """The tally of (n,) questions, each right (1), wrong (0) or right in a share of the draws."""
    return Tally(("right", "one"), torch.stack([right.double(), torch.ones(len(right), dtype=torch.float64)], dim=1))


def chance(counts: Sequence[int]) -> float:
    """Accuracy of guessing among that many choices of each question."""
    return sum(1 / count for count in counts) / len(counts)


def blocks(counts: Sequence[int], asked: Sequence[int]) -> list[int]:
    """Where the choices of the questions `asked` stand, when all questions' choices follow one another."""
    starts = [0, *accumulate(counts)]
    return [i for one in asked for i in range(starts[one], starts[one + 1])]


def write(
    model: Model, count: int, *, seed: int, temperature: float = 1.0, top_p: float = 1.0, max_tokens: int = 48
) -> list[str]:
    """`count` texts by a causal model; the arguments are those of `sample`."""
    generator = torch.Generator().manual_seed(seed)
    return [text for text, _ in sample(model, count, generator, temperature, top_p, max_tokens)]


@torch.no_grad()
def sample(
    model: Model,
    count: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_tokens: int = 48,
    start: Tensor | None = None,
) -> list[tuple[str, bool]]:
    """Texts that a causal model writes from its begin token on, each with whether it came to its end token.

    start: (count, T) tokens to write on from, which are not returned (None: the begin token).
    generator: on the CPU, so that a seed gives the same text on every device. temperature: divides the logits, above 0.
    top_p: draw from the `nucleus` of that mass; 1: from every token. max_tokens: where a text is cut off.
    Raises ForgetlabError for a bad temperature or top_p, and for a tokenizer with no token to begin from.
    """
    number("temperature", temperature, 0, 1000, above=True)
    number("top_p", top_p, 0, 1, above=True)
    tokenizer = model.tokenizer
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if begin is None:
        raise ForgetlabError(f"{model.name} cannot write: its tokenizer has neither a begin nor an end token")
    ids = torch.full((count, 1), begin, device=model.device) if start is None else start.to(model.device)
    given = ids.shape[1]
    done = torch.zeros(count, dtype=torch.bool, device=model.device)
    past = None
    for _ in range(min(max_tokens, model.max_length - given + 1)):
        seen = torch.ones_like(ids)
        fresh = ids if past is None else ids[:, -1:]
        out = model.backbone(input_ids=fresh, attention_mask=seen, past_key_values=past, use_cache=True)
        past = out.past_key_values
        logits = model.lm_logits(out.last_hidden_state[:, -1]).float()
        logits = logits - logits.max(dim=-1, keepdim=True).values  # so that no temperature overflows
        probabilities = (logits / max(temperature, 1e-6)).softmax(-1).cpu()
        if top_p < 1:
            probabilities = nucleus(probabilities, top_p)
        chosen = torch.multinomial(probabilities, 1, generator=generator).to(model.device)
        chosen = chosen.masked_fill(done.unsqueeze(1), tokenizer.pad_token_id)
        ids = torch.cat([ids, chosen], dim=1)
        done |= chosen.squeeze(1) == tokenizer.eos_token_id
        if done.all():
            break
    texts = tokenizer.batch_decode(ids[:, given:], skip_special_tokens=True)
    return [(text.strip(), ended) for text, ended in zip(texts, done.tolist(), strict=True)]


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """The probabilities with 0 outside the smallest set of tokens whose mass is `top_p` or more.

    probabilities: (B, V), rows with sum 1. Not scaled back to sum 1. Source: Holtzman et al. 2020, section 3.1.
    """
    ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ranked.cumsum(-1) - ranked  # the mass of the more probable tokens
    return torch.zeros_like(probabilities).scatter(-1, order, ranked.masked_fill(before >= top_p, 0.0))
