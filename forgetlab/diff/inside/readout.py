"""A model's features as a task reads them, and a readout fitted anew on them while the model itself stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from forgetlab.diff.heads import logistic
from forgetlab.metrics.tally import Tally
from forgetlab.models.heads import Head
from forgetlab.models.model import Model, evaluating
from forgetlab.tasks import Classification, LanguageModel, Tagging, Task
from forgetlab.tasks.language import in_pieces

TEXTS = 512  # training examples whose features are looked at
PLACES = 20_000  # and no more predictions than that
FEW, SHOTS, DRAWS = 32, 8, 3  # labelled examples of a fit, or so many of each class; how often they are drawn
AT_ONCE = 64
RIDGE = 1e-3

Readout = Callable[[Tensor], Tensor]  # (n, d) features → (n, classes) logits


def readable(task: Task) -> bool:
    """Whether a readout can be fitted anew for the task: it has labels or next words, and training examples."""
    return isinstance(task, Classification | Tagging | LanguageModel) and task.size() > 0


def states(model: Model, batch: Mapping[str, Tensor]) -> Sequence[Tensor]:
    """Hidden states (B, L, width) at every depth: of the embeddings, then after each layer."""
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask", "token_type_ids") if k in batch}
    return cast(Sequence[Tensor], model.backbone(**inputs, output_hidden_states=True).hidden_states)


def read(model: Model, task: Task, batch: Mapping[str, Tensor], hidden: Tensor) -> Tensor:
    """(predictions, features) of hidden states (B, L, width): what the task's head reads of them.

    Of a head that is not forgetlab's own, which may read the mean, the first or the last token, all three.
    """
    if "places" in batch:
        return hidden.flatten(0, 1)[batch["places"]]
    mask, head = batch["attention_mask"], cast(Head, model.heads[cast(Classification, task).head])
    if hasattr(head, "linear"):
        return head.features(hidden, mask)
    ends = mask.argmax(dim=1), (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(dim=1)
    rows, weights = torch.arange(len(mask), device=mask.device), mask.unsqueeze(-1)
    mean = (hidden * weights).sum(1) / weights.sum(1)
    return torch.cat([mean, *(hidden[rows, end] for end in ends)], dim=1).float()


def fit_batches(model: Model, task: Task) -> Iterator[dict[str, Tensor]]:
    """TEXTS training examples in batches: the same for every model, and so is what a masked text hides."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randperm(task.size(), generator=generator)[:TEXTS]
    for some in rows.split(AT_ONCE):
        yield task.batch(model, some, generator)


@dataclass(frozen=True)
class Features:
    """Features of the last layer on the CPU, with what they are of.

    x: (n, d); targets: (n,) classes or words; texts: (n,) which of the examples each belongs to.
    """

    x: Tensor
    targets: Tensor
    texts: Tensor


@torch.no_grad()
def fit_features(model: Model, task: Task) -> Features:
    """Of the training examples; of long texts no more than PLACES predictions."""
    x, targets, texts, done, n = [], [], [], 0, 0
    with evaluating(model):
        for batch in fit_batches(model, task):
            x.append(read(model, task, batch, model.hidden(batch)).float().cpu())
            targets.append(batch["targets"].cpu())
            texts.append(task.owners(batch).cpu() + done)
            done += len(batch["input_ids"])
            n += len(targets[-1])
            if n >= PLACES:
                break
    return Features(*(torch.cat(parts)[:PLACES] for parts in (x, targets, texts)))


def drawn(features: Features, task: Classification | Tagging) -> Iterator[Tensor]:
    """DRAWS times the (n,) rows of FEW examples, of texts in equal shares of each class, SHOTS at least."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(DRAWS):
        if isinstance(task, Tagging):
            texts = features.texts.unique()
            texts = texts[torch.randperm(len(texts), generator=generator)[:FEW]]
            yield torch.isin(features.texts, texts).nonzero().squeeze(1)
            continue
        each = max(SHOTS, FEW // len(task.labels))
        order = torch.randperm(len(features.targets), generator=generator)
        yield torch.cat([order[features.targets[order] == one][:each] for one in range(len(task.labels))])


@torch.no_grad()
def test_features(model: Model, task: Task, limit: int | None) -> list[Tensor]:
    """(predictions, d) features of the last layer on the CPU, of each test batch."""
    with evaluating(model):
        batches = task.test_batches(model, limit)
        return [read(model, task, batch, model.hidden(batch)).float().cpu() for batch in batches]


def read_out(x: Tensor, y: Tensor, classes: int) -> Readout:
    """A logistic regression on frozen features x (n, d) and their (n,) class numbers y, as a head is learned."""
    weight, bias = logistic(x.double(), y, classes)
    return lambda new: (new.cpu().double() @ weight.T + bias).float()


def stitch(x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
    """The affine map that takes features x (n, d) to y (n, d) of the same places with the least squares (ridge).

    Below an LM head it is a readout fitted anew, whatever the size of the vocabulary. Source: stitching (Lenc &
    Vedaldi 2015), which trains the map on the loss; this one needs no gradient.
    """
    x, y = x.double(), y.double()
    mean, scale, centre = x.mean(0), x.std(0, correction=0).clamp_min(1e-9), y.mean(0)
    z = (x - mean) / scale
    # M = (ZᵀZ + λnI)⁻¹ ZᵀY
    M = torch.linalg.solve(z.T @ z + RIDGE * len(z) * torch.eye(z.shape[1], dtype=z.dtype), z.T @ (y - centre))
    return lambda new: (((new.cpu().double() - mean) / scale) @ M + centre).float()


@torch.no_grad()
def scored_by(model: Model, task: Task, features: Sequence[Tensor], readout: Readout, limit: int | None) -> Tally:
    """What the task's score is made of where `readout` reads these features of its test batches, whoever made them."""

    def predictions() -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        for batch, x in zip(task.test_batches(model, limit), features, strict=True):
            done = 0
            for some, targets in in_pieces(model, x, batch["targets"]):
                rows = batch["rows"][done : done + len(targets)]
                done += len(targets)
                yield {"targets": targets, "rows": rows}, readout(some.to(targets.device)).to(targets.device)

    tally = task.scores_of(predictions(), len(task.sample(limit)))[1]
    assert tally is not None
    return tally


def refitted(
    model: Model, task: Task, fit: Features, test: Sequence[Tensor], before: Features, limit: int | None
) -> Tally:
    """What the score is made of under a readout fitted anew on these features. model: BEFORE, whatever made them.

    Of labels a logistic regression on FEW examples, the mean over DRAWS of them: few, so that the readout cannot learn
    the task by itself (32 tell tiny-bert from the control better than 128 or 512 do, on all its labelled tasks). Of
    words a linear map onto BEFORE's features of the same places, which its LM head reads.
    """
    if not isinstance(task, Classification | Tagging):
        onto, own = stitch(fit.x, before.x), next(model.body.parameters())
        return scored_by(model, task, test, lambda x: model.lm_logits(onto(x).to(own)).float(), limit)
    fits = [read_out(fit.x[rows], fit.targets[rows], len(task.labels)) for rows in drawn(fit, task)]
    tallies = [scored_by(model, task, test, one, limit) for one in fits]
    return Tally(tallies[0].columns, torch.stack([tally.items for tally in tallies]).mean(0))
