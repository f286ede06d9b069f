"""Diagonal Fisher: forgetlab, an ordinary backward pass of the batches (= 1), the loop over examples, and peers.

python benchmarks/fisher.py [--repeats 7] [--examples 192] [--device cpu]
Prints medians of ratios of one round, and writes benchmarks/results/fisher-DEVICE.json. Peers that are not installed
are left out, with a word: opacus (the same quantity), asdfghjkl (squares each token's gradient, another quantity on
sequences), avalanche-lib (squares a mini-batch's gradient, another quantity).
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timing import matrix_rate, of_one_core, seconds
from torch import Tensor, nn

from forgetlab.importance import fisher_diagonal

BATCH, CLASSES = 32, 2
# vocabulary, longest text in tokens: sentences as the embedded world has them, and longer ones
MODELS = {"1M": (1000, 16), "1M, longer texts": (1000, 32), "vocabulary 30,522": (30522, 32)}
SIZES = {"1M": (128, 4, 1000), "4M": (256, 5, 1000), "22M": (384, 6, 30522), "67M": (768, 6, 30522)}  # width, layers
# size, longest text, share of the examples
ROWS = (("1M", 16, 1.0), ("1M", 32, 1.0), ("1M", 128, 0.34), ("4M", 32, 0.34), ("22M", 16, 1.0), ("22M", 128, 0.34))
ROWS += (("67M", 16, 0.5),)
FEW = 10_000_000  # weights, up to which loop and peers are timed: opacus holds 32 gradients of every weight
WAYS = ("backward", "hooks", "loop")


def classifier(vocabulary: int, device: str, width: int = 128, layers: int = 4) -> nn.Module:
    """A BERT (by default of four layers, 0.9M weights and its embeddings) that classifies."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(4, width // 64),
        intermediate_size=4 * width,
        max_position_embeddings=128,
        num_labels=CLASSES,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
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


def logits_by_row(module: Any, batch: tuple[Tensor, ...]) -> Tensor:
    """The same with positions and types given for each row, as peers need them."""
    places = torch.arange(batch[0].shape[1], device=batch[0].device).expand_as(batch[0])
    types = torch.zeros_like(batch[0])
    return module(input_ids=batch[0], attention_mask=batch[1], position_ids=places, token_type_ids=types).logits


def backward(module: nn.Module, batches: list[tuple[Tensor, ...]]) -> None:
    """The floor: an ordinary backward of each batch, which gives no Fisher."""
    for batch in batches:
        module.zero_grad()
        F.cross_entropy(logits(module, batch), batch[-1]).backward()


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


def opacus(module: nn.Module, batches: list[tuple[Tensor, ...]]) -> Callable[[], Any]:
    """Squares of opacus's per-example gradients, which it keeps for a whole batch."""
    from opacus import GradSampleModule

    taking = GradSampleModule(copy.deepcopy(module).train(), loss_reduction="sum")
    named = dict(taking.named_parameters())

    def work() -> dict[str, Tensor]:
        sums = {name: torch.zeros_like(p) for name, p in named.items()}
        for batch in batches:
            taking.zero_grad()
            F.cross_entropy(logits_by_row(taking, batch), batch[-1], reduction="sum").backward()
            for name, p in named.items():
                sums[name] += p.grad_sample.square_().sum(0)
        return {name.removeprefix("_module."): value / BATCH / len(batches) for name, value in sums.items()}

    return work


def asdfghjkl(module: nn.Module, batches: list[tuple[Tensor, ...]]) -> Callable[[], Any]:
    """asdfghjkl's diagonal of the empirical Fisher: on sequences the sum of squares over tokens."""
    import asdl

    taking = copy.deepcopy(module)
    config = asdl.FisherConfig(asdl.FISHER_EMP, [asdl.SHAPE_DIAG], loss_type=asdl.LOSS_CROSS_ENTROPY)
    maker = asdl.get_fisher_maker(taking, config)

    def work() -> None:
        for i, batch in enumerate(batches):
            output = maker.setup_model_call(lambda one: logits_by_row(taking, one), batch)
            maker.setup_loss_call(F.cross_entropy, output, batch[-1], reduction="sum")
            maker.forward_and_backward(data_size=BATCH * len(batches), accumulate=i > 0)

    return work


def avalanche(module: nn.Module, batches: list[tuple[Tensor, ...]]) -> Callable[[], Any]:
    """Avalanche's EWC importance of the same model and texts."""
    from avalanche.training.plugins import EWCPlugin

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


PEERS = {"opacus": opacus, "asdfghjkl": asdfghjkl, "avalanche": avalanche}


