"""Pre-training of the shipped tiny models (`make pretrain`), and of a small causal model on a user's own text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from forgetlab.models.model import Model
from forgetlab.sources import Examples
from forgetlab.sources.paragraphs import check_enough
from forgetlab.sources.world import corpus
from forgetlab.tasks import CausalLM, MaskedLM, Task
from forgetlab.tasks.embedded import default_watch, task

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass(frozen=True)
class Pretraining:
    """The size and the training of a tiny model. tasks: the labelled tasks whose heads are trained along."""

    width: int
    layers: int
    heads: int
    steps: int
    texts: int
    batch: int = 64
    lr: float = 2e-3
    tasks: tuple[str, ...] = ()


SHIPPED = {
    "tiny-bert": Pretraining(64, 3, 4, steps=10000, texts=200_000, tasks=("entities", "register", "acceptability")),
    "tiny-gpt": Pretraining(96, 3, 4, steps=5000, texts=200_000),
}


def world_tokenizer(causal: bool) -> Any:
    """A word-level tokenizer for the embedded language: one token a word, lower-cased, punctuation apart."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[BOS]", "[EOS]"] if causal else SPECIAL
    vocabulary = {word: i for i, word in enumerate([*special, *corpus.vocabulary()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if causal:
        names = {"bos_token": "[BOS]", "eos_token": "[EOS]"}
    else:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
        )
        names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    inputs = ["input_ids", "attention_mask"] if causal else ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_input_names=inputs, **names
    )


def random_model(name: str, tokenizer: Any, size: Pretraining, causal: bool, seed: int, positions: int = 64) -> Model:
    """A BERT with a masked-LM head or, causal, a GPT-2 with tied embeddings: its weights drawn by the seed."""
    from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

    common: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "max_position_embeddings": positions,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if causal:
            common |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
            common |= {"activation_function": "relu", "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
            # `Model.end_mark`: each text is closed with the end token below
            return Model(GPT2LMHeadModel(GPT2Config(**common, end_mark=True)), tokenizer, name)
        common |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "intermediate_size": 4 * size.width}
        common["hidden_act"] = "relu"  # a tenth faster than GELU on a CPU
        return Model(BertForMaskedLM(BertConfig(**common)), tokenizer, name)


def world_texts(count: int, seed: int) -> Examples:
    """Pre-training texts of the general registers, none of them on the test side."""
    stream = corpus.draw("General", "train", Random(seed), labelled=False)
    return Examples(kind="text", texts=tuple(next(stream).text for _ in range(count)))


def pretrain(name: str, *, seed: int = 0, steps: int | None = None) -> Iterator[tuple[int, float, Model]]:
    """Train a shipped model from nothing; yields (step, loss in nats, model) every 100 steps and at the end.

    name: "tiny-bert" or "tiny-gpt". steps: fewer, for a trial.
    """
    plan, causal = SHIPPED[name], name == "tiny-gpt"
    model = random_model(name, world_tokenizer(causal), plan, causal, seed)
    texts = world_texts(plan.texts, seed)
    kind = CausalLM if causal else MaskedLM
    tasks: list[Task] = [kind(name, texts, Examples(kind="text", texts=texts.texts[:1]))]
    if isinstance(tasks[0], MaskedLM):
        tasks[0].mask_rate = 0.3  # from nothing, twice as many gaps teach faster (Wettig et al. 2023)
    tasks += [task(other, size=12_000) for other in plan.tasks]
    yield from _train(model, tasks, plan, steps or plan.steps, seed)


def pretrain_on(
    texts: Sequence[str], *, seed: int = 0, steps: int = 1000, positions: int = 128
) -> Iterator[tuple[int, float, Model]]:
    """Train a small causal model (2000 tokens of byte-level BPE, about 1M weights) on a user's own passages.

    positions: of its longest sequence. Yields as `pretrain`.
    """
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    check_enough(texts)
    end, trained = "<|endoftext|>", ByteLevelBPETokenizer()
    trained.train_from_iterator(texts, vocab_size=2000, special_tokens=[end], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, bos_token=end, eos_token=end, pad_token=end
    )
    plan = Pretraining(128, 3, 4, steps=steps, texts=len(texts), batch=32)
    model = random_model("own-gpt", tokenizer, plan, causal=True, seed=seed, positions=positions)
    examples = Examples(kind="text", texts=tuple(texts))
    yield from _train(model, [CausalLM("text", examples, examples)], plan, steps, seed)


def _train(
    model: Model, tasks: list[Task], plan: Pretraining, steps: int, seed: int
) -> Iterator[tuple[int, float, Model]]:
    for one in tasks:
        one.prepare(model)
    generator = torch.Generator().manual_seed(seed)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=plan.lr, betas=(0.9, 0.98), fused=True)
    warm = max(1, steps // 20)
    # warm-up, then a cosine down to zero
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warm, 0.5 * (1 + math.cos(math.pi * min(1, s / steps))))
    )
    others = cycle(tasks[1:]) if len(tasks) > 1 else None
    model.train()
    loss = torch.zeros(())
    batches = _bucketed(tasks[0].encoded(model, "train").lengths, min(plan.batch, tasks[0].size()), generator)
    for step in range(1, steps + 1):
        index = next(batches)
        loss = tasks[0].loss(model, tasks[0].batch(model, index, generator))
        loss.backward()
        if others is not None and step % 2 == 0:
            other = next(others)
            index = torch.randint(other.size(), (plan.batch // 2,), generator=generator)
            other.loss(model, other.batch(model, index, generator)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == steps:
            yield step, float(loss.detach()), model
    model.eval()
    model.remember()


def _bucketed(lengths: Tensor, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Random batches of texts of similar length: a third less padding to compute. 32 batches are sorted at a time."""
    while True:
        order = torch.randperm(len(lengths), generator=generator)
        for window in order.split(32 * batch):
            chunks = [c for c in window[torch.argsort(lengths[window], stable=True)].split(batch) if len(c) == batch]
            for i in torch.randperm(len(chunks), generator=generator).tolist():
                yield chunks[i]


def card(name: str, model: Model, steps: int, seed: int) -> str:
    """The model card of a shipped model: how it was made, and its scores beside the exact floors."""
    plan, rows = SHIPPED[name], []
    for task_name in [*default_watch(model), *(("masked-lm:notices",) if not model.causal else ("causal-lm:notices",))]:
        one = task(task_name)
        one.prepare(model)
        scores = one.score(model)
        floor = f"{one.floor:.3f}" if one.floor else ""
        rows.append(f"| {task_name} | {one.metric} | {scores[one.metric]:.3f} | {floor} |")
    held = [task(h, split="heldout") for h in model.heads if h != "register"]
    rows += [f"| {one.name} (held-out names) | {one.metric} | {one.score(model)[one.metric]:.3f} | |" for one in held]
    kind = "GPT-2 with tied embeddings" if model.causal else "BERT with a masked-LM head"
    count = sum(p.numel() for p in model.body.parameters())
    heads = f" Named heads trained along: {', '.join(model.heads)}." if model.heads else ""
    return f"""---
license: mit
library_name: transformers
---

# {name}

A {kind}: {count:,} weights, {plan.layers} layers of width {plan.width}, {len(model.tokenizer)} word-level tokens.
It knows nothing but forgetlab's embedded language and is made for watching it forget.{heads}

| task | metric | score | floor |
|---|---|---|---|
{chr(10).join(rows)}

The floor is the best value any model can reach, computed from the grammar on the same test texts. `notices` is a
register that the pre-training text does not have.

Trained for {steps} steps of {plan.batch} texts (seed {seed}, {plan.texts:,} texts, AdamW, peak rate {plan.lr:g})
on texts of the training side of the split only. To rebuild it, on one thread:

    OMP_NUM_THREADS=1 python -m forgetlab pretrain {name} --out data/models/{name}
"""
