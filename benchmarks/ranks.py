"""Do the cheap importances rank the weights as the Fisher information does? `python -m benchmarks.ranks` (minutes).

Against the Fisher of 480 training texts (exact for classes, else eight labels drawn for each), over the model's own
weights: Spearman's rank correlation, the share of the top tenth that both have, and the ratio of the means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from forgetlab import load, task
from forgetlab.importance import Importance, fisher_diagonal
from forgetlab.remedies import AdamEWC
from forgetlab.training.method import Run

CASES = (
    ("tiny-bert", "acceptability", "plain"),
    ("tiny-bert", "entities", "plain"),
    ("tiny-bert", "masked-lm", "plain"),
    ("tiny-gpt", "causal-lm", "causal-lm:notices"),
)
TEXTS, TOP = 480, 0.1


def main() -> None:
    """One table, a row an importance."""
    print("| model, old task | importance | rank correlation | top tenth in common | mean / mean of the Fisher |")
    print("|---|---|---|---|---|")
    for model_name, old, new in CASES:
        for name, row in rows(model_name, old, new).items():
            print(f"| {model_name}, {old} | {name} | {row[0]:.2f} | {row[1]:.2f} | {row[2]:.2f} |", flush=True)


def rows(model_name: str, old_name: str, new: str) -> dict[str, tuple[float, float, float]]:
    """Each importance against the Fisher: (rank correlation, share of the top in common, ratio of the means)."""
    model, old = load(model_name), task(old_name)
    old.prepare(model)
    names = [name for name, _ in model.named_parameters() if not name.startswith("heads.")]

    def flat(importance: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([importance[name].flatten() for name in names])

    def fisher(seed: int, **how: Any) -> Tensor:
        return flat(fisher_diagonal(model, old, examples=TEXTS, seed=seed, **how))

    kind: dict[str, Any] = (
        {"estimator": "exact"} if old_name == "acceptability" else {"estimator": "sample", "draws": 8}
    )
    truth = fisher(0, **kind)

    def against(other: Tensor) -> tuple[float, float, float]:
        used, count = truth > 0, round(TOP * len(truth))
        both = torch.stack([ranks(one[used]) for one in (truth, other)])
        common = len({*truth.topk(count).indices.tolist()} & {*other.topk(count).indices.tolist()})
        return float(torch.corrcoef(both)[0, 1]), common / count, float(other.mean() / truth.mean())

    def adam(examples: int) -> Importance:
        return AdamEWC([old], examples=examples).importance(Run.begin(model, task(new), 1, 32, 1e-3, 0))

    found = {
        "the Fisher of other texts": against(fisher(1, **kind)),
        "empirical Fisher (true labels)": against(fisher(1, estimator="empirical")),
        **{f"Adam's B·v̂ over {n:,} texts": against(flat(adam(n))) for n in (480, 1600, 6400)},
        "size of the weight (for comparison)": against(
            flat({n: p.detach().abs() for n, p in model.named_parameters()})
        ),
    }
    return found


def ranks(values: Tensor) -> Tensor:
    """Equal values share their mean rank."""
    _, place, counts = values.unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0).double() - (counts - 1) / 2)[place]


if __name__ == "__main__":
    main()
