"""Where a run began, in a file: while a run is only watched its start is read at each look, and costs no memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from forgetlab.models.sharded import is_sharded

LARGE = 2**26  # bytes from which on a copy is worth a file


class Start(Mapping[str, Tensor]):
    """Tensors by name, read from a file as they are asked for. The file goes when this does."""

    def __init__(self, tensors: Mapping[str, Tensor], file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, file)
        self._names, self._file = list(tensors), file
        weakref.finalize(self, file.unlink, missing_ok=True)

    def __getitem__(self, name: str) -> Tensor:
        with safe_open(self._file, "pt") as opened:
            found: Tensor = opened.get_tensor(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def filed(anchor: Mapping[str, Tensor], known: Mapping[str, Tensor], file: Path) -> Mapping[str, Tensor]:
    """An anchor that holds no large copy in memory, unless the disk refuses it.

    known: what is remembered anyhow, tensors that it may share.
    """
    new = sum(value.nbytes for name, value in anchor.items() if value is not known.get(name))
    if not new or new < LARGE or any(is_sharded(value) for value in anchor.values()):
        return anchor
    try:
        return Start(anchor, file)
    except (OSError, SafetensorError):
        file.unlink(missing_ok=True)
        return anchor
