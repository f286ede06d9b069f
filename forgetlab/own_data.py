"""A task from a user's own data: a file, a hub data set or this machine's text, in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, get_args

from forgetlab import sources
from forgetlab.errors import ForgetlabError, unknown
from forgetlab.models import Model, free_name
from forgetlab.own_probes import Generation, MultipleChoice
from forgetlab.probes import KShot, MinimalPairs
from forgetlab.sources import Column, Examples, Kind
from forgetlab.sources.files import CONLL_SUFFIXES, CSV_SUFFIXES, JSON_SUFFIXES
from forgetlab.tasks import CausalLM, Classification, MaskedLM, Tagging, Task

Row = dict[str, Any]

FILES = {*JSON_SUFFIXES, *CSV_SUFFIXES, *CONLL_SUFFIXES, ".txt", ".md"}
MACHINE_TEXT = ("python-docs", "python-source", "licences")
PROBES = ("minimal-pairs", "choices", "k-shot", "generation")
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
    name: str | None = None,
    text: Column = None,
    label: Column = None,
    pair: Column = None,
    limit: int | None = None,
    k: int = 8,
    seed: int = 0,
) -> Task:
    """A task from data: `task_from("reviews.csv", model)`.

    source: a file (CSV, TSV, JSON lines, CoNLL, plain text), "python-docs", "python-source" or "licences", or a hub
    data set "owner/name", "owner/name:config", with "@REVISION" at the end to pin it; or "hub:sst2" (`sources.hub`).
    kind: what to make of it; found out where left out. Trained and scored: "labelled", "pairs" (classes), "tags",
    "text" (masked or causal language modelling, as suits the model). Scored only: "minimal-pairs" (rows
    {"good", "bad"}), "choices" (rows {"question", "choices", "answer": index, letter or the choice itself}), both JSON
    lines; "k-shot" (labels, from k examples of each); "generation" (the texts' beginnings written on).
    test: data for scoring: a file, or a split's name for a hub set (None: a hub set's own side, else a fifth of the
    source, by a hash of each text and the seed). name: the task's (None: the file's). text, label, pair: columns.
    limit: examples of each read.
    Raises ForgetlabError for data that cannot be read, and where model and data do not fit.
    """
    if kind is not None and kind not in (*get_args(Kind), *PROBES):
        raise unknown("kind of task", kind, (*get_args(Kind), *PROBES))
    title = name or short_name(str(source))
    if kind in (None, "minimal-pairs", "choices") and (path := Path(source).expanduser()).is_file():
        rows = _json_rows(path, limit, must=kind is not None)
        if rows and (kind == "minimal-pairs" or (kind is None and _key(rows[0], GOOD) and _key(rows[0], BAD))):
            return _minimal_pairs(title, path, rows)
        if rows and (kind == "choices" or (kind is None and _key(rows[0], CHOICES) and _key(rows[0], ANSWER))):
            return _choices(title, path, rows)
    if kind in ("minimal-pairs", "choices"):
        row = PAIR_ROW if kind == "minimal-pairs" else CHOICE_ROW
        raise ForgetlabError(f"{kind} come from a file of JSON lines such as {row}; there is no file {source}")
    wanted: Any = {"k-shot": "labelled", "generation": "text"}.get(kind or "", kind)
    options: dict[str, Any] = {"text": text, "label": label, "pair": pair, "kind": wanted, "limit": limit}
    hub = is_hub_name(str(source))
    if hub and test is None and kind != "generation":
        train, held = sources.hub_sides(str(source), **options)
        return of_examples(title, train, held, model, k if kind == "k-shot" else None)
    examples = _read(source, "train" if hub else None, options)
    if kind == "generation":
        return Generation(title, examples.texts)
    if test is None:
        train, held = sources.split(examples, test=0.2, seed=seed)
    else:
        held = _read(source if hub else test, str(test) if hub else None, options | {"kind": examples.kind})
        train = examples
    return of_examples(title, train, held, model, k if kind == "k-shot" else None)


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
    if model.lm_kind is None:
        raise ForgetlabError(
            f"{model.name} has no language-model head, so plain text ({name}) gives it nothing to learn or to score: "
            "give data with labels"
        )
    return (MaskedLM if model.lm_kind == "masked" else CausalLM)(name, train, test)


def is_hub_name(source: str) -> bool:
    """Whether a source is "owner/name" of the hub: one slash, no such file, and no folder that it could be in."""
    if source.startswith(sources.HUB_PREFIX):
        return True
    plain = source.partition("@")[0].partition(":")[0]
    owner, slash, rest = plain.partition("/")
    if not slash or not owner or not rest or "/" in rest or owner[0] in ".~" or "\\" in source:
        return False
    if Path(plain).suffix.lower() in FILES:
        return False  # a file whose folder is misspelt
    return not Path(plain).exists() and not Path(owner).is_dir()


def _read(source: str | PathLike[str], split: str | None, options: Mapping[str, Any]) -> Examples:
    name = str(source)
    if name in MACHINE_TEXT:
        if options["kind"] not in (None, "text"):
            raise ForgetlabError(f"{name} is plain text; it has no {options['kind']}")
        texts = sources.machine_text(name)
        return Examples("text", texts.texts[: options["limit"]], notes=texts.notes)
    if split is None and not is_hub_name(name):
        return sources.read(Path(source), **options)
    whole, _, revision = name.removeprefix(sources.HUB_PREFIX).partition("@")
    owner_name, _, config = whole.partition(":")
    return sources.hub(owner_name, config or None, split=split or "test", revision=revision or None, **options)


def short_name(source: str) -> str:
    """What a task of this source is called: a head's name may hold no dot, and "train" is taken (`free_name`)."""
    if is_hub_name(source):
        name = source.removeprefix(sources.HUB_PREFIX).partition("@")[0].rpartition("/")[2].replace(":", "-")
    else:
        path = Path(source)
        name = (path.stem if free_name(path.stem.replace(".", "-")) else path.name) if path.exists() else source
    name = name.replace(".", "-")
    return name if free_name(name) else f"{name}-data"


