"""What a remedy adds to a training step: in one run the steps of plain fine-tuning, L2-SP and EWC take turns.

python benchmarks/overhead.py [--rounds 60] [--device cpu]
Prints medians and ratios, and writes benchmarks/results/overhead-DEVICE.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from timing import wait

from forgetlab import finetune, load, task
from forgetlab.models.model import Model
from forgetlab.remedies.regularizers import EWC, L2SP
from forgetlab.sources import Examples
from forgetlab.tasks import Classification
from forgetlab.training.method import Method, Run

# batch size, share of the rounds, new task: sentences of the embedded world (14 tokens), or five in a text (46 tokens)
SIZES = {
    "tiny-bert": (32, 10.0, "sentences"),
    "DistilBERT size": (32, 1.0, "sentences"),
    "DistilBERT size, longer texts": (32, 0.5, "longer"),
}


def distilbert(**shape: int) -> Model:
    """A DistilBERT with random weights, of the usual size but for `shape`, reading the embedded language."""
    from transformers import DistilBertConfig, DistilBertForMaskedLM

    from forgetlab.training.pretraining import world_tokenizer

    torch.manual_seed(0)
    body = DistilBertForMaskedLM(DistilBertConfig(dropout=0.0, attention_dropout=0.0, **shape))
    return Model(body, world_tokenizer(False), "DistilBERT size")


def longer(reviews: int = 5) -> Classification:
    """The sentiment task with so many reviews in a text."""
    train = task("sentiment").train
    assert train is not None
    assert train.labels is not None
    texts = tuple(" ".join(train.texts[i : i + reviews]) for i in range(0, len(train.texts) - reviews + 1, reviews))
    labelled = Examples("labelled", texts, labels=train.labels[: len(texts)])
    return Classification("sentiment", labelled, labelled)


class InTurn(Method):
    """At each step another remedy acts, in an order drawn anew for each round; "none" is a step without one.

    So all of them are timed in one run, on one set of weights, gradients and optimizer states: between runs of their
    own a machine's memory differs by more than what a remedy adds.
    """

    def __init__(self, remedies: Mapping[str, Method]) -> None:
        self._remedies = {"none": Method(), **remedies}
        self._order, self._draw = list[str](), random.Random(0)
        self._now, self._began = "", 0.0
        self.seconds: dict[str, list[float]] = {name: [] for name in self._remedies}

    def setup(self, run: Run) -> None:
        for remedy in self._remedies.values():
            remedy.setup(run)

    def before_step(self, run: Run) -> None:
        self.tick(run)
        if not self._order:
            self._order = self._draw.sample(list(self._remedies), len(self._remedies))
        self._now, self._began = self._order.pop(), time.perf_counter()

    def add_penalty_gradient(self, run: Run) -> None:
        self._remedies[self._now].add_penalty_gradient(run)

    def after_step(self, run: Run) -> None:
        self._remedies[self._now].after_step(run)
        if run.step == run.steps:
            self.tick(run)

    def tick(self, run: Run) -> None:
        """The end of a step; the first round is warm-up."""
        wait(run.model.device.type)
        if run.step > len(self._remedies):
            self.seconds[self._now].append(time.perf_counter() - self._began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    table = {}
    for size, (batch_size, share, kind) in SIZES.items():
        new = task("sentiment") if kind == "sentences" else longer()
        model = (load("tiny-bert") if size == "tiny-bert" else distilbert()).to(options.device)
        everywhere = {name: torch.rand_like(p) for name, p in model.named_parameters()}
        old = [task("entities")]  # names have few of a large model's words: most of its embeddings are not pulled
        turns = InTurn(
            {
                "l2sp": L2SP(1e-6),
                "ewc": EWC(old, 1e-6),
                "ewc, no weight of importance 0": EWC(everywhere, 1e-6),
                "l2sp, proximal": L2SP(1e-6, proximal=True),
                "ewc, proximal": EWC(old, 1e-6, proximal=True),
            }
        )
        rounds = max(1, int(options.rounds * share))
        steps = (rounds + 1) * len(turns.seconds)
        list(finetune(model, new, methods=[turns], steps=steps, every=steps, batch_size=batch_size, limit=1))
        medians = {name: statistics.median(values) for name, values in turns.seconds.items()}
        parameters = sum(p.numel() for p in model.parameters())
        table[size] = {
            "parameters": parameters,
            "rounds": rounds,
            "milliseconds_per_step": {name: round(1000 * value, 2) for name, value in medians.items()},
            "added": {name: round(value / medians["none"] - 1, 4) for name, value in medians.items()},
        }
        print(f"{size}: {parameters:,} parameters, batches of {batch_size}, {rounds} rounds")
        for name, value in medians.items():
            print(f"  {name:30} {1000 * value:9.2f} ms a step  {value / medians['none'] - 1:+7.1%}")
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"cpu ({platform.machine()})"
    result = {"device": where, "threads": torch.get_num_threads(), "models": table}
    path = Path(__file__).parent / "results" / f"overhead-{options.device}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
