"""A frozen model, and the base of the remedies that add weights to one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch
from torch import nn

from forgetlab.errors import ForgetlabError, unknown
from forgetlab.models.addition import Addition
from forgetlab.models.model import Model
from forgetlab.tasks import Task
from forgetlab.training.method import Group, Method, Run

ALL = "*"  # in place of a task's name: the addition that every task goes through


class Frozen(Method):
    """Train the new head only: the backbone and every old head stay bit-identical, so nothing is forgotten.

    What the frozen features do not carry cannot be learned.

    >>> [*_, last] = finetune(model, new, methods=[Frozen()], steps=2)
    >>> last.drift
    0.0
    """

    name = "frozen"
    family = "structure"

    def parameter_groups(self, groups: list[Group], run: Run) -> list[Group]:
        kept, old = [], self._frozen(run)
        for group in groups:
            pairs = [(n, p) for n, p in zip(group["names"], group["params"], strict=True) if p not in old]
            if pairs:
                kept.append({**group, "names": [n for n, _ in pairs], "params": [p for _, p in pairs]})
        return kept

    def _frozen(self, run: Run) -> set[nn.Parameter]:
        added = {p for part in run.model.children() if isinstance(part, Addition) for p in part.weights()}
        # LoRA of an earlier run has renamed weights of the body, which are then not among run.weights
        return set(run.weights.values()) | set(run.model.body.parameters()) - added - run.new


class Additive(Frozen):
    """A frozen model with an `Addition` for each task, or one for all of them (`shared`).

    Additions are children of the model called NAME:TASK, so that a later run finds those of earlier ones: it leaves
    them as they are, and each task is trained and scored with its own and no other's. `model.restore()` removes them.
    After a run the one that was trained is on.
    """

    adds_weights = True

    shared = False
    _model: Model | None = None

    def make(self, run: Run, key: str) -> Addition:
        """The addition that `key` names, with the model as it was; its `attach` changes the structure."""
        raise NotImplementedError

    def setup(self, run: Run) -> None:
        model, key = run.model, ALL if self.shared else _key(run.task.name)
        present = self._additions(model)
        if key in present and present[key].made_by != repr(self):
            raise ForgetlabError(
                f"the model already has {present[key].made_by} for {'all tasks' if key == ALL else run.task.name}, "
                f"got {self!r}: give the same settings, or call model.restore() first"
            )
        for old in present.values():
            for p in old.weights():
                p.requires_grad_(False)  # the loop gives it back after the run
        if key not in present:
            added = self.make(run, key)
            added.made_by = repr(self)
            model.on_restore(partial(remove, self.name, key))  # not a method: self holds the model
            model.add_module(f"{self.name}:{key}", added)
            added.attach(model)
            present[key] = added
        for p in present[key].weights():
            p.requires_grad_(True)
        for name, addition in present.items():
            addition.switch(name in (key, ALL))
        self._model = model

    def _frozen(self, run: Run) -> set[nn.Parameter]:
        # an addition that goes on learning may be among the weights from before
        own = self._additions(run.model)[ALL if self.shared else _key(run.task.name)]
        return super()._frozen(run) - set(own.weights())

    def for_task(self, task: Task, run: Run) -> AbstractContextManager[None]:
        return self._using(run.model, {_key(task.name), ALL})

    def off(self) -> AbstractContextManager[None]:
        """A context in which the last run's model is the one without any of these. Raises if there was no run."""
        return self._using(self._trained(), set())

    def on(self, task: str) -> AbstractContextManager[None]:
        """A context in which the model is the one trained for the task of that name. Raises for an unknown name."""
        present = self._additions(self._trained())
        if not {_key(task), ALL} & present.keys():
            raise unknown(f"task with {self.name}", task, present)
        return self._using(self._trained(), {_key(task), ALL})

    def costs(self, run: Run) -> dict[str, float]:
        """The weights added for all tasks so far, the heads left out; "bytes" is their size, without Adam's moments."""
        weights = [p for addition in self._additions(run.model).values() for p in addition.weights()]
        return {
            "added_parameters": float(sum(p.numel() for p in weights)),
            "bytes": float(sum(p.numel() * p.element_size() for p in weights)),
        }

    def _trained(self) -> Model:
        if self._model is None:
            raise ForgetlabError(f"{self!r} has not been part of a run yet: there is nothing to switch")
        return self._model

    def _additions(self, model: Model) -> dict[str, Addition]:
        return _additions(self.name, model)

    @contextmanager
    def _using(self, model: Model, keys: set[str]) -> Iterator[None]:
        present = self._additions(model)
        before = {key: addition.on for key, addition in present.items()}
        for key, addition in present.items():
            addition.switch(key in keys)
        try:
            yield
        finally:
            for key, addition in present.items():
                addition.switch(before[key])


def _additions(name: str, model: Model) -> dict[str, Addition]:
    start = f"{name}:"
    named = model.named_children()
    return {n.removeprefix(start): m for n, m in named if n.startswith(start) and isinstance(m, Addition)}


def remove(name: str, key: str, model: Model) -> None:
    """Take an addition of the remedy called `name` out of a model, if it is there."""
    if addition := _additions(name, model).get(key):
        addition.remove()
        delattr(model, f"{name}:{key}")


def blocks(model: Model) -> list[nn.Module]:
    """The backbone's transformer blocks, from the first to the last. Raises ForgetlabError where they are not found."""
    count = getattr(model.config, "num_hidden_layers", None)
    for module in model.backbone.modules():  # outer lists come before what is in them
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return list(module)
    raise ForgetlabError(
        f"{model.name}: {type(model.backbone).__name__} has no list of {count} transformer blocks; LoRA needs none"
    )


def linear(inputs: int, outputs: int, generator: torch.Generator, *, zero: bool = False) -> nn.Linear:
    """A linear layer on the CPU: weights of variance 1 / inputs drawn from the generator, or 0; bias 0."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)  # torch's global generator is not ours
    if zero:
        nn.init.zeros_(layer.weight)
    else:
        nn.init.normal_(layer.weight, std=inputs**-0.5, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def _key(task: str) -> str:
    return task.replace(".", "%2E")  # a module's name may not hold a dot
