"""Gradient interference: whether two tasks pull the shared weights apart, now or along a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from forgetlab.errors import ForgetlabError, whole
from forgetlab.metrics import layer_of
from forgetlab.models.model import Model, evaluating
from forgetlab.models.seeds import stream
from forgetlab.tasks.base import Task, trainable
from forgetlab.training.method import Method, Run

__all__ = ["GradientCosine", "Interference", "Measurement", "cosine_by_chance", "gradient_cosine", "task_gradient"]

Gradients = Mapping[str, Tensor | None]

_CHUNK = 32  # examples in one pass of a mean gradient


@dataclass(frozen=True)
class Interference:
    """The cosine between two gradients, in [−1, 1]: in all and per layer. nan where one of them is zero."""

    total: float
    per_layer: dict[str, float]

    @property
    def conflict(self) -> bool:
        """Whether a step along one gradient raises, to first order, the other's loss: cosine < 0."""
        return self.total < 0


@dataclass(frozen=True)
class Measurement:
    """The cosine between the new task's gradient and that of the old `task`, after `step` finished steps."""

    step: int
    task: str
    cosine: Interference


def gradient_cosine(a: Gradients, b: Gradients) -> Interference:
    """The cosine between two gradients, such as those of `task_gradient`.

    a, b: name → gradient, the weights' shapes (None: the loss does not reach the weight).

    Only weights that both losses reach count: a head of one task alone would only lengthen its gradient.
    Returns an `Interference`, its layers named by `metrics.layer_of`; weights tied to the embeddings count as these.
    Raises ForgetlabError where the gradients share no weight or differ in shape.
    Source: cos φ = g_new·g_old / (‖g_new‖ ‖g_old‖), conflict where it is below 0 (Yu et al. 2020, definition 1).

    >>> gradient_cosine({"wte.weight": torch.tensor([1.0, 0.0])}, {"wte.weight": torch.tensor([-3.0, 4.0])}).total
    -0.6000000238418579
    """
    if not (isinstance(a, Mapping) and isinstance(b, Mapping)):
        raise ForgetlabError(
            f"gradient_cosine takes two mappings from name to gradient, such as task_gradient(model, task), got "
            f"{type(a).__name__} and {type(b).__name__}"
        )
    layers, cosines = _cosines(a, b)
    if not layers:
        raise ForgetlabError("the two gradients share no weight; expected some names with a gradient in both")
    return _as_numbers(layers, cosines)


@torch.no_grad()
def cosine_by_chance(first: Gradients, second: Gradients) -> float:
    """How far from 0 the cosine of two gradients lies by chance: its standard deviation if signs were tossed.

    first, second: name → gradient, as for `gradient_cosine`; only weights in both count.
    Each weight's product a_i b_i keeps its size and gets a random sign. Where both gradients are large in the same few
    weights this is well above the 1/√n of random directions in n dimensions; where all are equally large it is that.
    Source: the variance of Σ ± a_i b_i is Σ (a_i b_i)², so ‖a∘b‖ / (‖a‖ ‖b‖).

    >>> cosine_by_chance({"w": torch.ones(100)}, {"w": -torch.ones(100)})
    0.1
    """
    shared = [name for name, g in first.items() if g is not None and second.get(name) is not None]
    if not shared:
        raise ForgetlabError("the two gradients share no weight; expected some names with a gradient in both")
    a, b = (torch.cat([side[name].double().flatten() for name in shared]) for side in (first, second))  # type: ignore[union-attr]
    return float((a * b).norm() / (a.norm() * b.norm()))


def task_gradient(model: Model, task: Task, examples: int = 256, seed: int = 0) -> dict[str, Tensor]:
    """The gradient of a task's mean training loss (nats) in eval mode, so without dropout.

    examples: how many training examples, drawn without repeats (all, where there are fewer). seed: of that draw, of
    the masks and of the task's head, which is added where the model has none.

    Returns name → gradient, for the trainable weights that the loss reaches. Nothing else of the model changes.
    Raises ForgetlabError for a task without training data or loss, and for `examples` below 1.
    The mean is over predictions (tokens, words), as in one large batch; it is taken in passes of 32 examples.

    >>> gradient = task_gradient(model, old, examples=32)
    >>> round(gradient_cosine(gradient, gradient).total, 4)
    1.0
    """
    whole("examples", examples)
    trainable([task], "take the gradient of")
    task.prepare(model, seed)
    return _mean_gradient(model, task, examples, torch.Generator().manual_seed(seed))


class WithOld(Method):
    """What the methods below share: old tasks, and how many examples of them a gradient is taken on."""

    def __init__(self, old: Sequence[Task], batch_size: int | None = None) -> None:
        self._old = trainable(old, "take the gradient of")
        self.batch_size = None if batch_size is None else whole("batch_size", batch_size)

    def setup(self, run: Run) -> None:
        for task in self._old:
            task.prepare(run.model, run.seed)

    def check(self, run: Run) -> None:
        for task in self._old:
            with run.state(task):
                reached = _mean_gradient(run.model, task, 1, torch.Generator().manual_seed(0))
            if not reached:
                raise ForgetlabError(
                    f"{self.name} has nothing to do: every weight that {task.name} uses is frozen; leave it out"
                )


