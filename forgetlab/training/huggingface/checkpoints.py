"""The state of a run beside a Trainer's checkpoint: tensors as safetensors, everything else as JSON, no pickle.

Each process has files of its own: methods draw and remember apart. Files of the first have no number. Once a checkpoint
is complete, the digest of each of its files is written beside them, so that a resume takes nothing else for it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.trainer import TRAINER_STATE_NAME

from forgetlab.errors import ForgetlabError
from forgetlab.sources.json_files import read_json, write_json
from forgetlab.sources.shipped import sha256
from forgetlab.tasks import Task
from forgetlab.training.method import Method, Run

WEIGHTS, STATE, FILES = "forgetlab.safetensors", "forgetlab.json", "forgetlab-files.json"
BROKEN = (OSError, EOFError, SafetensorError, pickle.UnpicklingError)
ODD = (ValueError, LookupError, TypeError, AttributeError, RuntimeError)  # what is read, but of something else


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
    more: Mapping[str, Any],
    rank: int = 0,
) -> None:
    """Write the state of a run. shared: more tensors to keep, which only the first process has; more: plain values."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"generator": run.generator.get_state(), **shared}
    tensors |= {f"order/{key}": left for key, left in run._orders.items()}
    plain: dict[str, Any] = {"step": run.step, "state": {}, "more": _pack("more", more, tensors)}
    for i, method in enumerate(methods):
        for name in method.saved:
            plain["state"][f"{i}/{name}"] = _pack(f"method/{i}/{name}", getattr(method, name), tensors)
    save_file({name: _alone(t) for name, t in tensors.items()}, folder / _ranked(WEIGHTS, rank))
    write_json(folder / _ranked(STATE, rank), plain)


def load(folder: Path, rank: int = 0) -> Saved:
    """Read what `save` wrote. Raises ForgetlabError where there is nothing, or something else."""
    if not (folder / STATE).is_file():
        raise ForgetlabError(f"{folder} holds no state of forgetlab: was it saved by a ForgettingTrainer?")
    with explained(folder):
        shared = load_file(folder / WEIGHTS)
        own = folder / _ranked(WEIGHTS, rank)
        tensors = load_file(own) if rank and own.is_file() else shared
    file = folder / _ranked(STATE, rank)
    plain = read_json(file if file.is_file() else folder / STATE)
    if plain is None:
        raise ForgetlabError(f"{file} is damaged, or of another version of forgetlab: resume from another checkpoint")
    with explained(folder):
        return Saved(shared, tensors, {**plain, **_unpack(plain["more"], tensors, "cpu")})


def settings(methods: Sequence[Method]) -> list[list[Any]]:
    """What tells methods from others of their kind, as plain values: [name, {setting: value}]; asked before setup."""
    names = ("_given", "_old")  # a Fisher or old tasks, which a method keeps to itself
    return [
        [method.name, {k: _told(v) for k, v in vars(method).items() if k in names or not k.startswith("_")}]
        for method in methods
    ]


def differing(there: Sequence[Sequence[Any]], here: Sequence[Sequence[Any]]) -> str:
    """In words, what tells two lists of `settings` apart; "" where nothing does."""
    old, new = ([name for name, _ in one] for one in (there, here))
    if old != new:
        return f"made with the methods {', '.join(old) or 'none'}, this run has {', '.join(new) or 'none'}"
    for (name, was), (_, now) in zip(there, here, strict=True):
        for key in sorted({*was, *now}):
            if was.get(key) != now.get(key):
                what = key.lstrip("_")
                return f"made with {name}: {what}={was.get(key)}, this run has {name}: {what}={now.get(key)}"
    return ""


