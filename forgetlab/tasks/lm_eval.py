"""Tasks of EleutherAI's lm-evaluation-harness (`lm_eval`), watched along a fine-tune."""

from __future__ import annotations

import contextlib
import io
import logging
import random
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from os import PathLike
from typing import Any

import numpy as np
import torch

from forgetlab.errors import ForgetlabError, one_of, unknown, whole
from forgetlab.metrics.retention import LOWER_IS_BETTER, PERPLEXITIES
from forgetlab.metrics.tally import stratified
from forgetlab.models.memory import out_of_memory
from forgetlab.models.model import Model
from forgetlab.sources import Examples
from forgetlab.tasks import Scores, Tally
from forgetlab.tasks.probes import Probe, need_causal


class HarnessTask(Probe):
    """A task or group of lm_eval by its name, "arc_easy"; needs `pip install lm-eval` and a causal model.

    metric: which of its results is the main one: "acc", "acc_norm", "exact_match", "word_perplexity", …; with a
    filter as lm_eval writes it, "exact_match,strict-match". limit: examples of each task (None: all), or fewer where a
    run asks for fewer: a fixed sample, where lm_eval's own limit takes the first ones.
    few_shot: solved examples in the prompt (None: what the task says). batch_size: texts at once.
    include: a folder, or several, with YAML files of your own tasks.
    The data come from where the task says, mostly the hub.
    Scores are those of `lm_eval.simple_evaluate`, standard errors left out; its prompts are used as they are.
    Raises ForgetlabError, when prepared, where lm_eval is missing or has no such task, and for an encoder.
    """

    kind = "harness"

    def __init__(
        self,
        name: str,
        metric: str = "acc",
        limit: int | None = 100,
        *,
        few_shot: int | None = None,
        batch_size: int = 16,
        include: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None,
    ) -> None:
        super().__init__(name, None, Examples(kind="text", texts=("",)))
        self.metric = metric  # type: ignore[misc]
        self.higher_is_better = metric.partition(",")[0] not in LOWER_IS_BETTER  # type: ignore[misc]
        self.scale = "ratio" if metric.partition(",")[0] in PERPLEXITIES else "points"  # type: ignore[misc]
        self.limit = None if limit is None else whole("limit", limit)
        self.few_shot = None if few_shot is None else whole("few_shot", few_shot, least=0)
        self.rows_at_once = whole("batch_size", batch_size)
        self._sizes: dict[str, int] = {}
        self.include = tuple(map(str, [include] if isinstance(include, str | PathLike) else include or ()))

    def prepare(self, model: Model, seed: int = 0) -> None:
        need_causal(f"the lm_eval task {self.name}", model, ": for an encoder there is suite('glue', model)")
        one_of("task of lm_eval", self.name, self._tasks().all_tasks)

    def _tasks(self) -> Any:
        if find_spec("lm_eval") is None:
            raise ForgetlabError(
                f"the task {self.name} is one of EleutherAI's harness, which is not installed: pip install lm-eval"
            )
        return _manager(self.include)

    def remarks(self, model: Model, *splits: str, limit: int | None = None) -> list[str]:
        count = min((n for n in (self.limit, limit) if n is not None), default=None)
        return [] if count is None else [f"{self.name}: {count} examples at most are scored, drawn once for every look"]

    def items(self) -> int | None:
        return None

    def _scored(self, model: Model, limit: int | None) -> tuple[Scores, Tally | None]:
        harness, models = import_module("lm_eval"), import_module("lm_eval.models.huggingface")
        wanted = [n for n in (self.limit, limit) if n is not None]
        try:
            with _quiet(), _generators_kept(model.device):
                wrapped = models.HFLM(
                    pretrained=model.body,
                    tokenizer=model.tokenizer,
                    batch_size=self.rows_at_once,
                    max_length=model.max_length,
                )
                found = harness.simple_evaluate(
                    model=wrapped,
                    tasks=[self.name],
                    num_fewshot=self.few_shot,
                    samples=self._drawn(min(wanted)) if wanted else None,
                    task_manager=self._tasks(),
                    bootstrap_iters=0,  # standard errors, which nobody asks for here
                    log_samples=False,
                )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            if isinstance(error, ForgetlabError) or out_of_memory(error):
                raise
            reason = (str(error).strip() or "no reason given").splitlines()[0][:200]
            raise ForgetlabError(
                f"lm_eval could not run {self.name} ({type(error).__name__}: {reason}); "
                "its data are fetched at the first use, which needs a network"
            ) from error
        assert found is not None  # None on the other ranks of a distributed run only
        scores = _plain(found["results"][self.name])
        if (main := self._main(scores)) is None:
            raise unknown(f"metric of {self.name}", self.metric, scores)
        return {self.metric: scores[main], **{name: value for name, value in scores.items() if name != main}}, None

    def _drawn(self, count: int) -> dict[str, list[int]]:
        """For each task of lm_eval the examples that are scored: its own limit takes the first ones of a file."""
        if not self._sizes:
            self._sizes = {task: len(loaded.eval_docs) for task, loaded in _leaves(self._tasks(), self.name)}
        return {task: stratified([None] * size, count).tolist() for task, size in self._sizes.items()}

    def _main(self, scores: Scores) -> str | None:
        """The result that `metric` names: exactly, or else under any filter."""
        return next(
            (n for n in (self.metric, *scores) if n in scores and self.metric in (n, n.partition(",")[0])), None
        )


def _leaves(manager: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The tasks with data below a task or group, by name."""
    waiting = [manager.load_task_or_group(name)]
    while waiting:
        for key, value in waiting.pop().items():
            if isinstance(value, dict):
                waiting.append(value)
            else:
                yield key, value


@cache
def _manager(include: tuple[str, ...]) -> Any:
    with _quiet():
        return import_module("lm_eval.tasks").TaskManager(include_path=list(include) or None)  # reads 10,000 files


def _plain(results: dict[str, Any]) -> Scores:
    """{"acc,none": 0.5, "acc_stderr,none": "N/A", "alias": …} as {"acc": 0.5}."""
    scores = {}
    for key, value in results.items():
        name, comma, how = key.partition(",")
        if comma and not name.endswith("_stderr") and isinstance(value, int | float):
            scores[name if how == "none" else key] = float(value)
    return scores


@contextlib.contextmanager
def _generators_kept(device: torch.device) -> Iterator[None]:
    """lm_eval seeds every global generator: a score must not change the training that goes on after it."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002, the global one is what it seeds
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without its progress bars, and with its errors only."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
