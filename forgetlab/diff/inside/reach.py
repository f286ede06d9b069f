"""A skill that was lost: is it gone from the model, or only out of its readout's reach?"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np
import torch
from torch import Tensor

from forgetlab.diff.inside.readout import Features, fit_features, readable, refitted, test_features
from forgetlab.diff.models.pair import Pair
from forgetlab.metrics.drift import height, layer_of
from forgetlab.metrics.tally import Tally
from forgetlab.metrics.uncertainty import resampled
from forgetlab.models.model import Model
from forgetlab.models.seeds import stream
from forgetlab.tasks import Classification, Tagging, Task

STEPS, EXAMPLES, BATCH = 20, 64, 16  # of relearning: steps, training examples that it sees, examples at a step
RATE = 0.064  # over the width: 1e-3 at 64, 8e-5 at 768 (a wider model wants smaller steps of Adam: Yang et al. 2022)
LEAST = 4  # examples of each class that a readout needs
LAYERS_LIMIT = 128  # test items that layers put back are scored on

Verdict = Literal["unreadable", "overwritten", "cannot be told"]
Share = tuple[float, float, float]  # with its 95 % interval


class PutBack(TypedDict):
    """The score of AFTER with BEFORE's weights in one layer alone, and in all up to it; what the one restores."""

    layer: str
    alone: float
    up_to: float
    restored: float


class ReachFound(TypedDict):
    """A verdict with its evidence: scores by whose features ("before", "after", "control"), shares of the loss."""

    task: str
    metric: str
    scale: str
    verdict: Verdict
    why: str
    before: float | None
    after: float | None
    refit: dict[str, float] | None
    relearned: dict[str, float] | None
    recovered: Share | None
    savings: Share | None
    steps: int
    put_back: list[PutBack]


@dataclass(frozen=True)
class Shown:
    """What one model shows of a task: its own score, a readout's that was fitted anew, and that after relearning."""

    own: Tally
    refit: Tally
    relearned: Tally | None


@dataclass(frozen=True)
class Standard:
    """BEFORE, and a control that never knew the task: what each AFTER is held against.

    fit: BEFORE's features.
    """

    before: Shown
    control: Shown
    fit: Features


def standard(pair: Pair, task: Task, limit: int | None = None) -> Standard:
    """What BEFORE and the control show of a task: the same for every AFTER."""
    looks = [_look(pair.become("before"), task, limit, True)]
    looks.append(_look(shuffled(pair.become("before")), task, limit, True))
    model, fit = pair.become("before"), looks[0].fit
    refits = [refitted(model, task, one.fit, one.test, fit, limit) for one in looks]
    before, control = (Shown(one.own, refit, one.relearned) for one, refit in zip(looks, refits, strict=True))
    return Standard(before, control, fit)


def reach(
    pair: Pair,
    after: str,
    task: Task,
    limit: int | None = None,
    *,
    standards: dict[str, Standard] | None = None,
    thorough: bool = True,
) -> ReachFound:
    """Whether what AFTER lost of a task is still in it ("unreadable"), is gone ("overwritten"), or "cannot be told".

    limit: test items, None for all. standards: by task, of earlier calls with this limit; a new one is added.
    thorough: also what bears on the verdict without deciding it: relearning, and BEFORE's layers put back one after
    the other.

    The verdict: a readout is fitted on the frozen features of AFTER, of BEFORE, and of a control whose layers never
    knew the task (`shuffled`). Of what AFTER lost, beyond what the control's readout makes of it, it brings back more
    than MOST (unreadable) or less (overwritten), by the 95 % interval over the test items; else it cannot be told.
    Source: the refitted readout is that of Davari et al. 2022, the control that of Hewitt & Liang 2019.
    """
    if why := _unfit(pair, task):
        return _untold(task, why)
    known = {} if standards is None else standards
    if task.name not in known:
        known[task.name] = standard(pair, task, limit)
    against = known[task.name]
    look = _look(pair.become(after), task, limit, thorough)
    refit = refitted(pair.become("before"), task, look.fit, look.test, against.fit, limit)
    found = _judged(task, against.before, Shown(look.own, refit, look.relearned), against.control)
    if thorough and found["why"] not in (NO_LOSS, NO_NUMBER):
        found["put_back"] = _put_back(pair, after, task, min(limit or LAYERS_LIMIT, LAYERS_LIMIT))
    return found


