"""Exercises on the phenomenon: what is kept, what is hit worst, when a loss begins, what a myopic step does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from forgetlab.metrics.retention import kept
from forgetlab.teaching.exercises.checking import Verdict, diagnose

Scores = Mapping[str, float]
Nats = Mapping[str, bool]


def check_kept_share(function: Callable[[float, float, float, bool], float]) -> Verdict:
    """Judge kept_share(before, after, guess, nats) → the share of what was known above a guesser, 0 to 1."""
    cases = [
        (0.8, 0.6, 0.5, False),
        (3.0, 12.0, 48.0, True),
        (0.7, 0.8, 0.5, False),
        (0.8, 0.45, 0.5, False),
        (3.0, 2.5, 48.0, True),
        (1.0, 0.5, 0.0, False),
        (2.8, 400.0, 142.0, True),
    ]
    mistakes: dict[str, Callable[..., Any]] = {
        "You take the plain ratio of the scores. A coin toss then still keeps more than half of an accuracy: measure "
        "both scores from the guesser's.": lambda b, a, g, n: min(b / a if n else a / b, 1.0),
        "You subtract perplexities as they are. One of 400 after one of 3 swamps all else: where `nats` is true, take "
        "the logarithm of all three first.": lambda b, a, g, n: _cut((a - g) / (b - g)),
        "A score that improved gives more than 1, or one that is worse than guessing less than 0. A gain must not make "
        "up for another skill's loss: cut the share off at 1 and at 0.": lambda b, a, g, n: _share(b, a, g, n),
        "A score that improved gives more than 1. A gain is no kept share: it must not make up for another skill's "
        "loss, so cap the share at 1.": lambda b, a, g, n: max(_share(b, a, g, n), 0.0),
        "A score that is worse than guessing gives less than 0. Nothing is left then, and less than nothing cannot be: "
        "cut the share off at 0.": lambda b, a, g, n: min(_share(b, a, g, n), 1.0),
        "That is the share that was lost. The exercise asks for the share that was kept.": (
            lambda b, a, g, n: 1 - _kept(b, a, g, n)
        ),
        "You leave the guesser out below the line: divide by what was known above it before.": lambda b, a, g, n: _cut(
            (_on(a, n) - _on(g, n)) / _on(b, n)
        ),
        "You subtract the scores. Points of accuracy and nats have no common size: divide by what there was to lose.": (
            lambda b, a, g, n: _on(a, n) - _on(b, n)
        ),
    }
    praise = "One scale for every score: 1 is all kept, 0 is no better than guessing, and a gain hides nothing."
    return diagnose(function, cases, _kept, mistakes, praise)


def check_worst_hit(function: Callable[[Scores, Scores, Scores, Nats], str]) -> Verdict:
    """Judge worst_hit(before, after, guess, nats) → the name of the task that kept the smallest share."""
    nats = {"masked-lm": True, "entities": False, "acceptability": False}
    guess = {"masked-lm": 142.0, "entities": 0.0, "acceptability": 0.5}

    def table(*values: float) -> dict[str, float]:
        return dict(zip(nats, values, strict=True))

    cases = [
        (table(2.8, 1.0, 0.8), table(4.0, 0.4, 0.75), guess, nats),
        (table(2.8, 1.0, 0.8), table(28.0, 0.5, 0.72), guess, nats),
        (table(3.0, 1.0, 0.3), table(3.3, 0.6, 0.28), guess | {"acceptability": 0.1}, nats),
        (table(3.0, 1.0, 0.8), table(3.3, 0.6, 0.6), guess, nats),
        (table(2.8, 0.9, 0.8), table(90.0, 0.5, 0.75), guess, nats),
    ]
    mistakes: dict[str, Callable[..., Any]] = {
        "You take the largest difference. A perplexity can change by 25 and an accuracy by 1 at most, so the "
        "language model nearly always “wins”: compare shares instead.": lambda b, a, g, n: max(
            b, key=lambda name: abs(a[name] - b[name])
        ),
        "You compare the plain ratios of the scores. An accuracy of two classes never falls far below a half, though "
        "all may be lost: measure each score from its guesser's.": lambda b, a, g, n: min(
            b, key=lambda name: b[name] / a[name] if n[name] else a[name] / b[name]
        ),
        "You compare after / before for every task. A perplexity rises where a skill is lost: take the kept share of "
        "each.": lambda b, a, g, n: min(b, key=lambda name: a[name] / b[name]),
        "That is the task that kept most. Ask for the smallest kept share.": lambda b, a, g, n: max(
            b, key=lambda name: _kept(b[name], a[name], g[name], n[name])
        ),
        "That is the task with the lowest score now. A task that was poor before may have lost nothing: compare "
        "with its own start.": lambda b, a, g, n: min(a, key=a.__getitem__),
    }
    praise = "Shares make an F1, an accuracy and a perplexity comparable, so the worst hit has a name."
    right: Callable[..., str] = lambda b, a, g, n: min(  # noqa: E731
        b, key=lambda name: _kept(b[name], a[name], g[name], n[name])
    )
    return diagnose(function, cases, right, mistakes, praise)


def check_first_loss(function: Callable[[Sequence[int], Sequence[float], float], int]) -> Verdict:
    """Judge first_loss(steps, scores, share) → the first step whose score is below share × the first score, or -1."""
    cases = [
        ([0, 5, 10, 15], [0.8, 0.7, 0.6, 0.5], 0.8),
        ([0, 10, 20, 30], [1.0, 0.95, 0.7, 0.8], 0.9),
        ([0, 5, 10], [0.8, 0.79, 0.81], 0.9),
        ([0, 20, 40], [1.0, 0.5, 0.25], 0.5),  # at the bar is not below it
    ]

    def below(steps: Sequence[int], scores: Sequence[float], bar: float) -> list[int]:
        return [step for step, score in zip(steps, scores, strict=True) if score < bar]

    mistakes: dict[str, Callable[..., Any]] = {
        "You return the place in the list. The question is after how many training steps: return the step that "
        "stands at that place.": lambda x, y, s: next((i for i, score in enumerate(y) if score < s * y[0]), -1),
        "You compare the score with `share` itself. 0.8 of a start of 0.8 is 0.64: the bar is a share of the first "
        "score.": lambda x, y, s: (below(x, y, s) or [-1])[0],
        "That is the step of the lowest score. The loss began earlier: return the first step below the bar.": (
            lambda x, y, s: x[y.index(min(y))]
        ),
        "That is the last step below the bar. Return the first one: the score may come back later, and that it was "
        "lost is the news.": lambda x, y, s: (below(x, y, s * y[0]) or [-1])[-1],
        "A score that stands exactly at the bar is counted as a loss. Less than `share` is left only below the bar.": (
            lambda x, y, s: next((step for step, score in zip(x, y, strict=True) if score <= s * y[0]), -1)
        ),
        "It always says −1. It probably returns inside the loop, at the first score that is still fine: only after "
        "the loop is it known that no score was below.": lambda x, y, s: -1,
    }
    praise = "Now two curves can be compared by when they begin to fall, not by how they look."
    return diagnose(function, cases, lambda x, y, s: (below(x, y, s * y[0]) or [-1])[0], mistakes, praise)


def check_side_effect(function: Callable[[Tensor, Tensor, float], float]) -> Verdict:
    """Judge side_effect(new_gradient, old_gradient, lr) → the change of the old loss by a small step on the new one.

    To first order, for plain gradient descent. The right answer is a derivative taken by autograd.
    """
    g = torch.Generator().manual_seed(1)
    cases = [(torch.randn(shape, generator=g), torch.randn(shape, generator=g), lr) for shape, lr in SHAPES]
    mistakes: dict[str, Callable[..., Any]] = {
        "The sign is turned round. A step goes against the gradient of the new loss, so where the two gradients "
        "agree the old loss falls too.": lambda new, old, lr: lr * (new * old).sum(),
        "That is the change of the new loss: the only one that training looks at. For the old loss, the step of the "
        "new task meets the slope of the old one.": lambda new, old, lr: -lr * (new * new).sum(),
        "That is the change of the old loss if one trained on the old task. Here the step follows the new task's "
        "gradient.": lambda new, old, lr: -lr * (old * old).sum(),
        "The learning rate is missing: half the step makes half the damage.": lambda new, old, lr: -(new * old).sum(),
        "You return one number for each weight. The loss changes by the sum of what the single weights "
        "contribute.": lambda new, old, lr: -lr * new * old,
        "You divide by the lengths, as in a cosine. The cosine says whether the two agree; the damage grows with "
        "both lengths as well.": lambda new, old, lr: -lr * (new * old).sum() / new.norm() / old.norm(),
    }
    praise = "The product of the two gradients decides what happens to the old loss, and training never computes it."
    return diagnose(function, cases, _side_effect, mistakes, praise)


SHAPES = (((4,), 0.1), ((3, 2), 0.01), ((5,), 1.0))


def _kept(before: float, after: float, guess: float, nats: bool) -> float:
    share = kept(before, after, guess, scale="ratio" if nats else "points", higher_is_better=not nats)
    assert share is not None  # every case starts better than its guesser
    return share


def _share(before: float, after: float, guess: float, nats: bool) -> float:
    """Not cut off."""
    return (_on(after, nats) - _on(guess, nats)) / (_on(before, nats) - _on(guess, nats))


def _on(score: float, nats: bool) -> float:
    return math.log(score) if nats else score


def _cut(share: float) -> float:
    return min(max(share, 0.0), 1.0)


def _side_effect(new: Tensor, old: Tensor, lr: float) -> Tensor:
    """d/dt of a loss with gradient `old` along the path −t · new, times lr."""
    t = torch.zeros((), requires_grad=True)
    loss = (old * (-t * new)).sum()
    (slope,) = torch.autograd.grad(loss, t)
    return lr * slope
