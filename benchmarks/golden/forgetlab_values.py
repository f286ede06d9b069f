"""forgetlab against the golden values: python benchmarks/golden/run.py benchmarks/golden/forgetlab_values.py

Chance-adjusted flips are not offered: forgetlab gives the shares of knowledge lost and gained in their place.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from table_model import table_model, words_of
from torch import Tensor, nn

from forgetlab import load, metrics
from forgetlab.importance import fisher_diagonal
from forgetlab.metrics import (  # noqa: F401
    average_accuracy,
    backward_transfer,
    entity_f1,
    expected_calibration_error,
    forgetting_measure,
    forward_transfer,
    perplexity_ratio,
)
from forgetlab.metrics.guessing import flips as flipped
from forgetlab.metrics.tally import score_of_sums
from forgetlab.sources import Examples
from forgetlab.tasks import CausalLM


def linear(weights: Any, inputs: Any, labels: Any) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """Softmax regression and its data in two batches."""
    W, x, y = torch.tensor(weights), torch.tensor(inputs), torch.tensor(labels)
    module = nn.Linear(W.shape[1], W.shape[0], bias=False)
    module.weight.data.copy_(W)
    return module, list(zip(x.split(3), y.split(3), strict=True))


def fisher_exact(weights: Any, inputs: Any) -> Tensor:
    return fisher_diagonal(*linear(weights, inputs, [0] * len(inputs)), estimator="exact")["weight"]


def fisher_sampled(weights: Any, inputs: Any, draws: int, seed: int) -> Tensor:
    given = linear(weights, inputs, [0] * len(inputs))
    return fisher_diagonal(*given, estimator="sample", draws=draws, seed=seed)["weight"]


def fisher_empirical(weights: Any, inputs: Any, labels: Any) -> Tensor:
    return fisher_diagonal(*linear(weights, inputs, labels), estimator="empirical")["weight"]


def linear_cka_biased(X: Any, Y: Any) -> float:
    return metrics.linear_cka(X, Y, unbiased=False)


def linear_cka_unbiased(X: Any, Y: Any) -> float:
    return metrics.linear_cka(X, Y)


def parameter_drift(before: Any, after: Any) -> dict[str, float]:
    moved = metrics.parameter_drift(*({k: torch.tensor(v) for k, v in side.items()} for side in (before, after)))
    return {"total": moved.total, "relative": moved.relative}


def kl_before_after(before: Any, after: Any) -> float:
    return metrics.output_shift(torch.tensor(before), torch.tensor(after))["kl"]


def kl_after_before(before: Any, after: Any) -> float:
    return kl_before_after(after, before)


def perplexity(table: Any, texts: Any, end: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        for part in table_model(table, end):
            part.save_pretrained(folder)
        task = CausalLM("texts", None, Examples("text", tuple(words_of(texts))))
        return task.score(load(folder, device="cpu"))["perplexity"]


def flips(before: Any, after: Any) -> dict[str, float]:
    found = flipped(before, after)
    return {"lost": found.lost, "gained": found.gained}


def knowledge_flips(before: Any, after: Any, options: int) -> dict[str, float]:
    found = flipped(before, after, 1 / options)
    shares = {"lost": found.net_lost.value, "gained": found.net_gained.value}
    return {name: min(max(share, 0.0), 1.0) for name, share in shares.items()}  # ours are estimates, not cut


def kept_share(before: float, after: float, guess: float) -> float | None:
    return metrics.kept(before, after, guess)


def matthews(labels: Any, predictions: Any) -> float:
    C = max(*labels, *predictions) + 1
    cells = torch.tensor(labels) * C + torch.tensor(predictions)
    return float(score_of_sums("matthews", cells.bincount(minlength=C * C).double()))
