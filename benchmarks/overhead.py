"""What a remedy adds to a training step, in one run: L2-SP and EWC against plain fine-tuning.

python benchmarks/overhead.py [--repeats 15] [--device cpu]
Prints medians and ratios, and writes benchmarks/results/overhead-DEVICE.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Callable
from pathlib import Path

import torch

from forgetlab import finetune, load, task
from forgetlab.methods import Method
from forgetlab.models import Model
from forgetlab.regularizers import EWC, L2SP
from forgetlab.sources import Examples
from forgetlab.tasks import Classification

# batch size, steps, new task: sentences of the embedded world (14 tokens), and five of them in a text (46 tokens)
SIZES = {
    "tiny-bert": (32, 30, "sentences"),
    "DistilBERT size": (32, 5, "sentences"),
    "DistilBERT size, longer texts": (32, 2, "longer"),
}


def distilbert() -> Model:
    """A DistilBERT of the usual size with random weights, reading the embedded language."""
    from transformers import DistilBertConfig, DistilBertForMaskedLM

    from forgetlab.pretraining import world_tokenizer

    torch.manual_seed(0)
    body = DistilBertForMaskedLM(DistilBertConfig(dropout=0.0, attention_dropout=0.0))
    return Model(body, world_tokenizer(False), "DistilBERT size")


def longer() -> Classification:
    """The sentiment task with five reviews in a text."""
    train = task("sentiment").train
    assert train is not None
    assert train.labels is not None
    texts = tuple(" ".join(train.texts[i : i + 5]) for i in range(0, len(train.texts) - 4, 5))
    labelled = Examples("labelled", texts, labels=train.labels[: len(texts)])
    return Classification("sentiment", labelled, labelled)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    table = {}
    for size, (batch_size, steps, kind) in SIZES.items():
        new = task("sentiment") if kind == "sentences" else longer()
        model = (load("tiny-bert") if size == "tiny-bert" else distilbert()).to(options.device)
        fisher = {name: torch.rand_like(p) for name, p in model.named_parameters()}
        ways: dict[str, Callable[[], list[Method]]] = {
            "none": list,
            "l2sp": lambda: [L2SP(1e-6)],
            "ewc": lambda fisher=fisher: [EWC(fisher, 1e-6)],
            "ewc, proximal": lambda fisher=fisher: [EWC(fisher, 1e-6, proximal=True)],
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.repeats):
            for name, make in ways.items():
                run = finetune(model, new, methods=make(), steps=steps, every=steps, batch_size=batch_size, limit=1)
                seconds[name].append(list(run)[-1].train_seconds / steps)
                model.restore()
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        parameters = sum(p.numel() for p in model.parameters())
        table[size] = {
            "parameters": parameters,
            "milliseconds_per_step": {name: round(1000 * value, 2) for name, value in medians.items()},
            "added": {name: round(value / medians["none"] - 1, 4) for name, value in medians.items()},
        }
        print(f"{size}: {parameters:,} parameters, batches of {batch_size}")
        for name, value in medians.items():
            print(f"  {name:14} {1000 * value:9.2f} ms a step  {value / medians['none'] - 1:+7.1%}")
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"cpu ({platform.machine()})"
    result = {"device": where, "threads": torch.get_num_threads(), "repeats": options.repeats, "models": table}
    path = Path(__file__).parent / "results" / f"overhead-{options.device}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
