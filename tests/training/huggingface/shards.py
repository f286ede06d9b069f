"""Run by two processes (`test_shards`): a Trainer whose weights are spread over both by FSDP2, on the CPU by gloo."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from forgetlab import task
from forgetlab.models.model import Model
from forgetlab.models.sharded import is_sharded, whole
from forgetlab.remedies.regularizers import EWC, L2SP
from forgetlab.remedies.replay import ExperienceReplay
from forgetlab.training.method import Method, Run
from tests.training.huggingface.test_trainer import BATCH, OLD, STEPS, trained

SPREAD = {
    "fsdp": True,
    "fsdp_config": {"auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "transformer_layer_cls_to_wrap": ["GPT2Block"]},
}
RESUMED = ("ewc", "l2sp")  # cut in the middle and taken up again
METHODS: dict[str, Any] = {
    "none": list,
    "l2sp": lambda: [L2SP(0.1)],
    "proximal": lambda: [L2SP(0.1, proximal=True)],
    "ewc": lambda: [EWC([task(OLD)], 1e3, examples=16)],
    "replay": lambda: [ExperienceReplay([twice()], ratio=0.5)],
}


def twice() -> Any:
    """The old task with two rows a step, in their order, each as often as it takes: the same mean in every process."""
    old, step = task(OLD), iter(range(10**6))
    drawn = old.batch

    def batch(model: Model, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        rows = 2 * next(step) + torch.arange(2)
        return drawn(model, rows.repeat(len(index) // 2), generator)

    old.batch = batch  # type: ignore[method-assign]
    return old


def allow_fsdp_on_the_cpu() -> None:
    """accelerate takes FSDP for something of cards alone; torch's own works with gloo too."""
    made = AcceleratorState.__init__

    def spread(self: Any, *args: Any, fsdp_plugin: Any = None, **more: Any) -> None:
        made(self, *args, fsdp_plugin=fsdp_plugin, **more)
        if fsdp_plugin is not None:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = spread  # type: ignore[method-assign]


def held(run: Run, methods: list[Method]) -> int:
    """Bytes that this process holds of anchors and importances, each tensor once."""
    found = [*run.anchor.values(), *(t for m in methods for _, *term in getattr(m, "_terms", ()) for t in term)]
    here = [t.to_local() for t in found if isinstance(t, DTensor)]
    return sum({t.data_ptr(): t.nbytes for t in here}.values())


def main(folder: Path, names: list[str]) -> None:
    allow_fsdp_on_the_cpu()
    for name in names:
        methods: list[Method] = METHODS[name]()
        settings = {**SPREAD, "per_device_train_batch_size": BATCH // 2}
        if name in RESUMED:
            settings |= {"save_strategy": "steps", "save_steps": STEPS // 2}
        trainer = trained(folder / name, methods, **settings)
        assert dist.get_world_size() == 2
        run = trainer._run
        assert run is not None
        assert all(is_sharded(p) for p in run.weights.values())
        assert all(is_sharded(p) for p in run.anchor.values())
        for method in methods:  # λΩ and θ*: a half of each is here
            assert all(is_sharded(t) for term in getattr(method, "_terms", ()) for t in term if isinstance(t, Tensor))
        if name in RESUMED:
            cut = folder / name / f"checkpoint-{STEPS // 2}"
            again = trained(folder / name, METHODS[name](), **settings, resume=str(cut))
            run, trainer = again._run, again
            assert run is not None
        last = trainer.records[-1]
        numbers = {
            "perplexity": last.scores[OLD]["perplexity"],
            "drift": last.drift,
            "penalty": sum(last.penalty.values()),
            "bytes a weight": held(run, trainer.methods) / sum(p.numel() for p in run.weights.values()),
        }
        found = {n: whole(p.detach()).clone() for n, p in run.weights.items()}
        found |= {f"record {n}": torch.tensor(value, dtype=torch.float64) for n, value in numbers.items()}
        save_file(found, folder / f"{name}.{dist.get_rank()}.safetensors")
    dist.barrier()
    dist.destroy_process_group()  # or the process that ends first takes the other one's store away


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
