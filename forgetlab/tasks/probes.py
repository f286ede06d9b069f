"""Tasks that are only scored: nothing is trained on them, so they show what a model knows by itself."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from forgetlab import metrics
from forgetlab.errors import ForgetlabError, whole
from forgetlab.metrics.tally import answers
from forgetlab.models.model import Model
from forgetlab.sources import Examples
from forgetlab.tasks.base import Scores, Tally, Task
from forgetlab.tasks.encoding import label_ids
from forgetlab.tasks.labelled import most_frequent
from forgetlab.tasks.language import first_unscored
from forgetlab.tasks.likelihood import log_probabilities, option_log_probabilities


class Probe(Task):
    """A task without training data or loss."""

    has_loss = False

    def _collate(self, model: Model, split: str, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return self.encoded(model, split).take(index)

    def logits(self, model: Model, batch: Mapping[str, Tensor]) -> Tensor:
        raise ForgetlabError(f"{self.name} is a zero-shot task: it can be watched, not trained")


def need_causal(name: str, model: Model, instead: str = "") -> None:
    """Raise ForgetlabError for a model that does not write. name: of the task. instead: what serves such a model."""
    if model.lm_kind != "causal":
        raise ForgetlabError(f"{name} needs a causal language model; {model.name} is none{instead}")


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


class Choices(ByLikelihood):
    """What the probes of one right option among several share: `answers` has the index of each, from 0."""

    metric = "accuracy"
    form: ClassVar[str]  # of a question and an option

    def __init__(
        self, name: str, questions: Sequence[str], choices: Sequence[Sequence[str]], answers: Sequence[int]
    ) -> None:
        self.questions, self.choices, self.answers = list(questions), list(map(tuple, choices)), list(answers)
        super().__init__(name, None, Examples(kind="text", texts=tuple(self.texts(range(len(questions))))))

    def texts(self, asked: Iterable[int]) -> list[str]:
        """Those questions with each of their options."""
        return [self.form.format(self.questions[i], option).strip() for i in asked for option in self.choices[i]]

    @abstractmethod
    def likelihoods(self, model: Model, asked: Sequence[int]) -> dict[str, Tensor]:
        """{score: (options,) how probable it finds each option of the questions `asked`}, "accuracy" first."""

    def items(self) -> int:
        return len(self.choices)

    def guesser(self, model: Model, limit: int | None = None) -> float | None:
        """Chance: 1/K of K choices, averaged over the questions."""
        asked = self.sample(limit).tolist()
        return sum(1 / len(self.choices[i]) for i in asked) / len(asked)

    def _scored(self, model: Model, limit: int | None) -> tuple[Scores, Tally | None]:
        asked = self.sample(limit).tolist()
        return self.judged(asked, self.likelihoods(model, asked))

    def judged(self, asked: Sequence[int], likelihoods: Mapping[str, Tensor]) -> tuple[Scores, Tally]:
        """The scores of such `likelihoods` of the questions `asked`."""
        counts, right = [len(self.choices[i]) for i in asked], torch.tensor([self.answers[i] for i in asked])
        tallies = {name: answers(self.chosen(asked, values) == right) for name, values in likelihoods.items()}
        scores = {name: float(self.main_score(tally.items.sum(0))) for name, tally in tallies.items()}
        return {**scores, "chance": sum(1 / n for n in counts) / len(counts)}, tallies["accuracy"]

    def chosen(self, asked: Sequence[int], values: Tensor) -> Tensor:
        """(n,) the option of each of the questions `asked` that has the highest of the (options,) values."""
        return torch.stack([part.argmax() for part in values.split([len(self.choices[i]) for i in asked])])


class Cloze(Choices):
    """Share of questions whose right ending the model finds the most probable among the candidates."""

    kind = "cloze"
    form = "{} {} ."

    def likelihoods(self, model: Model, asked: Sequence[int]) -> dict[str, Tensor]:
        return {"accuracy": log_probabilities(model, self.texts(asked), self.rows_at_once)}


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
        return most_frequent(self._targets[1][self.sample(limit)])

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


class MultipleChoice(Choices):
    """Share of questions whose right option is the most probable after the question, per token of the option.

    score(o) = log p(o | question) / tokens of o: the mean, so that long options are not punished (GPT-3: Brown et
    al. 2020, section 2.4; lm_eval's acc_norm divides by characters). "unnormalised" is the accuracy of the sums
    (lm_eval's acc), "chance" that of guessing. Masked models: each token of the option hidden in turn.

    questions: the texts before the options, may be empty. choices: two or more for each, joined on with a space.
    answers: for each the index of the right one, from 0. Raises ForgetlabError for anything else.
    """

    kind = "choices"
    form = "{} {}"

    def __init__(
        self, name: str, questions: Sequence[str], choices: Sequence[Sequence[str]], answers: Sequence[int]
    ) -> None:
        if not (len(questions) == len(choices) == len(answers) and questions):
            counts = f"{len(questions)} questions, {len(choices)} lists of choices, {len(answers)} answers"
            raise ForgetlabError(f"{name}: {counts}; expected as many of each, at least one")
        for i, (options, answer) in enumerate(zip(choices, answers, strict=True), 1):
            if isinstance(options, str) or len(set(options)) < max(2, len(options)) or not all(options):
                raise ForgetlabError(f"{name}, question {i}: expected two or more different choices, got {options!r}")
            if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(options):
                raise ForgetlabError(
                    f"{name}, question {i}: the answer is {answer!r}; expected an index from 0 to {len(options) - 1}"
                )
        super().__init__(name, questions, choices, answers)

    def remarks(self, model: Model, *splits: str, limit: int | None = None) -> list[str]:
        begun = all(self.questions)  # something stands before each option
        return (Probe if begun else ByLikelihood).remarks(self, model, *splits, limit=limit)

    def likelihoods(self, model: Model, asked: Sequence[int]) -> dict[str, Tensor]:
        questions = [self.questions[i] for i in asked for _ in self.choices[i]]
        options = [option for i in asked for option in self.choices[i]]
        sums, tokens = option_log_probabilities(model, questions, options, self.rows_at_once)
        return {"accuracy": sums / tokens.clamp_min(1), "unnormalised": sums}
