"""Data sets of the Hugging Face hub, by their id and the names of their columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from forgetlab.errors import ForgetlabError, unknown, whole
from forgetlab.sources import download as shared
from forgetlab.sources.examples import Examples, Kind, split
from forgetlab.sources.rows import Wanted, of_rows
from forgetlab.sources.tables import Column

PREFIX = "hub:"
LARGE = 300_000_000  # bytes of text beyond which `limit` reads the first rows instead of the whole
_GLUE = ("nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c")


@dataclass(frozen=True)
class Known:
    """A data set that is used so often that it has a short name. test: the split with public labels to score on."""

    id: str
    config: str | None
    revision: str
    columns: Mapping[str, Any]
    test: str = "validation"


def _glue(config: str, text: str, pair: str | None = None, test: str = "validation") -> Known:
    return Known(_GLUE[0], config, _GLUE[1], {"text": text, "pair": pair, "label": "label"}, test)


KNOWN = {
    "cola": _glue("cola", "sentence"),
    "sst2": _glue("sst2", "sentence"),
    "mrpc": _glue("mrpc", "sentence1", "sentence2"),
    "qqp": _glue("qqp", "question1", "question2"),
    "mnli": _glue("mnli", "premise", "hypothesis", "validation_matched"),
    "qnli": _glue("qnli", "question", "sentence"),
    "rte": _glue("rte", "sentence1", "sentence2"),
    "wnli": _glue("wnli", "sentence1", "sentence2"),
    "conll2003": Known(  # its files are a script's; the hub keeps a copy in Parquet under this revision
        "eriktks/conll2003", None, "refs/convert/parquet", {"text": "tokens", "label": "ner_tags", "kind": "tags"}
    ),
    "wikitext-2": Known(
        "Salesforce/wikitext",
        "wikitext-2-raw-v1",
        "b08601e04326c79dfdd32d625aee71d232d685c3",
        {"text": "text", "kind": "text"},
    ),
    "ag_news": Known(
        "fancyzhx/ag_news",
        None,
        "eb185aade064a813bc0b7f42de02595523103ca4",
        {"text": "text", "label": "label"},
        "test",
    ),
}


def hub(
    name: str,
    config: str | None = None,
    *,
    split: str = "train",
    text: Column = None,
    label: Column = None,
    pair: Column = None,
    prompt: Column = None,
    answer: Column = None,
    kind: Kind | None = None,
    limit: int | None = None,
    revision: str | None = None,
) -> Examples:
    """One split of a data set of the hub: `hub("nyu-mll/glue", "sst2")`, or by a short name: `hub("sst2")`.

    name: an id, or a name of KNOWN, which brings its columns and a pinned revision along. config: its configuration;
    "name:CONFIG" says the same.
    text, label, pair, prompt, answer, kind: as in `read`; class numbers become class names; lists of words with a list
    of tags are read as tags. limit: the most examples, spread evenly; of a set above 300 MB the first ones are read,
    not the rest.
    revision: a branch, tag or commit; "name@REVISION" says the same.
    Rows without a label (GLUE's hidden tests have −1) and with an empty text are left out, with a note.
    Raises ForgetlabError where `datasets` is missing, the hub refuses or cannot be reached, and for a configuration,
    split or column that is not there (it names those that are). Files of data only: no code of a repository is run.

    >>> len(hub("sst2", limit=100))  # doctest: +SKIP
    """
    if limit is not None:
        whole("limit", limit)
    name, revision = shared.with_revision(name.removeprefix(PREFIX), revision)
    name, _, own = name.partition(":")
    config = config or own or None
    if known := KNOWN.get(name):
        name, config, revision = known.id, config or known.config, revision or known.revision
        given = {"text": text, "label": label, "pair": pair, "kind": kind}
        wanted = {**known.columns, **{key: value for key, value in given.items() if value is not None}}
        text, label, pair, kind = (wanted.get(key) for key in ("text", "label", "pair", "kind"))
    elif "/" not in name:
        raise unknown("data set", name, [*KNOWN, "or OWNER/NAME"])
    rows, features, notes = _rows(name, config, split, revision, limit)
    where = Path(f"{name} ({split})")
    found = of_rows(where, rows, features, Wanted(text, label, pair, prompt, answer, kind))
    if not len(found):
        raise ForgetlabError(f"{where}: no examples found ({'; '.join(found.notes) or 'the split is empty'})")
    return replace(found, notes=(*notes, *found.notes))


def hub_sides(name: str, side: str = "train", **columns: Any) -> tuple[Examples, Examples]:
    """(train, test) of "ID[:CONFIG][@REVISION]" or a short name: the set's own sides where both have what is asked.

    side: the split to train on, "train_sft" where there is no "train". The test side is the first of validation,
    validation_matched and test ("test_sft") that has rows with labels; a set with one split is parted by `split`.
    columns: text, label, pair, prompt, answer, kind, limit, as in `hub`.
    """
    train = hub(name, split=side, **columns)
    short = name.removeprefix(PREFIX).partition("@")[0].partition(":")[0]
    tests = [KNOWN[short].test] if short in KNOWN else ["validation", "validation_matched", "test"]
    for test in tests if "train" in side else []:
        try:
            return train, hub(name, split=side.replace("train", test), **{**columns, "kind": train.kind})
        except ForgetlabError as error:
            if "unknown split" not in str(error) and "no examples found" not in str(error):
                raise
    return split(train, test=0.2)


def _rows(
    name: str, config: str | None, split: str, revision: str | None, limit: int | None
) -> tuple[list[dict[str, Any]], Any, list[str]]:
    """(rows, features, notes) of a split, each row {column: value}."""
    try:
        import datasets
    except ImportError:
        raise ForgetlabError('data sets of the hub need `datasets`: pip install "forgetlab[hub]"') from None
    commit, _ = shared.look_up("dataset", name, revision)
    options: dict[str, Any] = {"revision": revision} if revision else {}
    try:
        if commit is not None:  # else what is in the cache has to do, and it does not know the others
            configs = datasets.get_dataset_config_names(name, **options)
            if config is None and len(configs) > 1 and "default" not in configs:
                raise ForgetlabError(f"{name} has several configurations: say which of {', '.join(configs[:20])}")
            if config is not None and config not in configs:
                raise unknown(f"configuration of {name}", config, configs)
        builder = datasets.load_dataset_builder(name, config, **options)
        splits = list(builder.info.splits or ())
        if splits and split not in splits:
            raise unknown(f"split of {name}", split, splits)
        size = builder.info.dataset_size or 0
        if limit is not None and size > LARGE and commit is not None:
            stream = datasets.load_dataset(name, config, split=split, streaming=True, **options)
            return (
                list(stream.take(limit)),
                stream.features or builder.info.features,
                [f"the first {limit} examples: the whole takes {size / 1e6:,.0f} MB"],
            )
        data = datasets.load_dataset(name, config, split=split, **options)
    except ForgetlabError:
        raise
    except ValueError as error:
        if "split" in str(error).lower():
            known = datasets.get_dataset_split_names(name, config, **options)
            raise unknown(f"split of {name}", split, known) from None
        raise _failed(error, name, revision) from None
    except Exception as error:
        raise (shared.unreachable("dataset", name) if commit is None else _failed(error, name, revision)) from None
    notes = []
    if limit is not None and limit < len(data):
        notes.append(f"{limit} of {len(data)} examples kept, spread evenly over the split")
        data = data.select([i * len(data) // limit for i in range(limit)])
    return list(data), data.features, notes


def _failed(error: Exception, name: str, revision: str | None) -> ForgetlabError:
    if "script" in str(error).lower():
        return ForgetlabError(
            f"{name} is made by a script in its repository, which is never run here: try "
            "revision='refs/convert/parquet', where the hub keeps a copy of many such sets as plain files"
        )
    if isinstance(error, ConnectionError | OSError):
        return shared.refused(error, "dataset", name, revision)
    return ForgetlabError(f"{name} cannot be read as a data set: {shared.first_line(error)}")
