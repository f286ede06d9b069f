"""Where two models differ: how far each kind of matrix moved in each layer, what became of features and outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from forgetlab import metrics
from forgetlab.diff.inside.readout import fit_batches, read, readable, states
from forgetlab.diff.models.pair import Pair
from forgetlab.metrics.arrays import rounded
from forgetlab.metrics.drift import KINDS, height, kind_of, layer_of
from forgetlab.models.model import Model, evaluating
from forgetlab.tasks import Classification, Tagging, Task
from forgetlab.tasks.encoding import asked, inner_tokens

TOKENS = 400  # of each task, whose hidden states are compared, and predictions that a probe is tried on
SHOTS = 20  # predictions of each class that a probe is fitted on
LOGITS = 2**24  # of BEFORE that are held at once
HIDDEN = 7  # one token of so many is hidden from a masked model, whose outputs are compared there
PIECE = 2**22  # weights that are compared at once

Numbers = list[float | None]
Look = dict[str, dict[str, Any]]  # of each task what `_look` gives


class Probes(TypedDict):
    """Accuracy by depth of k-shot probes: fitted and tried on BEFORE, fitted there and tried on AFTER, fitted anew."""

    before: Numbers
    frozen: Numbers
    refitted: Numbers
    shots: int


class WhereFound(TypedDict):
    """What `where` gives: plain values, None for what is not there or no number.

    layers, kinds: of the rows and columns of `moved` (‖θ − θ₀‖₂, in the unit of the weights) and `relative` (to ‖θ₀‖₂).
    depths: of the lists in `cka` and `probes`, each by task. shift: mean KL(before ‖ after) and entropies in nats.
    """

    layers: list[str]
    kinds: list[str]
    moved: list[Numbers]
    relative: list[Numbers]
    depths: list[str]
    cka: dict[str, Numbers]
    shift: dict[str, dict[str, float | None]]
    probes: dict[str, Probes]
    notes: list[str]


def where(pair: Pair, after: str, tasks: Sequence[Task], limit: int | None = None) -> WhereFound:
    """Where AFTER differs from BEFORE: by layer and kind of matrix, in the features and in the outputs.

    tasks: whose texts (and labels, if they have any) are looked at. limit: test items of each, None for all; of these
    some TOKENS tokens are compared. One model is in memory at a time; of BEFORE the hidden states of those are kept.
    CKA is the unbiased one (Kornblith et al. 2019). A frozen probe is fitted on BEFORE's features and tried on
    AFTER's: it falls where features only turned, which one fitted anew shows (Davari et al. 2022).
    """
    notes: list[str] = []
    before = _look(pair.become("before"), tasks, limit, notes)
    now = _look(pair.become(after), tasks, limit, [])
    layers, kinds, moved, relative = _drift(pair, after)
    count = max((len(one["hidden"]) for one in now.values()), default=0)
    found: WhereFound = {
        "layers": layers,
        "kinds": kinds,
        "moved": moved,
        "relative": relative,
        "depths": ["embeddings", *(f"layer {i}" for i in range(count - 1))],
        "cka": {},
        "shift": {},
        "probes": {},
        "notes": notes,
    }
    for name, old in before.items():
        new = now[name]
        pairs = zip(old["hidden"], new["hidden"], strict=True)
        found["cka"][name] = [rounded(metrics.linear_cka(x, y), 6) for x, y in pairs]
        if "logits" in old:
            shift = metrics.output_shift(old["logits"], new["logits"])
            found["shift"][name] = {key: rounded(value, 6) for key, value in shift.items()}
        if "fit" in old:
            found["probes"][name] = _probes(old, new)
    return found


def _drift(pair: Pair, after: str) -> tuple[list[str], list[str], list[Numbers], list[Numbers]]:
    """Layers, kinds, and by both ‖θ − θ₀‖₂ and its share of ‖θ₀‖₂; a tensor of each model at a time."""
    squares: dict[tuple[str, str], list[float]] = {}
    for name, old, new in _both(pair, after):
        sums = squares.setdefault((layer_of(name), kind_of(name)), [0.0, 0.0])
        for b, a in zip(old.flatten().split(PIECE), new.flatten().split(PIECE), strict=True):
            sums[0] += float((a.double() - b.double()).square().sum())
            sums[1] += float(b.double().square().sum())
    layers = sorted({layer for layer, _ in squares}, key=height)
    kinds = [kind for kind in KINDS if any(kind == other for _, other in squares)]
    cells = [[squares.get((layer, kind)) for kind in kinds] for layer in layers]
    moved = [[None if s is None else rounded(math.sqrt(s[0]), 6) for s in row] for row in cells]
    relative = [[None if s is None or not s[1] else rounded(math.sqrt(s[0] / s[1]), 6) for s in row] for row in cells]
    return layers, kinds, moved, relative


def _both(pair: Pair, after: str) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(name, before, after) of each weight that both have; the named heads, which may be others, at the end."""
    heads: tuple[dict[str, Tensor], dict[str, Tensor]] = {}, {}
    for sides in zip_longest(pair.weights("before"), pair.weights(after)):
        own = [side for side, kept in zip(sides, heads, strict=True) if not _is_head(side, kept)]
        if own:
            (name, old), (_, new) = own
            yield name, old, new
    for name, old in heads[0].items():
        if (new := heads[1].get(name, old)).shape == old.shape:
            yield name, old, new


