"""The policy gradient: what the answers of a model teach it, each weighed by how much better it was than expected."""

from __future__ import annotations

from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from forgetlab.errors import ForgetlabError, one_of

Advantage = Literal["group", "mean", "leave-one-out", "baseline", "none"]
OF_GROUPS = ("group", "mean", "leave-one-out")  # they compare the answers to one prompt


def advantages(rewards: Tensor, kind: Advantage = "group", baseline: float = 0.0) -> Tensor:
    """How much better each answer is than what was expected.

    rewards: (P, G) of G answers to each of P prompts. Returns (P, G) in float64. kind, with mean and sd over a row:
    "group": (r − mean)/sd, and 0 where all rewards of a row are equal (GRPO: Shao et al. 2024, sec. 4.1.2);
    "mean": r − mean (Dr. GRPO: Liu et al. 2025); "leave-one-out": r − mean of the other answers (RLOO: Kool et al.
    2019, Ahmadian et al. 2024), which is G/(G − 1) times "mean"; "baseline": r − `baseline` (REINFORCE: Williams 1992);
    "none": r. The sd divides by G; trl's divides by G − 1 and has 1e-4 added.
    Raises ForgetlabError for an unknown kind, and for one answer where they are compared.

    >>> advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]])).tolist()
    [[1.0, -1.0, -1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    """
    one_of("advantage", kind, get_args(Advantage))
    r = rewards.double()
    if kind in ("baseline", "none"):
        return r - baseline if kind == "baseline" else r
    count = r.shape[1]
    if count < 2:
        raise ForgetlabError(f"advantage {kind!r} compares the answers to a prompt, and there is one; use 2 or more")
    equal = (r == r[:, :1]).all(1, keepdim=True)  # a mean of equal numbers may differ from them by rounding
    a = (r - r.mean(1, keepdim=True)).masked_fill(equal, 0.0)
    if kind == "leave-one-out":
        return a * count / (count - 1)  # r_i − Σ_{j≠i} r_j / (G − 1)
    return a if kind == "mean" else a / r.std(1, correction=0, keepdim=True).masked_fill(equal, 1.0)


def surrogate(logits: Tensor, targets: Tensor, advantage: Tensor) -> Tensor:
    """A scalar whose gradient is minus the policy gradient: −mean over tokens of A log π(token | all before it).

    logits: (places, vocabulary). targets: (places,) the tokens written there. advantage: (places,) of their answers.
    On policy, ∇E[r] = E[A Σ_t ∇ log π(token t)] (Williams 1992, eq. 5); a mean over the tokens of all answers is that
    of the answers divided by their mean length in the batch, so a long answer counts for its tokens.
    """
    return (advantage * F.cross_entropy(logits, targets, reduction="none")).mean()  # −log π = cross-entropy


def running_mean(sums: tuple[float, float], rewards: Tensor, keep: float = 0.9) -> tuple[float, float]:
    """(Σ w r, Σ w) of all rewards so far, those of each step `keep` times less than the next one's; from (0, 0)."""
    total, weight = sums
    return keep * total + float(rewards.double().mean()), keep * weight + 1.0
