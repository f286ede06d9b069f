"""Which runs of each lab are recorded: what a reader may ask for and see at once, in the book and in a kernel.

A grid is a table to read: products of values of a lab's training controls; what is not named stays at its opening
value. Every value is one at which the control can stand, every preset is on the grid, and so is what a lesson asks its
reader to try. `make records` runs them all: some twenty minutes on two cores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product
from typing import Any

Product = Mapping[str, Sequence[Any]]  # values by the name of a training control
Settings = dict[str, Any]

RATES = (1e-4, 3.16228e-4, 1e-3, 3.16228e-3, 1e-2)
THREE, TWO = (0, 1, 2), (0, 1)  # seeds
REWARDS = ("sound", "with a hole")

GRIDS: dict[str, tuple[Product, ...]] = {
    "watch": (
        {"lr": RATES, "seed": (0, 1, 2, 3, 4)},
        {"lr": RATES, "steps": (20, 40, 60, 100, 200)},
        {"similarity": (0.0, 0.25, 0.5, 0.75, 1.0), "seed": THREE},
        {"similarity": (0.0, 0.25, 0.5, 0.75, 1.0), "lr": RATES},
    ),
    "ask": (
        {"model": ("tiny-bert", "tiny-gpt"), "lr": RATES, "seed": TWO},
        {"model": ("tiny-bert", "tiny-gpt"), "steps": (20, 40, 60, 100, 200)},
    ),
    "inside": (
        {"learns": ("to judge reviews", "to fill gaps in reviews"), "lr": RATES, "seed": THREE},
        {"learns": ("to judge reviews", "to fill gaps in reviews"), "steps": (20, 60, 100, 200)},
    ),
    "matrix": (
        {
            "order": ("register → place → people", "people → place → register", "long → short → people"),
            "method": ("none", "replay", "ewc"),
            "seed": THREE,
        },
        {
            "order": ("register → place → people", "people → place → register", "long → short → people"),
            "method": ("none", "replay", "ewc"),
            "steps": (10, 30, 60),
        },
        {"order": ("long → short → people",), "seed": (0, 1, 2, 3, 4)},
    ),
    "scatter": (
        {"old": ("entities", "masked-lm"), "lr": (1e-4, 3.16228e-4, 1e-3, 1e-2)},
        {"old": ("entities", "masked-lm"), "seed": THREE},
        {"old": ("entities", "masked-lm"), "steps": (20, 60, 100, 200)},
    ),
    "along": (
        {"lr": RATES, "remedy": ("none", "pcgrad", "agem")},
        {"remedy": ("none", "pcgrad", "agem"), "seed": THREE},
    ),
    "valleys": (
        {"lr": (3.16228e-4, 1e-3, 2e-3, 3.16228e-3, 1e-2)},
        {"seed": THREE},
        {"steps": (40, 80, 100)},
    ),
    "pull": (
        {"method": ("EWC",), "lam": (1.0, 10.0, 31.6228, 100.0, 316.228, 1e3, 1e4), "seed": THREE},
        {"method": ("L2-SP",), "lam": (1e-3, 3.16228e-3, 0.01, 0.0316228, 0.1, 0.316228, 1.0), "seed": THREE},
        {"method": ("LwF",), "lam": (0.01, 0.1, 0.316228, 1.0, 3.16228, 10.0, 100.0), "seed": TWO},
        {"method": ("EWC proximal",), "lam": (1.0, 100.0, 1e3, 1e4, 3.16228e4, 1e5, 1e6), "seed": TWO},
        {"method": ("online EWC",), "lam": (1.0, 10.0, 100.0, 1e3, 1e4), "seed": (0,)},
        {"method": ("SI",), "lam": (0.01, 0.1, 1.0, 3.16228, 10.0, 100.0), "seed": TWO},
        {"method": ("MAS",), "lam": (1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0, 100.0), "seed": (0,)},
        {
            "method": ("EWC",),
            "estimator": ("auto", "sample", "empirical", "gnb", "batched"),
            "lam": (1.0, 10.0, 100.0, 1e3, 1e4),
        },
        {"method": ("EWC",), "samples": (20, 100, 400), "lam": (10.0, 100.0, 1e3)},
    ),
    "mix": (
        {"ratio": (0.0, 0.1, 0.25, 0.5, 0.75, 0.9), "memory": (10.0, 31.6228, 100.0, 316.228, 1e3)},
        {"ratio": (0.0, 0.25, 0.5, 0.9), "memory": (10.0, 100.0, 1e3), "seed": (1, 2)},
        {"ratio": (0.25, 0.5), "memory": (10.0, 31.6228, 100.0, 1e3), "sampling": ("reservoir", "balanced")},
        {"past": ("all old texts",), "weight": (0.01, 0.1, 1.0, 10.0)},
    ),
    "dreams": (
        {"temperature": (0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0), "top_p": (0.5, 0.9, 1.0)},
        {"temperature": (0.1, 1.0, 3.0), "top_p": (0.5, 1.0), "seed": THREE},
        {"temperature": (0.1, 1.0, 3.0), "ratio": (0.0, 0.1, 0.25, 0.5, 0.9)},
        {"temperature": (0.1, 1.0, 3.0), "size": (20, 100, 200, 400)},
    ),
    "freeze": (
        {"kind": ("adapters", "LoRA"), "width": (4, 16, 64, 128), "used": ("the new task", "all tasks")},
        {"kind": ("frozen", "columns"), "width": (4, 16, 64, 128)},
        {"kind": ("frozen", "adapters", "LoRA", "columns"), "lr": (6.32456e-4, 2e-3, 6.32456e-3, 2e-2)},
        {"kind": ("frozen", "adapters", "LoRA", "columns"), "seed": TWO},
    ),
    "path": (
        {
            "factor": (1.0, 1.5, 2.0, 2.6),
            "schedule": ("none", "warm-up", "warm-up and cosine", "slanted triangular"),
        },
        {"factor": (1.0, 1.5, 2.6), "schedule": ("none", "slanted triangular"), "unfreeze": (0, 10, 20)},
        {
            "factor": (1.5, 2.6),
            "schedule": ("warm-up", "warm-up and cosine", "slanted triangular"),
            "share": (0.1, 0.2, 0.5),
        },
        {"factor": (2.6,), "schedule": ("slanted triangular",), "share": (0.1,), "unfreeze": (0, 10, 20)},
        {"factor": (1.0, 1.5, 2.6), "schedule": ("none", "slanted triangular"), "seed": THREE},
    ),
    "brake": (
        {"drop": (0.0, 0.05, 0.1, 0.25, 0.5, 0.75), "patience": (1, 3), "lr": (1e-4, 1e-3, 1e-2)},
        {"drop": (0.05, 0.25, 0.5), "lr": RATES},
        {"drop": (0.05, 0.25, 0.5), "patience": (1, 3), "seed": THREE},
    ),
    "frontier": (
        {
            "remedy": (
                *("ewc-adam", "ewc", "mas", "l2sp", "si", "orthogonal", "lwf", "kl-anchor", "replay", "generative"),
                *("adapters", "columns", "lora", "wise", "layerwise-rates", "warmup", "safety-brake"),
            ),
            "strength": (0.1, 1.0, 10.0),
        },
        {"remedy": ("none", "online-ewc", "frozen", "cosine", "slanted-triangular", "gradual-unfreezing")},
        {"remedy": ("replay", "ewc", "l2sp", "kl-anchor"), "seed": THREE},
        {"remedy": ("none", "replay", "ewc", "kl-anchor"), "lr": (3.16228e-4, 1e-3, 3.16228e-3)},
        {"remedy": ("none", "replay", "ewc", "kl-anchor"), "steps": (60, 100, 200)},
        {"remedy": ("adapters",), "lr": (1e-3, 0.003)},
    ),
    "stream": (
        {"length": (2, 3, 4, 5, 6), "method": ("none", "l2sp", "ewc", "online-ewc", "lwf", "replay")},
        {"length": (4, 6), "method": ("none", "l2sp", "ewc", "replay"), "seed": THREE},
    ),
    "reward": (
        {
            "teacher": (
                *("demos like the language", "demos of one phrase", "demos in strange words"),
                *("reward: GRPO", "reward: RLOO", "reward: own best answers"),
            ),
            "steps": (40, 100),
        },
        {"teacher": ("demos like the language", "reward: GRPO", "reward: own best answers"), "reward": REWARDS},
        {"reward": REWARDS, "beta": (0.0, 0.1, 0.3, 1.0)},
        {"reward": ("with a hole",), "beta": (0.0, 0.1, 0.3), "steps": (40, 60, 100)},
        {"reward": REWARDS, "beta": (0.3, 1.0), "direction": ("now ‖ before", "before ‖ now")},
        {"teacher": ("demos like the language", "reward: GRPO"), "lr": (3.16228e-4, 1e-3, 3.16228e-3)},
        {"samples": (2, 4, 8, 16)},
        {"teacher": ("demos like the language",), "steps": (20, 40, 60, 100)},
        {"reward": REWARDS, "seed": THREE},
    ),
    "anchor": (
        {"beta": (0.1, 0.316228, 1.0, 3.16228, 10.0, 100.0)},
        {"beta": (0.1, 1.0, 10.0), "seed": THREE},
        {"beta": (0.1, 1.0, 10.0), "lr": (3.16228e-4, 1e-3, 3.16228e-3)},
    ),
}

# what the book shows of the controls that change the picture only; of all others the opening values
VIEWS: dict[str, Product] = {
    "inside": {"layer": ("embeddings", "layer 0", "layer 1", "layer 2")},
    "scatter": {"k": ("0 %", "1 %", "2 %", "5 %", "10 %", "20 %", "50 %")},
    "along": {"layer": ("all", "embeddings", "layer 0", "layer 1", "layer 2")},
    "valleys": {"filled": ("masked-lm", "sentiment")},
    "reward": {"over": ("step", "reward")},
}


def settings(lab: str) -> list[Settings]:
    """Every point of a lab's grid, the opening settings first, each once; of a lab without a grid those alone."""
    opening = opens_with(lab)
    found = [opening]
    for axes in GRIDS.get(lab, ()):
        for values in product(*axes.values()):
            point = {**opening, **dict(zip(axes, values, strict=True))}
            if point not in found:
                found.append(point)
    return found


def opens_with(lab: str) -> Settings:
    """A copy of the settings that a lab opens with."""
    return dict(_opening(lab))


@cache
def _opening(lab: str) -> Settings:
    from forgetlab import labs  # its widgets take a second

    return dict(labs.show(lab, driver="inline").settings())
