"""A task from a user's own data: a file, a hub data set or this machine's text, in one line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, get_args

from forgetlab import sources
from forgetlab.errors import ForgetlabError, shown, unknown
from forgetlab.models.model import Model
from forgetlab.sources import Column, Examples, Kind
from forgetlab.sources.files import read_rows
from forgetlab.sources.messages import whole_text
from forgetlab.tasks import CausalLM, Classification, MaskedLM, Tagging, Task, embedded
from forgetlab.tasks.answers import answer_task, preferences
from forgetlab.tasks.probes import KShot, MinimalPairs, MultipleChoice
from forgetlab.tasks.readable import READ_AS, options_of, sides
from forgetlab.tasks.source_names import (
    DIALS,
    MACHINE_TEXT,
    check_source,
    is_embedded,
    is_file,
    is_hub_name,
    short_name,
)
from forgetlab.tasks.writing import Generation

Rows = Sequence[tuple[str, Any]]  # each with where it stands in its file

PROBES = ("minimal-pairs", "choices", "k-shot", "generation", "preferences")
GOOD, BAD = ("good", "sentence_good"), ("bad", "sentence_bad")  # the second name is BLiMP's
QUESTION = ("question", "context", "ctx", "prompt", "query", "text")
CHOICES, ANSWER = ("choices", "options", "endings"), ("answer", "label", "gold")
PAIR_ROW = '{"good": "…", "bad": "…"}'
CHOICE_ROW = '{"question": "…", "choices": ["…", "…"], "answer": 0}'


def task_from(
    source: str | PathLike[str],
    model: Model,
    *,
    kind: str | None = None,
    test: str | PathLike[str] | None = None,
    split: str | None = None,
    name: str | None = None,
    text: Column = None,
    label: Column = None,
    pair: Column = None,
    prompt: Column = None,
    answer: Column = None,
    limit: int | None = None,
    k: int | None = None,
    seed: int = 0,
    similarity: float = 1.0,
    turned: float | str | None = None,
) -> Task:
    """A task from data: `task_from("reviews.csv", model)`; the command line and the labs read a source by it too.

    source: a file (CSV, TSV, JSON lines, Parquet, CoNLL, plain text, gzipped or not), "python-docs", "python-source" or
    "licences", a hub data set "owner/name", "owner/name:config", with "@REVISION" at the end to pin it; "hub:sst2"
    (`sources.hub`); or an embedded task's name, if there is no such file. Options may stand at its end:
    "cola.tsv:text=3,label=1".
    kind: what to make of it; found out where left out. Trained and scored: "labelled", "pairs" (classes), "tags",
    "text" (masked or causal language modelling, as suits the model), "chat" and "completions" (the answers of a causal
    model). Scored only: "minimal-pairs" (rows {"good", "bad"}), "choices" (rows {"question", "choices", "answer":
    index, letter or the choice itself}), both JSON lines; "preferences" (is the chosen answer likelier?); "k-shot"
    (labels, from k examples of each: 8); "generation" (the texts' beginnings written on).
    split: of a hub set, where it is not "train": "train_sft". test: data for scoring: a file, or a split's name for a
    hub set (None: a hub set's own side, else a fifth of the source, by a hash of each text and the seed). name: the
    task's (None: the file's). text, label, pair, prompt, answer: columns. limit: examples of each read. similarity,
    turned: of an embedded task (`embedded.task`), whose other dials stand behind it: "praise:samples=4".
    Raises ForgetlabError for data that cannot be read, and where model and data do not fit.

    >>> task_from("entities", model).metric
    'f1'
    """
    columns: dict[str, Any] = {"text": text, "label": label, "pair": pair, "prompt": prompt, "answer": answer}
    given = {"kind": kind, "split": split, "test": test, "name": name, "limit": limit, "k": k, "turned": turned}
    given |= {**columns, **dict.fromkeys(DIALS)}
    there, options = options_of(source, given)
    turned, dials = options.pop("turned"), {key: value for key in DIALS if (value := options.pop(key)) is not None}
    if is_embedded(there):
        if odd := next((key for key, value in options.items() if value is not None), None):
            raise ForgetlabError(f"{there} is an embedded task, which takes no {odd}")
        return embedded.task(there, similarity=similarity, turned=_share(turned), **dials)
    if turned is not None:
        raise ForgetlabError(f"turned is a dial of the embedded sentiment task, not of {there}: leave it out")
    if dials:
        raise ForgetlabError(f"{next(iter(dials))} is a dial of the embedded praise task, not of {there}: leave it out")
    check_source(there)
    kind, test, title, k, limit = (options[key] for key in ("kind", "test", "name", "k", "limit"))
    if kind is not None and kind not in (*get_args(Kind), *PROBES):
        raise unknown("kind of task", kind, (*get_args(Kind), *PROBES))
    title = title or short_name(there)
    columns = {key: options[key] for key in columns}
    if (split := options["split"]) is not None and not is_hub_name(there):
        raise ForgetlabError(f"split={split} is of a hub data set; {there} is none: leave it out")
    side = split or "train"
    may_be_rows = kind is None and is_file(there) and {*columns.values()} == {None}
    if (kind in ("minimal-pairs", "choices") or may_be_rows) and (probe := _probe_of_rows(title, there, kind, limit)):
        return probe
    read = {**columns, "kind": READ_AS.get(kind or "", kind), "limit": limit}
    shots = (8 if k is None else k) if kind == "k-shot" else None
    hub = is_hub_name(there)
    if hub and test is None and kind not in ("generation", "preferences"):
        train, held = sources.hub_sides(there, side, **read)
        return of_examples(title, train, held, model, shots)
    examples = _read(there, side if hub else None, read)
    if kind == "generation":
        return Generation(title, examples.texts)
    if kind == "preferences":
        return preferences(title, examples, model)
    if test is None:
        train, held = sides(there, examples, seed)
    else:
        held = _read(there if hub else test, str(test) if hub else None, read | {"kind": examples.kind})
        train = examples
    return of_examples(title, train, held, model, shots)


def _share(turned: float | str | None) -> float | None:
    try:
        return None if turned is None else float(turned)
    except ValueError:
        raise ForgetlabError(f"turned must be a number between 0 and 1, got {turned!r}") from None


def of_examples(name: str, train: Examples, test: Examples, model: Model, k: int | None = None) -> Task:
    """The task that examples of a kind make on a model. k: a k-shot probe instead of a trained head.

    Its classes are those of both sides: a rare one may have come to stand on one of them only.
    """
    if k is not None:
        return KShot(name, train, test, k)
    if train.kind == "tags":
        return Tagging(
            name, train, test, labels=[tag for side in (train, test) for tags in side.tags or () for tag in tags]
        )
    if train.kind in ("labelled", "pairs"):
        return Classification(name, train, test, labels=[*(train.labels or ()), *(test.labels or ())])
    if train.kind in ("completions", "chat"):
        return answer_task(name, train, test, model)
    if model.lm_kind is None:
        raise ForgetlabError(
            f"{model.name} has no language-model head, so plain text ({name}) gives it nothing to learn or to score: "
            "give data with labels"
        )
    return (MaskedLM if model.lm_kind == "masked" else CausalLM)(name, train, test)


def _read(source: str | PathLike[str], split: str | None, options: Mapping[str, Any]) -> Examples:
    name = str(source)
    if name in MACHINE_TEXT:
        if options["kind"] not in (None, "text"):
            raise ForgetlabError(f"{name} is plain text; it has no {options['kind']}")
        texts = sources.machine_text(name)
        return Examples("text", texts.texts[: options["limit"]], notes=texts.notes)
    if split is None and not is_hub_name(name):
        return sources.read(Path(source), **options)
    return sources.hub(name, split=split or "test", **options)


def _probe_of_rows(title: str, source: str, kind: str | None, limit: int | None) -> Task | None:
    """The probe that the rows of a JSON file make; None where they are something else and no kind was asked for."""
    row = PAIR_ROW if kind == "minimal-pairs" else CHOICE_ROW
    if not is_file(source):
        raise ForgetlabError(f"{kind} come from a file of JSON lines such as {row}; there is no file {source}")
    rows = read_rows(source)
    first = rows[0][1] if rows and isinstance(rows[0][1], dict) else {}
    if kind == "minimal-pairs" or (kind is None and _key(first, GOOD) and _key(first, BAD)):
        make: Any = _minimal_pairs
    elif kind == "choices" or (kind is None and _key(first, CHOICES) and _key(first, ANSWER)):
        make, row = _choices, CHOICE_ROW
    else:
        return None
    if not rows:
        raise ForgetlabError(f"{source} holds no JSON; expected lines such as {row}")
    for where, value in rows:
        if not isinstance(value, dict):
            raise ForgetlabError(f"{source}, {where}: expected one JSON object on each line, such as {row}")
    count = len(rows) if limit is None else min(limit, len(rows))
    return make(title, source, [rows[i * len(rows) // count] for i in range(count)])


def _key(row: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in row), None)


def _minimal_pairs(name: str, path: str, rows: Rows) -> MinimalPairs:
    sides: tuple[list[str], list[str]] = ([], [])
    for where, row in rows:
        for side, names in zip(sides, (GOOD, BAD), strict=True):
            value = row.get(_key(row, names) or "")
            if not isinstance(value, str) or not value.strip():
                raise ForgetlabError(f"{path}, {where}: expected {PAIR_ROW}, {names[0]!r} is {shown(value)}")
            side.append(whole_text(value))
    return MinimalPairs(name, *sides)


def _choices(name: str, path: str, rows: Rows) -> MultipleChoice:
    questions, choices, answers = [], [], []
    for place, row in rows:
        where = f"{path}, {place}"
        question = row.get(_key(row, QUESTION) or "", "")
        options, answer = (row.get(_key(row, names) or "") for names in (CHOICES, ANSWER))
        if not isinstance(question, str) or not isinstance(options, list) or not _are_choices(options):
            raise ForgetlabError(
                f"{where}: expected {CHOICE_ROW} with two or more different choices, got {shown(options)}"
            )
        index = _index(answer, options)
        if index is None:
            raise ForgetlabError(
                f"{where}: the answer is {shown(answer)}; expected an index from 0 to {len(options) - 1}, a letter "
                "from A on, or one of the choices"
            )
        questions.append(whole_text(question))
        choices.append([whole_text(option) for option in options])
        answers.append(index)
    return MultipleChoice(name, questions, choices, answers)


def _are_choices(options: list[Any]) -> bool:
    return all(isinstance(o, str) and o.strip() for o in options) and len(set(options)) == len(options) > 1


def _index(answer: Any, options: list[str]) -> int | None:
    if answer in options:
        return options.index(answer)
    if isinstance(answer, str) and re.fullmatch("[A-Za-z]", answer):
        answer = ord(answer.upper()) - ord("A")
    elif isinstance(answer, str) and re.fullmatch("[0-9]{1,9}", answer):  # HellaSwag has "3"
        answer = int(answer)
    good = isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(options)
    return answer if good else None
