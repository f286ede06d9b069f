"""Exercises on rewards: the advantage, one step of REINFORCE, the two directions of KL, and what a proxy is worth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from forgetlab.teaching.exercises.checking import Verdict, diagnose

Array = np.ndarray


def check_advantage(function: Callable[[Array], Array]) -> Verdict:
    """Judge a learner's group advantage.

    function: rewards of shape (prompts, answers to each) → the advantages, of the same shape: each reward less the
    mean of its prompt, divided by the standard deviation of its prompt's rewards (over n); 0 where all are equal.
    """
    praise = "Each answer is judged against its own prompt's, and a prompt whose answers are all alike teaches nothing."
    return diagnose(function, REWARDS, advantage, ADVANTAGE_MISTAKES, praise)


def advantage(rewards: Array) -> Array:
    """(r − mean)/sd prompt by prompt, in plain loops."""
    found = np.zeros(rewards.shape)
    for i, own in enumerate(rewards):
        mean = sum(own) / len(own)
        sd = (sum((r - mean) ** 2 for r in own) / len(own)) ** 0.5
        if sd > 0:
            found[i] = [(r - mean) / sd for r in own]
    return found


REWARDS: tuple[tuple[Array], ...] = (
    (np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]]),),
    (np.array([[0.2, 0.9, 0.4], [0.0, 0.0, 0.0], [0.5, 0.1, 0.3], [1.0, 1.0, 1.0]]),),
)


def _scaled(rewards: Array, ddof: int = 0, power: float = 1.0) -> Array:
    sd = rewards.std(axis=1, ddof=ddof, keepdims=True)
    return (rewards - rewards.mean(axis=1, keepdims=True)) / np.where(sd > 0, sd, 1) ** power


def _unguarded(rewards: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return (rewards - rewards.mean(axis=1, keepdims=True)) / rewards.std(axis=1, keepdims=True)


ADVANTAGE_MISTAKES: dict[str, Callable[[Array], Array]] = {
    "Where all answers of a prompt have the same reward, that divides 0 by 0, and one nan in the loss ruins every "
    "weight. Such a prompt has nothing to tell: its advantages are 0.": _unguarded,
    "The mean and the spread are those of the whole batch. Then an easy prompt's bad answer is praised over a hard "
    "prompt's good one: take them along each row.": lambda r: (r - r.mean()) / r.std(),
    "The mean runs over the prompts. An answer is compared with the others to the *same* prompt: axis 1.": lambda r: (
        _scaled(r.T).T
    ),
    "The spread is missing: that is r − mean, the plain baseline. It is a good choice too, only not the one that is "
    "asked for.": lambda r: _scaled(r, power=0),
    "That divides by the variance. The standard deviation is its root.": lambda r: _scaled(r, power=2),
    "The sign is turned round: the better answers would be made rarer. It is the reward less the mean.": lambda r: (
        -_scaled(r)
    ),
    "The mean is not taken off, so an answer that is worse than its neighbours is still praised.": lambda r: (
        r / np.where(r.std(axis=1, keepdims=True) > 0, r.std(axis=1, keepdims=True), 1)
    ),
    "The standard deviation is over n − 1, as torch's is by default; here it is over n: correction=0.": lambda r: (
        _scaled(r, ddof=1)
    ),
}


def check_step(function: Callable[[Array, int, float, float, float], Array]) -> Verdict:
    """Judge a learner's step of REINFORCE.

    function: (logits of all answers, which answer was drawn, its reward, the baseline, the learning rate) → the logits
    after one step up the gradient (r − b) ∇ log π(answer).
    """
    praise = "The gradient of log π(y) is “y was drawn” less the probabilities, and the advantage gives it its sign."
    return diagnose(function, STEPS, step, STEP_MISTAKES, praise)


def step(logits: Array, answer: int, reward: float, baseline: float, rate: float) -> Array:
    """One step by automatic differentiation."""
    given = torch.tensor(logits, requires_grad=True)
    (gradient,) = torch.autograd.grad((reward - baseline) * given.log_softmax(0)[answer], given)
    return np.asarray(logits + rate * gradient.numpy())


STEPS: tuple[tuple[Array, int, float, float, float], ...] = (
    (np.array([0.0, 1.0, -1.0]), 0, 1.0, 0.3, 0.5),
    (np.array([0.2, -0.4, 0.7, 1.5]), 3, 0.1, 0.6, 1.0),
    (np.array([1.0, 0.5]), 1, 0.4, 0.0, 0.2),
)


def _up(logits: Array, answer: int, scale: float) -> Array:
    """The logits plus `scale` ∇ log π(answer)."""
    return np.asarray(logits + scale * (np.eye(len(logits))[answer] - _softmax(logits)))


def _softmax(logits: Array) -> Array:
    return np.asarray(np.exp(logits) / np.exp(logits).sum())


STEP_MISTAKES: dict[str, Callable[[Array, int, float, float, float], Array]] = {
    "The sign is turned round: that step makes good answers rarer. An optimizer *minimises*, so its loss has a minus; "
    "here you climb.": lambda z, y, r, b, rate: _up(z, y, -rate * (r - b)),
    "The baseline is missing: with rewards that are never negative every answer that is drawn is praised, also a bad "
    "one.": lambda z, y, r, b, rate: _up(z, y, rate * r),
    "The baseline is added. It is taken off: what counts is how much better than expected an answer was.": (
        lambda z, y, r, b, rate: _up(z, y, rate * (r + b))
    ),
    "Only the drawn answer's logit moves. Softmax is zero-sum: the gradient of log π(y) also takes π(k) off every "
    "logit k.": lambda z, y, r, b, rate: z + rate * (r - b) * np.eye(len(z))[y],
    "That is the gradient of π(y) and not of its logarithm: it is π(y) times too small. The drawing has done that "
    "weighting already.": lambda z, y, r, b, rate: _up(z, y, rate * (r - b) * _softmax(z)[y]),
    "The reward is not there: that step copies whatever was drawn, as training on the model's own answers does.": (
        lambda z, y, r, b, rate: _up(z, y, rate)
    ),
    "The learning rate is missing.": lambda z, y, r, b, rate: _up(z, y, r - b),
    "That is the step alone. The logits after it are wanted: logits + step.": lambda z, y, r, b, rate: (
        _up(z, y, rate * (r - b)) - z
    ),
}


def check_directions(function: Callable[[Array, Array], tuple[float, float]]) -> Verdict:
    """Judge a learner's two directions of KL.

    function: (now, before), probabilities of all answers → (KL(now ‖ before), KL(before ‖ now)) in nats, inf where an
    answer that the first one gives is impossible to the second one.
    """
    praise = "To fall silent on an answer costs little in the one direction, and without end in the other."
    return diagnose(function, POLICIES, directions, DIRECTION_MISTAKES, praise)


def directions(now: Array, before: Array) -> tuple[float, float]:
    """(reverse, forward), by torch."""
    p, q = torch.tensor(now), torch.tensor(before)
    return _kl(p, q), _kl(q, p)


def _kl(p: Tensor, q: Tensor) -> float:
    """Σ p log(p/q), with 0 log 0 = 0."""
    return float((torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum())


POLICIES: tuple[tuple[Array, Array], ...] = (
    (np.array([0.1, 0.2, 0.7]), np.array([0.5, 0.3, 0.2])),
    (np.array([0.0, 0.25, 0.75]), np.array([0.5, 0.3, 0.2])),
    (np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.1, 0.2, 0.3, 0.4])),
)


def _plain(p: Array, q: Array) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float((p * np.log(p / q)).sum())


def _both(one: Callable[[Array, Array], float]) -> Callable[[Array, Array], tuple[float, float]]:
    return lambda now, before: (one(now, before), one(before, now))


def _where_both(p: Array, q: Array) -> float:
    kept = (p > 0) & (q > 0)
    return float((p[kept] * np.log(p[kept] / q[kept])).sum())


DIRECTION_MISTAKES: dict[str, Callable[[Array, Array], tuple[float, float]]] = {
    "The two are exchanged. The model that weighs stands first: KL(now ‖ before), *reverse*, is the anchor of "
    "alignment; KL(before ‖ now), *forward*, asks what the old model would have said.": (
        lambda now, before: directions(now, before)[::-1]
    ),
    "An answer that is never given now makes 0 · log 0, a nan. It adds nothing: skip the answers to which the first "
    "model gives no probability.": _both(_plain),
    "Answers of probability 0 are left out on both sides. If the *second* model cannot say what the first one says, "
    "the divergence is infinite, and that is its message.": _both(_where_both),
    "The mean over the answers is taken. Each term is weighted already, so they are added up.": lambda now, before: (
        directions(now, before)[0] / len(now),
        directions(now, before)[1] / len(now),
    ),
    "The logarithm is to base 2: bits. Nats use the natural logarithm.": lambda now, before: (
        directions(now, before)[0] / np.log(2),
        directions(now, before)[1] / np.log(2),
    ),
    "Both are KL(now ‖ before). In the other direction the old probabilities weigh as well.": lambda now, before: (
        directions(now, before)[0],
        directions(now, before)[0],
    ),
    "The second is the first with its sign turned. KL is not antisymmetric: another model weighs.": (
        lambda now, before: (directions(now, before)[0], -directions(now, before)[0])
    ),
}


def check_proxy(function: Callable[[Array, Array, Array, float], float]) -> Verdict:
    """Judge a learner's worth of a policy that is tuned on a proxy.

    function: (the probabilities of all answers before, the proxy's rewards, the true rewards, β) → the mean true
    reward of the policy that is best for the proxy, π(y) ∝ π₀(y) e^(proxy(y)/β).
    """
    praise = "Try it on the six answers with a proxy that overrates one: the true reward first rises and then falls."
    return diagnose(function, PROXIES, worth, PROXY_MISTAKES, praise)


def worth(before: Array, proxy: Array, truth: Array, beta: float) -> float:
    """Σ π(y) truth(y), π from the softmax of log π₀ + proxy/β."""
    policy = torch.softmax(torch.tensor(np.log(before) + proxy / beta), 0)
    return float((policy * torch.tensor(truth)).sum())


PROXIES: tuple[tuple[Array, Array, Array, float], ...] = (
    (np.array([0.5, 0.3, 0.2]), np.array([0.0, 1.0, 0.4]), np.array([0.2, 0.8, 0.6]), 0.5),
    (np.array([0.6, 0.3, 0.1]), np.array([0.1, 0.5, 1.0]), np.array([0.1, 0.9, 0.0]), 0.2),
    (np.array([0.1, 0.2, 0.3, 0.4]), np.array([1.0, 0.0, 0.5, 0.2]), np.array([0.0, 0.3, 1.0, 0.5]), 2.0),
)


def _tilted(before: Array, scores: Array) -> Array:
    weights = before * np.exp(scores)
    return np.asarray(weights / weights.sum())


PROXY_MISTAKES: dict[str, Callable[[Array, Array, Array, float], float]] = {
    "That is the proxy's own mean reward: it always rises as β falls, and that is why it cannot show the harm.": (
        lambda before, proxy, truth, beta: float(_tilted(before, proxy / beta) @ proxy)
    ),
    "The policy is tuned on the truth. Nobody has it: the optimizer sees the proxy, and only the score is true.": (
        lambda before, proxy, truth, beta: float(_tilted(before, truth / beta) @ truth)
    ),
    "Proxy and truth are exchanged: the policy follows the proxy, and is scored by the truth.": (
        lambda before, proxy, truth, beta: float(_tilted(before, truth / beta) @ proxy)
    ),
    "The reward is multiplied by β. It is divided: a small β lets the reward pull harder.": (
        lambda before, proxy, truth, beta: float(_tilted(before, proxy * beta) @ truth)
    ),
    "The old policy is missing: without π₀ as a factor nothing is anchored.": lambda before, proxy, truth, beta: float(
        _tilted(np.ones(len(before)), proxy / beta) @ truth
    ),
    "The weights are not scaled to add up to 1, so they are no probabilities.": lambda before, proxy, truth, beta: (
        float((before * np.exp(proxy / beta)) @ truth)
    ),
    "The mean is over the answers as if all were equally likely. Each is weighted with its probability.": (
        lambda before, proxy, truth, beta: float((_tilted(before, proxy / beta) * truth).mean())
    ),
    "That is the old policy's worth: β and the proxy do not come in.": lambda before, proxy, truth, beta: float(
        before @ truth
    ),
}
