"""Suites of tasks for real models: GLUE, and text of the user's own choice."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from forgetlab import sources
from forgetlab.errors import ForgetlabError, one_of, unknown
from forgetlab.models.model import Model
from forgetlab.tasks import Classification, Suite, Tally, Task
from forgetlab.tasks.embedded import default_watch, task
from forgetlab.tasks.from_data import task_from
from forgetlab.tasks.source_names import MACHINE_TEXT
from forgetlab.tasks.writing import Generation

Source = str | PathLike[str]

GLUE = ("cola", "sst2", "mrpc", "qqp", "mnli", "qnli", "rte")


class MatthewsClassification(Classification):
    """Classification whose main score is Matthews correlation, beside accuracy: for classes of unequal size."""

    metric = "matthews"

    def guesser(self, model: Model, limit: int | None = None) -> float | None:
        """Matthews correlation of one who always says the same: 0."""
        return 0.0

    def tally_of(self, gold: Tensor, guesses: Tensor) -> Tally:
        """Of each item the cell of the table, gold classes by predicted ones, that it counts in."""
        size, columns = len(self.labels), tuple(f"{right}/{said}" for right in self.labels for said in self.labels)
        return Tally(columns, F.one_hot((gold * size + guesses).cpu(), size**2).double())


def glue(
    tasks: Sequence[str] = GLUE,
    *,
    size: int | None = 10_000,
    test_size: int | None = 2_000,
    revision: str | None = None,
) -> Suite:
    """GLUE's classification tasks with their public dev sets, read from the hub.

    tasks: which of cola, sst2, mrpc, qqp, mnli (matched dev set), qnli, rte. size, test_size: the most training and
    dev examples of each, spread evenly (None: all; papers report all of the dev set).
    Scores: accuracy; CoLA's main one is Matthews correlation, its published metric. STS-B, a regression, and WNLI,
    whose dev set contradicts its training set, are left out. Source: Wang et al. 2019.
    A model has no head for them at first: `finetune` makes them, and `recipes` learns a watched one first.
    Raises ForgetlabError for another name, and where the hub cannot be read.
    """
    if odd := [name for name in tasks if name not in GLUE]:
        raise unknown("GLUE task", odd[0], GLUE)
    return Suite("glue", tuple(_glue_task(name, size, test_size, revision) for name in tasks))


def _glue_task(name: str, size: int | None, test_size: int | None, revision: str | None) -> Task:
    train = sources.hub(name, split="train", limit=size, revision=revision)
    test = sources.hub(name, split=sources.KNOWN[name].test, limit=test_size, revision=revision)
    return (MatthewsClassification if name == "cola" else Classification)(name, train, test)


def text_suite(
    model: Model,
    *,
    corpora: Sequence[Source] = MACHINE_TEXT,
    pairs: Sequence[Source] = (),
    choices: Sequence[Source] = (),
    k_shot: Sequence[Source] = (),
    generation: bool = True,
    k: int = 8,
    limit: int | None = 2_000,
) -> Suite:
    """What any language model knows of texts of your choice, with nothing to learn first.

    corpora: perplexity on each: files, hub data sets "owner/name:config", or this machine's three texts. pairs,
    choices: JSON lines of minimal pairs and of multiple choice, by likelihood. k_shot: labelled files, classified
    from k examples of each class on frozen features. generation: how varied a causal model's own texts are, written
    on from the first corpus. limit: examples of each source. `task_from` has the formats.
    Raises ForgetlabError where a source cannot be read or does not fit the model, and for two of the same name.
    """
    if model.lm_kind is None:
        raise ForgetlabError(f"a text suite needs a language model; {model.name} has no such head: try suite('glue')")
    tasks = [task_from(source, model, kind="text", limit=limit) for source in corpora]
    for sources_of, kind in ((pairs, "minimal-pairs"), (choices, "choices"), (k_shot, "k-shot")):
        tasks += [task_from(source, model, kind=kind, limit=limit, k=k) for source in sources_of]
    if generation and model.lm_kind == "causal":
        tasks.append(Generation(prompts=tasks[0].test.texts if corpora else None))
    if not tasks:
        raise ForgetlabError("a text suite of nothing: give corpora, pairs, choices or k_shot")
    if len(names := [one.name for one in tasks]) > len(set(names)):
        raise ForgetlabError(f"two tasks have the same name: {', '.join(names)}; rename a file")
    for one in tasks:
        one.prepare(model)
    return Suite("text", tuple(tasks))


SUITES = ("embedded", "glue", "text")


def suite(name: str, model: Model, **options: Any) -> Suite:
    """A named list of tasks for a model, to take before and after a fine-tune.

    "embedded": what a model of the embedded world knows; "glue": seven classification tasks from the hub
    (options: `suites.glue`); "text": perplexity, choices and writing on texts of your own (`suites.text_suite`).

    >>> [task.name for task in suite("embedded", load("tiny-gpt")).tasks][:3]
    ['causal-lm', 'minimal-pairs', 'cloze']
    """
    one_of("suite", name, SUITES)
    if name == "embedded":
        return Suite(name, tuple(task(n) for n in default_watch(model)))
    return glue(**options) if name == "glue" else text_suite(model, **options)
