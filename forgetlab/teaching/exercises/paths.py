"""Exercises of lesson 09: a rate for each layer, and a brake."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from forgetlab.teaching.exercises.checking import Verdict, diagnose

Layers = Mapping[str, Sequence[Tensor]]
Groups = list[dict[str, Any]]


def check_layer_rates(function: Callable[[Layers, float, float], Groups]) -> Verdict:
    """Judge `function(layers, lr, factor)`: parameter groups in which each layer learns `factor` slower than the next.

    layers: {name: weights} from the bottom (embeddings) to the top (head). The answer: one {"params", "lr"} for each
    layer, in the same order; the head has the rate lr, a layer k below it lr / factor**k.
    """

    def with_power(power: Callable[[int, int], float]) -> Callable[[Layers, float, float], Groups]:
        """Groups whose rate is lr / factor ** power(place from the bottom, number of layers)."""

        def made(layers: Layers, lr: float, factor: float) -> Groups:
            pairs = enumerate(layers.values())
            return [{"params": list(own), "lr": lr / factor ** power(i, len(layers))} for i, own in pairs]

        return made

    def times(layers: Layers, lr: float, factor: float) -> Groups:
        below = range(len(layers) - 1, -1, -1)
        rows = zip(below, layers.values(), strict=True)
        return [{"params": list(own), "lr": lr / (factor * k) if k else lr} for k, own in rows]

    right = with_power(lambda i, n: n - 1 - i)
    mistakes = {
        "The order is reversed: the embeddings get the full rate and the head the smallest. `layers` goes from the "
        "bottom to the top, so count how far each layer is below the head.": with_power(lambda i, n: i),
        "The head is slowed too. It starts from random weights and has the most to learn: zero layers below the head "
        "means a power of 0.": with_power(lambda i, n: n - i),
        "The embeddings are missing. What is in no group of an optimizer is never trained: they are the lowest layer "
        "and need a group as well.": lambda layers, lr, factor: right(layers, lr, factor)[1:],
        "The embeddings share the rate of the layer above them. They are one step further down, so one more division "
        "is due.": with_power(lambda i, n: n - 1 - max(i, 1)),
        "The factor is multiplied by the distance, not raised to it: two layers down the rate is divided twice, so by "
        "the factor's square.": times,
        "All layers below the head have the same rate. Each of them divides once more than the one above "
        "it.": with_power(lambda i, n: min(1, n - 1 - i)),
        "The lower layers learn faster than the head: the power has the wrong sign, or it multiplies where it should "
        "divide.": with_power(lambda i, n: i - (n - 1)),
    }
    one, two, three, four = torch.ones(2), torch.zeros(3), torch.full((1,), 2.0), torch.ones(1)
    cases = [
        ({"embeddings": [one], "layer 0": [two, three], "layer 1": [four], "head": [three]}, 1e-3, 2.6),
        ({"embeddings": [one], "layer 0": [two], "head": [four]}, 0.01, 2.0),
    ]
    praise = (
        "Right: the head at the full rate, and one more division for each layer below. An optimizer takes this list."
    )
    return diagnose(function, cases, right, mistakes, praise)


def check_brake(function: Callable[[Sequence[float], float, int], int]) -> Verdict:
    """Judge `function(scores, drop, patience)`: the number of the record at which a safety brake stops, −1 if never.

    scores: those of a watched task, higher is better, the one before the first step first. A record has fallen where
    its score is below (1 − drop) of the first one; the brake stops at the patience-th fallen record in a row.
    """

    def brake(
        fell: Callable[[Sequence[float], int, float], bool], in_a_row: bool = True, at_first: bool = False
    ) -> Callable[[Sequence[float], float, int], int]:
        """A brake with its own idea of a fall. at_first: names the record where the falling began."""

        def stops(scores: Sequence[float], drop: float, patience: int) -> int:
            count = 0
            for i in range(1, len(scores)):
                count = count + 1 if fell(scores, i, drop) else (0 if in_a_row else count)
                if count == patience:
                    return i - patience + 1 if at_first else i
            return -1

        return stops

    def below_first(scores: Sequence[float], i: int, drop: float) -> bool:
        return scores[i] < (1 - drop) * scores[0]

    right = brake(below_first)
    mistakes = {
        "It compares with the record before. A score that sinks a little at every look then never stops the run, "
        "however deep it gets: compare with the score before the first step.": brake(
            lambda s, i, drop: s[i] < (1 - drop) * s[i - 1]
        ),
        "The sign is wrong: it stops where the score has risen. Higher is better here, so a fall is a score below the "
        "limit.": brake(lambda s, i, drop: s[i] > (1 + drop) * s[0]),
        "It stops as long as the score is fine: the comparison is the wrong way round.": brake(
            lambda s, i, drop: s[i] > (1 - drop) * s[0]
        ),
        "It ignores the patience: one bad look stops the run. Count how many fallen records there were in a "
        "row.": lambda scores, drop, patience: right(scores, drop, 1),
        "It counts all fallen records. A record that is fine again must set the count back to 0: patience means in a "
        "row.": brake(below_first, in_a_row=False),
        "The drop is taken in points. Here it is a share of the score before: 0.1 of 0.5 allows a fall of 0.05.": brake(
            lambda s, i, drop: s[i] < s[0] - drop
        ),
        "It compares with the best score so far. That is a brake too, a stricter one for a skill that improves on the "
        "way; this one compares with the score before the first step.": brake(
            lambda s, i, drop: s[i] < (1 - drop) * max(s[: i + 1])
        ),
        "It stops where the score stands exactly at the limit. That much of a drop is allowed: a record has fallen "
        "only below it.": brake(lambda s, i, drop: s[i] <= (1 - drop) * s[0]),
        "It names the record where the fall began. The run goes on while the brake waits: it stops at the last of "
        "the fallen records.": brake(below_first, at_first=True),
    }
    cases = [
        ([0.85, 0.84, 0.75], 0.05, 1),  # the chapter's
        ([0.5, 0.48, 0.44, 0.47, 0.43, 0.42, 0.41], 0.1, 2),
        ([0.9, 0.7, 0.88, 0.71, 0.72, 0.9, 0.6, 0.5, 0.4], 0.15, 3),
        ([0.8, 0.79, 0.76, 0.73, 0.7, 0.67], 0.12, 1),  # sinks slowly
        ([0.6, 0.9, 0.7, 0.62], 0.2, 1),  # improved, then back
        ([0.7, 0.9, 0.95], 0.1, 1),  # only better
        ([1.0, 0.75, 0.5], 0.25, 1),  # at the limit is not below it
    ]
    praise = "Right: measured from the start, as a share, and only after `patience` falls in a row."
    return diagnose(function, cases, right, mistakes, praise)
