"""Ways to set m in θ_before + m ∘ (θ_after − θ_before), each with the same number of looks at the choosing texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from forgetlab import load, task_from
from forgetlab.diff.repair.choice import FEW, Texts, knowledge
from forgetlab.diff.repair.found import Look
from forgetlab.diff.repair.search import look
from forgetlab.importance import fisher_diagonal
from forgetlab.metrics import layer_of
from forgetlab.models.model import Model
from forgetlab.tasks import Task
from forgetlab.tasks.base import facts_of, trainable
from forgetlab.training.loop import finetune

Share = float | dict[str, Any]  # m: one number, or one or a tensor for each weight
Way = Callable[["Case"], Iterator[Share]]

LOOKS = 16
WITHIN = 0.02  # points, or nats: a perplexity times 1.02
STRENGTHS = tuple(10.0 ** (i / 2) for i in range(-7, 9))


@dataclass(frozen=True)
class Setting:
    model: str
    new: str
    old: tuple[str, ...]
    steps: int = 200
    lr: float = 1e-3
    batch: int = 32
    first: int = 0  # steps on the old tasks before all, where the model has no heads for them
    limit: int | None = None


class Bench:
    """A model with its tasks; cases of it, one for each seed, share what BEFORE says of them."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.model = setting, load(setting.model, device="cpu")
        self.new, *self.old = (task_from(name, self.model) for name in (setting.new, *setting.old))
        if setting.first:
            self.train(self.old[0], setting.first, seed=0)
            self.model.remember()
        self.texts = [Texts.of(task, FEW, setting.limit) for task in (self.new, *self.old)]
        self.old_fisher = [fisher_diagonal(self.model, one, examples=100) for one in trainable(self.old, "weigh")]

    def train(self, task: Task, steps: int, seed: int) -> None:
        options: dict[str, Any] = {"lr": self.setting.lr, "batch_size": self.setting.batch, "seed": seed}
        for record in finetune(self.model, task, steps=steps, every=steps, limit=8, **options):
            if record.status == "diverged":
                raise SystemExit(f"{task.name}, seed {seed}: diverged")


class Case:
    """A fine-tune of one seed: the weights before and after it, and what any m between them scores."""

    def __init__(self, bench: Bench, seed: int) -> None:
        model, self.bench, self.seed = bench.model, bench, seed
        model.restore()
        named = dict(model.named_parameters())
        self.start = {name: weight.detach().clone() for name, weight in named.items()}
        bench.train(bench.new, bench.setting.steps, seed)
        ends = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        self.delta = {name: ends[name] - start for name, start in self.start.items()}
        self.new_fisher = fisher_diagonal(model, bench.new, examples=100)
        self.seen, self.unseen = self._measured("seen"), self._measured("unseen")

    def _measured(self, part: str) -> dict[str, Any]:
        """What `look` needs of the few texts, or of the rest."""
        ends = {share: self._scores(share, part) for share in (0.0, 1.0)}
        counts = [one.few if part == "seen" else one.limit for one in self.bench.texts]
        facts = [facts_of(one.task, self.bench.model, n) for one, n in zip(self.bench.texts, counts, strict=True)]
        known = [
            knowledge(fact, one.task, *scored)
            for fact, one, scored in zip(facts, self.bench.texts, ends[0.0], strict=True)
        ]
        return {"facts": facts, "known": known, "ends": [[score for score, _ in row] for row in ends.values()]}

    @torch.no_grad()
    def put(self, share: Share) -> Model:
        for name, weight in self.bench.model.named_parameters():
            if name in self.start:  # a new head is AFTER's
                m = share[name] if isinstance(share, dict) else share
                weight.copy_(self.start[name] + m * self.delta[name])
        return self.bench.model

    def _scores(self, share: Share, part: str) -> list[tuple[float, Tensor]]:
        model = self.put(share)
        if part == "seen":
            return [one.seen(model) for one in self.bench.texts]
        tallies = [one.unseen(model) for one in self.bench.texts]
        return [(float(one.task.main_score(t.sum(0))), t) for one, t in zip(self.bench.texts, tallies, strict=True)]

    def look(self, share: Share, part: str = "seen") -> Look:
        scores, of = [score for score, _ in self._scores(share, part)], getattr(self, part)
        return look(share if isinstance(share, float) else -1.0, {}, of["facts"], of["known"], scores, *of["ends"])


# -- the ways ---------------------------------------------------------------------------------------