def peers(module: nn.Module, batches: list[tuple[Tensor, ...]]) -> dict[str, Callable[[], Any]]:
    """What is installed and runs; the rest is said."""
    found = {}
    for name, make in PEERS.items():
        try:
            found[name] = make(module, batches[:1])
            found[name]()
            found[name] = make(module, batches)
        except Exception as error:
            found.pop(name, None)
            print(f"  {name:10} left out: {type(error).__name__}: {str(error)[:80]}")
    return found


def row(size: str, length: int, examples: int, repeats: int, device: str) -> dict[str, Any]:
    """One model and length of text: medians of seconds, and of the ratios to the backward pass beside it."""
    width, layers, vocabulary = SIZES[size]
    module = classifier(vocabulary, device, width, layers)
    batches = texts(vocabulary, length, max(BATCH, examples // BATCH * BATCH), device)
    parameters, ways = sum(p.numel() for p in module.parameters()), {n: way(n, module, batches) for n in WAYS}
    print(f"{size}: {parameters:,} parameters, {BATCH * len(batches)} examples of up to {length} tokens", flush=True)
    if parameters > FEW:
        del ways["loop"]
    else:
        ways |= peers(module, batches)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for name in ("backward", "hooks"):
        ways[name]()  # warm-up
    for _ in range(repeats):  # in turns, so that a slow spell of the machine hits all alike
        for name, call in ways.items():
            taken[name].append(seconds(call, device))
    ratios = {n: statistics.median(a / b for a, b in zip(taken[n], taken["backward"], strict=True)) for n in ways}
    for name, values in taken.items():
        print(f"  {name:10}{statistics.median(values):8.3f} s {ratios[name]:7.2f} × the backward pass", flush=True)
    return {
        "parameters": parameters,
        "longest text": length,
        "examples": BATCH * len(batches),
        "seconds": {name: round(statistics.median(values), 4) for name, values in taken.items()},
        "times_the_backward": {name: round(value, 2) for name, value in ratios.items()},
    }


def bounds(length: int, width: int = 384, out: int = 1536) -> dict[str, float]:
    """Why a weight's per-example gradients take longer than its ordinary gradient: both have the same operations.

    Of a batch in which each example's part is a product of its own with `length` in the middle, and each is squared
    and added: floating-point operations a second of the two products, elements a second of the squaring, and the least
    that the squared gradients can take in ordinary gradients. On one core.
    """
    d, a = torch.randn(BATCH, length, out), torch.randn(BATCH, length, width)
    rows = 2**17 // width  # as forgetlab takes them: what stays in the cache
    block, memory, total = d.transpose(1, 2)[:, :rows], torch.empty(1, rows, width), torch.zeros(rows, width)

    def ordinary() -> None:
        d.flatten(0, 1).T @ a.flatten(0, 1)

    def products() -> None:
        for i in range(BATCH):
            torch.bmm(block[i : i + 1], a[i : i + 1], out=memory)

    def squares() -> None:
        for _ in range(BATCH):
            total.addcmul_(memory[0], memory[0])

    taken = {}
    for work in (ordinary, products, squares):
        work()
        taken[work.__name__] = statistics.median(of_one_core(work) for _ in range(15))
    elements = BATCH * rows * width
    rates = {
        "ordinary, Gflop/s": 2e-9 * BATCH * length * out * width / taken["ordinary"],
        "per example, Gflop/s": 2e-9 * elements * length / taken["products"],
        "squares, G elements/s": 1e-9 * elements / taken["squares"],
    }
    share = (taken["products"] + taken["squares"]) * out / rows / taken["ordinary"]
    return {name: round(value, 2) for name, value in (rates | {"times an ordinary gradient": share}).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--examples", type=int, default=192)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--measure", nargs=3, metavar=("WAY", "VOCABULARY", "LENGTH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(measure(options.measure[0], *map(int, options.measure[1:]), options.device))
        return
    table = {}
    for size, length, share in ROWS:
        examples = int(options.examples * share)
        table[f"{size}, {length} tokens"] = row(size, length, examples, options.repeats, options.device)
    memory = {}
    for label, (vocabulary, length) in MODELS.items():
        memory[label] = {name: round(peak(vocabulary, length, name, options.device), 1) for name in WAYS}
        print(f"{label}: " + ", ".join(f"{name} {value:.0f} MiB" for name, value in memory[label].items()), flush=True)
    on_cpu = options.device == "cpu"
    result = {
        "device": f"cpu ({platform.machine()})" if on_cpu else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "repeats": options.repeats,
        "models": table,
        "peak_MiB": memory,
        "matrix rate, per s": matrix_rate(1024, options.device),
        "bounds": {str(length): bounds(length) for length in (16, 32, 128)} if on_cpu else {},
    }
    for length, found in result["bounds"].items():
        print(f"bounds, {length} tokens: " + ", ".join(f"{name} {value}" for name, value in found.items()))
    path = Path(__file__).parent / "results" / f"fisher-{options.device}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
