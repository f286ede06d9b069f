"""The protocol of a remedy: a few hooks around a training step, all of which do nothing by default.

Methods compose in a list; the loop in `loop.py` calls each hook of each method in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from forgetlab.errors import ForgetlabError
from forgetlab.models.model import Model
from forgetlab.tasks import Task
from forgetlab.training.compiling import as_written
from forgetlab.training.record import Record

Group = dict[str, Any]
Family = Literal[
    "none", "weights held", "outputs held", "replay", "structure", "gradients", "rates and stopping"
]  # in the order of their colours


@dataclass(frozen=True)
class Setting:
    """The setting that says how strong a remedy is, and its ends; its usual value is the constructor's default.

    usual: where that default is None, as it depends on the model.
    """

    name: str
    low: float = 0
    high: float = math.inf
    usual: float | None = None


@dataclass(frozen=True)
class Part:
    """A share of a batch: `count` examples of a task, drawn from the rows of `pool` (None: all training rows).

    weight: what its loss counts for, beside its share of the examples.
    """

    task: Task
    count: int
    pool: Tensor | None = None
    weight: float = 1.0


@dataclass
class Run:
    """What a method may see of a run.

    anchor: name → copy of each weight before the fine-tune, without new heads and what lies still (θ* in the formulas);
    to be read only, as it may be the very tensor that `restore` brings back.
    weights: name → the parameter itself, for the same names; it stays the same object when modules move.
    batch_size: examples per step. generator: the run's source of randomness, on the CPU. step: finished steps.
    groups: the optimizer's, once it is made. autocast: the precision that losses are computed in.
    methods: the remedies, in their order. watch: the tasks that are scored along with the new one. new: weights of the
    body that were not there before. notes: what to know of the run, said in its next record. seed: the run's; what a
    method draws apart from `generator` begins from it too (`seeds.stream`), or runs of several seeds would share it.
    """

    model: Model
    task: Task
    steps: int
    batch_size: int
    lr: float
    anchor: Mapping[str, Tensor]
    weights: dict[str, nn.Parameter]
    generator: torch.Generator
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    methods: Sequence[Method] = ()
    groups: list[Group] = field(default_factory=list)
    step: int = 0
    watch: Sequence[Task] = ()
    new: frozenset[nn.Parameter] = frozenset()
    notes: list[str] = field(default_factory=list)
    seed: int = 0
    _orders: dict[str, Tensor] = field(default_factory=dict)  # rows still to come, in their order

    @classmethod
    def begin(cls, model: Model, task: Task, steps: int, batch_size: int, lr: float, seed: int, **more: Any) -> Run:
        """A run from the weights of this moment, all draws from `seed`; more: the fields that have defaults."""
        anchor, generator = model.anchor(), torch.Generator().manual_seed(seed)
        weights = {name: p for name, p in model.named_parameters() if name in anchor}
        return cls(model, task, steps, batch_size, lr, anchor, weights, generator, seed=seed, **more)

    def finish_gradients(self) -> None:
        """Once per optimizer step, with the gradient of the loss in place and before clipping: each hook in turn."""
        for method in self.methods:
            method.observe_gradients(self)
        for method in self.methods:
            method.add_penalty_gradient(self)
        for method in self.methods:
            method.adjust_gradients(self)

    def parts(self, count: int) -> list[Part]:
        """The parts of a batch with `count` examples of the new task, those that the methods add among them."""
        parts = [Part(self.task, count)]
        for method in self.methods:
            parts = method.augment(parts, self)
        return parts

    def batch_penalties(self, task: Task, batch: Mapping[str, Tensor]) -> list[Tensor]:
        """The terms that the methods add to the mean loss of a batch."""
        found = [method.batch_penalty(task, batch, self) for method in self.methods]
        return [term for term in found if term is not None]

    def trained(self) -> list[nn.Parameter]:
        """Every weight that the optimizer moves, new ones included, in its order; those switched off left out."""
        return [p for group in self.groups for p in group["params"] if p.requires_grad]

    @contextmanager
    def state(self, task: Task) -> Iterator[None]:
        """The state of the model that all methods together give a task (`Method.for_task`)."""
        with ExitStack() as stack:
            for method in self.methods:
                stack.enter_context(method.for_task(task, self))
            yield

    def gradient(self, part: Part) -> list[Tensor]:
        """The gradient of the mean loss on a fresh batch of `part`, one tensor for each of `trained()`."""
        batch, weights = self.batch(part), self.trained()
        with self.autocast(), self.state(part.task):
            loss = part.task.loss(self.model, batch)
        if not loss.requires_grad:  # all that the task uses is switched off just now
            return [torch.zeros_like(p) for p in weights]
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(weights, found, strict=True)]

    def batch(self, part: Part) -> dict[str, Tensor]:
        """A training batch for a part: rows in a fresh random order, each once before any comes again."""
        task, pool = part.task, part.pool
        # by what the rows are, not by their object: a method may make its pools anew, and a saved run has other ones
        rows = task.size() if pool is None else blake2b(pool.numpy().tobytes(), digest_size=8).hexdigest()
        key = f"{task.name}/{rows}"
        left = self._orders.get(key, torch.zeros(0, dtype=torch.long))
        while len(left) < part.count:
            fresh = torch.arange(task.size()) if pool is None else pool
            left = torch.cat([left, fresh[torch.randperm(len(fresh), generator=self.generator)]])
        index, self._orders[key] = left[: part.count], left[part.count :]
        compiled = self.model.backbone._compiled_call_impl is not None
        # a task with a reward lets the model write: in the state that it trains in, at lengths not worth compiling for
        with self.autocast(), self.state(task), as_written() if compiled else nullcontext():
            return task.batch(self.model, index, self.generator)


class Method:
    """A remedy. Override the hooks it needs; `name` is what reports and curves call it.

    In the order of a run: setup, parameter_groups, check; then at each step before_step, augment, batch_penalty,
    observe_gradients, add_penalty_gradient, adjust_gradients, after_step; at each record penalty and should_stop.
    family: what kind of remedy it is. main: the setting whose multiples are its strengths (None: it has no strength).
    saved: names of the attributes that change along a run, which a checkpoint must hold (see `huggingface`): numbers,
    words, tensors, or lists and dicts of them. What setup makes anew from the same start need not be among them.

    >>> class Enough(Method):
    ...     name = "enough"
    ...     def should_stop(self, run, record):
    ...         return "seen enough" if record.step >= 2 else ""
    >>> [*_, last] = finetune(model, new, methods=[Enough()], every=1)
    >>> last.step, last.message
    (2, 'seen enough')
    """

    name = "none"
    family: ClassVar[Family] = "none"
    main: ClassVar[Setting | None] = None
    saved: ClassVar[tuple[str, ...]] = ()
    adds_weights: ClassVar[bool] = False  # parts of its own beside the model's
    spread: ClassVar[bool] = False  # works where FSDP has spread the weights over several processes

    def setup(self, run: Run) -> None:
        """Before the first step, with the model still as it was; what changes its structure does so here."""

    def parameter_groups(self, groups: list[Group], run: Run) -> list[Group]:
        """The optimizer's groups ("params", "lr", "names"); what is in none of them is frozen for the run."""
        return groups

    def check(self, run: Run) -> None:
        """Raise ForgetlabError where the methods of a run contradict each other; what is trained is known by now."""

    def before_step(self, run: Run) -> None:
        """Before a step; each group's "lr" holds its base rate anew, to be scaled here."""

    def augment(self, parts: list[Part], run: Run) -> list[Part]:
        """The parts of the next batch; the loss is their mean, weighted by count."""
        return parts

    def batch_penalty(self, task: Task, batch: Mapping[str, Tensor], run: Run) -> Tensor | None:
        """A term that depends on the batch, added to its mean loss, or None."""
        return None

    def observe_gradients(self, run: Run) -> None:
        """The gradient of the loss is in place, that of no penalty yet."""

    def penalty(self, run: Run) -> Tensor | None:
        """The term added to the loss, a scalar that can be differentiated, or None."""
        return None

    def add_penalty_gradient(self, run: Run) -> None:
        """Add the penalty's gradient to each `grad`, once per optimizer step; override it where autograd is slow."""
        value = self.penalty(run)
        if value is not None:
            value.backward()

    def adjust_gradients(self, run: Run) -> None:
        """After every gradient is in place, before clipping."""

    def after_step(self, run: Run) -> None:
        """After the optimizer's step."""

    def should_stop(self, record: Record, run: Run) -> str | None:
        """A reason in words to end the run here, or None; it may put other weights back first.

        Asked at every record: the one before the first step, and one of status "done" or "diverged" too.
        """
        return None

    def for_task(self, task: Task, run: Run) -> AbstractContextManager[Any]:
        """The state of the model in which a task is trained and scored, such as without another task's adapters."""
        return nullcontext()

    def costs(self, run: Run) -> dict[str, float]:
        """What it costs: "bytes" of memory that it needs beyond plain fine-tuning, "added_parameters".

        Asked after the setup. Counted as if the method were alone: tensors that it shares with the run are its own too.
        """
        return {}

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not k.startswith("_") and k != "name")
        return f"{type(self).__name__}({shown})"


def by_name(methods: Sequence[Method]) -> dict[str, Method]:
    """The methods by what records call them: a second one of a name is "ewc 2"."""
    named: dict[str, Method] = {}
    for method in methods:
        again = 1 + sum(other.name == method.name for other in named.values())
        named[method.name if again == 1 else f"{method.name} {again}"] = method
    return named


def grouped(methods: Sequence[Method], groups: list[Group], run: Run) -> list[Group]:
    """The optimizer's groups as the methods want them; what is in none of them needs no gradient from here on.

    Raises ForgetlabError where nothing is left to train.
    """
    for method in methods:
        groups = method.parameter_groups(groups, run)
    trained = {p for group in groups for p in group["params"]}
    if not trained:
        raise ForgetlabError("the methods leave nothing to train: every weight is frozen")
    for p in run.model.parameters():
        p.requires_grad_(p in trained)
    return groups
