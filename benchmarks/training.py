"""Steps per second of a watched run, against a bare PyTorch loop and transformers' Trainer, in one run.

python benchmarks/training.py [--repeats 7] [--steps 100] [--device auto]
Prints medians and ratios, and writes benchmarks/results/training-DEVICE.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from forgetlab import finetune, load, task
from forgetlab.models import Model
from forgetlab.recipes import device_name
from forgetlab.tasks import Task

BATCH, LR, EVERY, LIMIT = 32, 1e-3, 5, 128
WATCH = ("masked-lm", "entities", "acceptability")


def watched(model: Model, steps: int) -> int:
    """forgetlab: three watched tasks and the new one, a record every 5 steps."""
    tasks = [task(name) for name in WATCH]
    run = finetune(
        model, task("sentiment"), watch=tasks, steps=steps, lr=LR, batch_size=BATCH, every=EVERY, limit=LIMIT
    )
    return sum(1 for _ in run)


def unwatched(model: Model, steps: int) -> int:
    """forgetlab with records at the start and the end only."""
    return sum(1 for _ in finetune(model, task("sentiment"), steps=steps, lr=LR, batch_size=BATCH, every=steps))


def bare(model: Model, steps: int) -> int:
    """What one writes by hand: the same batches, loss and optimizer, nothing watched."""
    new = task("sentiment")
    new.prepare(model)
    generator = torch.Generator().manual_seed(0)
    order = torch.cat([torch.randperm(new.size(), generator=generator) for _ in range(1 + steps * BATCH // new.size())])
    encoded = new.encoded(model, "train")
    targets = torch.tensor([new.labels.index(label) for label in new.train.labels])
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0)
    model.train()
    for step in range(steps):
        index = order[step * BATCH : (step + 1) * BATCH]
        batch = {k: v.to(model.device) for k, v in encoded.take(index).items()}
        loss = torch.nn.functional.cross_entropy(model.logits(batch, "sentiment"), targets[index].to(model.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return steps


def trainer_watched(model: Model, steps: int) -> int:
    """Trainer with its own evaluation at the same steps, on the same texts.

    Its model has one head, so it predicts a class for every text, which is less work than tags and hidden words are.
    """
    return trainer(model, steps, watching=True)


def trainer(model: Model, steps: int, watching: bool = False) -> int:
    """transformers' Trainer on the same data, not watching."""
    from transformers import BertForSequenceClassification, Trainer, TrainingArguments

    new = task("sentiment")
    rows = as_rows(new, model, "train")
    evaluation = {t.name: as_rows(t, model, "test")[:LIMIT] for t in [new, *map(task, WATCH)]} if watching else None
    classifier = BertForSequenceClassification(model.config)
    classifier.bert.load_state_dict(model.body.bert.state_dict(), strict=False)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=BATCH,
            learning_rate=LR,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            logging_strategy="no",
            dataloader_pin_memory=False,
            use_cpu=model.device.type == "cpu",
            **(
                {"eval_strategy": "steps", "eval_steps": EVERY, "per_device_eval_batch_size": LIMIT} if watching else {}
            ),
        )
        Trainer(classifier, arguments, train_dataset=rows, eval_dataset=evaluation).train()
    return steps


def as_rows(of: Task, model: Model, split: str) -> list[dict[str, Any]]:
    """The texts of a task as Trainer takes them, each as long as the longest; classes where the task has none: 0."""
    encoded, examples = of.encoded(model, split), of.train if split == "train" else of.test
    ids, mask = encoded.columns["input_ids"], encoded.columns["attention_mask"]
    labels = [of.labels.index(label) for label in examples.labels] if of.name == "sentiment" else [0] * len(ids)
    return [{"input_ids": ids[i], "attention_mask": mask[i], "labels": y} for i, y in enumerate(labels)]


def arithmetic(steps: int, device: str) -> tuple[float, float]:
    """(floating-point operations of the matrix products of a watched run, the device's matrix rate per second)."""
    from torch.utils.flop_counter import FlopCounterMode

    model = load("tiny-bert", device=device)
    with FlopCounterMode(display=False) as counter:
        watched(model, steps)
    n, rates = 1024, []
    a = torch.randn(n, n, device=model.device)
    for _ in range(20):
        start = time.perf_counter()
        a @ a
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        rates.append(2 * n**3 / (time.perf_counter() - start))
    return float(counter.get_total_flops()), statistics.median(rates)


def measure(run: Callable[[Model, int], int], device: str, steps: int) -> float:
    """Seconds of one run on a fresh model; loading is not counted, preparing the data is."""
    model = load("tiny-bert", device=device)
    start = time.perf_counter()
    run(model, steps)
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    runs = {"bare loop": bare, "forgetlab, unwatched": unwatched, "forgetlab, watched": watched}
    runs |= {"Trainer": trainer, "Trainer, watched": trainer_watched}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for name in runs:
        measure(runs[name], options.device, 5)  # warm-up
    for _ in range(options.repeats):  # interleaved, so that a slow spell of the machine hits all alike
        for name in runs:
            seconds[name].append(measure(runs[name], options.device, options.steps))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{options.steps} steps of batch {BATCH}, medians of {options.repeats}")
    for name, median in medians.items():
        rate, ratio = options.steps / median, medians["bare loop"] / median
        print(f"  {name:<22}{median:7.2f} s {rate:8.1f} steps/s   ×{ratio:.2f} of the bare loop")
    operations, rate = arithmetic(options.steps, options.device)
    limit = operations / rate
    print(f"  arithmetic limit      {limit:7.2f} s: {operations / 1e9:.0f} Gflop at {rate / 1e9:.0f} Gflop/s")
    print(
        f"watched: {medians['Trainer, watched'] / medians['forgetlab, watched']:.2f} times the speed of Trainer, "
        f"{medians['forgetlab, watched'] / limit:.2f} times the arithmetic limit"
    )
    device = device_name(load("tiny-bert", device=options.device))
    result = {
        "device": device,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "steps": options.steps,
        "seconds": seconds,
        "medians": medians,
        "operations": operations,
        "matrix rate, per s": rate,
    }
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    kind = options.device if options.device != "auto" else load("tiny-bert").device.type
    (folder / f"training-{kind}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
