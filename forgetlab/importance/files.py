"""Importance on disk as safetensors, and whether it belongs to a model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from forgetlab.errors import ForgetlabError


def save_importance(importance: Mapping[str, Tensor], path: str | Path, **about: str) -> None:
    """Write {parameter name: tensor} as one safetensors file. about: what it is of, kept as the file's metadata.

    Raises ForgetlabError where the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: value.detach().cpu().contiguous() for name, value in importance.items()}
    try:
        save_file(tensors, path, metadata={"format": "pt", **about})
    except (SafetensorError, OSError) as error:
        raise ForgetlabError(f"{path} cannot be written: {error}") from None


def load_importance(path: str | Path) -> dict[str, Tensor]:
    """Read what `save_importance` wrote. Raises ForgetlabError for a file that is missing, damaged or not finite.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     save_importance({"w": torch.ones(2)}, f"{folder}/fisher.safetensors", task="entities")
    ...     load_importance(f"{folder}/fisher.safetensors")
    {'w': tensor([1., 1.])}
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        importance: dict[str, Tensor] = load_file(path)
    except FileNotFoundError:
        raise ForgetlabError(f"there is no file {path}") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise ForgetlabError(f"{path} cannot be read as safetensors: {error}") from None
    for name, value in importance.items():
        if not bool(torch.isfinite(value).all()):
            raise ForgetlabError(f"{path}: {name} holds numbers that are not finite")
    return importance


def check_importance(
    importance: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
    needed: Collection[str] = (),
    what: str = "importance",
) -> None:
    """Raise ForgetlabError for the importance of another model: an unknown name or shape, a `needed` name missing.

    what: what the tensors are, for the message.
    """
    for name, value in importance.items():
        if name not in parameters:
            lacks = f"{what} of another model: this one has no parameter {name}"
            head = name.split(".")[1] if name.startswith("heads.") else ""
            raise ForgetlabError(lacks + (f"; watch the task {head!r}, and its head is there" if head else ""))
        if value.shape != parameters[name].shape:
            given, wanted = tuple(value.shape), tuple(parameters[name].shape)
            raise ForgetlabError(f"{what} of another model: {name} has the shape {given}, here it is {wanted}")
    for name in needed:
        if name not in importance:
            raise ForgetlabError(f"{what} of another model: it has nothing for the parameter {name}")
