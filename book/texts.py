"""What the page that trains holds of the shipped model and its tasks: weights, token ids, and the sizes of both."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from forgetlab import finetune, load, task
from forgetlab.errors import ForgetlabError
from forgetlab.importance import fisher_diagonal
from forgetlab.labs.kit.remedy import USUAL
from forgetlab.models import Model
from forgetlab.tasks import Classification, MaskedLM, Task

NEW, TEXT, TAGS = range(3)  # as in train.c
SPLITS = ("train", "test")
Text = tuple[list[int], list[int]]  # token ids, and the class that each token is asked for (-1: none)


def opened() -> tuple[Model, list[Task]]:
    """The model and the tasks of the lab `pull`: the new one, then those that are watched."""
    return load("tiny-bert"), [task(name) for name in (USUAL["new"], *USUAL["watch"])]


def texts(model: Model, task: Task, split: str) -> list[Text]:
    """The texts to train on, or those that a lab scores. Words are hidden later where a text is trained on."""
    if split == "test":
        batches = task.test_batches(model, USUAL["limit"])
    elif isinstance(task, MaskedLM):
        batches = [task.encoded(model, "train").take(torch.arange(task.size()))]
    else:
        batches = [task.batch(model, torch.arange(task.size()), torch.Generator())]
    return [text for batch in batches for text in _rows(task, batch)]


def _rows(task: Task, batch: dict[str, Tensor]) -> list[Text]:
    ids, lengths = batch["input_ids"], batch["attention_mask"].sum(1).tolist()
    asked = torch.full_like(ids, -1)
    if isinstance(task, Classification):
        asked[:, 0] = batch["targets"]
    elif "places" in batch:
        asked.view(-1)[batch["places"]] = batch["targets"]
    return [(row[:n].tolist(), own[:n].tolist()) for row, own, n in zip(ids, asked, lengths, strict=True)]


def sets(model: Model, tasks: list[Task]) -> list[list[Text]]:
    """The six sets of the program's `Data`."""
    return [texts(model, one, split) for split in SPLITS for one in tasks]


def packed(found: list[list[Text]]) -> bytes:
    """The sets as the program's `Data`: int32 of firsts and starts, int16 of ids and of what is asked."""
    import numpy as np

    every = [text for one in found for text in one]
    first = np.cumsum([0, *(len(one) for one in found)], dtype="<i4")
    start = np.cumsum([0, *(len(ids) for ids, _ in every)], dtype="<i4")
    columns = [np.array([value for text in every for value in text[i]], dtype="<i2") for i in range(2)]
    return b"".join(part.tobytes() for part in (first, start, *columns))


def parameters(model: Model, tasks: list[Task]) -> dict[str, Tensor]:
    """The weights in the order of the program's `Weights`: without the heads of other tasks, and the new head last."""
    kept = (f"heads.{tasks[TAGS].head}.", "body.")  # type: ignore[attr-defined]
    own = {name: p.detach() for name, p in model.named_parameters() if name.startswith(kept)}
    width, classes = model.config.hidden_size, len(tasks[NEW].labels)  # type: ignore[attr-defined]
    return {**own, "new.weight": torch.zeros(classes, width), "new.bias": torch.zeros(classes)}


def sizes(model: Model, tasks: list[Task], found: list[list[Text]]) -> str:
    """sizes.h. Raises ForgetlabError for a model that the program does not compute as it is."""
    config: Any = model.config
    if not (
        config.model_type == "bert"
        and (config.hidden_act == "relu" and config.tie_word_embeddings)
        and not (config.hidden_dropout_prob or config.attention_probs_dropout_prob)
        and not (config.hidden_size % 8 or config.hidden_size // config.num_attention_heads % 4)
    ):
        raise ForgetlabError(
            f"{model.name}: the page's program knows a BERT with ReLU, tied embeddings, no dropout, a width that is a "
            "multiple of 8 and heads as wide as a multiple of 4; tiny-bert is one"
        )
    every = [ids for one in found for ids, _ in one]
    longest, batch = max(map(len, every)), _default(finetune, "batch_size")
    special = sorted(model.tokenizer.all_special_ids)
    if special != [*range(len(special))]:
        raise ForgetlabError(f"{model.name}: the tokenizer's own marks must be its first tokens, got {special}")
    tags = tasks[TAGS].labels  # type: ignore[attr-defined]
    kinds = sorted({tag.partition("-")[2] for tag in tags} - {""})
    numbers = {
        "VOCAB": config.vocab_size,
        "POSITIONS": config.max_position_embeddings,
        "TYPES": config.type_vocab_size,
        "LAYERS": config.num_hidden_layers,
        "HEADS": config.num_attention_heads,
        "W": config.hidden_size,
        "INNER": config.intermediate_size,
        "EPS": f"{config.layer_norm_eps:g}f",
        "CLASSES": len(tasks[NEW].labels),  # type: ignore[attr-defined]
        "TAG_COUNT": len(tags),
        "MARKS": len(special),
        "MASK": model.tokenizer.mask_token_id,
        "L": longest,
        "BATCH": batch,
        "LOGITS": 4 * batch * config.vocab_size,
        "ALL_TEXTS": len(every),
        "ALL_TOKENS": sum(map(len, every)),
        "CLIP": f"{_default(finetune, 'clip')}f",
        "DRAWS": _default(fisher_diagonal, "draws"),
    }
    lines = [f"#define {name} {value}" for name, value in numbers.items()]
    kind = ", ".join(str(kinds.index(tag[2:]) if tag != "O" else -1) for tag in tags)
    begins = ", ".join(str(int(tag.startswith("B-"))) for tag in tags)
    lines += [f"static const int KIND[] = {{{kind}}}, BEGINS[] = {{{begins}}}; /* of {', '.join(tags)} */"]
    return "/* Made by texts.py from the shipped model and its tasks. */\n" + "\n".join(lines) + "\n"


def _default(function: Any, name: str) -> Any:
    return inspect.signature(function).parameters[name].default