def _json_rows(path: Path, limit: int | None, must: bool) -> list[Row]:
    """The objects of a file of JSON lines; none where it is something else and need not be one."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        if not must:
            return []  # the reader of files says what is wrong, or knows the encoding
        raise ForgetlabError(f"{path} cannot be read as text in UTF-8") from None
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            if must:
                raise ForgetlabError(f"{path}, line {number}: expected one JSON object on each line, got {line[:60]!r}")
            return []
        rows.append({"line": number, "row": row})
        if limit is not None and len(rows) == limit:
            break
    if must and not rows:
        raise ForgetlabError(f"{path} is empty; expected one JSON object on each line")
    return rows


def _key(entry: Row, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in entry["row"]), None)


def _minimal_pairs(name: str, path: Path, rows: list[Row]) -> MinimalPairs:
    sides: tuple[list[str], list[str]] = ([], [])
    for entry in rows:
        for side, names in zip(sides, (GOOD, BAD), strict=True):
            value = entry["row"].get(_key(entry, names) or "")
            if not isinstance(value, str) or not value.strip():
                raise ForgetlabError(f"{path}, line {entry['line']}: expected {PAIR_ROW}, {names[0]!r} is {value!r}")
            side.append(value)
    return MinimalPairs(name, *sides)


def _choices(name: str, path: Path, rows: list[Row]) -> MultipleChoice:
    questions, choices, answers = [], [], []
    for entry in rows:
        row, where = entry["row"], f"{path}, line {entry['line']}"
        question = row.get(_key(entry, QUESTION) or "", "")
        options, answer = (row.get(_key(entry, names) or "") for names in (CHOICES, ANSWER))
        if not isinstance(question, str) or not isinstance(options, list) or not _are_choices(options):
            raise ForgetlabError(f"{where}: expected {CHOICE_ROW} with two or more different choices, got {options!r}")
        index = _index(answer, options)
        if index is None:
            raise ForgetlabError(
                f"{where}: the answer is {answer!r}; expected an index from 0 to {len(options) - 1}, a letter from A "
                "on, or one of the choices"
            )
        questions.append(question)
        choices.append(options)
        answers.append(index)
    return MultipleChoice(name, questions, choices, answers)


def _are_choices(options: list[Any]) -> bool:
    return all(isinstance(o, str) and o.strip() for o in options) and len(set(options)) == len(options) > 1


def _index(answer: Any, options: list[str]) -> int | None:
    if answer in options:
        return options.index(answer)
    if isinstance(answer, str) and len(answer) == 1 and answer.isalpha():
        answer = ord(answer.upper()) - ord("A")
    elif isinstance(answer, str) and answer.isdecimal():  # HellaSwag has "3"
        answer = int(answer)
    good = isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(options)
    return answer if good else None