def one_alpha(case: Case) -> Iterator[Share]:
    yield from (i / LOOKS for i in range(LOOKS))


def fisher(case: Case) -> Iterator[Share]:
    """m = λ F_new / (F_old + λ F_new): Matena & Raffel 2022, eq. 4; each Fisher information at its own end."""
    old, new = _mean_one(case.bench.old_fisher), _mean_one([case.new_fisher])
    for lam in STRENGTHS:
        yield {n: lam * new[n] / (old[n] + lam * new[n]).clamp_min(1e-12) for n in case.delta}


def fisher_of_the_old(case: Case) -> Iterator[Share]:
    """m = 1 / (1 + λ F_old): the least of ‖θ − θ_after‖² + λ Σ F_old (θ − θ_before)², EWC after the fact."""
    old = _mean_one(case.bench.old_fisher)
    for lam in STRENGTHS:
        yield {n: 1 / (1 + lam * old[n]) for n in case.delta}


def trimmed(case: Case) -> Iterator[Share]:
    """The k largest changes, scaled: the trim step of TIES (Yadav et al. 2023), which is all of it for one task."""
    sizes = torch.cat([delta.abs().flatten() for delta in case.delta.values()])
    for k, scale in product((0.05, 0.1, 0.2, 0.5), (0.5, 0.75, 1.0, 1.25)):
        cut = sizes.kthvalue(max(1, round((1 - k) * len(sizes)))).values
        yield {n: scale * (delta.abs() > cut).float() for n, delta in case.delta.items()}


def dropped(case: Case) -> Iterator[Share]:
    """Each change dropped with probability p, the rest divided by 1 − p: DARE (Yu et al. 2024)."""
    for p, scale in product((0.2, 0.5, 0.8, 0.9), (0.4, 0.6, 0.8, 1.0)):
        generator = torch.Generator().manual_seed(case.seed)
        kept = {n: torch.rand(delta.shape, generator=generator) >= p for n, delta in case.delta.items()}
        yield {n: scale * mask.float() / (1 - p) for n, mask in kept.items()}


def _mean_one(fishers: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The sum of the Fisher informations, each divided by its mean over all weights of the body."""
    total: dict[str, Tensor] = {}
    for one in fishers:
        mean = sum(float(value.sum()) for value in one.values()) / sum(value.numel() for value in one.values())
        for name, value in one.items():
            total[name] = total.get(name, torch.zeros(())) + value / mean / len(fishers)
    return total


WAYS: dict[str, Way] = {
    "one α": one_alpha,
    "Fisher, both ends": fisher,
    "Fisher of the old": fisher_of_the_old,
    "largest changes (TIES)": trimmed,
    "changes dropped (DARE)": dropped,
}


def searched(case: Case, way: Way) -> list[tuple[Share, Look]]:
    return [(share, case.look(share)) for share in way(case)]


def by_layer(case: Case) -> list[tuple[Share, Look]]:
    """An α for each layer: the best of five for all, then a fifth more or less of each, where that is better."""
    layers = sorted({layer_of(name) for name, delta in case.delta.items() if delta.any()})

    def spread(alphas: Mapping[str, float]) -> Share:
        return {name: alphas.get(layer_of(name), 0.0) for name in case.delta}

    tried: list[tuple[Share, Look]] = []
    sets = [dict.fromkeys(layers, alpha) for alpha in (0.2, 0.4, 0.6, 0.8, 1.0)]
    tried += [(spread(one), case.look(spread(one))) for one in sets]
    best, turns = sets[best_of(case, tried)], 0
    while len(tried) < LOOKS:
        layer, step = layers[turns // 2 % len(layers)], (-0.2, 0.2)[turns % 2]
        turns += 1
        moved = {**best, layer: min(1.0, max(0.0, best[layer] + step))}
        if moved == best:
            continue
        sets.append(moved)
        tried.append((spread(moved), case.look(spread(moved))))
        best = sets[best_of(case, tried)]
    return tried


def best_of(case: Case, tried: Sequence[tuple[Share, Look]]) -> int:
    """The number of the one that the rule of `repair` takes; the one with the best new score if none is within."""
    looks = [one for _, one in tried]
    within = [i for i, one in enumerate(looks) if one["new"] <= WITHIN]
    if not within:
        return min(range(len(looks)), key=lambda i: looks[i]["new"])
    return min(within, key=lambda i: (looks[i]["old"], looks[i]["new"]))
