"""Diagonal Fisher: the per-layer hooks against one example at a time, in one run; speed and memory.

python benchmarks/fisher.py [--repeats 7] [--examples 512] [--device cpu]
Prints medians and ratios, and writes benchmarks/results/fisher-DEVICE.json. Where avalanche-lib is installed, its
own EWC importance (which squares a mini-batch's gradient) is timed beside ours.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timing import seconds
from torch import Tensor, nn

from forgetlab.importance import fisher_diagonal

BATCH, CLASSES = 32, 2
# vocabulary, longest text in tokens: sentences as the embedded world has them, and longer ones
MODELS = {"1M": (1000, 16), "1M, longer texts": (1000, 32), "vocabulary 30,522": (30522, 32)}
WAYS = ("loop", "hooks", "backward")


def classifier(vocabulary: int, device: str) -> nn.Module:
    """A four-layer BERT of width 128 (0.9M weights and its embeddings) that classifies."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=64,
        num_labels=CLASSES,
    )
    return BertForSequenceClassification(config).eval().to(device)


def texts(vocabulary: int, length: int, examples: int, device: str) -> list[tuple[Tensor, ...]]:
    """Batches of (token ids, mask, class), with lengths between a half and all of `length`."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, vocabulary, (examples, length), generator=generator)
    lengths = torch.randint(length // 2, length + 1, (examples, 1), generator=generator)
    mask = (torch.arange(length) < lengths).long()
    labels = torch.randint(CLASSES, (examples,), generator=generator)
    columns = [t.to(device) for t in (ids * mask, mask, labels)]
    return list(zip(*(t.split(BATCH) for t in columns), strict=True))


def logits(module: Any, batch: tuple[Tensor, ...]) -> Tensor:
    return module(input_ids=batch[0], attention_mask=batch[1]).logits


def backward(module: nn.Module, batches: list[tuple[Tensor, ...]]) -> None:
    """The floor: an ordinary backward of each batch, which gives no Fisher."""
    for batch in batches:
        module.zero_grad()
        nn.functional.cross_entropy(logits(module, batch), batch[-1]).backward()


def way(name: str, module: nn.Module, batches: list[tuple[Tensor, ...]]) -> Callable[[], Any]:
    if name == "backward":
        return lambda: backward(module, batches)
    method = "auto" if name == "hooks" else name  # as users get it, its check against the loop included
    return lambda: fisher_diagonal(module, batches, estimator="empirical", method=method, logits=logits)


def peak(vocabulary: int, length: int, name: str, device: str) -> float:
    """MiB that one way takes on top of the model and its data, in a process of its own."""
    command = [sys.executable, __file__, "--measure", name, str(vocabulary), str(length), "--device", device]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def measure(name: str, vocabulary: int, length: int, device: str) -> float:
    module, batches = classifier(vocabulary, device), texts(vocabulary, length, 2 * BATCH, device)
    with torch.no_grad():
        logits(module, tuple(t[:1] for t in batches[0]))  # what is set up once does not count
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        way(name, module, batches)()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # Linux: start the peak anew
    before = resident()
    way(name, module, batches)()
    return (resident() - before) / 2**10


def resident() -> int:
    """KiB of the highest resident memory so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def avalanche(module: nn.Module, batches: list[tuple[Tensor, ...]]) -> Callable[[], Any] | None:
    """Avalanche's EWC importance of the same model and texts, or None where it is not installed."""
    try:
        from avalanche.training.plugins import EWCPlugin
    except ImportError:
        return None

    ids, mask, labels = (torch.cat(column) for column in zip(*batches, strict=True))
    rows = torch.utils.data.TensorDataset(torch.stack([ids, mask], dim=1), labels, torch.zeros_like(labels))

    class Taking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Tensor) -> Tensor:
            return logits(self.inner, (x[:, 0], x[:, 1]))

    plugin, taking = EWCPlugin(ewc_lambda=1.0), Taking()
    loss = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(taking.parameters(), lr=0.0)
    return lambda: plugin.compute_importances(taking, loss, optimizer, rows, "cpu", BATCH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--examples", type=int, default=512)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--measure", nargs=3, metavar=("WAY", "VOCABULARY", "LENGTH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(measure(options.measure[0], *map(int, options.measure[1:]), options.device))
        return
    table = {}
    for label, (vocabulary, length) in MODELS.items():
        module = classifier(vocabulary, options.device)
        batches = texts(vocabulary, length, options.examples, options.device)
        ways = {name: way(name, module, batches) for name in WAYS}
        if other := avalanche(module, batches):
            ways["avalanche"] = other
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.repeats):
            for name, call in ways.items():
                taken[name].append(seconds(call, options.device))
        medians = {name: statistics.median(values) for name, values in taken.items()}
        memory = {
            name: statistics.median(peak(vocabulary, length, name, options.device) for _ in range(3)) for name in WAYS
        }
        table[label] = {
            "parameters": sum(p.numel() for p in module.parameters()),
            "longest text": length,
            "seconds": {name: round(value, 3) for name, value in medians.items()},
            "times_the_loop": {name: round(medians["loop"] / value, 2) for name, value in medians.items()},
            "peak_MiB": {name: round(value, 1) for name, value in memory.items()},
        }
        print(
            f"{label}: {table[label]['parameters']:,} parameters, {options.examples} examples of up to {length} tokens"
        )
        for name, value in medians.items():
            extra = f"{memory[name]:8.0f} MiB" if name in memory else ""
            print(f"  {name:10} {value:7.3f} s   {medians['loop'] / value:5.2f} times the loop's speed {extra}")
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"cpu ({platform.machine()})"
    result = {
        "device": where,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "repeats": options.repeats,
        "models": table,
    }
    path = Path(__file__).parent / "results" / f"fisher-{options.device}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
