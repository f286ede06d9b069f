"""How important is each weight to a task: the diagonal Fisher information, by five estimators, and MAS.

With g = ∂ log p(y|x) / ∂θ, the model in eval mode and θ fixed:

    exact      mean_x Σ_y p(y|x) g_y²
    sample     mean_x g²  with y drawn from p(y|x), averaged over draws
    empirical  mean_x g²  with y the true label; it vanishes once a model fits its labels
    gnb        B · (mean gradient)² with drawn labels: the one form on batches that is unbiased
    batched    mean over batches of (mean gradient)² with true labels: the common shortcut, wrong; for comparison

Where an example asks for several predictions (tags, hidden words, next words), y is all of them together; they are
independent given x, so that the exact sum over y splits into one sum for each place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from forgetlab.errors import ForgetlabError, one_of, whole
from forgetlab.importance.averaging import How, Importance, Objective, asked_about, mean_over_examples
from forgetlab.importance.per_example import ranks
from forgetlab.importance.readers import Batch, Reader, of_batches, of_task
from forgetlab.models.model import Model, evaluating
from forgetlab.models.seeds import stream
from forgetlab.tasks import Task

Estimator = Literal["auto", "exact", "sample", "empirical", "gnb", "batched"]

FEW_CLASSES = 16
MOST_PASSES = 1000


def fisher_diagonal(
    model: nn.Module,
    task: Task | Iterable[tuple[Tensor, ...] | Mapping[str, Any]],
    *,
    estimator: Estimator = "auto",
    examples: int = 200,
    draws: int = 4,
    batch_size: int = 32,
    method: How = "auto",
    seed: int = 0,
    logits: Callable[[nn.Module, Any], Tensor] | None = None,
) -> Importance:
    """The diagonal of the Fisher information of a task, for every parameter of the model.

    model, task: a forgetlab Model and a Task; or any torch module and batches of (inputs, …, targets) with one
    prediction for each row, `logits(module, batch)` → (rows, classes) where calling the module on the inputs is
    not enough; or a transformers model and its data loader as it is, batches {"input_ids", …, "labels"} with a class
    for each row or each token (-100: none; a causal model's are those of the next tokens). A loader is read to its end:
    `itertools.islice(loader, 10)` is ten batches of it.
    estimator: see above; "auto" is exact for one prediction among up to 16 classes, else sample.
    examples: how many training examples of the task, drawn by `seed`. draws: labels drawn for each example.
    batch_size: examples at a time; apart from which labels and masks are drawn it changes "batched" only.
    method: "hooks" (per-layer, fast), "loop" (one example at a time); "auto" uses hooks for every parameter that they
    are right for, as checked against the loop on two examples, and the loop for the rest.

    Returns {parameter name: tensor of its shape}, ≥ 0, in nats per squared unit of the weight, float32.
    Raises ForgetlabError for unknown names, no data, or "exact" on a head with too many classes (it says the cost).
    Source: Kirkpatrick et al. 2017, eq. 3; van de Ven 2025 for the estimators. Differs from most public EWC code,
    which is "batched". Per example, not per prediction: longer texts weigh more.

    >>> fair = torch.nn.Linear(1, 2, bias=False)  # two classes, p = ½ each
    >>> _ = torch.nn.init.zeros_(fair.weight)
    >>> fisher_diagonal(fair, [(torch.tensor([[2.0]]), torch.tensor([0]))])["weight"]  # p (1 − p) x²
    tensor([[1.0000],
            [1.0000]])
    """
    one_of("estimator", estimator, get_args(Estimator))
    whole("draws", draws)
    reader = _reader(model, task, examples, batch_size, method, seed, logits)
    generator = stream("labels", seed)
    most = max(int(torch.bincount(reader.owners(batch), minlength=1).max()) for batch in reader.batches())

    def objectives(values: Tensor, batch: Batch) -> Iterator[Objective]:
        kind = _resolve(estimator, values.shape[1], most)
        return _log_likelihoods(kind, values, reader, batch, draws, generator)

    with ready(reader.module):
        if estimator in ("gnb", "batched"):
            return _from_batches(reader, estimator, draws, generator)
        return mean_over_examples(reader, objectives, 2, method)  # g²


def mas_importance(
    model: nn.Module,
    task: Task | Iterable[tuple[Tensor, ...] | Mapping[str, Any]],
    *,
    examples: int = 200,
    batch_size: int = 32,
    method: How = "auto",
    seed: int = 0,
    logits: Callable[[nn.Module, Any], Tensor] | None = None,
) -> Importance:
    """How sensitive the outputs are to each weight: mean_x |∂‖f(x)‖² / ∂θ|, absolute value for each example.

    f(x) are the logits (of every place of the text, squared and summed); no labels are used. Arguments, result and
    errors as in `fisher_diagonal`. Source: Aljundi et al. 2018, eq. 3. Differs from code that takes the absolute
    value of a batch's gradient, where examples cancel.

    >>> line = torch.nn.Linear(1, 1, bias=False)  # f = w x
    >>> _ = torch.nn.init.constant_(line.weight, 3.0)
    >>> mas_importance(line, [(torch.tensor([[2.0]]), torch.tensor([0]))])["weight"].item()  # |2 w x²|
    24.0
    """
    reader = _reader(model, task, examples, batch_size, method, seed, logits)

    def objectives(values: Tensor, batch: Batch) -> Iterator[Objective]:
        yield lambda some, _: some.square().sum(-1)

    with ready(reader.module):
        return mean_over_examples(reader, objectives, 1, method)  # |g|


def _reader(model: nn.Module, task: Any, examples: int, batch_size: int, method: str, seed: int, logits: Any) -> Reader:
    one_of("method", method, get_args(How))
    whole("examples", examples)
    whole("batch_size", batch_size)
    if isinstance(task, Task):
        if not isinstance(model, Model):
            raise ForgetlabError("a task needs a model of forgetlab.load; for another module give batches instead")
        return of_task(model, task, examples, batch_size, seed)
    return of_batches(model, task, logits)


def _resolve(estimator: Estimator, classes: int, most: int) -> Estimator:
    """most: the largest number of predictions in an example, over all batches, so that all are treated alike."""
    if estimator == "auto":
        return "exact" if classes <= FEW_CLASSES and most == 1 else "sample"
    if estimator == "exact" and most * classes > MOST_PASSES:
        raise ForgetlabError(
            f"the exact Fisher of a head with {classes:,} classes and up to {most} predictions in an example "
            f"would take {most * classes:,} backward passes for each batch; use estimator='sample' (one for each "
            "draw) or 'gnb'"
        )
    return estimator


def _log_likelihoods(
    estimator: Estimator, logits: Tensor, reader: Reader, batch: Batch, draws: int, generator: torch.Generator
) -> Iterator[Objective]:
    """Objectives w · log p(y): the sum of their squared gradients is the estimate for each example."""
    logits = logits.detach()
    ones = torch.ones(len(logits), device=logits.device)

    def weighted(w: Tensor, y: Tensor) -> Objective:
        return lambda some, which: w[which] * some.log_softmax(-1).gather(1, y[which].unsqueeze(1)).squeeze(1)

    if estimator == "empirical":
        yield weighted(ones, reader.targets(batch))
    elif estimator == "exact":  # (√p g)² = p g²
        root, (rank, most) = logits.softmax(-1).sqrt(), ranks(reader.owners(batch))
        for place in range(most):
            for label in range(logits.shape[1]):
                yield weighted(root[:, label] * (rank == place), torch.full_like(rank, label))
    else:
        for _ in range(draws):  # drawn on the CPU: the same labels on every device
            y = torch.multinomial(logits.softmax(-1).cpu(), 1, generator=generator).squeeze(1).to(logits.device)
            yield weighted(ones / draws**0.5, y)


def _from_batches(reader: Reader, estimator: Estimator, draws: int, generator: torch.Generator) -> Importance:
    """Squares of whole batches' gradients: Σ_x g for drawn labels (gnb), or the mean gradient for true ones."""
    named = asked_about(reader.module)
    sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in named.items()}
    count, batches = 0, 0
    for batch in reader.batches():
        logits = reader.logits(batch)
        rows, places = reader.rows(batch), torch.arange(len(logits), device=logits.device)
        kind: Estimator = "sample" if estimator == "gnb" else "empirical"
        asked = list(_log_likelihoods(kind, logits, reader, batch, draws, generator))
        for i, objective in enumerate(asked):
            total = objective(logits, places).sum() / (1 if estimator == "gnb" else rows)
            keep = i + 1 < len(asked)
            grads = torch.autograd.grad(total, list(named.values()), retain_graph=keep, allow_unused=True)
            for name, grad in zip(named, grads, strict=True):
                if grad is not None:
                    sums[name] += grad.float().square()  # gnb: E (Σ_x g_x)² = Σ_x E g_x², as each E g_x = 0
        count, batches = count + rows, batches + 1
    return {name: value / (count if estimator == "gnb" else batches) for name, value in sums.items()}


@contextmanager
def ready(module: nn.Module) -> Iterator[None]:
    """Eval mode and every parameter differentiable that does not lie still; as before afterwards."""
    required = {p: p.requires_grad for p in module.parameters()}
    with evaluating(module), torch.enable_grad():
        for p in required.keys() - getattr(module, "still", set()):
            p.requires_grad_(True)
        try:
            yield
        finally:
            for p, flag in required.items():
                p.requires_grad_(flag)
