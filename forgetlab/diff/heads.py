"""By which head each model of a pair answers a task with labels: its own, one that is lent, one that is learned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from forgetlab.diff.models.pair import BEFORE, Pair
from forgetlab.errors import ForgetlabError
from forgetlab.models.heads import Head
from forgetlab.models.model import Model
from forgetlab.models.seeds import derived, stream
from forgetlab.tasks import Task
from forgetlab.tasks.labelled import Labelled

EXAMPLES = 2000  # at most, of which a head is learned
PULL = 1.0  # λ of the pull on a learned head's weights, against a sum over the examples


def ready(pair: Pair, tasks: Sequence[Task], new: Task | None = None) -> list[str]:
    """Give every model of the pair a head for every task, and say which is whose.

    A model answers by its own: a named head, or the classifier that transformers trained, where its labels are the
    task's. One that BEFORE has is lent to each AFTER without. What neither has is learned on BEFORE, its backbone as
    it is, and lent; for the new task, where each AFTER has a head of its own, BEFORE is a guesser.
    Raises ForgetlabError for a task that no head can be had for, and for one that the model cannot do.
    """
    notes = []
    for task in tasks:
        if isinstance(task, Labelled):
            notes += _of_labelled(pair, task, task is new)
        task.prepare(pair.model)
    return notes


def _of_labelled(pair: Pair, task: Labelled, new: bool) -> list[str]:
    name, own, unfit = task.head, list[str](), dict[tuple[str, ...], list[str]]()
    for which in pair.names:
        if pair.own_head(which, name) is None and (theirs := pair.classifier(which)):
            if fitting := theirs.of_task(task.labels, task.level):
                pair.give(which, name, fitting)
                own.append(pair.given(which))
            elif which != BEFORE and pair.own_head(BEFORE, name) is None:  # else that one answers, as is said below
                unfit.setdefault(theirs.labels, []).append(pair.given(which))
    notes = [f"{task.name}: {', '.join(own)} answers by the classifier in its own folder"] if own else []
    for labels, models in unfit.items():
        notes.append(f"{task.name}: the classifier of {', '.join(models)} has the classes {', '.join(labels)}, not the "
                     "task's; it is not used")  # fmt: skip
    lacking = [pair.given(which) for which in pair.names[1:] if pair.own_head(which, name) is None]
    if pair.own_head(BEFORE, name) is not None:
        return notes + ([f"{task.name}: {', '.join(lacking)} answers by BEFORE's head"] if lacking else [])
    if new and not lacking:
        pair.give(BEFORE, name, guessing(task, pair.become(BEFORE)))
        return [*notes, f"{task.name}: BEFORE has no head for it; its score is that of one who knows only how frequent "
                "each class is"]  # fmt: skip
    pair.give(BEFORE, name, learned(task, pair.become(BEFORE)))
    told = f"{task.name}: BEFORE has no head for it; one was learned on it, its backbone as it is"
    if own_ones := [pair.given(which) for which in pair.names[1:] if pair.own_head(which, name) is not None]:
        told += f" ({', '.join(own_ones)} answers by its own)"
    return [*notes, told + (f", and lent to {', '.join(lacking)}" if lacking else "")]


def guessing(task: Labelled, model: Model) -> Head:
    """A head that knows only how frequent each class is in the training examples."""
    targets = torch.cat([batch["targets"] for batch in _batches(task, model)])
    head = _new(task, model)
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.copy_((targets.bincount(minlength=len(task.labels)) + 0.5).log())
    return head


def learned(task: Labelled, model: Model) -> Head:
    """A head learned from the training examples (2000 at most), with the backbone as it is: a linear probe.

    Multinomial logistic regression on standardised features: the least Σ cross-entropy + λ/2 ‖W‖², λ = 1, by L-BFGS.
    Convex, so that there is one answer; the seed decides only which examples.
    """
    head = _new(task, model)
    found = []
    with torch.inference_mode():
        for batch in _batches(task, model):
            hidden = model.hidden(batch)
            hidden = hidden.flatten(0, 1)[batch["places"]] if "places" in batch else hidden
            found.append((head.features(hidden, batch["attention_mask"]), batch["targets"]))
    features, targets = (torch.cat(column).clone() for column in zip(*found, strict=True))
    if not features.isfinite().all():
        raise ForgetlabError(
            f"{task.name}: the features of {model.name} are not finite numbers; no head can be learned"
        )
    weight, bias = logistic(features.double(), targets, len(task.labels))
    with torch.no_grad():
        head.linear.weight.copy_(weight)
        head.linear.bias.copy_(bias)
    return head


def logistic(features: Tensor, targets: Tensor, classes: int, pull: float = PULL) -> tuple[Tensor, Tensor]:
    """(C, d) weights and (C,) biases of a multinomial logistic regression. features: (n, d). targets: (n,) classes."""
    mean, deviation = features.mean(0), features.std(0, unbiased=False).clamp_min(1e-6)
    x = (features - mean) / deviation
    weight = x.new_zeros(classes, x.shape[1]).requires_grad_()
    bias = x.new_zeros(classes).requires_grad_()
    descent = torch.optim.LBFGS([weight, bias], max_iter=300, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        descent.zero_grad()
        loss = F.cross_entropy(x @ weight.t() + bias, targets) + pull / 2 / len(x) * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        descent.step(closure)
    scaled = weight.detach() / deviation
    return scaled, bias.detach() - scaled @ mean


def _new(task: Labelled, model: Model) -> Head:
    width = model.config.hidden_size
    seed = derived(task.head, 0)
    return Head(width, task.labels, task.level, last_token=model.causal, seed=seed).to(model.device)


def _batches(task: Labelled, model: Model) -> list[dict[str, Tensor]]:
    drawn = torch.randperm(task.size(), generator=stream("head", 0))[:EXAMPLES]
    lengths = task.encoded(model, "train").lengths[drawn]
    generator = torch.Generator().manual_seed(0)
    return [task.batch(model, index, generator) for index in drawn[lengths.argsort(stable=True)].split(64)]