# -- evidence ---------------------------------------------------------------------------------------


def _unfit(pair: Pair, task: Task) -> str:
    """Why nothing can be told of a task; empty where something can."""
    if not readable(task):
        return "it has no training data to fit a readout on" if task.has_loss else "it has no readout of its own"
    if not isinstance(task, Classification | Tagging):
        return "" if pair.model.lm_kind else "the model has no language-model head"
    if task.head not in pair.become("before").heads:
        return "BEFORE has no head for it"
    assert task.train is not None
    given = task.train.labels or [tag for tags in task.train.tags or () for tag in tags]
    counts = {label: given.count(label) for label in task.labels}
    rare = min(counts, key=lambda label: counts[label])
    return "" if counts[rare] >= LEAST else f"only {counts[rare]} training examples of {rare!r}, {LEAST} are needed"


@dataclass(frozen=True)
class _Look:
    own: Tally
    fit: Features
    test: list[Tensor]
    relearned: Tally | None


def _look(model: Model, task: Task, limit: int | None, thorough: bool) -> _Look:
    """A model's features, and if `thorough` what it relearns: it is trained then, so become another one afterwards."""
    own, fit, test = _tally(model, task, limit), fit_features(model, task), test_features(model, task, limit)
    if not thorough:
        return _Look(own, fit, test, None)
    relearn(model, task)
    return _Look(own, fit, test, _tally(model, task, limit))


def _tally(model: Model, task: Task, limit: int | None) -> Tally:
    tally = task.tally(model, limit)
    assert tally is not None  # of the kinds of task that are `readable`
    return tally


@torch.no_grad()
def shuffled(model: Model, seed: int = 0) -> Model:
    """The model in place as one whose layers never knew anything: their tensors shuffled along each of their axes.

    Every matrix keeps its numbers, its norm and its singular values, so that activations and gradients keep a scale
    that the learning rate fits, which fresh weights would not; only what stood where is gone. The embeddings stay: what
    a readout makes of the words alone, however they are mixed, is no sign of what the layers knew.
    """
    model.heads = copy.deepcopy(model.heads)  # those of the pair stay as they are
    for name, p in model.named_parameters():
        if layer_of(name) == "embeddings":
            continue
        generator = stream(name, seed)
        for axis, size in enumerate(p.shape):
            p.copy_(p.index_select(axis, torch.randperm(size, generator=generator).to(p.device)))
    return model


def relearn(model: Model, task: Task) -> None:
    """STEPS steps of Adam at one rate on EXAMPLES training examples; without dropout, so that nothing else is drawn."""
    generator = torch.Generator().manual_seed(0)
    few = torch.randperm(task.size(), generator=generator)[:EXAMPLES]
    model.heads = copy.deepcopy(model.heads)
    optimizer = torch.optim.Adam(
        [p for p in model.parameters() if p.is_floating_point()], lr=RATE / model.config.hidden_size
    )
    with torch.enable_grad():
        for _ in range(STEPS):
            rows = few[torch.randperm(len(few), generator=generator)[:BATCH]]
            optimizer.zero_grad()
            task.loss(model, task.batch(model, rows, generator)).backward()
            optimizer.step()
    optimizer.zero_grad()


@torch.no_grad()
def _put_back(pair: Pair, after: str, task: Task, limit: int) -> list[PutBack]:
    head = f"{getattr(task, 'head', 'lm')} head"
    layers = {layer_of(name) for name, _ in pair.weights("before")}
    rows = sorted((layer for layer in layers if not layer.endswith("head") or layer == head), key=height)

    def score(*back: str) -> float:
        model = pair.between(after, lambda name, old, new: old if layer_of(name) in back else new)
        return min(task.score(model, limit)[task.metric], LARGEST)

    whole, none = (_good(task, torch.tensor(score(*back), dtype=torch.float64)) for back in (rows, ()))
    found = []
    for i, layer in enumerate(rows):
        alone, up_to = score(layer), score(*rows[: i + 1])
        restored = (
            float((_good(task, torch.tensor(alone, dtype=torch.float64)) - none) / (whole - none))
            if whole > none
            else 0.0
        )
        found.append(PutBack(layer=layer, alone=alone, up_to=up_to, restored=restored))
    return found


