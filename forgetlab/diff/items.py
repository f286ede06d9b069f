"""Which test items a model lost or gained, as a reader sees them: the text, the right answer, both answers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from forgetlab.diff.outcomes import Answer, Outcome
from forgetlab.diff.schema import ItemFound
from forgetlab.metrics.language import entities
from forgetlab.plots import number
from forgetlab.tasks import Tagging, Task
from forgetlab.tasks.answers import Preferences
from forgetlab.tasks.on_policy import OnPolicy
from forgetlab.tasks.probes import Choices, MinimalPairs

LONGEST = 400  # characters of a text
MOST = 200  # items that are kept of each side
LEAST = 1e-6  # nats or points: less is rounding


def moved(
    task: Task, before: Outcome, after: Outcome, limit: int | None
) -> tuple[list[ItemFound], list[ItemFound], int, int]:
    """The items that got worse, the worst first, and those that got better, the best first; 200 of each at most.

    With them how many there are of each.
    """
    if before.tally is None or after.tally is None:
        return [], [], 0, 0
    losses = _losses(task, before, after)
    order = losses.argsort(descending=True, stable=True).tolist()
    sample = task.sample(limit).tolist()
    sides = [i for i in order if losses[i] > LEAST], [i for i in reversed(order) if losses[i] < -LEAST]
    lost, gained = ([_item(task, i, sample[i], before, after, float(losses[i])) for i in s[:MOST]] for s in sides)
    return lost, gained, len(sides[0]), len(sides[1])


def _losses(task: Task, before: Outcome, after: Outcome) -> Tensor:
    """(n,) how much worse each item is: answers, hits, nats, rewards."""
    assert before.tally is not None
    assert after.tally is not None
    if before.said is not None and before.gold is not None and after.said is not None and not isinstance(task, Tagging):
        pairs = zip(before.said, after.said, before.gold, strict=True)
        return before.tally.items.new_tensor([(old == right) - (new == right) for old, new, right in pairs])
    sign = 1.0 if task.higher_is_better else -1.0
    return sign * (before.tally.items[:, 0] - after.tally.items[:, 0])


def _item(task: Task, i: int, row: int, before: Outcome, after: Outcome, loss: float) -> ItemFound:
    gold = before.gold[i] if before.gold is not None else None
    answers = []
    for outcome in (before, after):
        if outcome.said is not None:
            answers.append(shown(task, row, outcome.said[i]))
        else:
            answers.append(_scored(task, outcome, i))
    return {
        "number": i + 1,
        "text": text_of(task, row),
        "gold": shown(task, row, gold) if gold is not None else _gold(task, row),
        "before": answers[0],
        "after": answers[1],
        "loss": loss,
    }


def _scored(task: Task, outcome: Outcome, i: int) -> str:
    assert outcome.tally is not None
    one = outcome.tally.items[i : i + 1]
    if outcome.tally.columns == ("right", "one"):
        share = float(one[0, 0])
        return "right" if share == 1 else "wrong" if share == 0 else f"right in {share:.0%} of the draws"
    return number(float(task.main_score(one.sum(0))), task.scale)


def shown(task: Task, row: int, answer: Answer) -> str:
    """An answer in words: a class, or the entities of a sentence."""
    if isinstance(answer, str):
        return _short(answer)
    words = task.test.words[row] if task.test.words is not None else ()
    spans = sorted(entities(answer)) if _are_spans(answer) else []
    return _short(", ".join(f"{' '.join(words[a:b])} ({kind})" for a, b, kind in spans)) or "none"


def _are_spans(tags: Sequence[str]) -> bool:
    return all(tag == "O" or tag[:2] in ("B-", "I-") for tag in tags)


def entity_hits(before: Outcome, after: Outcome) -> tuple[list[float], list[float]]:
    """For each entity that there is, 1 where a model found it: before, and after."""
    hits: tuple[list[float], list[float]] = ([], [])
    for outcome, column in zip((before, after), hits, strict=True):
        assert outcome.said is not None
        assert outcome.gold is not None
        for said, gold in zip(outcome.said, outcome.gold, strict=True):
            found = entities(said)
            column += [float(one in found) for one in sorted(entities(gold))]
    return hits


def text_of(task: Task, row: int) -> str:
    """A test item's text. row: its number among all test items."""
    examples = task.test
    if isinstance(task, MinimalPairs):
        return _short(" ↔ ".join(examples.texts[2 * row : 2 * row + 2]))
    if isinstance(task, Choices):
        return _short(task.questions[row])
    if isinstance(task, OnPolicy):
        row //= task.tries
    if examples.words is not None:
        return _short(" ".join(examples.words[row]))
    if examples.turns is not None:
        return _short(" ".join(f"{turn.role}: {turn.text}" for turn in examples.turns[row]))
    if row >= len(examples.texts):
        return f"item {row + 1}"
    return _short(" | ".join(side[row] for side in (examples.texts, examples.pairs) if side is not None))


def _gold(task: Task, row: int) -> str | None:
    if isinstance(task, MinimalPairs):
        return _short(task.test.texts[2 * row])
    if isinstance(task, Preferences) and task.test.pairs is not None:
        return _short(task.test.pairs[row])
    return None


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"
