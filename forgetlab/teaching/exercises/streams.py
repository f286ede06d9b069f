"""Exercises on what comes after one fine-tune: the KL anchor of alignment tuning, and online EWC's running Fisher."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from forgetlab.remedies.regularizers import OnlineEWC
from forgetlab.teaching.exercises.checking import Verdict, diagnose

Weights = dict[str, Tensor]


def check_kl(function: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Judge a learner's KL anchor.

    function: (now, before), logits of shape (tokens, vocabulary) → the mean over tokens of KL(now ‖ before), in nats.
    """
    praise = "It is 0 where nothing has changed, grows with every change, and does not depend on the text's length."
    return diagnose(function, LOGITS, mean_kl, KL_MISTAKES, praise)


def mean_kl(now: Tensor, before: Tensor) -> Tensor:
    """Mean over rows of KL(softmax(now) ‖ softmax(before))."""
    return kl_divergence(Categorical(logits=now), Categorical(logits=before)).mean()


def _pair(tokens: int, seed: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(tokens, 5, generator=draw), 2 * torch.randn(tokens, 5, generator=draw) + 1


LOGITS: tuple[tuple[Tensor, Tensor], ...] = (_pair(3, 0), _pair(7, 1), _pair(4, 2))
KL_MISTAKES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "The direction is turned round: that is KL(before ‖ now), which punishes forgetting to say something. The anchor "
    "weighs with the probabilities of the model as it is *now*.": lambda now, before: mean_kl(before, now),
    "The tokens are added up, so that a longer text is held more tightly. Take the mean over tokens.": (
        lambda now, before: _p(now).mul(_log(now) - _log(before)).sum()
    ),
    "The mean runs over tokens *and* vocabulary. Add up over the vocabulary (that sum is the KL of one token), then "
    "take the mean over tokens.": lambda now, before: _p(now).mul(_log(now) - _log(before)).mean(),
    "A logarithm is missing: that is the mean of Σ p (p − p₀). The difference of the *logarithms* is "
    "weighted with p.": lambda now, before: _p(now).mul(_p(now) - _p(before)).sum(-1).mean(),
    "That is the cross-entropy −Σ p log p₀. It is not 0 for two equal models: the entropy of p is still to be taken "
    "off, that is, Σ p log p is missing.": lambda now, before: -_p(now).mul(_log(before)).sum(-1).mean(),
    "The raw logits are compared. A logit has no scale of its own: only after log_softmax does it say "
    "something about probability.": lambda now, before: _p(now).mul(now - before).sum(-1).mean(),
    "The softmax runs over the tokens. Each *row* is a distribution over the vocabulary: use the last dimension.": (
        lambda now, before: (now.softmax(0) * (now.log_softmax(0) - before.log_softmax(0))).sum(-1).mean()
    ),
    "The sign is turned round: log p − log p₀, not log p₀ − log p.": lambda now, before: -mean_kl(now, before),
    "That is one value for each token. The loss needs one number: their mean.": lambda now, before: kl_divergence(
        Categorical(logits=now), Categorical(logits=before)
    ),
}


def check_online_fisher(function: Callable[[Weights, Weights, float], Weights]) -> Verdict:
    """Judge a learner's step of online EWC.

    function: (running Fisher, Fisher of the task just learned, γ), the first two {name: tensor} → the next running
    Fisher F ← γ F + F_t, {name: tensor}.
    """
    praise = "Tasks of long ago fade by γ at each new one, and the memory stays at one number a weight."
    return diagnose(function, FISHERS, consolidated, FISHER_MISTAKES, praise)


def consolidated(running: Weights, new: Weights, gamma: float) -> Weights:
    """γ F + F_t, by the library."""
    return OnlineEWC(running, gamma=gamma).combine([running, new])


def _fishers(seed: int) -> tuple[Weights, Weights]:
    draw = torch.Generator().manual_seed(seed)
    both: tuple[Weights, Weights] = ({}, {})
    for fisher in both:
        fisher["layer.weight"] = torch.rand(2, 3, generator=draw)
        fisher["layer.bias"] = torch.rand(2, generator=draw)
    return both


FISHERS: tuple[tuple[Weights, Weights, float], ...] = ((*_fishers(0), 0.5), (*_fishers(1), 0.9), (*_fishers(2), 0.25))
FISHER_MISTAKES: dict[str, Callable[[Weights, Weights, float], Weights]] = {
    "γ is on the wrong term: the *old* Fisher is to fade, the new one counts in full. Like this the task just "
    "learned, the freshest knowledge, is protected the least.": lambda running, new, gamma: consolidated(
        new, running, gamma
    ),
    "That is a weighted mean, γ F + (1 − γ) F_t. Online EWC does not normalise: the new Fisher comes in whole, so "
    "that each task is protected as strongly as if it were the only one.": lambda running, new, gamma: {
        name: gamma * running[name] + (1 - gamma) * new[name] for name in running
    },
    "γ fades both terms. Only the running Fisher is multiplied by it.": lambda running, new, gamma: {
        name: gamma * (running[name] + new[name]) for name in running
    },
    "γ is missing: that is the plain sum, the case γ = 1. It grows with every task, until nothing can move.": (
        lambda running, new, gamma: consolidated(running, new, 1.0)
    ),
    "The new Fisher is missing: the task just learned gets no protection at all.": lambda running, new, gamma: {
        name: gamma * running[name] for name in running
    },
    "The running Fisher is missing: all tasks but the last have lost their protection.": lambda running, new, gamma: (
        new
    ),
    "The sum is divided by its total. λ is tuned to the size of F, so a Fisher that is normalised anew at each task "
    "changes the strength of the pull every time.": lambda running, new, gamma: _normalised(
        consolidated(running, new, gamma)
    ),
}


def _normalised(fisher: Weights) -> Weights:
    total = torch.stack([value.sum() for value in fisher.values()]).sum()
    return {name: value / total for name, value in fisher.items()}


def _p(logits: Tensor) -> Tensor:
    return logits.softmax(-1)


def _log(logits: Tensor) -> Tensor:
    return logits.log_softmax(-1)