def sample(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """By name a digest of about a thousand numbers of each weight: what tells frozen weights from other ones."""
    return {name: _told(w.detach().flatten()[:: max(1, w.numel() // 1000)]) for name, w in weights.items()}


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """What reading a damaged checkpoint, or one of something else, raises, as a ForgetlabError."""
    try:
        yield
    except ForgetlabError:
        raise
    except (*BROKEN, *ODD) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ForgetlabError(
            f"{folder} is damaged, or of another model or version ({type(error).__name__}: {reason}): resume from "
            "another checkpoint"
        ) from error


def unseal(folder: Path) -> None:
    """What is about to be written over counts as half written until it is sealed."""
    for name in (FILES, TRAINER_STATE_NAME):
        (folder / name).unlink(missing_ok=True)


def seal(folder: Path) -> None:
    """Note the digest of each file of a checkpoint that is complete."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != FILES]
    write_json(folder / FILES, {"files": {path.relative_to(folder).as_posix(): sha256(path) for path in files}})


def fault(folder: Path) -> str:
    """What is wrong with a checkpoint, in words: "only half written", or which file is damaged; "" where it is whole.

    The Trainer writes its own state last: where a run was killed meanwhile, that file is missing or cut short. One that
    was killed before it could seal what it had written is believed.
    """
    try:
        state = json.loads((folder / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        written = isinstance(state["global_step"], int)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        written = False
    if not written:
        return "only half written"
    if not (folder / FILES).exists():
        return ""
    files = (read_json(folder / FILES) or {}).get("files", {FILES: ""})
    for name, digest in files.items():
        try:
            if sha256(folder / name) == digest:
                continue
        except OSError:
            pass
        return f"{name} is {'damaged' if (folder / name).exists() else 'missing'}"
    return ""


def newest(out: str | Path) -> str:
    """The newest checkpoint in a Trainer's folder that is whole; a warning names newer ones.

    Raises ForgetlabError where there is none.
    """
    found = [path for path in Path(out).glob("checkpoint-*") if path.name.rpartition("-")[2].isdecimal()]
    found.sort(key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    faults: list[str] = []
    for path in found:
        if not (wrong := fault(path)):
            if faults:
                told = ", ".join(faults)
                warnings.warn(f"in {out}, {told}, so that the run goes on from {path.name}", stacklevel=3)
            return str(path)
        faults.append(f"{path.name}: {wrong}")
    why = f" ({', '.join(faults)})" if faults else ""
    raise ForgetlabError(f"{out} holds no checkpoint to resume from{why}: train without resume_from_checkpoint")


def _told(value: Any) -> Any:
    """A setting as plain values; of tensors a digest, of tasks their name and size."""
    if isinstance(value, Tensor):
        numbers = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        return f"{tuple(value.shape)} {hashlib.sha256(numbers.tobytes()).hexdigest()[:16]}"
    if isinstance(value, Task):
        return f"{value.name} ({value.size()} examples)"
    if isinstance(value, Mapping):
        told = [f"{name}: {_told(item)}" for name, item in value.items()]
        many = any(isinstance(item, Tensor) for item in value.values())
        return f"tensors {hashlib.sha256(str(told).encode()).hexdigest()[:16]}" if many else told
    if isinstance(value, list | tuple):
        return [_told(item) for item in value]
    return value if isinstance(value, str | int | float | None) else type(value).__name__


def _alone(tensor: Tensor) -> Tensor:
    """A tensor as safetensors takes it: on the CPU, in memory of its own, copied only where it is not."""
    own = tensor.detach().cpu().contiguous()
    return own if own.untyped_storage().nbytes() == own.nbytes else own.clone()


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
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}  # JSON has no word for it
    return {"value": value}


def _unpack(packed: Any, tensors: Mapping[str, Tensor], device: Any) -> Any:
    ((kind, value),) = packed.items()
    if kind == "tensor":
        return tensors[value].to(device)
    if kind == "dict":
        return {name: _unpack(item, tensors, device) for name, item in value}
    if kind == "list":
        return [_unpack(item, tensors, device) for item in value]
    return float(value) if kind == "float" else value
