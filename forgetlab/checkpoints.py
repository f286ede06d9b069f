"""The state of a run beside a Trainer's checkpoint: tensors as safetensors, everything else as JSON, no pickle.

Each process has files of its own: methods draw and remember apart. Files of the first have no number.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.trainer import TRAINER_STATE_NAME

from forgetlab.errors import ForgetlabError
from forgetlab.methods import Method, Run

WEIGHTS, STATE = "forgetlab.safetensors", "forgetlab.json"


@dataclass
class Saved:
    """A state that was read. shared: the tensors of the first process, tensors: those of this one, plain: the rest."""

    shared: dict[str, Tensor]
    tensors: dict[str, Tensor]
    plain: dict[str, Any]

    def group(self, prefix: str) -> dict[str, Tensor]:
        """The shared tensors whose name begins with "prefix/", by the rest of it."""
        return _group(self.shared, prefix)

    def bring_back(self, run: Run, methods: Sequence[Method], device: torch.device) -> None:
        """Give the run its step, its draws and the state of its methods."""
        run.step = self.plain["step"]
        run.generator.set_state(self.tensors["generator"])
        run._orders = _group(self.tensors, "order")
        for i, method in enumerate(methods):
            for name in method.saved:
                setattr(method, name, _unpack(self.plain["state"][f"{i}/{name}"], self.tensors, device))


def save(
    folder: Path,
    run: Run,
    methods: Sequence[Method],
    shared: Mapping[str, Tensor],
    first: Mapping[str, float],
    rank: int = 0,
) -> None:
    """Write the state of a run. shared: more tensors to keep, which only the first process has.

    first: the first score of each watched task.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"generator": run.generator.get_state(), **shared}
    tensors |= {f"order/{key}": left for key, left in run._orders.items()}
    names = [method.name for method in methods]
    plain: dict[str, Any] = {"methods": names, "step": run.step, "first": dict(first), "state": {}}
    for i, method in enumerate(methods):
        for name in method.saved:
            plain["state"][f"{i}/{name}"] = _pack(f"method/{i}/{name}", getattr(method, name), tensors)
    save_file(
        {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, folder / _ranked(WEIGHTS, rank)
    )
    (folder / _ranked(STATE, rank)).write_text(json.dumps(plain), encoding="utf-8")


def load(folder: Path, methods: Sequence[Method], rank: int = 0) -> Saved:
    """Read what `save` wrote. Raises ForgetlabError where there is nothing, or the state of other methods."""
    if not (folder / STATE).is_file():
        raise ForgetlabError(f"{folder} holds no state of forgetlab: was it saved by a ForgettingTrainer?")
    shared = load_file(folder / WEIGHTS)
    own = folder / _ranked(WEIGHTS, rank)
    tensors = load_file(own) if rank and own.is_file() else shared
    file = folder / _ranked(STATE, rank)
    plain = json.loads((file if file.is_file() else folder / STATE).read_text(encoding="utf-8"))
    names = [method.name for method in methods]
    if plain["methods"] != names:
        raise ForgetlabError(
            f"the checkpoint was made with the methods {', '.join(plain['methods']) or 'none'}, this run has "
            f"{', '.join(names) or 'none'}: resume with the same ones, in the same order"
        )
    return Saved(shared, tensors, plain)


def newest(out: str | Path) -> str:
    """The newest checkpoint in a Trainer's folder that was written to its end; a warning names newer ones.

    The Trainer writes its own state last: where a run was killed meanwhile, that file is missing or cut short.
    Raises ForgetlabError where there is none.
    """
    found = [path for path in Path(out).glob("checkpoint-*") if path.name.rpartition("-")[2].isdecimal()]
    found.sort(key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    whole = next((i for i, path in enumerate(found) if _is_whole(path)), len(found))
    half = f"{', '.join(path.name for path in found[:whole])} in {out}: only half written"
    if whole == len(found):
        why = f" ({half})" if found else ""
        raise ForgetlabError(f"{out} holds no checkpoint to resume from{why}: train without resume_from_checkpoint")
    if whole:
        warnings.warn(f"{half}, so that the run goes on from {found[whole].name}", stacklevel=3)
    return str(found[whole])


def _is_whole(checkpoint: Path) -> bool:
    try:
        return isinstance(json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False


def _group(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}/"): t for name, t in tensors.items() if name.startswith(f"{prefix}/")}


def _ranked(name: str, rank: int) -> str:
    stem, extension = os.path.splitext(name)
    return f"{stem}-{rank}{extension}" if rank else name


def _pack(key: str, value: Any, tensors: dict[str, Tensor]) -> Any:
    """A value as JSON; its tensors go to `tensors` and leave their key."""
    if isinstance(value, Tensor):
        tensors[key] = value
        return {"tensor": key}
    if isinstance(value, Mapping):
        return {"dict": [[name, _pack(f"{key}/{name}", item, tensors)] for name, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [_pack(f"{key}/{i}", item, tensors) for i, item in enumerate(value)]}
    return {"value": value}


def _unpack(packed: Any, tensors: Mapping[str, Tensor], device: Any) -> Any:
    ((kind, value),) = packed.items()
    if kind == "tensor":
        return tensors[value].to(device)
    if kind == "dict":
        return {name: _unpack(item, tensors, device) for name, item in value}
    if kind == "list":
        return [_unpack(item, tensors, device) for item in value]
    return value
