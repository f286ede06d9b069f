"""What a model writes after some prompts along a run, judged, and how far its answers are from those before."""

from __future__ import annotations

import torch
from torch import Tensor

from forgetlab import metrics
from forgetlab.models.model import Model
from forgetlab.remedies.regularizers.outputs import frozen_copy
from forgetlab.sources.world import fluency
from forgetlab.tasks import Scores, Tally
from forgetlab.tasks.encoding import asked
from forgetlab.tasks.probes import Probe
from forgetlab.tasks.rewarded import Answers, Rewarded
from forgetlab.tasks.rewards import rewards_of

ANSWERS = 6  # to each prompt
Answer = tuple[str, float, bool]  # its reward, and whether it is what the reward was meant to ask for


class Written(Probe):
    """Scores of a model's answers to the test prompts of a reward; the model as it is when this is made is "before".

    meant: the reward that this one stands for, 1 or 0 for each text.
    Scores: "reward" and "meant" (means), "distinct" (share of different answers), "fluency" (share of sentences in the
    language), and, in nats an answer, "now_before" = KL(now ‖ before) and "before_now" = KL(before ‖ now).
    texts: at each scoring the answers to each prompt, {prompt: [(answer, reward, meant)]}.
    """

    metric = "reward"
    kind = "written"

    def __init__(self, name: str, judge: Rewarded, meant: Rewarded, model: Model) -> None:
        super().__init__(name, None, judge.test)
        self._judge, self._meant = judge, meant
        self._before = frozen_copy(model)
        self._then = self._answers(self._before)
        self.texts: list[dict[str, list[Answer]]] = []

    def _scored(self, model: Model, limit: int | None) -> tuple[Scores, Tally | None]:
        now = self._answers(model)
        rewards, meant = (rewards_of(task.name, task.reward, now.texts) for task in (self._judge, self._meant))
        each = list(zip(now.answers, rewards.tolist(), (meant > 0.5).tolist(), strict=True))
        self.texts.append({prompt: each[i * ANSWERS :][:ANSWERS] for i, prompt in enumerate(self.test.texts)})
        return {
            "reward": float(rewards.mean()),
            "meant": float(meant.mean()),
            "distinct": len(set(now.answers)) / len(now.answers),
            "fluency": fluency(now.texts),
            "now_before": divergence(self._judge, now, model, self._before),
            "before_now": divergence(self._judge, self._then, self._before, model),
        }, None

    def _answers(self, model: Model) -> Answers:
        """Answers to each prompt, from the same draws at each call."""
        rows = torch.arange(len(self.test)).repeat_interleave(ANSWERS)
        return self._judge.answers(model, "test", rows, torch.Generator().manual_seed(0))


@torch.no_grad()
def divergence(task: Rewarded, drawn: Answers, first: Model, second: Model) -> float:
    """KL(first ‖ second) of whole answers, nats: exact at each token, summed; a mean over answers that `first` drew."""
    columns = torch.arange(drawn.ids.shape[1])
    batch: dict[str, Tensor] = {
        "input_ids": drawn.ids,
        "attention_mask": (columns < drawn.lengths.unsqueeze(1)).long(),
        "scored": drawn.scored,
    }
    batch["places"] = asked(batch).flatten().nonzero().squeeze(1)
    found = metrics.output_shift(task.logits(first, batch), task.logits(second, batch))
    return found["kl"] * len(batch["places"]) / len(drawn.answers)
