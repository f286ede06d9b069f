"""The Fisher information and MAS of a transformers model and its data loader, against one example at a time."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    DataCollatorForLanguageModeling,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    GPT2Config,
    GPT2LMHeadModel,
)

from forgetlab import ForgetlabError, load
from forgetlab.importance import fisher_diagonal, mas_importance

TEXTS = ("anna liked the film", "the film", "the book anna liked was the book", "anna", "the book", "anna liked it")
SHAPE: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "num_labels": 3}


def made(kind: str) -> tuple[Any, list[dict[str, Any]], DataLoader[Any]]:
    """A small random model, its rows without padding, and the loader that a Trainer would make of them."""
    tokenizer = load("tiny-gpt" if kind == "causal" else "tiny-bert", device="cpu").tokenizer
    torch.manual_seed(0)
    size = len(tokenizer)
    rows = [{"input_ids": tokenizer(text)["input_ids"]} for text in TEXTS]
    if kind == "causal":
        model: Any = GPT2LMHeadModel(
            GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=size, bos_token_id=2, eos_token_id=3)
        )
        collate: Any = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    elif kind == "tokens":
        model = BertForTokenClassification(BertConfig(vocab_size=size, intermediate_size=32, **SHAPE))
        collate = DataCollatorForTokenClassification(tokenizer)
        for row in rows:  # the ends ask for nothing, nor does the whole of one text
            ids = row["input_ids"]
            row["labels"] = [-100, *(i % 3 for i in ids[1:-1]), -100] if len(ids) != 3 else [-100] * 3
    else:
        model = BertForSequenceClassification(BertConfig(vocab_size=size, intermediate_size=32, **SHAPE))
        collate = DataCollatorWithPadding(tokenizer)
        for i, row in enumerate(rows):
            row["label"] = i % 3  # the collator calls it "labels"
    return model.eval(), rows, DataLoader(rows, batch_size=4, collate_fn=collate)  # type: ignore[arg-type]


def asked(kind: str, model: Any, row: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """(logits, classes) of the places of one text that ask for something."""
    logits = model(input_ids=torch.tensor([row["input_ids"]])).logits
    if kind == "causal":
        return logits[0, :-1], torch.tensor(row["input_ids"][1:])
    if kind == "tokens":
        labels = torch.tensor(row["labels"])
        return logits[0][labels >= 0], labels[labels >= 0]
    return logits, torch.tensor([row["label"]])


@pytest.mark.parametrize("kind", ["texts", "tokens", "causal"])
def test_a_loader_as_it_is_gives_the_mean_of_squared_gradients(kind: str) -> None:
    model, rows, loader = made(kind)
    wanted = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    moved = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for row in rows:
        logits, classes = asked(kind, model, row)
        if len(classes):
            for sums, how, score in (
                (wanted, torch.square, logits.log_softmax(-1)[range(len(classes)), classes].sum()),
                (moved, torch.abs, logits.square().sum()),
            ):
                grads = torch.autograd.grad(score, [*model.parameters()], allow_unused=True, retain_graph=True)
                for name, grad in zip(sums, grads, strict=True):
                    if grad is not None:
                        sums[name] += how(grad) / len(rows)
    found = fisher_diagonal(model, loader, estimator="empirical")
    again = mas_importance(model, loader)
    for given, right in ((found, wanted), (again, moved)):
        largest = max(float(value.max()) for value in right.values())
        assert largest > 0
        for name in right:  # the gradients of key biases are 0 but for rounding
            assert torch.allclose(given[name], right[name], rtol=1e-3, atol=1e-5 * largest), name


def test_exact_is_the_sum_over_classes_and_a_slice_of_a_loader_will_do() -> None:
    model, rows, loader = made("texts")
    found = fisher_diagonal(model, islice(loader, 1), estimator="exact")["classifier.weight"]
    wanted = torch.zeros_like(found)
    for row in rows[:4]:
        logits, _ = asked("texts", model, row)
        for label, p in enumerate(logits.softmax(-1)[0].tolist()):
            score = logits.log_softmax(-1)[0, label]
            (grad,) = torch.autograd.grad(score, [model.classifier.weight], retain_graph=True)
            wanted += p * grad**2 / 4
    assert torch.allclose(found, wanted, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "expected \"labels\" with the number of a class .*, got keys \\['input_ids'"),
        ({"labels": torch.rand(4, 3)}, "of torch.float32"),
        ({"labels": torch.zeros(4, 2, dtype=torch.long)}, r"labels of the shape \(\d, 2\), got \(\d, 3\)"),
    ],
)
def test_a_loader_that_asks_for_something_else_in_words(change: dict[str, Any], message: str) -> None:
    model, _, loader = made("texts")
    batch = {name: value for name, value in ({**next(iter(loader))} | change).items() if value is not None}
    with pytest.raises(ForgetlabError, match=message):
        fisher_diagonal(model, [batch])
    with pytest.raises(ForgetlabError, match="or of a transformers data loader: mappings with labels"):
        fisher_diagonal(model, [])
