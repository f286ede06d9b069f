"""Damage of known kind, planted in the shipped models: does `forgetlab.diff.reach` tell unreadable from overwritten?

python -m benchmarks.planted_damage [--seeds 20] [--out FOLDER]
The thresholds of reach.py were chosen on the kinds in CHOSEN_ON and seeds from 1000 on; what is reported is all kinds
and seeds from 0. Writes results/planted-damage.json and .md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from forgetlab.models import Model

RESULTS = Path(__file__).parent / "results"
Weights = dict[str, Tensor]
LIMIT = 256

UNREADABLE, OVERWRITTEN, UNTOLD = "unreadable", "overwritten", "cannot be told"


class InMemory:
    """What `reach` needs of a pair, from two sets of one small model's weights."""

    def __init__(self, model: Model, before: Weights, after: Weights) -> None:
        self.model, self._sides = model, {"before": before, "after": after}

    def become(self, which: str) -> Model:
        return self._pour(self._sides[which])

    def weights(self, which: str) -> Iterator[tuple[str, Tensor]]:
        yield from self._sides[which].items()

    def between(self, after: str, share: Callable[[str, Tensor, Tensor], Tensor]) -> Model:
        old, new = self._sides["before"], self._sides[after]
        return self._pour({name: share(name, old[name], new[name]) for name in old})

    @torch.no_grad()
    def _pour(self, weights: Weights) -> Model:
        for name, weight in self.model.named_parameters():
            weight.copy_(weights[name])
        return self.model.eval()


def weights_of(model: Model) -> Weights:
    """A copy of them, tied ones once."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


# -- what is planted --------------------------------------------------------------------------------


def noise(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian noise of the weight's norm."""
    drawn = torch.randn(weight.shape, generator=generator)
    return drawn * (weight.norm() / drawn.norm())


def turned(weight: Tensor, generator: torch.Generator) -> Tensor:
    """What reads features, as if these were rotated at random."""
    q, r = torch.linalg.qr(torch.randn(weight.shape[1], weight.shape[1], generator=generator, dtype=torch.float64))
    return (weight.double() @ (q * r.diagonal().sign())).float()


def permuted(weight: Tensor, generator: torch.Generator) -> Tensor:
    """The classes of a head in a cycle: none stands where it was."""
    return weight.roll(1 + int(torch.randint(len(weight) - 1, (1,), generator=generator)), 0)


def scaled(weight: Tensor, generator: torch.Generator) -> Tensor:
    return weight * (2.0 * torch.randn(weight.shape, generator=generator)).exp()


def flipped(weight: Tensor, generator: torch.Generator) -> Tensor:
    return weight * (1 - 2 * torch.randint(2, weight.shape, generator=generator))


def fresh(weight: Tensor, generator: torch.Generator) -> Tensor:
    """As transformers begins a matrix."""
    return 0.02 * torch.randn(weight.shape, generator=generator)


def a_little(weight: Tensor, generator: torch.Generator) -> Tensor:
    return weight + 0.01 * noise(weight, generator)


LAST = r"layer\.2\.output\.LayerNorm\.weight|ln_f\.weight"
READERS = r"heads\..*weight|predictions\.transform\.dense\.weight"
MATRICES = r"(?!.*(norm|Norm|ln_)).*weight"
DAMAGE: dict[str, tuple[str, dict[str, Callable[[Tensor, torch.Generator], Tensor]]]] = {
    "readout redrawn": (UNREADABLE, {READERS: noise}),
    "last basis rotated": (UNREADABLE, {READERS: turned}),
    "classes permuted": (UNREADABLE, {r"heads\..*weight": permuted}),
    "last norm scaled": (UNREADABLE, {LAST: scaled}),
    "last norm flipped": (UNREADABLE, {LAST: flipped}),
    "last norm flipped, all else moved a little": (UNREADABLE, {LAST: flipped, ".*": a_little}),
    "layer 0 overwritten": (OVERWRITTEN, {rf"body.*\.(layer|h)\.0\.{MATRICES}": noise}),
    "layer 1 overwritten": (OVERWRITTEN, {rf"body.*\.(layer|h)\.1\.{MATRICES}": noise}),
    "layers 0 and 1 begun anew": (OVERWRITTEN, {rf"body.*\.(layer|h)\.[01]\.{MATRICES}": fresh}),
    "all layers overwritten": (OVERWRITTEN, {rf"body.*\.(layer|h)\.\d\.{MATRICES}": noise}),
    "embeddings overwritten": (OVERWRITTEN, {r"body.*(word_embeddings|wte)\.weight": noise}),
    "layer 1 overwritten, all else moved a little": (
        OVERWRITTEN,
        {rf"body.*\.(layer|h)\.1\.{MATRICES}": noise, ".*": a_little},
    ),
    "all moved a little": (UNTOLD, {".*": a_little}),
}


def damaged(before: Weights, kind: str, seed: int) -> Weights:
    """Each weight changed by the first pattern that its name matches."""
    generator = torch.Generator().manual_seed(seed)
    _, how = DAMAGE[kind]
    after = {}
    for name, weight in before.items():
        change = next((change for pattern, change in how.items() if re.fullmatch(f".*({pattern})", name)), None)
        after[name] = weight if change is None else change(weight, generator)
    return after
