"""Remedies of the learning rate: how fast each layer learns, and when.

The factors multiply: `[LayerwiseRates(), Warmup(), Cosine()]` is a warm-up and a cosine on rates that differ by layer.
In the formulas t counts the steps finished before this one (0 … T − 1) and T is the length of the run.
"""

from __future__ import annotations

import math

from torch import nn

from forgetlab.errors import ForgetlabError, number, whole
from forgetlab.metrics import layer_of
from forgetlab.models.model import Model
from forgetlab.training.method import Group, Method, Run, Setting


class LayerwiseRates(Method):
    """Discriminative rates: the full rate in the heads, `factor` times less in each layer further down.

    η_{l−1} = η_l / factor, from the heads over the last layer to the first one and the embeddings (`below_heads`).
    An embedding that is tied to the language-model head counts as an embedding; weights that another method added go
    by the layer they are in.

    factor: 1 or more (1: the same rate everywhere). Raises ForgetlabError for another number.
    Source: Howard & Ruder 2018 (ULMFiT), section 3.2.

    >>> first = next(finetune(model, new, methods=[LayerwiseRates(factor=2)], lr=1e-3))
    >>> sorted(set(first.lr), reverse=True)
    [0.001, 0.0005, 0.00025, 0.000125, 6.25e-05]
    """

    name = "layerwise-rates"
    family = "rates and stopping"
    main = Setting("factor", 1, 1000)

    def __init__(self, factor: float = 2.6) -> None:
        self.factor = number("factor", factor, 1)

    def parameter_groups(self, groups: list[Group], run: Run) -> list[Group]:
        below, split = below_heads(run.model), []
        for group in groups:
            pairs = list(zip(group["names"], group["params"], strict=True))
            for k in sorted({below[p] for _, p in pairs}):
                own = [(n, p) for n, p in pairs if below[p] == k]
                rate = group["lr"] / self.factor**k  # η_{l−1} = η_l / factor, k times
                split.append({**group, "names": [n for n, _ in own], "params": [p for _, p in own], "lr": rate})
        return split


class Warmup(Method):
    """Let the learning rate rise linearly over the first steps: min(1, (t + 1) / (share · T)).

    share: of the run's steps, above 0 and at most 1. Raises ForgetlabError for another number.
    The first step is not lost: others start with t / (share · T) = 0.
    Source: Goyal et al. 2017, section 2.2; Devlin et al. 2019 for BERT.

    >>> records = finetune(model, new, methods=[Warmup(0.5)], steps=4, every=1, lr=1e-3)
    >>> [record.lr[0] for record in records][1:]
    [0.0005, 0.001, 0.001, 0.001]
    """

    name = "warmup"
    family = "rates and stopping"
    main = Setting("share", high=1)

    def __init__(self, share: float = 0.1) -> None:
        self.share = number("share", share, 0, 1, above=True)

    def before_step(self, run: Run) -> None:
        _scale(run, min(1.0, (run.step + 1) / (self.share * run.steps)))


class Cosine(Method):
    """Let the learning rate fall along half a cosine: floor + (1 − floor) · ½ (1 + cos(π t / T)).

    floor: the share of the rate that it falls towards, 0 to 1. Raises ForgetlabError for another number.
    Source: Loshchilov & Hutter 2017 (SGDR), eq. 5, without restarts.

    >>> records = finetune(model, new, methods=[Cosine()], steps=4, every=1, lr=1e-3)
    >>> [round(record.lr[0], 6) for record in records][1:]
    [0.001, 0.000854, 0.0005, 0.000146]
    """

    name = "cosine"
    family = "rates and stopping"

    def __init__(self, floor: float = 0.0) -> None:
        self.floor = number("floor", floor, 0, 1)

    def before_step(self, run: Run) -> None:
        half = (1 + math.cos(math.pi * run.step / run.steps)) / 2
        _scale(run, self.floor + (1 - self.floor) * half)


