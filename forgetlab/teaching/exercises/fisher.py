"""Checks of lesson 04: the diagonal Fisher information of a small classifier, and the four groups of weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from forgetlab.importance import fisher_diagonal, quadrants
from forgetlab.importance.groups import KINDS
from forgetlab.teaching.exercises.checking import Verdict, diagnose


def check_fisher(function: Callable[..., Any]) -> Verdict:
    """The diagonal Fisher information with the true labels ("empirical"), of the weights of a linear classifier.

    function: (model, inputs, labels) → tensor of the shape of model.weight; model an nn.Linear whose outputs are
    logits, inputs (n, d), labels (n,).
    """

    def per_example(shape: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
        return lambda model, x, y: shape(_gradients(model, x, y))

    mistakes: dict[str, Callable[..., Any]] = {
        "The gradient is averaged over the batch and then squared: examples that pull a weight in opposite directions "
        "cancel before they are counted. Square the gradient of each example, then "
        "average.": per_example(lambda g: g.mean(0).square()),
        "The gradients are summed over the batch and then squared, so that examples cancel. Square each example's "
        "gradient first.": per_example(lambda g: g.sum(0).square()),
        "The squares are added up but not averaged: the result grows with the number of examples. Divide by "
        "n.": per_example(lambda g: g.square().sum(0)),
        "The gradients are averaged without being squared: their signs cancel, and importance comes out negative for "
        "some weights.": per_example(lambda g: g.mean(0)),
        "The same with the sign of the loss: gradients are averaged without being squared. Square each of them "
        "first.": per_example(lambda g: -g.mean(0)),
        "This averages the gradients' sizes. That is the idea of MAS; the Fisher information takes "
        "squares.": per_example(lambda g: g.abs().mean(0)),
        "Each backward pass adds to `.grad`, so the second example is squared together with the first. Clear the "
        "gradient before each example, or use torch.autograd.grad.": per_example(
            lambda g: g.cumsum(0).square().mean(0)
        ),
        "The batch's summed gradient is squared and divided by n. That needs labels drawn from the model (the "
        "estimator `gnb`); with true labels square example by example.": per_example(
            lambda g: g.sum(0).square() / len(g)
        ),
        "This is the gradient of the logit. The Fisher information wants the gradient of log p(y|x): apply log_softmax "
        "first.": lambda model, x, y: _outer(_one_hot(y, model), x).square().mean(0),
        "This goes over all labels, each weighted by p(y|x): the exact one, the next exercise. Here the true label of "
        "each example is given, and only its gradient is squared.": lambda model, x, y: fisher_diagonal(
            model, [(x, y)], estimator="exact", method="loop"
        )["weight"],
        "This is the gradient of the probability p(y|x). Take its logarithm first.": lambda model, x, y: (
            (_probability(model, x, y)[:, None, None] * _gradients(model, x, y)).square().mean(0)
        ),
    }
    praise = "One gradient an example, squared before the mean."
    return diagnose(
        function,
        [_case(seed) for seed in (0, 1)],
        lambda model, x, y: fisher_diagonal(model, [(x, y)], estimator="empirical", method="loop")["weight"],
        mistakes,
        praise,
    )


def check_expected_fisher(function: Callable[..., Any]) -> Verdict:
    """The exact diagonal Fisher information, of the weights of a linear classifier: every label, weighted by the model.

    function: (model, inputs) → tensor of the shape of model.weight; model an nn.Linear whose outputs are logits.
    """

    def over_labels(shape: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
        def wrong(model: nn.Linear, x: Tensor) -> Tensor:  # p: (n, C), g: (n, C of labels, C, d)
            labels = [torch.full((len(x),), label) for label in range(model.out_features)]
            g = torch.stack([_gradients(model, x, y) for y in labels], dim=1)
            return shape(model(x).detach().softmax(-1)[:, :, None, None], g)

        return wrong

    def likeliest(model: nn.Linear, x: Tensor) -> Tensor:
        return _gradients(model, x, model(x).argmax(-1)).square().mean(0)

    mistakes: dict[str, Callable[..., Any]] = {
        "Only the likeliest label is used. It is nearly certain, so its gradient is nearly 0; the surprising labels "
        "carry the information. Go over all labels, each weighted by p(y|x).": likeliest,
        "Every label counts alike. Weight each squared gradient by p(y|x): improbable labels are rare.": over_labels(
            lambda p, g: g.square().mean(1).mean(0)
        ),
        "The squares of all labels are added without their probabilities. Weight each by p(y|x).": over_labels(
            lambda p, g: g.square().sum(1).mean(0)
        ),
        "The gradients are averaged over the labels before they are squared. That mean is 0 for every model: "
        "square first.": over_labels(lambda p, g: torch.zeros_like(g[0, 0])),
        "The probability is inside the square, so it counts twice. The weight is p(y|x), the square is of the "
        "gradient alone.": over_labels(lambda p, g: (p * g).square().sum(1).mean(0)),
        "The weighted squares are added up over the examples: divide by n.": over_labels(
            lambda p, g: (p * g.square()).sum(1).sum(0)
        ),
        "The gradients are averaged over the examples before they are squared, so that examples cancel. Keep the "
        "examples apart until they are squared.": over_labels(lambda p, g: (p.mean(0) * g.mean(0).square()).sum(0)),
    }
    praise = "Every label, weighted by the model's own probability, squared example by example."
    return diagnose(
        function,
        [_case(seed)[:2] for seed in (0, 1)],
        lambda model, x: fisher_diagonal(
            model, [(x, torch.zeros(len(x), dtype=torch.long))], estimator="exact", method="loop"
        )["weight"],
        mistakes,
        praise,
    )


def check_quadrants(function: Callable[..., Any]) -> Verdict:
    """The group of each weight, from its importance to two tasks.

    function: (old, new, top) → list of N names out of "old-critical", "new-critical", "shared", "slack"; old and new
    (N,) tensors; critical are those above a task's own (1 − top) quantile.
    """

    def named(old: Tensor, new: Tensor) -> list[str]:
        """old, new: (N,) booleans."""
        return [KINDS[2 * a + b] for a, b in zip(old.tolist(), new.tolist(), strict=True)]

    def right(old: Tensor, new: Tensor, top: float) -> list[str]:
        return [KINDS[kind] for kind in quadrants({"w": old}, {"w": new}, top).kind.tolist()]

    def pooled(old: Tensor, new: Tensor, top: float) -> list[str]:
        cut = torch.cat([old, new]).quantile(1 - top)
        return named(old > cut, new > cut)

    mistakes: dict[str, Callable[..., Any]] = {
        "Old and new are swapped: a weight that matters to the old task only is old-critical.": lambda old, new, top: (
            right(new, old, top)
        ),
        "The cut is at the `top` quantile, so that nearly every weight is critical. The top share begins at the "
        "quantile 1 − top.": lambda old, new, top: named(old > old.quantile(top), new > new.quantile(top)),
        "One cut serves both tasks. Their Fisher values have different scales, so each task needs its own "
        "quantile.": pooled,
        "The old task's cut serves both tasks. Their Fisher values have different scales, so each task needs its own "
        "quantile.": lambda old, new, top: named(old > old.quantile(1 - top), new > old.quantile(1 - top)),
        "The cut is a share of the largest value. Importances spread over decades, so that hardly a weight passes; "
        "take a quantile.": lambda old, new, top: named(old > (1 - top) * old.max(), new > (1 - top) * new.max()),
        "The cut is the mean. A few large values pull the mean up, and `top` has no effect; take a "
        "quantile.": lambda old, new, top: named(old > old.mean(), new > new.mean()),
        "Weights above both cuts are called old-critical. They matter to both tasks: shared.": lambda old, new, top: [
            "old-critical" if name == "shared" else name for name in right(old, new, top)
        ],
        "Weights above both cuts are called new-critical. They matter to both tasks: shared.": lambda old, new, top: [
            "new-critical" if name == "shared" else name for name in right(old, new, top)
        ],
    }
    generator = torch.Generator().manual_seed(0)
    cases = []
    for count, top in ((10, 0.2), (20, 0.1), (40, 0.25)):
        z, other = torch.randn(2, count, generator=generator)
        cases.append((10**z, 0.02 * 10 ** (0.5 * z + 0.8 * other), top))
    return diagnose(function, cases, right, mistakes, "Each task has its own cut, and the two cuts make four groups.")


def _case(seed: int) -> tuple[nn.Linear, Tensor, Tensor]:
    """A linear classifier of 4 numbers into 3 classes, 6 inputs and their labels."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Linear(4, 3)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return model, torch.randn(6, 4, generator=generator), torch.randint(3, (6,), generator=generator)


def _gradients(model: nn.Linear, x: Tensor, y: Tensor) -> Tensor:
    """∂ log p(y|x) / ∂ weight of each example, (n, C, d): (onehot(y) − p) xᵀ."""
    return _outer(_one_hot(y, model) - model(x).detach().softmax(-1), x)


def _probability(model: nn.Linear, x: Tensor, y: Tensor) -> Tensor:
    return model(x).detach().softmax(-1).gather(1, y.unsqueeze(1)).squeeze(1)


def _one_hot(y: Tensor, model: nn.Linear) -> Tensor:
    return nn.functional.one_hot(y, model.out_features).float()


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return a.unsqueeze(2) * b.unsqueeze(1)
