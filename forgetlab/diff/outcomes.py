"""What each model of a pair answers to the same test items: scores, and all that they are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from forgetlab.diff.models.pair import Pair
from forgetlab.metrics.schema import TaskFacts
from forgetlab.metrics.tally import Tally
from forgetlab.models.model import Model
from forgetlab.tasks import Tagging, Task
from forgetlab.tasks.base import Scores, facts_of
from forgetlab.tasks.labelled import Labelled
from forgetlab.tasks.language import LanguageModel
from forgetlab.tasks.probes import Choices

Prediction = tuple[Mapping[str, Tensor], Tensor]  # a batch with its logits
Answer = str | tuple[str, ...]
Say = Callable[[str], None]

TOKENS_AT_ONCE, CPU_LOGITS = 1024, 2**21


@dataclass(frozen=True)
class Tokens:
    """The scored tokens of a perplexity, (n,) each: of which item (from 0), where in its text, which token, −log p."""

    item: Tensor
    place: Tensor
    token: Tensor
    nll: Tensor


@dataclass(frozen=True)
class Calibration:
    """(n,) how probable a model's answers are to itself, and 1 where they were right."""

    confidence: Tensor
    right: Tensor


@dataclass(frozen=True)
class Outcome:
    """One model on one task.

    said: its answer to each item, where it gives one: a class, a choice, a tag for each word; gold: the right ones.
    The items are the same, in the same order, for every model of a pair.
    """

    facts: TaskFacts
    scores: Scores
    tally: Tally | None
    tokens: Tokens | None = None
    calibration: Calibration | None = None
    said: Sequence[Answer] | None = None
    gold: Sequence[Answer] | None = None


def outcomes(
    pair: Pair, tasks: Sequence[Task], limit: int | None, say: Say = lambda text: None
) -> dict[str, dict[str, Outcome]]:
    """{model of the pair: {task: Outcome}}, a model at a time. limit: test items of a task. say: hears of each."""
    found: dict[str, dict[str, Outcome]] = {}
    for which in pair.names:
        model = pair.become(which)
        found[which] = {}
        for task in tasks:
            say(f"{pair.given(which)}: {task.name}")
            found[which][task.name] = outcome(task, model, limit)
    return found


def outcome(task: Task, model: Model, limit: int | None = None) -> Outcome:
    """A model on one task. limit: a sample of its test items, the same for every model.

    >>> outcome(old, model, 4).said[0][:3]
    ('B-PER', 'O', 'B-PER')
    """
    _spare(task, model)
    facts = facts_of(task, model, limit)
    if isinstance(task, Choices):
        return task.scoring(model, lambda: _of_choices(facts, task, model, limit))
    if isinstance(task, Labelled | LanguageModel):
        return task.scoring(model, lambda: _of_predictions(facts, task, model, limit))
    return Outcome(facts, *task.scored(model, limit))


def _spare(task: Task, model: Model) -> None:
    """On the CPU, few rows and logits at once: what is computed must not take more memory than the model itself."""
    if model.device.type == "cpu" and isinstance(task, Labelled | LanguageModel):
        longest = int(task.encoded(model, "test").lengths.max())
        task.rows_at_once = min(task.rows_at_once, max(1, TOKENS_AT_ONCE // longest))
        if isinstance(task, LanguageModel):
            task.logits_at_once = CPU_LOGITS


def _of_choices(facts: TaskFacts, task: Choices, model: Model, limit: int | None) -> Outcome:
    asked = task.sample(limit).tolist()
    likelihoods = task.likelihoods(model, asked)
    chosen = task.chosen(asked, likelihoods["accuracy"]).tolist()
    said = [task.choices[i][option] for i, option in zip(asked, chosen, strict=True)]
    gold = [task.choices[i][task.answers[i]] for i in asked]
    return Outcome(facts, *task.judged(asked, likelihoods), said=said, gold=gold)


@dataclass
class _Heard:
    """What goes by on the way from the predictions to the score."""

    columns: dict[str, list[Tensor]] = field(default_factory=dict)

    def listening(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        for batch, logits in predictions:
            if "rows" in batch:  # the ends of texts are scored apart
                log_p = logits.log_softmax(-1)
                highest, guess = log_p.max(-1)
                own = log_p.gather(-1, batch["targets"].unsqueeze(-1)).squeeze(-1)
                now = {"rows": batch["rows"], "guess": guess, "targets": batch["targets"]}
                now |= {"confidence": highest.exp(), "nll": -own}
                del log_p  # as large as the logits
                for name, column in (now | {n: batch[n] for n in ("at", "places") if n in batch}).items():
                    self.columns.setdefault(name, []).append(column.cpu())
            yield batch, logits

    def column(self, name: str) -> Tensor:
        return torch.cat(self.columns[name])


def _of_predictions(facts: TaskFacts, task: Labelled | LanguageModel, model: Model, limit: int | None) -> Outcome:
    heard, count = _Heard(), len(task.sample(limit))
    scores, tally = task.scores_of(heard.listening(task.predictions(model, limit)), count)
    rows, guess, targets = (heard.column(name) for name in ("rows", "guess", "targets"))
    calibration = Calibration(heard.column("confidence"), (guess == targets).double())
    if isinstance(task, LanguageModel):
        order = rows.argsort(stable=True)  # an item after the other, its tokens in their order
        place = heard.column("at") + (task.kind == "causal-lm")  # there a place is asked for the token after it
        parts = [column[order] for column in (rows, place, targets, heard.column("nll"))]
        return Outcome(facts, scores, tally, Tokens(*parts), calibration)
    said: list[list[str]] = [[] for _ in range(count)]
    gold: list[list[str]] = [[] for _ in range(count)]
    for row, *numbers in zip(rows.tolist(), guess.tolist(), targets.tolist(), strict=True):
        for told, number in zip((said, gold), numbers, strict=True):
            told[row].append(task.labels[number])
    one_each = not isinstance(task, Tagging)
    answers = [[one[0] if one_each else tuple(one) for one in told] for told in (said, gold)]
    return Outcome(facts, scores, tally, None, calibration, *answers)
