"""The policy gradient against a bandit in closed form, and advantages against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from forgetlab.errors import ForgetlabError
from forgetlab.tasks.policy_gradient import Advantage, advantages, running_mean, surrogate

REWARDS = torch.tensor([1.0, 0.0, 0.5, 2.0, -1.0])  # of five arms
SCORES = torch.tensor([0.3, -0.2, 1.0, -1.0, 0.1])  # the policy is their softmax


def closed_form() -> Tensor:
    """∇E[r] of a softmax policy: Σ_a π(a) r(a) (1[a] − π) = π ∘ (r − E[r])."""
    policy = SCORES.softmax(0)
    return policy * (REWARDS - policy @ REWARDS)


def gradient(arms: Tensor, advantage: Tensor) -> Tensor:
    """Minus the surrogate's gradient for these arms, one answer of one token each."""
    scores = SCORES.clone().requires_grad_()
    surrogate(scores.expand(len(arms), -1), arms, advantage).backward()
    assert scores.grad is not None
    return -scores.grad


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_every_answer_by_its_probability_gives_the_bandits_gradient(baseline: float) -> None:
    arms, policy = torch.arange(5), SCORES.softmax(0)
    a = advantages(REWARDS.unsqueeze(1), "baseline", baseline).squeeze(1).float()
    found = gradient(arms, 5 * policy * a)  # the mean over five arms, each with its probability
    assert found.tolist() == pytest.approx(closed_form().tolist(), abs=1e-6)


@pytest.mark.parametrize(("kind", "share"), [("none", 1.0), ("baseline", 1.0), ("leave-one-out", 1.0), ("mean", 0.75)])
def test_many_draws_give_the_bandits_gradient(kind: Advantage, share: float) -> None:
    """In groups of four "mean" is short by a quarter: each reward is in its own baseline."""
    draws = torch.multinomial(
        SCORES.softmax(0), 4 * 50_000, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    groups = draws.view(-1, 4)
    a = advantages(REWARDS[groups], kind, 0.4).flatten().float()
    policy = SCORES.softmax(0)
    each = a.unsqueeze(1) * (torch.eye(5)[draws] - policy)  # of one draw: A (1[a] − π)
    error = each.view(-1, 4, 5).mean(1).std(0) / len(groups) ** 0.5
    found = gradient(draws, a)
    assert ((found - share * closed_form()).abs() < 4 * error + 1e-6).all()
    assert float(error.max()) < 0.005


def test_advantages_against_numpy() -> None:
    r = np.random.default_rng(0).normal(size=(6, 8))
    mean = r.mean(1, keepdims=True)
    others = np.stack([np.delete(r, i, 1).mean(1) for i in range(8)], 1)
    expected = {
        "group": (r - mean) / r.std(1, keepdims=True),
        "mean": r - mean,
        "leave-one-out": r - others,
        "baseline": r - 0.3,
        "none": r,
    }
    for kind, value in expected.items():
        np.testing.assert_allclose(advantages(torch.from_numpy(r), kind, 0.3).numpy(), value, atol=1e-12)  # type: ignore[arg-type]


def test_without_variance_in_a_group_there_is_no_advantage() -> None:
    r = torch.tensor([[0.1] * 7, [0.1] * 6 + [0.2]])
    for kind in ("group", "mean", "leave-one-out"):
        found = advantages(r, kind)
        assert found[0].tolist() == [0.0] * 7  # neither nan nor what rounding leaves
        assert found[1].abs().min() > 0.01
        assert found[1].sum().item() == pytest.approx(0, abs=1e-9)


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(
        ForgetlabError, match="'group' compares the answers to a prompt, and there is one; use 2 or more"
    ):
        advantages(torch.ones(3, 1))
    with pytest.raises(ForgetlabError, match="unknown advantage 'grup'; did you mean 'group'"):
        advantages(torch.ones(3, 2), "grup")  # type: ignore[arg-type]
    assert advantages(torch.ones(3, 1), "none").tolist() == [[1.0]] * 3


def test_the_running_mean_forgets_slowly() -> None:
    sums = (0.0, 0.0)
    for mean in (1.0, 0.0, 0.5):
        sums = running_mean(sums, torch.full((2, 2), mean), keep=0.5)
    assert sums[0] / sums[1] == pytest.approx((0.25 * 1 + 0.5 * 0 + 1 * 0.5) / 1.75)
