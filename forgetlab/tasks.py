"""A task is data, a loss and a score.

Four kinds can be trained: a class for each text (or pair of texts), a tag for each word, masked and causal
language modelling. `probes.py` has the ones that are only scored.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from forgetlab import metrics
from forgetlab.encoding import EVALUATION_BATCH, IGNORE, Encoded, encode, inner_tokens, label_ids, unknown_share
from forgetlab.errors import ForgetlabError
from forgetlab.memory import free, out_of_memory
from forgetlab.models import Model, evaluating
from forgetlab.sources import Examples

Scores = dict[str, float]
T = TypeVar("T")
MASK_RATE = 0.15
LOGITS_AT_ONCE = 2**26  # in scoring: a quarter of a gigabyte
CPU_ROWS = 64  # in scoring on the CPU: less padding, and the hidden states stay in the cache


class _PerTokenizer(WeakKeyDictionary[Any, T]):
    """What was made for each tokenizer, for as long as somebody uses it. In a pickle it is left out."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()


class Task(ABC):
    """Data, a loss on a model, and a score.

    name: also the name of the task's head. train, test: examples; a task that is only watched needs no train.
    floor: the best score that any model can reach where it is known exactly (a perplexity), else None.
    """

    metric: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    kind: ClassVar[str]
    has_loss: ClassVar[bool] = True

    def __init__(self, name: str, train: Examples | None, test: Examples, floor: float | None = None) -> None:
        self.name = name
        self.train = train
        self.test = test
        self.floor = floor
        self._encoded: _PerTokenizer[dict[str, Encoded]] = _PerTokenizer()
        self._ready: _PerTokenizer[dict[tuple[int | None, str], list[dict[str, Tensor]]]] = _PerTokenizer()
        self.rows_at_once = EVALUATION_BATCH  # in scoring; halved where the memory ends

    def prepare(self, model: Model, seed: int = 0) -> None:  # noqa: B027, a probe needs no head
        """Make the model ready for the task: its head, from `seed` if new. Raises where the two do not fit."""

    def remarks(self, model: Model, *splits: str) -> list[str]:
        """What is worth saying of the data on this model, in words: texts that were cut, words it does not know."""
        notes = []
        for split in splits:
            encoded = self.encoded(model, split)
            if encoded.truncated:
                notes.append(
                    f"{self.name}: {encoded.truncated} of {len(encoded)} {split} texts are longer than "
                    f"{model.max_length} tokens and were cut"
                )
            if (share := unknown_share(encoded, model.tokenizer)) > 0.05:
                notes.append(f"{self.name}: {share:.0%} of the {split} words are unknown to {model.name}")
        return notes

    def encoded(self, model: Model, split: str) -> Encoded:
        """The examples of "train" or "test" as tensors for this model's tokenizer; encoded once."""
        known = self._encoded.setdefault(model.tokenizer, {})
        if split not in known:
            examples = self.train if split == "train" else self.test
            if examples is None:
                raise ForgetlabError(f"the task {self.name} has no training data: it can be watched, not trained")
            known[split] = encode(examples, model.tokenizer, model.max_length, end_mark=self.kind == "causal-lm")
        return known[split]

    def size(self) -> int:
        """How many training examples there are."""
        return 0 if self.train is None else len(self.train)

    def batch(self, model: Model, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """A training batch on the model's device. index: (B,) rows. generator: draws the masks, if any."""
        return _to(self._collate(model, "train", index, generator), model.device)

    def score(self, model: Model, limit: int | None = None) -> Scores:
        """Scores on the first `limit` test examples (None: all), by name; `metric` names the main one.

        Out of memory, it takes fewer examples at once, with the same result.
        """
        with evaluating(model):
            while True:
                try:
                    with torch.inference_mode():
                        return self._score(model, limit)
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error) or self.rows_at_once == 1:
                        raise
                self.rows_at_once //= 2
                self._ready.clear()
                free(model.device)

    def test_batches(self, model: Model, limit: int | None) -> list[dict[str, Tensor]]:
        """The test batches, made once for a tokenizer and device."""
        known, key = self._ready.setdefault(model.tokenizer, {}), (limit, str(model.device))
        if key not in known:
            generator = torch.Generator().manual_seed(0)  # masks of a test set are the same for every model
            ready = []
            for index in self.encoded(model, "test").evaluation_batches(limit):
                batch = _to(self._collate(model, "test", index, generator), model.device)
                # cut after the draws, so that the masks are the same on every device
                at_once = min(self.rows_at_once, CPU_ROWS if model.device.type == "cpu" else EVALUATION_BATCH)
                starts = range(0, len(index), at_once)
                ready += [self.part(batch, i, i + at_once) for i in starts] if len(starts) > 1 else [batch]
            known[key] = ready
        return known[key]

    def part(self, batch: Mapping[str, Tensor], lo: int, hi: int) -> dict[str, Tensor]:
        """The rows from `lo` to below `hi` of a batch, with their predictions; columns of padding at the end go."""
        owners, length = self.owners(batch), batch["input_ids"].shape[1]
        own = (owners >= lo) & (owners < hi)
        longest = int(batch["attention_mask"][lo:hi].any(0).nonzero().max()) + 1
        some = {k: v[own] if k in ("places", "targets", "rows") else v[lo:hi, :longest] for k, v in batch.items()}
        if "places" in some:  # of the flattened batch, which is narrower now
            some["places"] = (some["places"] // length - lo) * longest + some["places"] % length
        return some

    @abstractmethod
    def _collate(self, model: Model, split: str, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]: ...

    @abstractmethod
    def logits(self, model: Model, batch: Mapping[str, Tensor]) -> Tensor:
        """(places, classes) in float32: one row for each prediction that the batch asks for."""

    def owners(self, batch: Mapping[str, Tensor]) -> Tensor:
        """(places,) the batch row that each prediction belongs to."""
        return batch["places"] // batch["input_ids"].shape[1]

    def loss(self, model: Model, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean cross-entropy over the predictions of a batch in nats, a scalar that can be differentiated."""
        return F.cross_entropy(self.logits(model, batch), batch["targets"])

    def _score(self, model: Model, limit: int | None) -> Scores:
        return self.scores_of(self.predictions(model, limit))

    def predictions(self, model: Model, limit: int | None) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """(batch, logits) of the first `limit` test examples, a batch at a time."""
        for batch in self.test_batches(model, limit):
            yield batch, self.logits(model, batch)

    def scores_of(self, predictions: Iterable[tuple[Mapping[str, Tensor], Tensor]]) -> Scores:
        """The scores of such predictions, whichever model made them."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, train={self.size()})"


class Classification(Task):
    """One class for each text, or pair of texts. Loss: cross-entropy. Score: accuracy.

    labels: the classes, where the training data may lack some.
    """

    metric = "accuracy"
    kind = "classification"

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
        assert train.labels is not None
        assert test.labels is not None
        self.labels = _classes(name, "label", labels or train.labels, test.labels)
        self._targets = {
            "train": label_ids(train.labels, self.labels),
            "test": label_ids(test.labels, self.labels),
        }

    def prepare(self, model: Model, seed: int = 0) -> None:
        model.add_head(self.head, self.labels, "sequence", seed)

    def _collate(self, model: Model, split: str, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return self.encoded(model, split).take(index) | {"targets": self._targets[split][index]}

    def logits(self, model: Model, batch: Mapping[str, Tensor]) -> Tensor:
        return model.logits(batch, self.head).float()

    def owners(self, batch: Mapping[str, Tensor]) -> Tensor:
        return torch.arange(len(batch["targets"]), device=batch["targets"].device)

    def scores_of(self, predictions: Iterable[tuple[Mapping[str, Tensor], Tensor]]) -> Scores:
        right, loss, n = [], [], 0
        for batch, logits in predictions:
            right.append((logits.argmax(-1) == batch["targets"]).sum())
            loss.append(F.cross_entropy(logits, batch["targets"], reduction="sum"))
            n += len(logits)
        return {"accuracy": float(torch.stack(right).sum()) / n, "loss": float(torch.stack(loss).sum()) / n}


class Tagging(Task):
    """A tag for each word (BIO). Loss: cross-entropy at the first token of each word. Score: entity-level F1.

    labels: the tags, where the training data may lack some.
    """

    metric = "f1"
    kind = "tagging"

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
        assert train.tags is not None
        assert test.tags is not None
        self.labels = _classes(name, "tag", labels or chain(*train.tags), chain(*test.tags))
        self._numbers = {"train": self._table(train.tags), "test": self._table(test.tags)}

    def _table(self, tags: Sequence[Sequence[str]]) -> Tensor:
        longest = max(map(len, tags))
        numbers = {tag: i for i, tag in enumerate(self.labels)}
        return torch.tensor([[numbers[t] for t in row] + [IGNORE] * (longest - len(row)) for row in tags])

    def prepare(self, model: Model, seed: int = 0) -> None:
        model.add_head(self.head, self.labels, "token", seed)

    def _collate(self, model: Model, split: str, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        encoded = self.encoded(model, split)
        batch = encoded.take(index)
        words = encoded.words[index, : batch["input_ids"].shape[1]]
        starts = words != IGNORE
        tags = self._numbers[split][index]
        rows = torch.arange(len(index)).unsqueeze(1).expand_as(words)
        return batch | {
            "places": starts.flatten().nonzero().squeeze(1),
            "targets": tags[rows[starts], words[starts]],
            "rows": index[rows[starts]],
        }

    def logits(self, model: Model, batch: Mapping[str, Tensor]) -> Tensor:
        head = model.heads[self.head]
        hidden = model.hidden(batch).flatten(0, 1)[batch["places"]]
        return head(hidden, batch["attention_mask"]).float()

    def scores_of(self, predictions: Iterable[tuple[Mapping[str, Tensor], Tensor]]) -> Scores:
        predicted: list[list[str]] = []
        gold: list[list[str]] = []
        loss, n = 0.0, 0
        for batch, logits in predictions:
            loss += float(F.cross_entropy(logits, batch["targets"], reduction="sum"))
            n += len(logits)
            sentences: dict[int, tuple[list[str], list[str]]] = {}
            chosen = zip(batch["rows"].tolist(), logits.argmax(-1).tolist(), batch["targets"].tolist(), strict=True)
            for row, guess, target in chosen:
                guesses, targets = sentences.setdefault(row, ([], []))
                guesses.append(self.labels[guess])
                targets.append(self.labels[target])
            predicted += [g for g, _ in sentences.values()]
            gold += [t for _, t in sentences.values()]
        same = sum(p == g for ps, gs in zip(predicted, gold, strict=True) for p, g in zip(ps, gs, strict=True))
        return {**metrics.entity_f1(predicted, gold), "accuracy": same / n, "loss": loss / n}


class LanguageModel(Task):
    """What both language-model tasks share: logits at chosen places only, and perplexity = exp(Σ NLL / Σ tokens)."""

    metric = "perplexity"
    higher_is_better = False

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
            hidden = model.hidden(batch).flatten(0, 1)[batch["places"]]
            for some, targets in in_pieces(model, hidden, batch["targets"]):
                yield {"targets": targets}, model.lm_logits(some).float()

    def scores_of(self, predictions: Iterable[tuple[Mapping[str, Tensor], Tensor]]) -> Scores:
        sums, counts = [], 0
        for batch, logits in predictions:
            sums.append(F.cross_entropy(logits, batch["targets"], reduction="sum"))
            counts += len(logits)
        total = float(torch.stack(sums).sum())
        return {"perplexity": metrics.perplexity(total, counts), "loss": total / counts}


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


def in_pieces(model: Model, hidden: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(places, width) hidden states and their (places,) targets, few enough at once for the logits of a vocabulary."""
    places = max(1, LOGITS_AT_ONCE // model.config.vocab_size)
    yield from zip(hidden.split(places), targets.split(places), strict=True)


def as_tasks(old: Sequence[Task]) -> Sequence[Task]:
    """The same, checked to be a sequence of tasks; raises ForgetlabError for anything else."""
    if not isinstance(old, Sequence) or not all(isinstance(task, Task) for task in old):
        raise ForgetlabError(f"old must be a list of tasks, such as [task('entities')], got {old!r}")
    return old


def trainable(tasks: Sequence[Task], purpose: str) -> list[Task]:
    """Those of the tasks that have training data and a loss; raises ForgetlabError ("nothing to …") where none has."""
    if found := [task for task in as_tasks(tasks) if task.has_loss and task.size()]:
        return found
    names = ", ".join(task.name for task in tasks) or "no task"
    raise ForgetlabError(f"nothing to {purpose}: {names} given, a task with training data expected")


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


def _to(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


@dataclass(frozen=True)
class Suite:
    """A named list of tasks: the benchmark that a model takes before and after."""

    name: str
    tasks: tuple[Task, ...]

    def evaluate(self, model: Model, limit: int | None = None) -> dict[str, Scores]:
        """Every score of every task: {task: {metric: value}}."""
        for task in self.tasks:
            task.prepare(model)
        return {task.name: task.score(model, limit) for task in self.tasks}

    def table(self, before: Mapping[str, Scores], after: Mapping[str, Scores]) -> str:
        """Two evaluations side by side as plain text, with the change and, for perplexity, the ratio."""
        lines = [f"{'task':<20}{'metric':<12}{'before':>9}{'after':>9}{'change':>9}"]
        for task in self.tasks:
            old, new = before[task.name][task.metric], after[task.name][task.metric]
            change = f"×{new / old:.2f}" if task.metric == "perplexity" else f"{new - old:+.3f}"
            lines.append(f"{task.name:<20}{task.metric:<12}{_number(old):>9}{_number(new):>9}{change:>9}")
        return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) and abs(value) >= 10 else f"{value:.3f}"