class SlantedTriangular(Method):
    """A short linear rise of the learning rate, from 1 / ratio of it, and a long linear fall back to there.

    η (1 + p (ratio − 1)) / ratio, with p = t / c while t < c = ⌊T · cut⌋, then p = 1 − (t − c) / (T − c).
    Where T · cut is whole, that is theirs, c (1 / cut − 1) instead of T − c; elsewhere theirs falls below 0 too early.

    cut: the share of the steps that rise, between 0 and 1, both excluded. ratio: 1 or more.
    Raises ForgetlabError for other numbers, or for a run so short that c = 0.
    Source: Howard & Ruder 2018 (ULMFiT), eq. 3.

    >>> records = finetune(model, new, methods=[SlantedTriangular(0.5)], steps=4, every=1, lr=1e-3)
    >>> [round(record.lr[0], 6) for record in records][1:]
    [3.1e-05, 0.000516, 0.001, 0.000516]
    """

    name = "slanted-triangular"
    family = "rates and stopping"

    def __init__(self, cut: float = 0.1, ratio: float = 32) -> None:
        self.cut = number("cut", cut, 0, 1, above=True, below=True)
        self.ratio = number("ratio", ratio, 1)

    def setup(self, run: Run) -> None:
        self._rise = math.floor(run.steps * self.cut + 1e-9)  # 100 · 0.29 is 28.999… in floating point
        if self._rise < 1:
            raise ForgetlabError(
                f"cut {self.cut:g} of {run.steps} steps is less than one; train for {math.ceil(1 / self.cut)} or more"
            )

    def before_step(self, run: Run) -> None:
        t, c = run.step, self._rise
        p = t / c if t < c else 1 - (t - c) / (run.steps - c)
        _scale(run, (1 + p * (self.ratio - 1)) / self.ratio)


class GradualUnfreezing(Method):
    """Start with the heads and the last layer; the layers below join one by one, the embeddings last.

    A layer stays bit-identical until its turn. What another method froze stays frozen and takes no turn.

    every: steps between two layers (None: evenly spread over the first half of the run). With a number too large for
    the run, the lowest layers are never trained. Raises ForgetlabError unless it is a whole number above 0.
    Source: Howard & Ruder 2018 (ULMFiT), section 3.3, one layer an epoch there.

    >>> [*_, last] = finetune(model, new, methods=[GradualUnfreezing(every=5)], steps=2)
    >>> [layer for layer, moved in last.drift_per_layer.items() if moved]
    ['layer 2']
    """

    name = "gradual-unfreezing"
    family = "rates and stopping"

    def __init__(self, every: int | None = None) -> None:
        self.every = None if every is None else whole("every", every)

    def check(self, run: Run) -> None:
        below = below_heads(run.model)
        self._below: dict[nn.Parameter, int] = {p: below[p] for group in run.groups for p in group["params"]}
        self._layers = sorted(set(self._below.values()) - {0})

    def before_step(self, run: Run) -> None:
        evenly = 2 * run.step * (len(self._layers) - 1) // run.steps
        joined = evenly if self.every is None else run.step // self.every
        on = {0, *self._layers[: 1 + joined]}
        for p, layer in self._below.items():
            p.requires_grad_(layer in on)


def below_heads(model: Model) -> dict[nn.Parameter, int]:
    """How far each weight is below the heads: 0 for a head, 1 for the last layer, one more than layer 0 for embeddings.

    A pooler and the language-model head are heads; a final norm goes with the last layer, as does all that the backbone
    has outside its numbered layers (ALBERT's shared layer). Returns parameter → distance, each parameter once.

    >>> distance = below_heads(model)  # 3 layers
    >>> sorted(set(distance.values()))
    [0, 1, 2, 3, 4]
    """
    inside = set(model.backbone.parameters())
    layers = {p: (name, layer_of(name)) for name, p in model.named_parameters()}
    numbers = {p: int(digits) for p, (_, layer) in layers.items() if (digits := layer.removeprefix("layer ")).isdigit()}
    count = 1 + max(numbers.values(), default=0)
    below = {}
    for p, (name, layer) in layers.items():
        if p in numbers:
            below[p] = count - numbers[p]
        elif layer == "embeddings":
            below[p] = count + 1
        else:
            below[p] = int(layer == "other" and p in inside and "pooler" not in name)
    return below


def _scale(run: Run, factor: float) -> None:
    for group in run.groups:
        group["lr"] *= factor
