"""A task with a reward: the model writes answers, a function scores them, and what scored well is learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from forgetlab.errors import ForgetlabError, number, one_of, shown, whole
from forgetlab.metrics.tally import Tally
from forgetlab.models.model import Model, evaluating
from forgetlab.sources import Examples, split
from forgetlab.tasks.base import Scores, Task, _PerTokenizer, _to
from forgetlab.tasks.encoding import asked
from forgetlab.tasks.policy_gradient import OF_GROUPS, Advantage, advantages, running_mean, surrogate
from forgetlab.tasks.probes import need_causal
from forgetlab.tasks.rewards import Reward, rewards_of
from forgetlab.tasks.writing import rollouts

AT_ONCE = 128  # answers written side by side: bounds the memory of a large model's keys and values


@dataclass(frozen=True)
class Answers:
    """What a model wrote to prompts, (N, L) tensors on its device.

    ids: prompt, answer, padding. scored: 1 at the answer's tokens, its end token among them. lengths: (N,) tokens of
    prompt and answer. ended: (N,) whether it came to its end token. texts: prompt and answer in words.
    answers: the answer alone.
    """

    ids: Tensor
    scored: Tensor
    lengths: Tensor
    ended: Tensor
    texts: list[str]
    answers: list[str]


class Rewarded(Task):
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
    Answers are written one length of prompt at a time, so nothing is padded while writing.
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
        also: Callable[[list[str]], Mapping[str, float]] | None = None,
    ) -> None:
        one_of("advantage", advantage, get_args(Advantage))
        if not callable(reward):
            raise ForgetlabError(f"reward must be a function of a list of texts, got {shown(reward)}")
        self.samples, self.tries, self.max_tokens = (
            whole(what, value) for what, value in (("samples", samples), ("tries", tries), ("max_tokens", max_tokens))
        )
        if samples < 2 and advantage in OF_GROUPS:
            raise ForgetlabError(
                f"advantage {advantage!r} compares the answers to a prompt: samples must be 2 or more, got {samples}; "
                "'baseline' learns from one"
            )
        train = _prompts(name, "prompts", prompts)
        if test is None:
            train, held = split(train)
        else:
            held = _prompts(name, "test", test)
        super().__init__(name, train, held)
        self.reward, self.advantage, self.also = reward, advantage, also
        self.temperature = number("temperature", temperature, 0, 1000, above=True)
        self._means: _PerTokenizer[tuple[float, float]] = _PerTokenizer()  # of the rewards of each run's generator

    def prepare(self, model: Model, seed: int = 0) -> None:
        need_causal(f"the task {self.name}", model)
        for side in ("train", "test"):
            encoded, examples = self.encoded(model, side), self.train if side == "train" else self.test
            assert examples is not None
            longest = int(encoded.lengths.argmax())
            if encoded.lengths[longest] >= model.max_length:
                raise ForgetlabError(
                    f"{self.name}: the prompt {shown(examples.texts[longest])} has {model.max_length} tokens or more, "
                    f"all that {model.name} takes: nothing could be written; shorten it"
                )

    def remarks(self, model: Model, *splits: str, limit: int | None = None) -> list[str]:
        notes = super().remarks(model, *splits, limit=limit)
        longest = max(int(self.encoded(model, side).lengths.max()) for side in ("train", "test"))
        if "train" in splits and (room := model.max_length - longest) < self.max_tokens:
            notes.append(f"{self.name}: {model.name} has room for {room} tokens after the longest prompt")
        return notes

    def remarks_on(self, batch: Mapping[str, Tensor]) -> list[str]:
        notes = []
        if not bool(batch["advantages"].any()):
            notes.append(
                f"{self.name}: there were steps in which no answer was better than another to its prompt: they teach "
                "nothing; other prompts, more samples or a reward with finer grades help"
            )
        if not bool(batch["ended"].any()):
            notes.append(
                f"{self.name}: there were steps in which no answer came to its end within {self.max_tokens} tokens; "
                "they were scored as far as they went: raise max_tokens, or have the reward ask for an end"
            )
        return notes

    def items(self) -> int:
        return len(self.test) * self.tries

    def classes(self) -> Sequence[object]:
        return [i // self.tries for i in range(self.items())]

    def answers(self, model: Model, side: str, rows: Tensor, generator: torch.Generator) -> Answers:
        """An answer to each of the prompts `rows` of "train" or "test"; a row may stand there more than once."""
        encoded, eos = self.encoded(model, side), model.tokenizer.eos_token_id
        lengths = encoded.lengths[rows]
        written: list[Tensor] = [torch.empty(0)] * len(rows)
        with evaluating(model):
            for length in lengths.unique().tolist():
                most = min(self.max_tokens, model.max_length - length)
                for some in (lengths == length).nonzero().squeeze(1).split(min(AT_ONCE, self.rows_at_once)):
                    prompts, which = rows[some].unique(return_inverse=True)
                    starts = encoded.columns["input_ids"][prompts, :length]
                    found = rollouts(model, starts, which, generator, self.temperature, most)
                    for row, answer in zip(some.tolist(), found, strict=True):
                        written[row] = answer
        ended = torch.tensor([len(answer) > 0 and int(answer[-1]) == eos for answer in written])
        asked_of = [encoded.columns["input_ids"][row, :length] for row, length in zip(rows, lengths, strict=True)]
        whole = [torch.cat(both) for both in zip(asked_of, written, strict=True)]
        counts = torch.tensor([len(row) for row in whole])
        ids = pad_sequence(whole, batch_first=True, padding_value=model.tokenizer.pad_token_id)
        place = torch.arange(ids.shape[1])
        scored = ((place >= lengths.unsqueeze(1)) & (place < counts.unsqueeze(1))).long()
        decode = model.tokenizer.batch_decode
        texts = decode([row.tolist() for row in whole], skip_special_tokens=True)
        alone = decode([answer.tolist() for answer in written], skip_special_tokens=True)
        return Answers(ids, scored, counts, ended, texts, alone)

    def batch(self, model: Model, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """`samples` answers to each prompt of `index`, with "advantages": (places,), each answer's at its tokens."""
        found = self.answers(model, "train", index.repeat_interleave(self.samples), generator)
        rewards = rewards_of(self.name, self.reward, found.texts).view(len(index), self.samples)
        total, weight = self._means.get(generator, (0.0, 0.0))
        a = advantages(rewards, self.advantage, total / weight if weight else 0.0).flatten()
        if self.advantage == "baseline":
            self._means[generator] = running_mean((total, weight), rewards)
        place = torch.arange(found.ids.shape[1])
        batch = {
            "input_ids": found.ids,
            "attention_mask": (place < found.lengths.unsqueeze(1)).long(),
            "scored": found.scored,
        }
        places = asked(batch).flatten().nonzero().squeeze(1)
        owners = places // found.ids.shape[1]
        batch |= {
            "places": places,
            "targets": found.ids.flatten()[places + 1],
            "advantages": a[owners].float(),
            "ended": found.ended.unsqueeze(1),
        }
        return _to(batch, model.device)

    def _collate(self, model: Model, split: str, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return self.encoded(model, split).take(index)

    def logits(self, model: Model, batch: Mapping[str, Tensor]) -> Tensor:
        return model.lm_logits(model.hidden(batch).flatten(0, 1)[batch["places"]]).float()

    def loss(self, model: Model, batch: Mapping[str, Tensor]) -> Tensor:
        return surrogate(self.logits(model, batch) / self.temperature, batch["targets"], batch["advantages"])

    def _scored(self, model: Model, limit: int | None) -> tuple[Scores, Tally | None]:
        rows = self.sample(limit) // self.tries
        found = self.answers(model, "test", rows, torch.Generator().manual_seed(0))
        rewards = rewards_of(self.name, self.reward, found.texts)
        written = found.scored.sum(1) - found.ended.long()
        scores = {
            "reward": float(rewards.mean()),
            "distinct": len(set(found.answers)) / len(found.answers),
            "length": float(written.double().mean()),
            "ended": float(found.ended.double().mean()),
        }
        tally = Tally(("reward", "one"), torch.stack([rewards, torch.ones_like(rewards)], dim=1))
        return scores | dict(self.also(found.texts) if self.also else {}), tally


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


def _prompts(name: str, what: str, texts: Sequence[str]) -> Examples:
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts) or not len(texts):
        raise ForgetlabError(f"{name}: {what} must be a list of texts, such as ['the film'], got {shown(texts)}")
    if "" in (text.strip() for text in texts):
        raise ForgetlabError(f"{name}: {what} hold an empty text; expected words to write on from")
    return Examples("text", tuple(texts))
