"""Models of usual sizes with random weights: their steps per second and peak memory, against a loop by hand.

A part of gpu.py, which says on which device and how much.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from overhead import distilbert, longer
from scale import long_texts
from timing import seconds
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from forgetlab import finetune
from forgetlab.models import memory
from forgetlab.models.model import Model
from forgetlab.remedies import EWC, ExperienceReplay, LoRA
from forgetlab.tasks import CausalLM, Task
from forgetlab.training.method import Method
from forgetlab.training.pretraining import world_tokenizer

LR = 1e-5
Found = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A model, what it learns and what it knew, and its batches: so many texts of so many tokens."""

    model: Model
    new: Task
    old: Task
    batch: int
    tokens: int


def bert_case(small: bool, device: str) -> Case:
    """DistilBERT's size, on classes of texts; what it knew is to fill gaps."""
    shape = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "vocab_size": 2000} if small else {}
    batch, tokens = (2, 16) if small else (32, 128)
    model = distilbert(**shape).to(device).eval()
    model.remember()  # there, too
    return Case(model, longer(tokens // 9), long_texts(tokens), batch, tokens)


def llama_case(small: bool, device: str) -> Case:
    """The size of Llama 3.2 1B, on text; what it knew is text too."""
    from transformers import LlamaConfig, LlamaForCausalLM

    width, layers, heads, vocabulary = (32, 2, 4, 2000) if small else (2048, 16, 32, 128256)
    batch, tokens = (2, 16) if small else (8, 256)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 4,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    with torch.device(device):  # random numbers for a billion weights take a CPU a while
        body = LlamaForCausalLM(config)
    texts = long_texts(tokens).test
    new, old = CausalLM("new", texts, texts), CausalLM("old", texts, texts)
    return Case(Model(body, world_tokenizer(True), "1B Llama size").eval(), new, old, batch, tokens)


def by_hand(case: Case) -> Callable[[int], None]:
    """What one writes without forgetlab, for so many steps: its batches, loss, precision, clipping and optimizer."""
    model, new, draws = case.model, case.new, torch.Generator().manual_seed(0)
    new.prepare(model)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.0, fused=True)

    def loss(of: dict[str, Tensor]) -> Tensor:
        inputs = {name: of[name] for name in ("input_ids", "attention_mask")}
        if isinstance(new, CausalLM):
            return model.body(**inputs, labels=of["input_ids"].masked_fill(of["attention_mask"] == 0, -100)).loss
        hidden = model.backbone(**inputs).last_hidden_state
        return F.cross_entropy(model.heads[new.name](hidden, of["attention_mask"]), of["targets"])

    def steps(count: int) -> None:
        model.train()
        for _ in range(count):
            of = new.batch(model, torch.randint(new.size(), (case.batch,), generator=draws), draws)
            with torch.autocast(model.device.type, torch.bfloat16):
                value = loss(of)
            value.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return steps


def bare(case: Case, steps: int) -> Found:
    run = by_hand(case)
    with FlopCounterMode(display=False) as counter:
        run(1)
    memory.start_peak(case.model.device)
    run(steps)  # warm-up
    taken = seconds(lambda: run(steps), case.model.device.type)
    operations = counter.get_total_flops()
    return {"steps per s": steps / taken, "peak": memory.peak(case.model.device), "operations of a step": operations}


def with_methods(case: Case, methods: list[Method], steps: int) -> Found:
    """A run of twice as many steps, the first half of them for warming up."""
    options = {"steps": 2 * steps, "every": steps, "batch_size": case.batch, "lr": LR, "limit": 1}
    _, warm, last = finetune(case.model, case.new, methods=methods, precision="bfloat16", **options)
    notes = [note for note in (*warm.notes, *last.notes) if "memory" in note]  # batches in halves are slower
    return {
        "steps per s": steps / (last.train_seconds - warm.train_seconds),
        "peak": last.peak_memory,
        **({"note": notes[0]} if notes else {}),
    }


def compared(case: Case, steps: int, rate: float, words: Callable[[Exception], str]) -> Found:
    """The loop by hand, then forgetlab with each remedy; one that fails says why.

    rate: the device's, in operations per second. "share of the rate" only where a step computes what the bare one does.
    """
    model = case.model
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    runs: dict[str, Callable[[], Found]] = {
        "bare loop": lambda: bare(case, steps),
        "none": lambda: with_methods(case, [], steps),
        "ewc": lambda: with_methods(case, [EWC([case.old], examples=8, estimator="empirical")], steps),
        "replay": lambda: with_methods(case, [ExperienceReplay([case.old])], steps),
        "lora": lambda: with_methods(case, [LoRA()], steps),
    }
    found: dict[str, Found] = {}
    for name, run in runs.items():
        try:
            model.restore()
            found[name] = run()
            peak = found[name].pop("peak")
            found[name]["peak, copies of the weights"] = peak and peak / weights
        except Exception as error:
            found[name] = {"failed": words(error)}
        memory.free(model.device)  # out here: while an error is held, so are its tensors
        operations = found["bare loop"].get("operations of a step")
        if operations and name in ("bare loop", "none") and "steps per s" in found[name]:
            found[name]["share of the rate"] = operations * found[name]["steps per s"] / rate
    return {"weights": weights // 4, "batch": f"{case.batch} texts of {case.tokens} tokens", "runs": found}