class GradientCosine(WithOld):
    """Measure along a run whether the new task's gradient opposes those of old tasks; the run itself is unchanged.

    old: tasks with training data. every: steps from one measurement to the next, the first at step 0.
    batch_size: old examples in each (None: as many as the run's batch). seed: of the method's own draws (None: they
    follow the run's).

    The new gradient is that of the loss alone, on the step's own batch (with what replay mixed in, without penalties);
    an old one is taken in eval mode and float32 on a fresh random batch. Both are noisy: average over steps.
    Costs a forward and backward pass for each old task at each measurement.
    Raises ForgetlabError where no task has training data, or where every weight that one uses is frozen.

    >>> cosines = GradientCosine([old], every=1)
    >>> [*_, last] = finetune(model, new, methods=[cosines], steps=2)
    >>> [(one.step, one.task) for one in cosines.measurements]
    [(0, 'entities'), (1, 'entities')]
    """

    name = "gradient-cosine"

    def __init__(
        self, old: Sequence[Task], every: int = 1, batch_size: int | None = None, seed: int | None = None
    ) -> None:
        super().__init__(old, batch_size)
        self.every = whole("every", every)
        self.seed = seed
        self._found: list[tuple[int, str, list[str], Tensor]] = []

    @property
    def measurements(self) -> list[Measurement]:
        """What was measured so far in the last run, in order; reading it waits for the device."""
        return [Measurement(step, task, _as_numbers(layers, found)) for step, task, layers, found in self._found]

    def setup(self, run: Run) -> None:
        super().setup(run)
        self._found = []
        # not the run's own generator, whose draws stay as they are
        own = stream(self.name, run.seed) if self.seed is None else torch.Generator().manual_seed(self.seed)
        self._generator = own

    def observe_gradients(self, run: Run) -> None:
        if run.step % self.every:
            return
        new = {name: p.grad for name, p in run.model.named_parameters()}
        for task in self._old:
            with run.state(task):
                old = _mean_gradient(run.model, task, self.batch_size or run.batch_size, self._generator)
            self._found.append((run.step, task.name, *_cosines(new, old)))


@torch.no_grad()
def _cosines(a: Gradients, b: Gradients) -> tuple[list[str], Tensor]:
    """The layers that both gradients reach, and (1 + layers,) cosines on the device, that of all layers first."""
    layers: dict[str, tuple[list[Tensor], list[Tensor]]] = {}
    for name, x in a.items():
        y = b.get(name)
        if x is None or y is None:
            continue
        if x.shape != y.shape:
            raise ForgetlabError(f"the gradients of {name!r} have the shapes {[*x.shape]} and {[*y.shape]}")
        for t, side in zip((x, y), layers.setdefault(layer_of(name), ([], [])), strict=True):
            side.append(t.to(x.device, torch.promote_types(t.dtype, torch.float32)))
    if not layers:
        return [], torch.full((1,), math.nan)
    pairs = [(flat(x), flat(y)) for x, y in layers.values()]
    products = torch.stack([torch.stack([dot_product(x, y), dot_product(x, x), dot_product(y, y)]) for x, y in pairs])
    dot, xx, yy = torch.cat([products.sum(0, keepdim=True), products]).unbind(1)
    return list(layers), (dot / (xx.sqrt() * yy.sqrt())).clamp(-1, 1)


def _as_numbers(layers: list[str], cosines: Tensor) -> Interference:
    total, *each = cosines.tolist()
    return Interference(total, dict(zip(layers, each, strict=True)))


def _mean_gradient(model: Model, task: Task, examples: int, generator: torch.Generator) -> dict[str, Tensor]:
    """As `task_gradient`, with the draws from `generator`."""
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    index = torch.randperm(task.size(), generator=generator)[:examples]
    total: dict[str, Tensor] = {}
    predictions = 0
    with evaluating(model):
        for rows in index.split(_CHUNK):
            batch = task.batch(model, rows, generator)
            count = len(batch["targets"])
            with torch.enable_grad():
                loss = task.loss(model, batch) * count  # summed, so that each prediction weighs the same
            if not loss.requires_grad:  # every weight that it goes through is frozen
                return {}
            found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            for name, g in zip(weights, found, strict=True):
                if g is not None:
                    total[name] = total[name] + g if name in total else g
            predictions += count
    return {name: g / predictions for name, g in total.items()}


def flat(tensors: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
    return torch.cat([t.flatten() for t in tensors], out=out)


def dot_product(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum()  # on the CPU `a @ b` of 20 million float32 is 0.2% off
