"""What every task is: data, a loss and a score."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from forgetlab.errors import ForgetlabError, listed
from forgetlab.metrics.retention import Scale
from forgetlab.metrics.schema import TaskFacts
from forgetlab.metrics.tally import Tally, score_of_sums, stratified
from forgetlab.models.memory import free, out_of_memory
from forgetlab.models.model import Model, evaluating
from forgetlab.models.sharded import is_sharded
from forgetlab.sources import Examples
from forgetlab.tasks.encoding import EVALUATION_BATCH, Encoded, encode, longer, unknown_share

Scores = dict[str, float]
T = TypeVar("T")
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
    scale: ClassVar[Scale] = "points"  # "ratio": changes are factors, and shares are taken in nats
    kind: ClassVar[str]
    has_loss: ClassVar[bool] = True

    def __init__(self, name: str, train: Examples | None, test: Examples, floor: float | None = None) -> None:
        self.name = name
        self.train = train
        self.test = test
        self.floor = floor
        self._encoded: _PerTokenizer[dict[tuple[str, bool], Encoded]] = _PerTokenizer()
        self._ready: _PerTokenizer[dict[tuple[int | None, str, bool], list[dict[str, Tensor]]]] = _PerTokenizer()
        self.rows_at_once = EVALUATION_BATCH  # in scoring; halved where the memory ends

    def prepare(self, model: Model, seed: int = 0) -> None:  # noqa: B027, a probe needs no head
        """Make the model ready for the task: its head, from `seed` if new. Raises where the two do not fit."""

    def remarks(self, model: Model, *splits: str, limit: int | None = None) -> list[str]:
        """What is worth saying of the data on this model, in words: texts that were cut, words it does not know.

        splits: "train", "test" or both. limit: of the scores, which are then of a sample.
        """
        notes = sampled(self, limit) if "test" in splits else []
        for split in splits:
            encoded = self.encoded(model, split)
            if encoded.truncated:
                notes.append(
                    f"{self.name}: {encoded.truncated} of {len(encoded)} {split} texts are longer than "
                    f"{model.max_length} tokens and were cut{longer(model)}"
                )
            if (share := unknown_share(encoded, model.tokenizer)) > 0.05:
                notes.append(f"{self.name}: {share:.0%} of the {split} words are unknown to {model.name}")
        return notes

    def encoded(self, model: Model, split: str) -> Encoded:
        """The examples of "train" or "test" as tensors for this model's tokenizer; encoded once."""
        known, key = self._encoded.setdefault(model.tokenizer, {}), (split, model.end_mark)
        if key not in known:
            examples = self.train if split == "train" else self.test
            if examples is None:
                raise ForgetlabError(f"the task {self.name} has no training data: it can be watched, not trained")
            begin = self.kind in ("causal-lm", "reward", "preferences", "distillation")
            stops = split == "train" and examples.kind in ("completions", "chat")  # an answer is to come to its end
            end = self.kind in ("causal-lm", "preferences") and (model.end_mark or stops)
            known[key] = encode(examples, model.tokenizer, model.max_length, begin=begin, end=end)
        return known[key]

    def keep(self, model: Model, split: str, encoded: Encoded) -> None:
        """Have these tensors stand for the examples of "train" or "test" on this model."""
        self._encoded.setdefault(model.tokenizer, {})[(split, model.end_mark)] = encoded

    def size(self) -> int:
        """How many training examples there are."""
        return 0 if self.train is None else len(self.train)

    def batch(self, model: Model, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """A training batch on the model's device. index: (B,) rows. generator: draws the masks, if any."""
        return _to(self._collate(model, "train", index, generator), model.device)

    def remarks_on(self, batch: Mapping[str, Tensor]) -> list[str]:
        """What is worth saying of a training batch; the same words are said once in a run."""
        return []

    def items(self) -> int | None:
        """How many test items there are: texts, pairs or questions (None: only whoever scores them knows)."""
        return len(self.test)

    def classes(self) -> Sequence[object]:
        """Of each test item the class that a sample keeps its share of; all the same where there are none."""
        return [None] * (self.items() or 0)

    def sample(self, limit: int | None) -> Tensor:
        """(n,) numbers of the test items that are scored, in order: all, or a seeded sample of `limit` by class.

        The same for every model, method and seed.
        """
        return stratified(self.classes(), limit)

    def score(self, model: Model, limit: int | None = None) -> Scores:
        """Scores on the test items, or on a sample of `limit` of them, by name; `metric` names the main one.

        Out of memory, it takes fewer examples at once, with the same result.
        """
        return self.scored(model, limit)[0]

    def tally(self, model: Model, limit: int | None = None) -> Tally | None:
        """What the main score is made of, item by item; None where it is no function of sums over items."""
        return self.scored(model, limit)[1]

    def scored(self, model: Model, limit: int | None = None) -> tuple[Scores, Tally | None]:
        """`score` and `tally` from the same forward passes."""
        return self.scoring(model, lambda: self._scored(model, limit))

    def scoring(self, model: Model, work: Callable[[], T]) -> T:
        """`work()`, which asks the model about the test items, in eval mode; out of memory, with fewer rows at once."""
        with evaluating(model):
            while True:
                try:
                    with torch.no_grad(), torch.inference_mode(not is_sharded(next(model.parameters()))):
                        return work()  # FSDP writes into what the pass before has left
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error) or self.rows_at_once == 1:
                        raise
                self.rows_at_once //= 2
                self._ready.clear()
                free(model.device)

    def main_score(self, sums: Tensor) -> Tensor:
        """(..., K) sums of a tally's items → (...) the main score."""
        return score_of_sums(self.metric, sums)

    def guesser(self, model: Model, limit: int | None = None) -> float | None:
        """The main score on the same items of one who knows only the frequencies; None where nobody can say."""
        return None

    def test_batches(self, model: Model, limit: int | None) -> list[dict[str, Tensor]]:
        """The test batches, made once for a tokenizer and device.

        "rows": (places,) to which of the scored items, counted from 0, each prediction belongs.
        """
        known, key = self._ready.setdefault(model.tokenizer, {}), (limit, str(model.device), model.end_mark)
        if key not in known:
            generator = torch.Generator().manual_seed(0)  # masks of a test set are the same for every model
            ready, sample = [], self.sample(limit)
            for index in self.encoded(model, "test").evaluation_batches(sample):
                batch = self._collate(model, "test", index, generator)
                batch = _to(batch | {"rows": torch.searchsorted(sample, index)[self.owners(batch)]}, model.device)
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
        flat = ("places", "targets", "rows", "advantages")
        some = {k: v[own] if k in flat else v[lo:hi, :longest] for k, v in batch.items() if k != "ends"}
        if "ends" in batch:
            some["ends"] = batch["ends"][(batch["ends"] >= lo * length) & (batch["ends"] < hi * length)]
        for name in {"places", "ends"} & some.keys():  # of the flattened batch, which is narrower now
            some[name] = (some[name] // length - lo) * longest + some[name] % length
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

    def _scored(self, model: Model, limit: int | None) -> tuple[Scores, Tally | None]:
        count = len(self.test) if limit is None else min(limit, len(self.test))
        return self.scores_of(self.predictions(model, limit), count)

    def predictions(self, model: Model, limit: int | None) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """(batch, logits) of the test examples, or a sample of `limit`, a batch at a time."""
        for batch in self.test_batches(model, limit):
            yield batch, self.logits(model, batch)

    def scores_of(
        self, predictions: Iterable[tuple[Mapping[str, Tensor], Tensor]], count: int
    ) -> tuple[Scores, Tally | None]:
        """The scores of such predictions for `count` items, and what they are made of, whichever model made them."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, train={self.size()})"


def sampled(task: Task, limit: int | None) -> list[str]:
    """How many of a task's test items are scored, where it is not all of them."""
    if limit is None or (of := task.items()) is None or limit >= of:
        return []
    return [f"{task.name}: {limit} of {of} test items are scored, the same ones at every look"]


def trainable(tasks: Sequence[Task], purpose: str) -> list[Task]:
    """Those of the tasks that have training data and a loss; raises ForgetlabError ("nothing to …") where none has."""
    listed("old", tasks, Task, "[task('entities')]")
    if found := [task for task in tasks if task.has_loss and task.size()]:
        return found
    names = ", ".join(task.name for task in tasks) or "no task"
    raise ForgetlabError(f"nothing to {purpose}: {names} given, a task with training data expected")


def _to(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


@dataclass(frozen=True)
class Suite:
    """A named list of tasks: the benchmark that a model takes before and after.

    >>> [one.name for one in Suite("two", (new, old)).tasks]
    ['sentiment', 'entities']
    """

    name: str
    tasks: tuple[Task, ...]

    def evaluate(self, model: Model, limit: int | None = None) -> dict[str, Scores]:
        """Every score of every task: {task: {metric: value}}."""
        for task in self.tasks:
            task.prepare(model)
        return {task.name: task.score(model, limit) for task in self.tasks}

    def table(self, before: Mapping[str, Scores], after: Mapping[str, Scores]) -> str:
        """Two evaluations side by side as plain text, with the change, a ratio on the scale "ratio"."""
        lines = [f"{'task':<20}{'metric':<12}{'before':>9}{'after':>9}{'change':>9}"]
        for task in self.tasks:
            old, new = before[task.name][task.metric], after[task.name][task.metric]
            change = f"×{new / old:.2f}" if task.scale == "ratio" else f"{new - old:+.3f}"
            lines.append(f"{task.name:<20}{task.metric:<12}{_number(old):>9}{_number(new):>9}{change:>9}")
        return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) and abs(value) >= 10 else f"{value:.3f}"


def facts_of(task: Task, model: Model, limit: int | None) -> TaskFacts:
    """What is to be known of a task where only its scores are at hand.

    "guess" is the score of one who knows only the frequencies (None: nobody can say), "scored" and "of" how many of its
    test items are scored (None: only whoever scores them knows).
    """
    of = task.items()
    return {
        "name": task.name,
        "kind": task.kind,
        "metric": task.metric,
        "higher_is_better": task.higher_is_better,
        "scale": task.scale,
        "floor": task.floor,
        "guess": task.guesser(model, limit),
        "scored": None if of is None else min(of, limit or of),
        "of": of,
    }
