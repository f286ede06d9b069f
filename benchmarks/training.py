"""Steps per second of a watched run, against a bare PyTorch loop and transformers' Trainer, in one run.

python benchmarks/training.py [--repeats 7] [--steps 100] [--device auto]
Prints medians and ratios, and writes benchmarks/results/training-DEVICE.json.
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timing import matrix_rate, seconds
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from forgetlab import finetune, load, task
from forgetlab.metrics import entity_f1
from forgetlab.models.device import device_name
from forgetlab.models.model import Model
from forgetlab.tasks import Task
from forgetlab.tasks.encoding import IGNORE

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
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0, fused=True)
    model.train()
    for step in range(steps):
        index = order[step * BATCH : (step + 1) * BATCH]
        batch = {k: v.to(model.device) for k, v in encoded.take(index).items()}
        hidden = model.backbone(**batch).last_hidden_state
        loss = F.cross_entropy(
            model.heads["sentiment"](hidden, batch["attention_mask"]), targets[index].to(model.device)
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return steps


def trainer_watched(model: Model, steps: int) -> int:
    """Trainer doing the same: its own evaluation at the same steps gives the same scores on the same texts."""
    return trainer(model, steps, watching=True)


def trainer(model: Model, steps: int, watching: bool = False) -> int:
    """transformers' Trainer on the same data, not watching."""
    with tempfile.TemporaryDirectory() as folder:
        made(model, steps, watching, folder).train()
    return steps


def made(model: Model, steps: int, watching: bool, folder: str) -> Any:
    from transformers import Trainer, TrainingArguments

    tasks = [task("sentiment"), *map(task, WATCH)]
    for one in tasks:
        one.prepare(model)
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=64,  # as forgetlab on a CPU, where both are the fastest with it
        learning_rate=LR,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        logging_strategy="no",
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        use_cpu=model.device.type == "cpu",
        **({"eval_strategy": "steps", "eval_steps": EVERY} if watching else {}),
    )
    return Trainer(
        WithHeads(model),
        arguments,
        train_dataset=training_rows(tasks[0], model),
        eval_dataset={t.name: test_rows(t, model) for t in tasks} if watching else None,
        data_collator=Collator(model),
        compute_metrics=functools.partial(scores, tasks[2]),
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
    )


def check_that_both_score_alike(device: str) -> None:
    """The scores of Trainer's evaluation are those of forgetlab's tasks; raises AssertionError otherwise."""
    model = load("tiny-bert", device=device)
    watched(model, 5)
    with tempfile.TemporaryDirectory() as folder:
        found = made(model, 1, True, folder).evaluate()
    for name in ("sentiment", *WATCH):
        own = task(name).score(model.eval(), LIMIT)
        metric = "loss" if name == "masked-lm" else "f1" if name == "entities" else "accuracy"
        theirs = found[f"eval_{name}_{metric}"]
        assert abs(theirs - own[metric]) < 1e-4, (name, metric, theirs, own)


class WithHeads(nn.Module):
    """The model as Trainer takes it: the loss and the logits of the task that the batch is of."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, of: str, labels: Tensor, **batch: Tensor) -> dict[str, Tensor]:
        hidden = self.model.backbone(**batch).last_hidden_state  # as transformers wrote it
        if of == "masked-lm":  # where a word is hidden only
            hidden, labels = hidden[labels != IGNORE], labels[labels != IGNORE]
            logits = self.model.lm_logits(hidden)
        else:
            logits = self.model.heads[of](hidden, batch["attention_mask"])
        return {"loss": F.cross_entropy(logits.flatten(0, -2), labels.flatten()), "logits": logits}


class Collator:
    """Pads each batch to its own longest text, as transformers' collators do."""

    def __init__(self, model: Model) -> None:
        self.padding = model.tokenizer.pad_token_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        ids = pad_sequence([r["input_ids"] for r in rows], batch_first=True, padding_value=self.padding)
        mask = pad_sequence([torch.ones_like(r["input_ids"]) for r in rows], batch_first=True)
        labels = [r["labels"] for r in rows]
        many = labels[0].dim() > 0
        of = pad_sequence(labels, batch_first=True, padding_value=IGNORE) if many else torch.stack(labels)
        return {"input_ids": ids, "attention_mask": mask, "labels": of, "of": rows[0]["of"]}


def training_rows(of: Task, model: Model) -> list[dict[str, Any]]:
    encoded = of.encoded(model, "train")
    ids, lengths = encoded.columns["input_ids"], encoded.columns["attention_mask"].sum(1).tolist()
    targets = of.batch(model, torch.arange(of.size()), torch.Generator().manual_seed(0))["targets"]
    return [{"input_ids": ids[i, :n], "labels": targets[i], "of": of.name} for i, n in enumerate(lengths)]


def test_rows(of: Task, model: Model) -> list[dict[str, Any]]:
    """The texts that forgetlab scores, the same words hidden; labels at every place, or one for the text."""
    rows = []
    for batch in of.test_batches(model, LIMIT):
        ids, lengths = batch["input_ids"], batch["attention_mask"].sum(1).tolist()
        labels = batch["targets"]
        if "places" in batch:
            labels = torch.full((ids.numel(),), IGNORE)
            labels[batch["places"]] = batch["targets"]
            labels = labels.view(ids.shape)
        rows += [
            {"input_ids": ids[i, :n], "labels": labels[i, :n] if labels.dim() > 1 else labels[i], "of": of.name}
            for i, n in enumerate(lengths)
        ]
    return rows


def scores(tagging: Task, found: Any) -> dict[str, float]:
    """Accuracy of classes, F1 of tags; the perplexity of hidden words is exp(loss), which Trainer reports."""
    guesses, labels = found.predictions, found.label_ids
    if labels.ndim == 1:
        return {"accuracy": float((guesses == labels).mean())}
    if labels.max() >= len(tagging.labels):
        return {}
    words = labels != IGNORE
    tags = [
        [[tagging.labels[i] for i in row[own]] for row, own in zip(side, words, strict=True)]
        for side in (guesses, labels)
    ]
    return entity_f1(*tags)


def arithmetic(steps: int, device: str) -> tuple[float, float]:
    """(floating-point operations of the matrix products of a watched run, the device's matrix rate per second)."""
    from torch.utils.flop_counter import FlopCounterMode

    model = load("tiny-bert", device=device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # else tasks are scored in threads of their own, where nothing counts
    with FlopCounterMode(display=False) as counter:
        watched(model, steps)
    torch.set_num_threads(threads)
    return float(counter.get_total_flops()), matrix_rate(1024, model.device.type)


def measure(run: Callable[[Model, int], int], device: str, steps: int) -> float:
    """Seconds of one run on a fresh model; loading is not counted, preparing the data is."""
    model = load("tiny-bert", device=device)
    return seconds(lambda: run(model, steps), model.device.type)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    runs = {"bare loop": bare, "forgetlab, unwatched": unwatched, "forgetlab, watched": watched}
    runs |= {"Trainer": trainer, "Trainer, watched": trainer_watched}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    check_that_both_score_alike(options.device)
    for name in runs:
        measure(runs[name], options.device, 5)  # warm-up
    for _ in range(options.repeats):  # interleaved, so that a slow spell of the machine hits all alike
        for name in runs:
            taken[name].append(measure(runs[name], options.device, options.steps))
    medians = {name: statistics.median(values) for name, values in taken.items()}
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
        "seconds": taken,
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
