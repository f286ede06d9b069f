"""Importances that are measured once: they depend on the weights before the run and on its seed, not on λ."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from weakref import WeakKeyDictionary

from forgetlab.importance.fisher import Importance
from forgetlab.models.addition import Addition
from forgetlab.models.model import Model
from forgetlab.models.sharded import is_sharded
from forgetlab.tasks import Task

ROOM = 64e6  # bytes that are kept of a task: some seeds of a small model, of a large one the latest alone
_KEPT: WeakKeyDictionary[Task, dict[str, Importance]] = WeakKeyDictionary()  # of each task the latest, the newest last


def once(model: Model, task: Task, how: object, compute: Callable[[], Importance]) -> Importance:
    """What `compute` returns; kept for the next call with an equal model and an equal `how` (the settings).

    A λ slider or a sweep then waits for the first run only. The tensors are shared: do not change them in place.
    """
    if any(is_sharded(p) for p in model.parameters()):
        return compute()  # in pieces; and a process that had it kept would not take part in the others' passes
    own = f"heads.{getattr(task, 'head', '')}."  # the weights of other heads play no part, only that they are there
    digest = hashlib.blake2b(repr(how).encode(), digest_size=16)
    for name, p in model.named_parameters():
        digest.update(f"{name}{tuple(p.shape)}{p.device}".encode())
        if name.startswith(own) or not name.startswith("heads."):
            digest.update(p.detach().float().cpu().contiguous().numpy().data)
    # what was added takes part or not, with the same weights
    added = [(name, part.on) for name, part in model.named_children() if isinstance(part, Addition)]
    digest.update(repr(added).encode())
    key = digest.hexdigest()
    kept = _KEPT.setdefault(task, {})
    importance = kept.pop(key) if key in kept else compute()
    kept[key] = importance
    while len(kept) > max(1, ROOM // max(1, _size(importance))):
        del kept[next(iter(kept))]
    return importance


def forget_large() -> None:
    """Keep no importance beyond ROOM: for one long run, to which it would be as much memory again as its weights."""
    for kept in _KEPT.values():
        for key in [key for key, importance in kept.items() if _size(importance) > ROOM]:
            del kept[key]


def _size(importance: Importance) -> int:
    return sum(value.nbytes for value in importance.values())
