"""Replay of what the model itself, or another one, writes: no old data is kept."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from forgetlab.errors import ForgetlabError, listed, number, whole
from forgetlab.models.loading import load
from forgetlab.models.model import Model, evaluating
from forgetlab.remedies.replay.experience import Replay
from forgetlab.sources import Examples
from forgetlab.sources.world import corpus
from forgetlab.tasks import CausalLM, Classification, LanguageModel, MaskedLM, Tagging, Task
from forgetlab.tasks.encoding import IGNORE, unknown_share
from forgetlab.tasks.rehearsal import answered_anew
from forgetlab.tasks.writing import sample
from forgetlab.training.method import Run

WORD = re.compile(r"\w+(?:[-']\w+)*|[^\w\s]")  # words and marks, as the tagging files have them apart
AT_ONCE = 128  # texts written side by side: bounds the memory of a large writer's keys and values


class GenerativeReplay(Replay):
    """Before the run, let the frozen past self write texts; then replay those in place of old data.

    A causal model writes by itself. For an encoder a `writer` does, and the old model labels what it wrote:
    the class, or the tag of each word, that it finds most probable. (Its full distribution would be distillation.)

    old: the tasks to keep; their data are not read, and of tasks with a head the model must have the head already.
    Tasks on pairs of texts, and those that cannot be trained, are left out.
    A causal model's texts are replayed with the begin token in front and, where its pre-training had one
    (`Model.end_mark`) and the writer set it, the end token behind.
    Of tasks on answers (completions, chats) the prompts are read, and the past self answers them anew.
    ratio: as of ExperienceReplay. size: texts to write, shared by the tasks; answers of each task. max_tokens: the
    longest of them.
    temperature: above 0; below 1 the texts are more alike. top_p: in (0, 1]; nucleus sampling of texts, 1 takes every
    word.
    writer: a causal Model, or what `load` takes; None is the model itself, or "tiny-gpt" for an encoder of the
    embedded world. It is let go once it has written.
    Raises ForgetlabError for bad values, where no task can be replayed, where there is no writer, and where fewer than
    half of the texts have two words, or most words are unknown to the model.
    Source: Shin et al. 2017 (deep generative replay), for language Sun et al. 2020 (LAMOL). The texts are written once,
    not anew at each step, and nothing asks for a certain task's texts: a class that the writer never writes is not
    replayed (a good writer writes no broken sentences).

    >>> dreams = GenerativeReplay([task("causal-lm:news")], size=8)
    >>> [*_, last] = finetune(load("tiny-gpt"), task("causal-lm:notices"), methods=[dreams], steps=1, limit=8)
    >>> last.step, last.status
    (1, 'done')
    """

    name = "generative"

    def __init__(
        self,
        old: Sequence[Task],
        ratio: float = 0.25,
        size: int = 500,
        temperature: float = 1.0,
        top_p: float = 1.0,
        writer: Model | str | os.PathLike[str] | None = None,
        max_tokens: int = 48,
    ) -> None:
        super().__init__(ratio)
        self.size = whole("size", size)
        self.temperature = number("temperature", temperature, 0, 1000, above=True)
        self.top_p = number("top_p", top_p, 0, 1, above=True)
        self.max_tokens = whole("max_tokens", max_tokens)
        if not isinstance(writer, Model | str | os.PathLike | None):
            raise ForgetlabError(
                f"writer must be a causal model or the name of one, such as 'tiny-gpt', got {writer!r}"
            )
        if isinstance(writer, Model):
            _must_write(writer)
        self.writer = writer.name if isinstance(writer, Model) else writer
        self._writer = writer
        kinds = Classification | Tagging | LanguageModel
        listed("old", old, Task, "[task('entities')]")
        on_answers = [task for task in old if isinstance(task, CausalLM) and task.on_answers]
        self._asked = [task for task in on_answers if task.size()]
        others = [task for task in old if task not in on_answers]
        self._old = [task for task in others if isinstance(task, kinds) and task.test.pairs is None]
        if not self._old and not self._asked:
            names = ", ".join(task.name for task in old) or "no task"
            raise ForgetlabError(
                f"nothing to replay: {names} given, a task on single texts expected (a class, tags or a language model)"
            )

    def recall(self, run: Run) -> list[tuple[Task, Tensor]]:
        model = run.model
        for task in self._old:  # what cannot work is said before time is spent on writing
            if isinstance(task, Classification | Tagging) and task.head not in model.heads:
                raise ForgetlabError(
                    f"{model.name} has no head {task.head!r} to label texts with: let it learn {task.name} first"
                )
            task.prepare(model)
        found: list[Task] = self._on_texts(run) if self._old else []
        with evaluating(model):
            for asked in self._asked:
                asked.prepare(model)
                found.append(answered_anew(asked, model, self.size, run.generator, self.temperature, self.max_tokens))
        return [(task, torch.arange(task.size())) for task in found]

    def _on_texts(self, run: Run) -> list[Task]:
        """The tasks on texts, with what the writer writes in place of their data."""
        model, writer = run.model, self._find_writer(run.model)
        with torch.no_grad(), evaluating(writer), evaluating(model):
            texts, ended = self._write(writer, run.generator)
            tasks = [_relived(task, texts, ended, model) for task in self._old]
        share = unknown_share(tasks[0].encoded(model, "train"), model.tokenizer)
        if share > 0.5:
            raise ForgetlabError(
                f"{share:.0%} of the words that {writer.name} writes are unknown to {model.name}: "
                "give a writer of the model's own language"
            )
        return tasks

    def _find_writer(self, model: Model) -> Model:
        if isinstance(self._writer, Model):
            return self._writer
        if self._writer is None:
            if model.lm_kind == "causal":
                return model
            words = set(model.tokenizer.get_vocab()) - set(model.tokenizer.all_special_tokens)
            if words != set(corpus.vocabulary()):
                raise ForgetlabError(
                    f"{model.name} cannot write texts: give a writer, a causal model of the same language "
                    "(a folder or a hub id)"
                )
        writer = load(self._writer or "tiny-gpt", device=model.device)
        _must_write(writer)
        return writer

    def _write(self, writer: Model, generator: torch.Generator) -> tuple[tuple[str, ...], Tensor]:
        """(texts, whether each came to its end), those of fewer than two words left out."""
        written: list[tuple[str, bool]] = []
        while len(written) < self.size:
            count = min(AT_ONCE, self.size - len(written))
            written += sample(writer, count, generator, self.temperature, self.top_p, self.max_tokens)
        kept = [(text, ended) for text, ended in written if len(text.split()) > 1]
        if 2 * len(kept) < self.size:
            raise ForgetlabError(
                f"only {len(kept)} of the {self.size} texts that {writer.name} wrote have two words or more, half of "
                "them are needed: try temperature=1, top_p=1, or a better writer"
            )
        return tuple(text for text, _ in kept), torch.tensor([ended for _, ended in kept])


def _relived(old: Task, texts: tuple[str, ...], ended: Tensor, model: Model) -> Task:
    """A task like `old` whose training examples are these texts, labelled by the model."""
    if isinstance(old, Classification | Tagging):
        # one label to begin with for each word; a class takes the first
        found = [[old.labels[0]] * len(WORD.findall(text)) for text in texts]
        _fill(found, _labelled(old, texts, found), model)
        return _labelled(old, texts, found)
    examples = Examples(kind="text", texts=texts)
    if isinstance(old, MaskedLM):
        return MaskedLM(old.name, examples, examples)
    task = CausalLM(old.name, examples, examples)
    if not model.end_mark:
        return task
    encoded = task.encoded(model, "train")
    open_ended = (~ended).nonzero().squeeze(1)
    encoded.lengths[open_ended] -= 1  # no end mark where the writer set none
    encoded.columns["attention_mask"][open_ended, encoded.lengths[open_ended]] = 0
    return task


def _labelled(
    old: Classification | Tagging, texts: tuple[str, ...], found: list[list[str]]
) -> Classification | Tagging:
    if isinstance(old, Classification):
        examples = Examples(kind="labelled", texts=texts, labels=tuple(labels[0] for labels in found))
        return Classification(old.name, examples, examples, old.head, old.labels)
    words = tuple(tuple(WORD.findall(text)) for text in texts)
    examples = Examples(kind="tags", texts=(), words=words, tags=tuple(map(tuple, found)))
    return Tagging(old.name, examples, examples, old.head, old.labels)


def _fill(found: list[list[str]], draft: Classification | Tagging, model: Model) -> None:
    """Put the most probable label at each place that the task asks for."""
    encoded = draft.encoded(model, "train")
    for index in encoded.evaluation_batches():
        batch = draft.batch(model, index, torch.Generator())  # draws nothing
        guesses = draft.logits(model, batch).argmax(-1).tolist()
        rows = index[draft.owners(batch).cpu()].tolist()
        words = encoded.words[index, : batch["input_ids"].shape[1]]
        places = words[words != IGNORE].tolist() if isinstance(draft, Tagging) else [0] * len(rows)
        for row, place, guess in zip(rows, places, guesses, strict=True):
            found[row][place] = draft.labels[guess]


def _must_write(model: Model) -> None:
    if model.lm_kind != "causal":
        raise ForgetlabError(f"writer must be a causal language model; {model.name} is none")
