"""The mean over examples of |∂s/∂θ|² or |∂s/∂θ|: by hooks where they are right, one example at a time elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn

from forgetlab.errors import ForgetlabError
from forgetlab.importance import per_example
from forgetlab.importance.per_example import Power, powered
from forgetlab.importance.readers import Batch, Reader
from forgetlab.models.sharded import is_sharded, within

How = Literal["auto", "hooks", "loop"]
Importance = dict[str, Tensor]
# An objective s: (logits of some places, which of the batch's places they are) → one number for each of them.
Objective = Callable[[Tensor, Tensor], Tensor]
Objectives = Callable[[Tensor, Batch], Iterator[Objective]]  # of the logits of a batch, and the batch


def asked_about(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters whose importance is asked: a weight that nobody trains has none."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def mean_over_examples(reader: Reader, objectives: Objectives, power: Power, method: How) -> Importance:
    """Mean over examples of Σ over objectives of |∂s/∂θ|^power."""
    named = asked_about(reader.module)
    if any(is_sharded(p) for p in named.values()):
        return _in_pieces(reader, objectives, power)
    sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in named.items()}
    trusted = _trusted_hooks(reader) if method in ("auto", "hooks") else set()
    count = 0
    for batch in reader.batches():
        count += reader.rows(batch)
        others = set(named)
        if trusted:
            own = {name: sums[name] for name in trusted}
            asked, found, missed = _by_hooks(reader, batch, objectives, power, own)
            others = missed | (found - trusted)
        else:
            with torch.no_grad():
                asked = list(objectives(reader.logits(batch), batch))
        if others and method == "hooks":
            raise ForgetlabError(f"hooks cannot see how the model uses {min(others)}; use method='auto'")
        if others:
            left = {name: p for name, p in named.items() if name in others}
            for name, value in _by_loop(reader, batch, asked, left, power).items():
                sums[name] += value
    return {name: value.div_(count) for name, value in sums.items()}


def _by_hooks(
    reader: Reader, batch: Batch, objectives: Objectives, power: Power, sums: Importance
) -> tuple[list[Objective], set[str], set[str]]:
    """Add what hooks see to the sums of the parameters that `sums` names.

    Returns (objectives, names of the parameters that hooks see, of those that they miss though the logits depend on
    them); to the sum of one that is missed nothing is added.
    """
    rows, owners = reader.rows(batch), reader.owners(batch)
    with per_example.recording(reader.module, rows) as calls:
        logits = reader.logits(batch)
    places = torch.arange(len(logits), device=logits.device)
    asked = list(objectives(logits, batch))
    named = asked_about(reader.module)
    names: dict[Tensor, str] = {p: name for name, p in named.items()}
    reachable = per_example.graph(logits)
    shown = {p for call in calls if call.output.node in reachable for p in call.layer.parameters(recurse=False)}
    absent = {name: p for name, p in named.items() if p not in shown}
    reached: tuple[Tensor | None, ...] = ()
    if absent:
        reached = torch.autograd.grad(logits.sum(), list(absent.values()), retain_graph=True, allow_unused=True)
    missed = {name for name, grad in zip(absent, reached, strict=True) if grad is not None}
    found: set[str] = set()
    # several objectives of a batch are added to each other first: so the sum's rounding has always been
    batch_sum = sums if len(asked) == 1 else {name: torch.zeros_like(value) for name, value in sums.items()}
    into: dict[Tensor, Tensor] = {named[name]: value for name, value in batch_sum.items()}
    for i, objective in enumerate(asked):
        total, keep = objective(logits, places).sum(), i + 1 < len(asked)
        seen, unclear = per_example.add_totals(calls, total, owners, rows, reader.of_places, power, keep, into)
        found |= {names[p] for p in seen if p in names}
        missed |= {names[p] for p in unclear if p in names}
    if batch_sum is not sums:
        for name in batch_sum.keys() - missed:
            sums[name] += batch_sum[name]
    return asked, found - missed, missed


def _by_loop(
    reader: Reader, batch: Batch, asked: list[Objective], wanted: dict[str, nn.Parameter], power: Power
) -> Importance:
    """One example at a time: slow, and right for anything that autograd is right for."""
    owners = reader.owners(batch)
    sums: Importance = {}
    for i in range(reader.rows(batch)):
        logits, own = reader.logits(reader.take(batch, i, i + 1)), (owners == i).nonzero().squeeze(1)
        for k, objective in enumerate(asked):
            total, last = objective(logits, own).sum(), k + 1 == len(asked)
            grads = torch.autograd.grad(total, list(wanted.values()), retain_graph=not last, allow_unused=True)
            for name, grad in zip(wanted, grads, strict=True):
                if grad is not None:
                    value = powered(grad.float(), power)
                    sums[name] = sums[name].add_(value) if name in sums else value
    return sums


def _in_pieces(reader: Reader, objectives: Objectives, power: Power) -> Importance:
    """The same for a model in pieces (FSDP): the result is in pieces like the weights, none of which is ever whole.

    Every process goes through the same examples, one at a time, with a forward pass for each objective: FSDP hands out
    a gradient only as the mean over the processes, at the end of a backward pass.
    """
    named = dict(reader.module.named_parameters())
    sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in named.items()}
    count = 0
    for batch in reader.batches():
        count += reader.rows(batch)
        with torch.no_grad():
            asked = list(objectives(within(reader.module, partial(reader.logits, batch)), batch))
        owners = reader.owners(batch)
        for i, objective in product(range(reader.rows(batch)), asked):
            one, own = reader.take(batch, i, i + 1), (owners == i).nonzero().squeeze(1)
            for p in named.values():
                p.grad = None
            within(reader.module, partial(_total, reader, one, own, objective)).backward()
            for name, p in named.items():
                if p.grad is not None:
                    sums[name] += powered(p.grad.float(), power)
    for p in named.values():
        p.grad = None
    return {name: value / count for name, value in sums.items()}


def _total(reader: Reader, batch: Batch, places: Tensor, objective: Objective) -> Tensor:
    return objective(reader.logits(batch), places).sum()


def _trusted_hooks(reader: Reader) -> set[str]:
    """Names of the parameters for which hooks and loop agree on two examples: a layer may do what no hook sees."""
    batch = max(reader.batches(), key=reader.rows)
    pair = reader.take(batch, 0, min(2, reader.rows(batch)))

    def objectives(values: Tensor, batch: Batch) -> Iterator[Objective]:
        mix = torch.linspace(1, 2, values.shape[1], device=values.device)
        yield lambda some, _: some @ mix  # its gradient is not 0 where the logits are, which would hide an error

    named = asked_about(reader.module)
    fast = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in named.items()}
    try:
        asked, found, _ = _by_hooks(reader, pair, objectives, 2, fast)
    except RuntimeError:  # position ids that come once are given rows for each example, which a model may not like
        return set()
    slow = _by_loop(reader, pair, asked, named, power=2)
    highest = {name: float(value.max()) for name, value in slow.items()}
    trusted = set()
    for name in found & slow.keys():
        error = float(fast[name].sub_(slow[name]).abs_().max())
        if error <= 1e-3 * highest[name] + 1e-12 * max(highest.values()):  # key biases: exactly 0 but for rounding
            trusted.add(name)
    return trusted
