"""What a run holds, in copies of the model's weights: plain, watched, and with each remedy.

python benchmarks/memory.py [--methods ewc,l2sp] [--out FILE]
Every tensor's memory is counted from its making to its end, through torch's dispatcher, on the CPU; prints a table and
writes benchmarks/results/copies.json. The model has a DistilBERT's shape, 22.6 million weights (90 MB); batches of 4.
"""

from __future__ import annotations

import argparse
import gc
import json
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from overhead import distilbert
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import forgetlab
from forgetlab import finetune, task
from forgetlab.models.model import Model
from forgetlab.remedies.by_name import METHODS, make_methods, settings

SHAPE = {"dim": 384, "n_layers": 6, "n_heads": 12, "hidden_dim": 1536}
LITTLE = {"examples": 8, "walk": 1, "size": 8, "max_tokens": 4}  # of what takes time and, for good, no memory
OUT = Path(__file__).parent / "results" / "copies.json"


class Counted(TorchDispatchMode):
    """Within it the bytes of all tensors' memory, those of `known` and those made since: `now`, and `peak`."""

    def __init__(self, known: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}
        for tensor in known:
            self._add(tensor.untyped_storage())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, torch.Tensor) and one.device.type != "meta":
                self._add(one.untyped_storage())
        return made

    def _add(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self.now += size
            self.peak = max(self.peak, self.now)
            self._known[key] = weakref.ref(storage, lambda _: self._gone(key, size))

    def _gone(self, key: int, size: int) -> None:
        del self._known[key]
        self.now -= size


def measured(model: Model, methods: str = "none", watched: bool = True) -> dict[str, float]:
    """Copies of the weights held between two steps, and at the peak of the set-up and of a step."""
    copy = sum(p.nbytes for p in model.parameters())
    old = [task("entities")]
    with Counted([*model.parameters(), *model.buffers(), *model._pretrained.values()]) as count:
        made = [] if methods == "none" else make_methods(methods, old)
        more = {"methods": made, "watch": old if watched else [], "limit": 8}
        run = finetune(model, task("sentiment", size=64), steps=3, every=1, batch_size=4, lr=1e-5, **more)
        next(run)
        found = {"set-up": count.peak / copy}
        next(run)
        gc.collect()
        found["between steps"], count.peak = count.now / copy, 0
        next(run)
        found["in a step"] = count.peak / copy
        run.close()
    return {name: round(value, 2) for name, value in found.items()}


def with_little(name: str) -> str:
    given = ",".join(f"{key}={value}" for key, value in LITTLE.items() if key in settings(name))
    return f"{name}:{given}" if given else name


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """As docs/speed.md has it."""
    columns = ("between steps", "in a step", "set-up")
    lines = ["| run | between steps | at the peak of a step | at the peak of the set-up |", "|---|---|---|---|"]
    return "\n".join(
        lines + [f"| {name} | {' | '.join(f'{row[c]:.1f}' for c in columns)} |" for name, row in found.items()]
    )


def main(methods: Sequence[str], out: Path) -> None:
    torch.set_num_threads(1)
    model = distilbert(**SHAPE).eval()
    task("entities").prepare(model)
    model.remember()  # with a head that holds something old
    found = {
        "plain, not watched": measured(model, watched=False),
        "plain, watched, from where that has ended": measured(model),
    }
    for name in methods:
        model.restore()
        found["plain, watched" if name == "none" else name] = measured(model, with_little(name))
        result = {
            "forgetlab": forgetlab.__version__,
            "torch": torch.__version__,
            "weights": model.size,
            "copies": found,
        }
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    main(given.methods.split(","), given.out)
