"""A model as it lies on the disk: its tensors one at a time, found under the names that transformers gives them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from forgetlab.errors import ForgetlabError
from forgetlab.models.model import HEADS_WEIGHTS
from forgetlab.models.soundness import json_in

OLD_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}  # of TensorFlow's first BERT


class Stored:
    """The tensors in a folder's safetensors files. given: the folder's name in messages.

    A file is open only while one tensor is read: what is mapped counts as memory in use.
    """

    def __init__(self, folder: Path, given: str) -> None:
        from safetensors import safe_open

        self.given = given
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, Path] = {}
        whole = folder / "model.safetensors"
        files = [whole] if whole.is_file() else sorted(folder.glob("*.safetensors"))
        with damage(given):
            for file in (file for file in files if file.name != HEADS_WEIGHTS):
                with safe_open(file, framework="pt") as opened:
                    for name in opened.keys():  # noqa: SIM118, it is no dict
                        self.shapes[name] = tuple(opened.get_slice(name).get_shape())
                        self._files[name] = file
        if not self._files:
            config = json_in(folder / "config.json", given) if (folder / "config.json").is_file() else {}
            kind = (config.get("architectures") or ["AutoModel"])[0]  # AutoModel would leave the head out
            raise ForgetlabError(
                f"{given} holds no weights in safetensors files; where you trust it, run transformers' "
                f"{kind}.from_pretrained({given!r}).save_pretrained(FOLDER) and give FOLDER"
            )

    def find(self, names: Iterable[str], prefix: str) -> str | None:
        """The stored name of a weight that is known by these names. prefix: what stands before a backbone's weights."""
        for name in names:
            for form in (name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}"):
                old = next((form.removesuffix(n) + o for n, o in OLD_NAMES.items() if form.endswith(n)), form)
                if found := next((one for one in (form, old) if one in self._files), None):
                    return found
        return None

    def tensor(self, name: str) -> Tensor:
        """The tensor stored under a name, on the CPU, floating numbers as float32."""
        from safetensors import safe_open

        with damage(self.given), safe_open(self._files[name], framework="pt") as opened:
            found = opened.get_tensor(name)
        return found.float() if found.is_floating_point() else found


@contextmanager
def damage(given: str) -> Iterator[None]:
    """What safetensors raises on a broken file, in words."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise ForgetlabError(f"{given}: its safetensors file is damaged or cut short ({error})") from None


def spill(weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write weights to a folder, tied ones once."""
    from safetensors.torch import save_file

    held: dict[tuple[int, torch.Size], str] = {}
    for name, weight in weights.items():
        held.setdefault((weight.data_ptr(), weight.shape), name)
    save_file({name: weights[name].detach().cpu().contiguous() for name in held.values()}, folder / "model.safetensors")