def _is_head(side: tuple[str, Tensor] | None, kept: dict[str, Tensor]) -> bool:
    """Whether a weight is none or that of a named head, which is kept."""
    if side is not None and side[0].startswith("heads."):
        kept[side[0]] = side[1]
    return side is None or side[0].startswith("heads.")


@torch.no_grad()
def _look(model: Model, tasks: Sequence[Task], limit: int | None, notes: list[str]) -> Look:
    found: Look = {}
    with evaluating(model):
        for task in tasks:
            if len(task.test):
                found[task.name] = _features(model, task, limit)
            if isinstance(task, Classification | Tagging):
                found[task.name] |= _labelled(model, task, limit, notes)
    return found


def _features(model: Model, task: Task, limit: int | None) -> dict[str, Any]:
    """Hidden states of the first tokens of the task's test texts at every depth, and the logits of some."""
    encoded, tokenizer = task.encoded(model, "test"), model.tokenizer
    rows = torch.arange(min(len(encoded), limit or len(encoded)))
    ends = encoded.lengths[rows].cumsum(0)
    batch = encoded.take(rows[: int((ends < 1.5 * TOKENS).sum()) + 1])
    batch = {name: column.to(model.device) for name, column in batch.items()}
    inner = inner_tokens(batch["input_ids"], tokenizer) & batch["attention_mask"].bool()
    found: dict[str, Any] = {"hidden": [h[inner][:TOKENS].float().cpu() for h in states(model, batch)]}
    if model.lm_kind is None or (model.lm_kind == "masked" and tokenizer.mask_token_id is None):
        return found
    places = asked(batch)
    if model.lm_kind == "masked":
        places = inner & ((inner.flatten().cumsum(0) % HIDDEN) == 0).view_as(inner)
        batch["input_ids"] = batch["input_ids"].masked_fill(places, tokenizer.mask_token_id)
    most = max(1, min(TOKENS, LOGITS // model.config.vocab_size))
    if places.any():
        found["logits"] = model.lm_logits(model.hidden(batch)[places][:most]).float().cpu()
    return found


def _labelled(model: Model, task: Classification | Tagging, limit: int | None, notes: list[str]) -> dict[str, Any]:
    """Features at every depth and their labels, to fit a probe on and to try it on."""
    if not readable(task):
        notes.append(f"{task.name}: no probes, as it has no training data to fit them on")
        return {}
    outside = task.labels.index("O") if "O" in task.labels and isinstance(task, Tagging) else -1
    fit, test = (
        _gathered(model, task, batches, outside)
        for batches in (fit_batches(model, task), task.test_batches(model, limit))
    )
    classes, counts = np.unique(fit[1], return_counts=True)
    shots = int(min(SHOTS, counts.min())) if len(classes) > 1 else 0
    if shots < 2:
        notes.append(f"{task.name}: no probes, as a class has fewer than two examples")
        return {}
    known = torch.from_numpy(np.isin(test[1], classes))
    return {"fit": fit, "test": ([x[known] for x in test[0]], test[1][known.numpy()]), "shots": shots}


def _gathered(model: Model, task: Task, batches: Any, outside: int) -> tuple[list[Tensor], Any]:
    """(features by depth, labels) of the first predictions that are not of the tag outside all entities."""
    kept, labels, count = [], [], 0
    for batch in batches:
        own = batch["targets"] != outside
        kept.append([read(model, task, batch, h)[own].float().cpu() for h in states(model, batch)])
        labels.append(batch["targets"][own].cpu())
        count += int(own.sum())
        if count >= TOKENS:
            break
    return [torch.cat(depth)[:TOKENS] for depth in zip(*kept, strict=True)], torch.cat(labels)[:TOKENS].numpy()


def _probes(old: dict[str, Any], new: dict[str, Any]) -> Probes:
    def probe(fit: dict[str, Any], test: dict[str, Any]) -> Numbers:
        (xs, y), (tests, truth), k = fit["fit"], test["test"], fit["shots"]
        found = (metrics.kshot_probe(x, y, t, truth, k=k, seed=0) for x, t in zip(xs, tests, strict=True))
        return [rounded(one["mean"], 6) for one in found]

    return {
        "before": probe(old, old),
        "frozen": probe(old, new),
        "refitted": probe(new, new),
        "shots": old["shots"],
    }
