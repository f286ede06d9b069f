"""Tasks learned one after the other: R[i, j], the score on task j after learning task i, fills row by row."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from forgetlab.errors import ForgetlabError
from forgetlab.importance import fisher_diagonal
from forgetlab.models.model import Model
from forgetlab.models.open_runs import under_way
from forgetlab.remedies.by_name import make_methods
from forgetlab.remedies.regularizers import OnlineEWC
from forgetlab.remedies.replay import ExperienceReplay
from forgetlab.tasks import Classification, Tagging, Task
from forgetlab.training.loop import finetune
from forgetlab.training.method import Method
from forgetlab.training.record import Record, main_score

# The methods of a stage, from the model and the tasks learned so far; asked before each stage, the first with none.
Remedy = Callable[[Model, Sequence[Task]], Sequence[Method]]


@dataclass(frozen=True)
class SequenceRecord:
    """The state of a sequence at one evaluation.

    stage: the task that is trained, 0 to T − 1. step: finished steps since the start of the sequence.
    scores: (T,) main score of every task now. R: the finished rows, (stage or stage + 1, T).
    baseline: (T,) scores before the first step. record: that of the stage's own run; a status "diverged" ends all.
    """

    stage: int
    step: int
    scores: list[float]
    R: list[list[float]]
    baseline: list[float]
    record: Record


def run_sequence(
    model: Model, tasks: Sequence[Task], remedy: Remedy | None = None, *, steps: int = 40, seed: int = 0, **options: Any
) -> Generator[SequenceRecord, None, None]:
    """Fine-tune a model on tasks in turn; the weights and heads that it had are back at the end.

    tasks: two or more, each with training data and a score of which more is better. remedy: the methods of each stage.
    steps: of each task. seed: of every stage and of the heads, which are all new. options: those of `finetune`.

    At each stage the anchor of the methods is its start; heads of tasks to come count as new (no pull on them), and
    begin from the same values at every stage. Yields a SequenceRecord at each evaluation, the one before each later
    stage left out: it is the last one of the stage before. Raises ForgetlabError for tasks that do not fit, and for
    methods that add weights.

    >>> stages = run_sequence(model, [new, old], steps=2, every=2, limit=8)
    >>> [(record.stage, record.step) for record in stages]
    [(0, 0), (0, 2), (1, 4)]
    """
    _check(tasks)
    return under_way(_sequence(model, list(tasks), remedy, steps, {"seed": seed, **options}), model)


def _sequence(
    model: Model, tasks: list[Task], remedy: Remedy | None, steps: int, options: dict[str, Any]
) -> Generator[SequenceRecord, None, None]:
    R: list[list[float]] = []
    baseline: list[float] = []
    with _put_back(model):
        for stage, task in enumerate(tasks):
            seen, others = tasks[:stage], [other for other in tasks if other is not task]
            _new_heads(model, tasks, seen, options["seed"])
            methods, names = remedy(model, seen) if remedy else [], model.state_dict().keys()
            with closing(finetune(model, task, methods=methods, watch=others, steps=steps, **options)) as records:
                for record in records:
                    if added := model.state_dict().keys() - names:
                        raise ForgetlabError(
                            f"a sequence cannot carry added weights ({min(added)}): use another method"
                        )
                    scores = [main_score(record.scores, one) for one in tasks]
                    baseline = baseline or scores
                    if record.status in ("done", "stopped"):
                        R = [*R, scores]
                    if stage == 0 or record.step > 0 or record.status != "running":
                        yield SequenceRecord(stage, stage * steps + record.step, scores, R, baseline, record)
            if record.status == "diverged":
                return


def run_joint(
    model: Model, tasks: Sequence[Task], *, steps: int = 40, seed: int = 0, **options: Any
) -> Generator[Record, None, None]:
    """Learn all the tasks at once, mixed: the upper bound of a sequence of as many examples of each and as many steps.

    Arguments and errors as in `run_sequence`; it takes len(tasks) · steps steps. Yields the records of `finetune`.

    >>> joint = run_joint(model, [new, old], steps=2, every=2, limit=8)
    >>> [record.step for record in joint]
    [0, 2, 4]
    """
    _check(tasks)
    return under_way(_joint(model, list(tasks), steps, {"seed": seed, **options}), model)


def _joint(model: Model, tasks: list[Task], steps: int, options: dict[str, Any]) -> Generator[Record, None, None]:
    first, *rest = tasks
    mixed = ExperienceReplay(rest, ratio=len(rest) / len(tasks), memory=max(task.size() for task in rest))
    with _put_back(model):
        _new_heads(model, tasks, (), options["seed"])
        yield from finetune(model, first, methods=[mixed], watch=rest, steps=len(tasks) * steps, **options)


def from_seen(methods: str) -> Remedy:
    """Methods made anew at each stage from the tasks learned so far; they may use those tasks' data.

    methods: as in a recipe, such as "replay:ratio=0.5". Raises ForgetlabError for a wrong name or value.
    """
    make_methods(methods, None)
    return lambda model, seen: make_methods(methods, seen) if seen else []


def consolidated(lam: float, gamma: float = 1.0, examples: int = 200, seed: int = 0) -> Remedy:
    """EWC for a sequence: each task's Fisher is measured once, on its data when it was learned; they add up.

    lam: λ. gamma: γ of online EWC, F ← γ F + F_t; 1 is the plain sum. examples: for each Fisher, drawn by `seed`: give
    that of the sequence. The one anchor is the start of the stage (Huszár 2018), where Kirkpatrick et al. keep one for
    each task.
    """
    made: list[OnlineEWC] = []

    def methods(model: Model, seen: Sequence[Task]) -> Sequence[Method]:
        if not seen:  # a new sequence
            made.clear()
        elif fisher := fisher_diagonal(model, seen[-1], examples=examples, seed=seed):
            made[0].consolidate(fisher) if made else made.append(OnlineEWC(fisher, lam, gamma))
        return made

    return methods


def _check(tasks: Sequence[Task]) -> None:
    if len(tasks) < 2:
        raise ForgetlabError(f"a sequence needs two tasks or more, got {len(tasks)}")
    for task in tasks:
        if not task.size() or not task.has_loss:
            raise ForgetlabError(f"the task {task.name} has no training data: it cannot be part of a sequence")
        if not task.higher_is_better:
            raise ForgetlabError(f"{task.name} is scored by {task.metric}, of which less is better: R needs accuracies")


def _new_heads(model: Model, tasks: Sequence[Task], seen: Sequence[Task], seed: int) -> None:
    """Make the heads of tasks still to be learned anew; what the model remembers, the anchor's names, has them not."""
    learned = {task.head for task in seen if isinstance(task, Classification | Tagging)}
    for task in tasks:
        if isinstance(task, Classification | Tagging) and task.head not in learned and task.head in model.heads:
            del model.heads[task.head]
    model.remember()
    for task in tasks:
        task.prepare(model, seed + 1)  # the shipped models' heads began from seed 0: from there they know the task


@contextmanager
def _put_back(model: Model) -> Iterator[None]:
    model.restore()
    weights, heads = model.snapshot(), dict(model.heads.items())
    try:
        yield
    finally:
        model.heads.clear()
        model.heads.update(heads)
        model.restore(weights)
        model.remember()
