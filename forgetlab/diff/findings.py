"""What two outcomes on the same items say: how much was lost, how sure that is, and which items, words and places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor

from forgetlab.diff.items import entity_hits, moved
from forgetlab.diff.outcomes import Calibration, Outcome, Tokens
from forgetlab.diff.schema import CalibrationFound, ChangeFound, PartFound, TaskFound
from forgetlab.diff.words import CLASSES, RULES, classes, with_rare
from forgetlab.metrics.language import calibration_gap
from forgetlab.metrics.paired import Change, change, flips, verdict
from forgetlab.metrics.retention import on
from forgetlab.models.model import Model
from forgetlab.tasks import Classification, Tagging, Task
from forgetlab.tasks.answers import Preferences
from forgetlab.tasks.labelled import Labelled
from forgetlab.tasks.language import LanguageModel
from forgetlab.tasks.on_policy import OnPolicy
from forgetlab.tasks.probes import Choices, KShot, MinimalPairs

REPEATED = 0.1  # of the test items, from which on it is said
QUARTERS = ("first quarter", "second quarter", "third quarter", "last quarter")


@dataclass(frozen=True)
class Parts:
    """Of each scored token of a perplexity its number in CLASSES and in QUARTERS, (n,) each."""

    kind: Tensor
    quarter: Tensor


def parts(task: Task, model: Model, limit: int | None, tokens: Tokens) -> Parts:
    """Which class and place each scored token has; the same for every model of a pair."""
    encoded, sample = task.encoded(model, "test"), task.sample(limit)
    rows = encoded.columns["input_ids"][sample].tolist()
    lengths = encoded.lengths[sample]
    kinds = classes([row[:n] for row, n in zip(rows, lengths.tolist(), strict=True)], model.tokenizer)
    own = [kinds[i][place] for i, place in zip(tokens.item.tolist(), tokens.place.tolist(), strict=True)]
    quarter = (4 * tokens.place // lengths[tokens.item]).clamp(max=3)
    return Parts(with_rare(torch.tensor(own), tokens.token), quarter)


def groups_of(task: Task, model: Model, limit: int | None) -> Tensor | None:
    """(n,) of each scored item the number of its text or prompt, where a tenth or more stand there again; else None."""
    if isinstance(task, OnPolicy):
        return task.sample(limit) // task.tries
    if not isinstance(task, Labelled | LanguageModel):
        return None
    encoded, sample = task.encoded(model, "test"), task.sample(limit)
    rows = zip(encoded.columns["input_ids"][sample].tolist(), encoded.lengths[sample].tolist(), strict=True)
    number: dict[tuple[int, ...], int] = {}
    groups = torch.tensor([number.setdefault(tuple(row[:n]), len(number)) for row, n in rows])
    return groups if len(sample) - len(number) >= REPEATED * len(sample) else None


def repeated(task: Task, groups: Tensor | None) -> list[str]:
    """That test items repeat each other, in words."""
    if groups is None or isinstance(task, OnPolicy):
        return []
    told = f"only {len(groups.unique())} of the {len(groups)} test items that are scored differ"
    return [f"{task.name}: {told}; for the interval repeated ones count as one"]


def changed(task: Task, before: Outcome, after: Outcome, groups: Tensor | None = None) -> Change | None:
    """The paired change of the main score; None where it is no function of sums over items.

    groups: items of one group, several answers to a prompt or the same text again, count as one.
    """
    if before.tally is None or after.tally is None:
        return None
    return change(
        before.tally.items,
        after.tally.items,
        task.metric,
        scale=task.scale,
        higher_is_better=task.higher_is_better,
        groups=groups,
    )


def finding(
    task: Task,
    before: Outcome,
    after: Outcome,
    found: Change | None,
    *,
    limit: int | None = None,
    within: Parts | None = None,
    allowed: float | None = None,
    role: str = "watched",
) -> TaskFound:
    """Everything that is said of one AFTER on one task, as plain values. found: what `changed` gave."""
    lost, gained, lost_items, gained_items = moved(task, before, after, limit)
    right = _right(task, before), _right(task, after)
    counted, flipped = "items", None
    if right[0] is not None and right[1] is not None:
        flipped = flips(right[0], right[1], _guess(task, limit))
    elif isinstance(task, Tagging):
        counted, hits = "entities", entity_hits(before, after)
        flipped = flips(*hits) if len(hits[0]) else None
    elif task.scale == "ratio":
        counted = "passages"
    by_class, by_place = [], []
    if before.tokens and after.tokens and within:
        by_class = _by(before.tokens, after.tokens, within.kind, [(name, RULES[name]) for name in CLASSES])
        by_place = _by(before.tokens, after.tokens, within.quarter, [(name, "of each text") for name in QUARTERS])
    old, new = before.calibration, after.calibration
    return {
        "facts": before.facts,
        "role": role,
        "before": cast(Any, before.scores),
        "after": cast(Any, after.scores),
        "change": told(found) if found else _untold(task, before, after),
        "flips": asdict(flipped) if flipped else None,
        "counted": counted,
        "lost": lost,
        "gained": gained,
        "lost_items": flipped.lost if flipped else lost_items,
        "gained_items": flipped.gained if flipped else gained_items,
        "by_token_class": by_class,
        "by_position": by_place,
        "calibration": {"before": _calibrated(old), "after": _calibrated(new)} if old and new else None,
        "allowed": allowed,
        "verdict": verdict(found, allowed or 0.0) if found else "not enough evidence",
    }


def told(found: Change) -> ChangeFound:
    """A change as plain values."""
    return {
        "before": found.before,
        "after": found.after,
        "loss": found.loss,
        "low": found.low,
        "high": found.high,
        "smallest": found.smallest,
    }


def _untold(task: Task, before: Outcome, after: Outcome) -> ChangeFound:
    old, new = before.scores[task.metric], after.scores[task.metric]
    worse = float(on(task.scale, new) - on(task.scale, old))
    loss = -worse if task.higher_is_better else worse
    return {"before": old, "after": new, "loss": loss, "low": None, "high": None, "smallest": None}


def _right(task: Task, outcome: Outcome) -> list[float] | None:
    """(n,) 1 for a right answer, 0 for a wrong one; None where answers are neither."""
    if isinstance(task, Tagging):
        return None
    if outcome.said is not None and outcome.gold is not None:
        return [float(one == other) for one, other in zip(outcome.said, outcome.gold, strict=True)]
    if outcome.tally and outcome.tally.columns == ("right", "one") and not isinstance(task, KShot):
        return outcome.tally.items[:, 0].tolist()
    return None


def _guess(task: Task, limit: int | None) -> list[float] | float | None:
    """How probable a right guess is: one of K."""
    if isinstance(task, Choices):
        return [1 / len(task.choices[i]) for i in task.sample(limit).tolist()]
    if isinstance(task, Classification):
        return 1 / len(task.labels)
    return 0.5 if isinstance(task, MinimalPairs | Preferences) else None


def _calibrated(found: Calibration) -> CalibrationFound:
    return {
        "error": calibration_gap(found.confidence, found.right),
        "confidence": float(found.confidence.double().mean()),
        "right": float(found.right.mean()),
    }


def _by(before: Tokens, after: Tokens, number: Tensor, names: Sequence[tuple[str, str]]) -> list[PartFound]:
    """The change of the perplexity over each part of the tokens that has any."""
    found: list[PartFound] = []
    for i, (name, rule) in enumerate(names):
        if count := int((own := number == i).sum()):
            old, new = (_sums(tokens, own) for tokens in (before, after))
            part = change(old, new, "perplexity", scale="ratio", higher_is_better=False)
            share = count / len(number)
            found.append({"name": name, "rule": rule, "tokens": count, "share": share, "change": told(part)})
    return found


def _sums(tokens: Tokens, own: Tensor) -> Tensor:
    """(N, 2) Σ −log p and tokens of each item that has a token of its own there."""
    items, nll = tokens.item[own], tokens.nll[own].double()
    sums = torch.zeros(int(items.max()) + 1, 2, dtype=torch.float64)
    sums.index_add_(0, items, torch.stack([nll, torch.ones_like(nll)], dim=1))
    return sums[sums[:, 1] > 0]