# -- the verdict ------------------------------------------------------------------------------------

MOST = 0.9  # share of the loss that a readout fitted anew must bring back for the skill to count as unreadable
SMALL = 0.01  # points or nats: a smaller loss needs no explanation
LARGEST = 1e300  # a perplexity above it counts as that, such as one that is infinite
NO_LOSS, NO_NUMBER = "no loss that these items can show", "not every score is a number"


def _good(task: Task, scores: Tensor) -> Tensor:
    """Scores so that more is better and a difference is a loss: a perplexity in nats."""
    return -scores.log() if task.scale == "ratio" else scores if task.higher_is_better else -scores


def _interval(draws: Tensor) -> tuple[float, float]:
    low, high = np.quantile(draws[1:].numpy(), (0.025, 0.975))
    return float(low), float(high)


def _judged(task: Task, before: Shown, after: Shown, control: Shown) -> ReachFound:
    """The verdict, from intervals over the items, the same ones for all models (paired bootstrap)."""
    sides = {"before": before, "after": after, "control": control}
    tallies = {"before": before.own, "after": after.own}
    tallies |= {f"refit {who}": one.refit for who, one in sides.items()}
    if after.relearned is not None:
        tallies |= {f"relearned {who}": one.relearned for who, one in sides.items() if one.relearned is not None}
    items = torch.stack([tally.items for tally in tallies.values()])
    points, draws = (task.main_score(sums).clamp(max=LARGEST) for sums in (items.sum(1), resampled(items)))
    score = dict(zip(tallies, points.tolist(), strict=True))
    found = _untold(task, "")
    found["before"], found["after"] = score["before"], score["after"]
    found["refit"] = {who: score[f"refit {who}"] for who in sides}
    if after.relearned is not None:
        found["relearned"] = {who: score[f"relearned {who}"] for who in sides}
    if points.isnan().any() or draws.isnan().any():
        found["why"] = NO_NUMBER
        return found
    good = dict(zip(tallies, _good(task, torch.cat([points.unsqueeze(1), draws], dim=1)), strict=True))
    loss = good["before"] - good["after"]  # the first is of the items themselves, the others of resampled ones
    if after.relearned is not None:
        found["savings"] = _share(good, "relearned")[0]
    found["recovered"], room, rest = _share(good, "refit")
    told = "none of the loss" if found["recovered"] is None else f"{100 * found['recovered'][0]:.0f} % of the loss"
    if _interval(loss)[0] <= SMALL:
        found["why"] = NO_LOSS
    elif _interval(room)[0] <= 0:
        left = good["after"][0] > good["refit control"][0]
        whose = "what AFTER can do is" if left else "a readout fitted on a model that never knew it is"
        found["why"] = f"{whose} as good as a readout fitted on BEFORE"
    elif _interval(rest)[0] > 0:
        found["verdict"], found["why"] = "unreadable", f"a readout fitted anew brings back {told}"
    elif _interval(rest)[1] < 0:
        found["verdict"], found["why"] = "overwritten", f"a readout fitted anew brings back only {told}"
    else:
        found["why"] = f"a readout fitted anew brings back {told}, give or take too much"
    return found


def _share(good: Mapping[str, Tensor], what: str) -> tuple[Share | None, Tensor, Tensor]:
    """The share of the loss that comes back, what could come back, and by how much that is more than MOST of it.

    What AFTER did without it, or the control does with it, whichever is better, is where it starts.
    """
    start = torch.maximum(good["after"], good[f"{what} control"])
    room, back = good[f"{what} before"] - start, good[f"{what} after"] - start
    part: Share | None = None
    if room[0] > 0 and _interval(room)[0] > 0:
        part = (float(back[0] / room[0]), *_interval((back / room)[room > 0]))
    return part, room, back - MOST * room


def _untold(task: Task, why: str) -> ReachFound:
    return ReachFound(
        task=task.name, metric=task.metric, scale=task.scale, verdict="cannot be told", why=why, before=None,
        after=None, refit=None, relearned=None, recovered=None, savings=None, steps=STEPS, put_back=[],
    )  # fmt: skip
