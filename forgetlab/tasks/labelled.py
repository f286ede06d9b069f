"""Tasks with labels: a class for each text, or a tag for each word."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from forgetlab.errors import ForgetlabError
from forgetlab.metrics.language import entity_counts
from forgetlab.metrics.tally import Tally, answers
from forgetlab.models.heads import Level
from forgetlab.models.model import Model
from forgetlab.sources import Examples
from forgetlab.tasks.base import Scores, Task
from forgetlab.tasks.encoding import IGNORE, label_ids


class Labelled(Task):
    """What tasks with labels share: a head of their own, with a class for each kind of label."""

    level: ClassVar[Level]
    what: ClassVar[str]  # a label is called so in errors

    def __init__(
        self,
        name: str,
        train: Examples,
        test: Examples,
        head: str | None = None,
        labels: Sequence[str] = (),
    ) -> None:
        super().__init__(name, train, test)
        self.head = head or name
        self.labels = _classes(name, self.what, labels or self._given(train), self._given(test))
        self._targets = {"train": self._numbers(train), "test": self._numbers(test)}

    def prepare(self, model: Model, seed: int = 0) -> None:
        model.add_head(self.head, self.labels, self.level, seed)

    @abstractmethod
    def _given(self, examples: Examples) -> Iterable[str]:
        """Every label of the examples."""

    @abstractmethod
    def _numbers(self, examples: Examples) -> Tensor:
        """The labels as places in `self.labels`, a row for each example."""


class Classification(Labelled):
    """One class for each text, or pair of texts. Loss: cross-entropy. Score: accuracy.

    labels: the classes, where the training data may lack some.

    >>> reviews = Examples("labelled", ("good", "bad", "fine", "dull"), labels=("+", "−", "+", "−"))
    >>> Classification("reviews", reviews, reviews).labels
    ('+', '−')
    """

    metric = "accuracy"
    kind = "classification"
    level = "sequence"
    what = "label"

    def _given(self, examples: Examples) -> Sequence[str]:
        assert examples.labels is not None
        return examples.labels

    def _numbers(self, examples: Examples) -> Tensor:
        return label_ids(self._given(examples), self.labels)

    def _collate(self, model: Model, split: str, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return self.encoded(model, split).take(index) | {"targets": self._targets[split][index]}

    def logits(self, model: Model, batch: Mapping[str, Tensor]) -> Tensor:
        return model.logits(batch, self.head).float()

    def owners(self, batch: Mapping[str, Tensor]) -> Tensor:
        return torch.arange(len(batch["targets"]), device=batch["targets"].device)

    def classes(self) -> Sequence[object]:
        return self._given(self.test)

    def guesser(self, model: Model, limit: int | None = None) -> float | None:
        return most_frequent(self._targets["test"][self.sample(limit)])

    def tally_of(self, gold: Tensor, guesses: Tensor) -> Tally:
        """What the main score is made of. gold, guesses: (n,) class numbers."""
        return answers(gold == guesses)

    def scores_of(
        self, predictions: Iterable[tuple[Mapping[str, Tensor], Tensor]], count: int
    ) -> tuple[Scores, Tally | None]:
        gold, guesses, loss, rows = [], [], [], []
        for batch, logits in predictions:
            gold.append(batch["targets"])
            guesses.append(logits.argmax(-1))
            loss.append(F.cross_entropy(logits, batch["targets"], reduction="sum"))
            rows.append(batch["rows"])
        order = torch.cat(rows).argsort()  # one prediction an item
        right, guess = torch.cat(gold)[order], torch.cat(guesses)[order]
        tally = self.tally_of(right, guess)
        scores = {self.metric: float(self.main_score(tally.items.sum(0)))}
        scores["accuracy"] = int((right == guess).sum()) / count
        return {**scores, "loss": float(torch.stack(loss).sum()) / count}, tally


class Tagging(Labelled):
    """A tag for each word (BIO). Loss: cross-entropy at the first token of each word. Score: entity-level F1.

    labels: the tags, where the training data may lack some.

    >>> old.labels
    ('B-LOC', 'B-ORG', 'B-PER', 'I-ORG', 'I-PER', 'O')
    """

    metric = "f1"
    kind = "tagging"
    level = "token"
    what = "tag"

    def _given(self, examples: Examples) -> Iterable[str]:
        assert examples.tags is not None
        return chain(*examples.tags)

    def _numbers(self, examples: Examples) -> Tensor:
        assert examples.tags is not None
        return pad_sequence([label_ids(tags, self.labels) for tags in examples.tags], True, IGNORE)

    def _collate(self, model: Model, split: str, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        encoded = self.encoded(model, split)
        batch = encoded.take(index)
        words = encoded.words[index, : batch["input_ids"].shape[1]]
        starts = words != IGNORE
        tags = self._targets[split][index]
        rows = torch.arange(len(index)).unsqueeze(1).expand_as(words)
        return batch | {
            "places": starts.flatten().nonzero().squeeze(1),
            "targets": tags[rows[starts], words[starts]],
        }

    def logits(self, model: Model, batch: Mapping[str, Tensor]) -> Tensor:
        head = model.heads[self.head]
        hidden = model.hidden(batch).flatten(0, 1)[batch["places"]]
        return head(hidden, batch["attention_mask"]).float()

    def classes(self) -> Sequence[object]:
        """Whether a sentence has an entity."""
        assert self.test.tags is not None
        return [any(tag != "O" for tag in tags) for tags in self.test.tags]

    def guesser(self, model: Model, limit: int | None = None) -> float | None:
        """F1 of one who tags every word alike: 0."""
        return 0.0

    def scores_of(
        self, predictions: Iterable[tuple[Mapping[str, Tensor], Tensor]], count: int
    ) -> tuple[Scores, Tally | None]:
        predicted: list[list[str]] = [[] for _ in range(count)]
        gold: list[list[str]] = [[] for _ in range(count)]
        loss, n, same = 0.0, 0, 0
        for batch, logits in predictions:
            loss += float(F.cross_entropy(logits, batch["targets"], reduction="sum"))
            n += len(logits)
            chosen = zip(batch["rows"].tolist(), logits.argmax(-1).tolist(), batch["targets"].tolist(), strict=True)
            for row, guess, target in chosen:
                predicted[row].append(self.labels[guess])
                gold[row].append(self.labels[target])
                same += guess == target
        counts = [entity_counts(p, g) for p, g in zip(predicted, gold, strict=True)]
        tally = Tally(("hits", "predicted", "gold"), torch.tensor(counts, dtype=torch.float64))
        sums = tally.items.sum(0)
        hits, found, there = sums.tolist()
        precision, recall = hits / max(found, 1), hits / max(there, 1)
        f1 = float(self.main_score(sums))
        return {"precision": precision, "recall": recall, "f1": f1, "accuracy": same / n, "loss": loss / n}, tally


def most_frequent(targets: Tensor) -> float:
    """Accuracy of one who always says the most frequent class, never below 1/K. targets: (n,) class numbers."""
    counts = targets.bincount()
    return float(counts.max() / counts.sum())


def _classes(name: str, what: str, train: Iterable[str], test: Iterable[str]) -> tuple[str, ...]:
    """The classes of a labelled task, sorted; raises where there is one only, or the test data have others."""
    train, test = list(train), list(test)
    if len(kinds := {type(label).__name__ for label in (*train, *test)}) > 1:
        raise ForgetlabError(f"{name}: {what}s of several kinds ({', '.join(sorted(kinds))}); give all of them as text")
    classes = tuple(sorted(set(train)))
    if len(classes) < 2:
        needs = "classification needs two classes" if what == "label" else "tagging needs two tags"
        raise ForgetlabError(f"{name}: every {what} is {classes[0]!r}; {needs} or more")
    if unseen := sorted(set(test) - set(classes)):
        raise ForgetlabError(f"{name}: the test {what}s {', '.join(map(repr, unseen))} are not in the training data")
    return classes
