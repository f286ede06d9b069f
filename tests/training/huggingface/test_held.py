"""What a remedy holds beside the weights: the table of the documentation, counted on a run."""

from __future__ import annotations

import gc
import re
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, TrainerCallback, TrainingArguments

from forgetlab import task
from forgetlab.importance import cache
from forgetlab.remedies import EWC, L2SP, ExperienceReplay, KLAnchor, LwF
from forgetlab.training import start
from forgetlab.training.huggingface import ForgettingTrainer
from forgetlab.training.method import Method
from forgetlab.training.pretraining import world_tokenizer
from tests.training.huggingface.test_trainer import collate

OLD = "causal-lm:news"
METHODS: dict[str, Any] = {
    "watching": lambda old: [],
    "L2SP": lambda old: [L2SP(0.1)],
    "ExperienceReplay": lambda old: [ExperienceReplay([old], ratio=0.5)],
    "EWC": lambda old: [EWC([old], lam=1.0, examples=4)],
    "KLAnchor": lambda old: [KLAnchor(0.1)],
    "LwF": lambda old: [LwF([old], 0.1)],
}


def in_memory() -> int:
    """Bytes of all tensors that Python holds, each memory once; large ones, so neither batches nor masks."""
    gc.collect()
    found = [x for x in gc.get_objects() if type(x) in (Tensor, nn.Parameter) and x.numel() > 10_000]
    return sum({x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in found}.values())


class Count(TrainerCallback):
    """Bytes after the second step's backward pass: weights, gradients, AdamW's moments, and the method's."""

    def on_pre_optimizer_step(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step == 1:
            self.bytes = in_memory()


def documented() -> dict[str, float]:
    """The column for one process, by the names in its rows."""
    text = (Path(__file__).parents[3] / "docs" / "real-models.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| (\d+) \| [\d/n–]+ \|$", text, re.MULTILINE)
    return {name: float(number) for row, number in rows for name in METHODS if re.search(rf"\b{name}\b", row)}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_the_bytes_a_weight_are_those_of_the_documentation(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "LARGE", 0)  # what is done for large models only
    monkeypatch.setattr(cache, "ROOM", 0)
    tokenizer, count, before, old = world_tokenizer(causal=True), Count(), in_memory(), task(OLD, size=32)
    shape = {"n_embd": 128, "n_layer": 2, "n_head": 2, "n_positions": 64}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **shape))
    size = sum(p.numel() for p in model.parameters())
    methods: list[Method] = METHODS[name](old)
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=2,
        logging_steps=2,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = ForgettingTrainer(
        model,
        arguments,
        train_dataset=[{"input_ids": [5, 6, 7, 8]}] * 4,
        data_collator=collate,
        processing_class=tokenizer,
        methods=methods,
        watch=[old],
        limit=4,
        callbacks=[count],
    )
    trainer.train()
    assert len(trainer.records) == 2
    assert (count.bytes - before) / size == pytest.approx(documented()[name], rel=0.02)
