"""A task with a reward: the model writes answers, a function scores them, and what scored well is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor

from forgetlab.errors import ForgetlabError, one_of, shown, whole
from forgetlab.metrics.tally import Tally
from forgetlab.models.model import Model
from forgetlab.sources import Examples
from forgetlab.tasks.base import Scores, _PerTokenizer, _to
from forgetlab.tasks.on_policy import Also, Answers, OnPolicy
from forgetlab.tasks.policy_gradient import OF_GROUPS, Advantage, advantages, running_mean, surrogate
from forgetlab.tasks.rewards import Reward, rewards_of


class Rewarded(OnPolicy):
    """Answers that a reward is high for, found by trying: the policy gradient on the model's own answers.

    At each step the model writes `samples` answers to each prompt of the batch (so a step of batch_size 8 sees
    8 · samples answers), `reward` scores them, and L = −mean over their tokens of A log π(token), with A the advantage
    of the answer (`policy_gradient.advantages`). The answers are drawn from the run's generator, in eval mode.

    prompts: texts to answer. reward: takes the list of finished texts, prompt and answer in one as the tokenizer writes
    them, and returns as many numbers: a verifier, a regex, a classifier. test: prompts that are scored (None: a fifth
    of `prompts`, by a hash of each). samples: 2 or more where answers are compared. advantage: "group" (GRPO), "mean",
    "leave-one-out" (RLOO), "baseline" (REINFORCE, less a running mean of the rewards), "none".
    max_tokens: of an answer. temperature: of the policy π that writes and is trained, above 0. tries: answers to each
    test prompt. also: further scores of the texts by name.

    Scores, of answers to the test prompts drawn with a fixed seed: "reward" their mean, "distinct" the share of
    different answers, "length" tokens without the end, "ended" the share that came to the end token.
    Raises ForgetlabError for bad values and empty prompts; with a model, for an encoder and prompts too long for it;
    in a run, for a reward that raises or returns anything but a finite number for each text.
    Source: GRPO (Shao et al. 2024, eq. 3) with one update per batch of answers: the ratio of new and old policy is 1,
    so nothing is clipped; the mean is over all tokens (Yu et al. 2025, DAPO), not over answers first; KL is a method of
    its own, `KLAnchor`. For large models trl's GRPOTrainer has the same objective and fast generation.

    >>> def short(texts): return [-len(text) for text in texts]
    >>> brief = Rewarded("brief", ["the film", "the plot"], short, test=["the song"])
    >>> [*_, last] = finetune(load("tiny-gpt"), brief, steps=2, batch_size=2)
    >>> list(last.scores["brief"])
    ['reward', 'distinct', 'length', 'ended']
    """

    metric = "reward"
    kind = "reward"

    def __init__(
        self,
        name: str,
        prompts: Sequence[str],
        reward: Reward,
        *,
        test: Sequence[str] | None = None,
        samples: int = 8,
        advantage: Advantage = "group",
        max_tokens: int = 48,
        temperature: float = 1.0,
        tries: int = 1,
        also: Also | None = None,
    ) -> None:
        one_of("advantage", advantage, get_args(Advantage))
        if not callable(reward):
            raise ForgetlabError(f"reward must be a function of a list of texts, got {shown(reward)}")
        super().__init__(name, prompts, test, samples, max_tokens, temperature, tries, also)
        if samples < 2 and advantage in OF_GROUPS:
            raise ForgetlabError(
                f"advantage {advantage!r} compares the answers to a prompt: samples must be 2 or more, got {samples}; "
                "'baseline' learns from one"
            )
        self.reward, self.advantage = reward, advantage
        self._means: _PerTokenizer[tuple[float, float]] = _PerTokenizer()  # of the rewards of each run's generator

    def remarks_on(self, batch: Mapping[str, Tensor]) -> list[str]:
        notes = super().remarks_on(batch)
        if not bool(batch["advantages"].any()):
            notes.append(
                f"{self.name}: there were steps in which no answer was better than another to its prompt: they teach "
                "nothing; other prompts, more samples or a reward with finer grades help"
            )
        return notes

    def batch(self, model: Model, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """`samples` answers to each prompt of `index`, with "advantages": (places,), each answer's at its tokens."""
        found = self.answers(model, "train", index.repeat_interleave(self.samples), generator)
        rewards = rewards_of(self.name, self.reward, found.texts).view(len(index), self.samples)
        total, weight = self._means.get(generator, (0.0, 0.0))
        a = advantages(rewards, self.advantage, total / weight if weight else 0.0)
        if self.advantage == "baseline":
            self._means[generator] = running_mean((total, weight), rewards)
        batch = self.columns(found)
        return _to(batch | {"advantages": a.flatten()[self.owners(batch)].float()}, model.device)

    def loss(self, model: Model, batch: Mapping[str, Tensor]) -> Tensor:
        return surrogate(self.logits(model, batch) / self.temperature, batch["targets"], batch["advantages"])

    def judged(self, model: Model, found: Answers) -> tuple[Scores, Tally]:
        rewards = rewards_of(self.name, self.reward, found.texts)
        tally = Tally(("reward", "one"), torch.stack([rewards, torch.ones_like(rewards)], dim=1))
        return {"reward": float(rewards.mean())}, tally


def filtered(task: Rewarded, model: Model, count: int, seed: int = 0, *, over: float = 0.5, most: int = 20) -> Examples:
    """Rejection sampling: `count` of the model's own answers whose reward is above `over`, as completions to train on.

    The training prompts take turns. Where pre-training had an end token, only answers that came to it are kept.
    Written once, by the model as it is: `CausalLM(name, filtered(...), test)` trains on them.
    Raises ForgetlabError where fewer are found among `most` · count answers. Source: Nakano et al. 2021 (best of n),
    RAFT (Dong et al. 2023), with a threshold.

    >>> own = filtered(task("praise"), load("tiny-gpt"), 4)
    >>> own.kind, len(own)
    ('completions', 4)
    """
    task.prepare(model)
    whole("count", count)
    generator, order = torch.Generator().manual_seed(seed), torch.arange(count) % task.size()
    kept: list[tuple[str, str]] = []
    for _ in range(whole("most", most)):
        with torch.no_grad():
            found = task.answers(model, "train", order, generator)
        rewards = rewards_of(task.name, task.reward, found.texts)
        assert task.train is not None
        for row, (reward, ended) in enumerate(zip(rewards.tolist(), found.ended.tolist(), strict=True)):
            answer = found.answers[row]
            if reward > over and (ended if model.end_mark else answer):  # an empty one is nothing to train on
                kept.append((task.train.texts[int(order[row])], answer))
        if len(kept) >= count:
            prompts, answers = zip(*kept[:count], strict=True)
            return Examples("completions", prompts, answers)
    raise ForgetlabError(
        f"{task.name}: {len(kept)} of {most * count} answers of {model.name} have a reward above {over:g}, {count} are "
        "needed: lower `over` or `count`, or raise `most`"
    )
