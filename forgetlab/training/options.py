"""What a fine-tune is told: numbers checked on their own when they are given, then whether model and tasks fit them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forgetlab.errors import ForgetlabError, a_seed, flag, listed, number, whole
from forgetlab.models.loading import Precision
from forgetlab.models.model import Model
from forgetlab.models.open_runs import refuse_second
from forgetlab.tasks import OnPolicy, Task
from forgetlab.training.method import Method


@dataclass(frozen=True)
class Options:
    """The options of `finetune`, under its names. Raises ForgetlabError for those that no run can work with."""

    steps: int = 100
    lr: float = 1e-3
    batch_size: int = 32
    seed: int = 0
    every: int = 5
    precision: Precision = "float32"
    weight_decay: float = 0.0
    clip: float = 1.0
    accumulation: int = 1
    limit: int | None = 64
    compile: bool = False

    def __post_init__(self) -> None:
        number("lr", self.lr, above=True)
        number("clip", self.clip)
        for name in ("steps", "batch_size", "every", "accumulation"):
            whole(name, getattr(self, name))
        if self.limit is not None:
            whole("limit", self.limit)
        object.__setattr__(self, "seed", a_seed(self.seed))
        number("weight_decay", self.weight_decay)
        flag("compile", self.compile)
        if self.precision not in ("float32", "bfloat16", "float16"):
            raise ForgetlabError(f"precision must be float32, bfloat16 or float16, got {self.precision!r}")
        if self.batch_size % self.accumulation:
            raise ForgetlabError(f"batch_size {self.batch_size} cannot be split evenly over {self.accumulation} passes")


def check(model: Model, task: Task, methods: Sequence[Method], watch: Sequence[Task], options: Options) -> None:
    """Raise ForgetlabError for what cannot be fine-tuned, or not with these options, one by one or stacked."""
    if not isinstance(model, Model):
        raise ForgetlabError(
            f"the model must be a forgetlab Model, got {type(model).__name__}: load(folder) makes one; "
            "huggingface.ForgettingTrainer takes a transformers model as it is"
        )
    if not isinstance(task, Task):
        raise ForgetlabError(
            f'the task must be a Task, such as task("sentiment") or task_from("my.csv"), got {type(task).__name__}'
        )
    listed("methods", methods, Method, "[EWC(old, lam=10)]")
    listed("watch", watch, Task, '[task("entities")]')
    if task.size() == 0:
        raise ForgetlabError(f"the task {task.name} has no training data: it can be watched, not trained")
    if options.batch_size > task.size() and not isinstance(task, OnPolicy):  # whose answers are new each time
        raise ForgetlabError(
            f"batch_size {options.batch_size} is larger than the {task.size()} training examples of {task.name}; "
            f"use {task.size()} or less"
        )
    if len({t.name for t in (task, *watch)}) < 1 + len(watch):
        raise ForgetlabError(f"two tasks have the same name: {', '.join(t.name for t in (task, *watch))}")


def make_ready(model: Model, tasks: Sequence[Task], seed: int) -> None:
    """Give a model the heads of its tasks. Raises ForgetlabError, with none added, for an open run or a misfit."""
    refuse_second(model)
    heads = set(model.heads)
    try:
        for task in tasks:
            task.prepare(model, seed)
    except ForgetlabError:
        for name in set(model.heads) - heads:
            del model.heads[name]
        raise
