"""Exercises on the three mechanisms: relative drift, linear CKA, KL divergence and entropy of outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from forgetlab import metrics
from forgetlab.teaching.exercises.checking import Verdict, diagnose

Weights = Mapping[str, Tensor]


def check_relative_drift(function: Callable[[Weights, Weights], float]) -> Verdict:
    """Judge relative_drift(before, after) → ‖θ − θ₀‖ / ‖θ₀‖ over all weights that there were before."""
    cases = [(_weights(1), _moved(1)), (_weights(2), _moved(2) | {"heads.new.weight": torch.ones(2, 8)})]

    def norms(of: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Weights, Weights], list[float]]:
        return lambda before, after: [float(of(before[name], after[name]).norm()) for name in before]

    moved, size, later = norms(lambda b, a: a - b), norms(lambda b, a: b), norms(lambda b, a: a)
    mistakes: dict[str, Callable[..., Any]] = {
        "That is the distance itself. Divide it by the norm of the weights before, so that models of different size "
        "can be compared.": lambda b, a: math.hypot(*moved(b, a)),
        "You add up norms of single tensors. Norms add as in Pythagoras: sum the squares over all tensors first, then "
        "take one root.": lambda b, a: sum(moved(b, a)) / sum(size(b, a)),
        "You average the ratios of the single tensors, so that a bias of 8 numbers counts as much as a large matrix. "
        "Treat all weights as one long vector.": lambda b, a: (
            sum(m / s for m, s in zip(moved(b, a), size(b, a), strict=True)) / len(b)
        ),
        "You add up the ratios of the single tensors: the more tensors a model has, the larger the result. Treat all "
        "weights as one long vector.": lambda b, a: sum(m / s for m, s in zip(moved(b, a), size(b, a), strict=True)),
        "You forget the roots: that is the square of the relative drift.": lambda b, a: (
            math.hypot(*moved(b, a)) ** 2 / math.hypot(*size(b, a)) ** 2
        ),
        "You subtract two norms. Weights can turn round without getting longer or shorter: subtract the weights "
        "first, then take the norm.": lambda b, a: (
            abs(math.hypot(*later(b, a)) - math.hypot(*size(b, a))) / math.hypot(*size(b, a))
        ),
        "You divide by the norm after the fine-tune. The pre-trained weights are the yardstick: divide by the norm "
        "before.": lambda b, a: math.hypot(*moved(b, a)) / math.hypot(*later(b, a)),
    }
    praise = "One long vector, one norm, the pre-trained weights as the yardstick, and a new head does not count."
    return diagnose(function, cases, lambda b, a: metrics.parameter_drift(b, a).relative, mistakes, praise)


def check_linear_cka(function: Callable[[Tensor, Tensor], float]) -> Verdict:
    """Judge cka(X, Y) → linear CKA of (n, d1) and (n, d2) features, the common (biased) form."""
    cases = [_features(1, 3, 5), _features(2, 6, 6), _features(3, 8, 2)]

    def rows(x: Tensor) -> Tensor:
        return x - x.mean(dim=1, keepdim=True)

    def columns(x: Tensor) -> Tensor:
        return x - x.mean(dim=0)

    mistakes: dict[str, Callable[..., Any]] = {
        "The features are not centred. Their means, which say nothing about single examples, then dominate and make "
        "any two layers look alike: subtract each column's mean first.": _cka,
        "You centred along the wrong side: the mean of an example over its features. Subtract from each feature "
        "(column) its mean over the examples (rows).": lambda x, y: _cka(rows(x), rows(y)),
        "Nothing is divided out yet: ‖YᵀX‖² grows with the scale of the features. Divide by ‖XᵀX‖ ‖YᵀY‖.": (
            lambda x, y: (columns(y).T @ columns(x)).norm() ** 2
        ),
        "The norm on top is not squared. ‖YᵀX‖² has the same unit as ‖XᵀX‖ ‖YᵀY‖; without the square the result "
        "changes with the scale.": lambda x, y: (
            (columns(y).T @ columns(x)).norm() / (columns(x).T @ columns(x)).norm() / (columns(y).T @ columns(y)).norm()
        ),
        "You divide by the squared lengths of X and Y (traces). That is RV without its normalisation: for X = Y it "
        "does not give 1. Below stand the Frobenius norms of XᵀX and YᵀY.": lambda x, y: (
            (columns(y).T @ columns(x)).norm() ** 2 / columns(x).square().sum() / columns(y).square().sum()
        ),
    }
    praise = "Centred, normalised: 1 for features that only turned or grew, whatever their means."
    return diagnose(function, cases, lambda x, y: metrics.linear_cka(x, y, unbiased=False), mistakes, praise)


def check_kl(function: Callable[[Tensor, Tensor], float]) -> Verdict:
    """Judge kl(before, after) → mean KL(p_before ‖ p_after) in nats of (n, V) logits."""
    cases = [_logits(1, 6, 5), _logits(2, 3, 8)]

    def each(b: Tensor, a: Tensor) -> Tensor:
        p, q = b.softmax(-1), a.softmax(-1)
        return (p * (p / q).log()).sum(-1)

    mistakes: dict[str, Callable[..., Any]] = {
        "The direction is swapped: that is KL(p_after ‖ p_before), the penalty of alignment training. What a fine-tune "
        "ruled out shows when the expectation is taken over the old predictions.": lambda b, a: each(a, b).mean(),
        "You sum over the positions. Take their mean, so that a longer text does not count as a larger shift.": (
            lambda b, a: each(b, a).sum()
        ),
        "You average over the words too, so that the result shrinks with the vocabulary. Sum over the words, then "
        "take the mean over the positions (in PyTorch: reduction “batchmean”, not “mean”).": (
            lambda b, a: each(b, a).mean() / b.shape[-1]
        ),
        "Those are bits. A nat uses the natural logarithm.": lambda b, a: each(b, a).mean() / math.log(2),
        "You subtract the logits themselves. They are no log probabilities yet: each row of them may be shifted by any "
        "number. Take log_softmax first.": lambda b, a: (b.softmax(-1) * (b - a)).sum(-1).mean(),
        "The sign is turned round: a KL divergence is never negative.": lambda b, a: -each(b, a).mean(),
        "That is the cross-entropy of the two. The entropy of the old predictions still has to be taken off: KL is 0 "
        "for equal distributions.": lambda b, a: -(b.softmax(-1) * a.log_softmax(-1)).sum(-1).mean(),
    }
    praise = "In the direction before ‖ after it grows wherever the new model rules out what the old one said."
    return diagnose(function, cases, lambda b, a: metrics.output_shift(b, a)["kl"], mistakes, praise)


def check_entropy(function: Callable[[Tensor], float]) -> Verdict:
    """Judge entropy(logits) → mean entropy in nats of the predictions of (n, V) logits."""
    cases = [(logits,) for logits in _logits(4, 6, 5)]

    def each(p: Tensor) -> Tensor:
        return -(p * p.log()).sum(-1)

    mistakes: dict[str, Callable[..., Any]] = {
        "Those are bits. A nat uses the natural logarithm.": lambda x: each(x.softmax(-1)).mean() / math.log(2),
        "The sign is missing: logarithms of probabilities are negative, an entropy is not.": (
            lambda x: -each(x.softmax(-1)).mean()
        ),
        "That is the entropy of the average prediction. A model that is sure of a different word at each place has "
        "entropy 0 everywhere and a broad average: take the entropy of each row, then the mean.": (
            lambda x: each(x.softmax(-1).mean(0))
        ),
        "The softmax runs over the positions. Each row is one prediction: normalise over the words (the last "
        "dimension).": lambda x: -(x.softmax(0) * x.log_softmax(0)).sum(-1).mean(),
        "You sum over the positions. Take their mean, so that a longer text does not count as more uncertain.": (
            lambda x: each(x.softmax(-1)).sum()
        ),
        "You return one value for each position; the exercise asks for their mean.": lambda x: each(x.softmax(-1)),
        "That is the number of words hesitated between (the exponential). The entropy is its logarithm.": (
            lambda x: each(x.softmax(-1)).mean().exp()
        ),
    }
    praise = "Its exponential is the number of words the model hesitates between."
    return diagnose(function, cases, lambda x: metrics.output_shift(x, x)["entropy_before"], mistakes, praise)


def _cka(x: Tensor, y: Tensor) -> Tensor:
    return (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())


def _weights(seed: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {"layer.0.weight": torch.randn(8, 8, generator=g), "layer.0.bias": 0.1 * torch.randn(8, generator=g)}


def _moved(seed: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed + 100)
    return {name: w + 0.3 * torch.randn(w.shape, generator=g) for name, w in _weights(seed).items()}


def _features(seed: int, left: int, right: int) -> tuple[Tensor, Tensor]:
    """Paired features with large means, as hidden states have."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(24, left, generator=g)
    y = x @ torch.randn(left, right, generator=g) + torch.randn(24, right, generator=g)
    return x + 3 * torch.randn(left, generator=g), y - 4 * torch.rand(right, generator=g)


def _logits(seed: int, places: int, words: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    before = 2 * torch.randn(places, words, generator=g)
    return before, before + torch.randn(places, words, generator=g)
