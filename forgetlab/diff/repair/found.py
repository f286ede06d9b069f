"""What a repair found, as plain values, and a loss in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol, TypedDict

from torch import Tensor

from forgetlab.metrics.drift import layer_of
from forgetlab.metrics.retention import scale
from forgetlab.metrics.schema import TaskFacts
from forgetlab.models.model import Model
from forgetlab.remedies.interpolation import mixed

ROUNDING = 1e-9  # of a difference between two scores


class Look(TypedDict):
    """A point between the two models on the choosing texts.

    alpha: how much of their way the weights go; layers: by name, where another α holds. new: how much worse its new
    score is than AFTER's, in points or nats. old: the mean share of the old that is lost.
    """

    alpha: float
    layers: dict[str, float]
    new: float
    old: float
    scores: dict[str, float]


class Unseen(TypedDict):
    """A task on the texts that no choice saw. to_after, to_before: [loss, low, high] of the repaired model to them.

    Losses are in points, or nats of a perplexity. Where nothing was repaired there are none, and `repaired` is None.
    """

    facts: TaskFacts
    chosen_on: int
    scored_on: int
    before: float
    after: float
    repaired: float | None
    to_before: list[float]
    to_after: list[float]


class RepairFound(TypedDict):
    """What `repair` found. chosen: None where no look is of use; reason: why. tasks: the new one first.

    data: hashes of each task's examples.
    """

    after: str
    within: float
    chosen: Look | None
    reason: str
    looks: list[Look]
    tasks: list[Unseen]
    data: dict[str, dict[str, str]]


class Between(Protocol):
    """What is asked of a `diff.pair.Pair`."""

    model: Model

    def between(self, after: str, share: Callable[[str, Tensor, Tensor], Tensor]) -> Model: ...


def poured(pair: Between, after: str, alpha: float, layers: Mapping[str, float] | None = None) -> Model:
    """The model with θ_before + α (θ_after − θ_before), of a layer that is named with its own α."""
    own = layers or {}
    return pair.between(after, lambda name, start, end: mixed(start, end, own.get(layer_of(name), alpha)))


def budget(loss: float, facts: TaskFacts) -> str:
    """A loss in the words of its task, rounded up: points, or the factor of a perplexity."""
    up = math.ceil((math.exp(loss) if scale(facts) == "ratio" else loss) * 1000 - 1e-6) / 1000
    return f"a factor of {up:g}" if scale(facts) == "ratio" else f"{up:g}"


def in_words(one: Look) -> str:
    """The α of a look.

    >>> in_words({"alpha": 0.8, "layers": {"embeddings": 1.0}, "new": 0.0, "old": 0.0, "scores": {}})
    'α = 0.8 (embeddings 1)'
    """
    layers = ", ".join(f"{layer} {share:.3g}" for layer, share in one["layers"].items())
    return f"α = {one['alpha']:.3g}" + (f" ({layers})" if layers else "")
