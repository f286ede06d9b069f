"""Whatever stands in a file, a method's text, a settings line or a number: a value or a ForgetlabError comes back.

`make nightly` tries fifty times as many, each within five seconds.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from forgetlab import ForgetlabError, task_from
from forgetlab.errors import flag, number, whole
from forgetlab.labs.kit.settings import from_line, to_line
from forgetlab.models.model import Model
from forgetlab.remedies.by_name import METHODS, make_methods
from forgetlab.remedies.by_name import settings as settings_of
from forgetlab.sources import Examples, Kind, read, split
from forgetlab.tasks.from_data import PROBES
from forgetlab.tasks.source_names import parsed, parted
from forgetlab.training.method import Method
from tests.conftest import often

# --- what files hold ---

WORDS = st.sampled_from(
    ["good", "bad", "0", "1", "1.5", "-3,2", "nan", "O", "B-PER", "", " ", "-", "*", "ß", "\u2028", "𝄞"]
)
CELLS = st.one_of(
    WORDS, st.text(max_size=12), st.lists(WORDS, max_size=9).map(" ".join), st.floats().map(str), st.integers().map(str)
)
NAMES = st.sampled_from(
    ["text", "label", "Label ", "sentence1", "sentence2", "id", "score", "good", "bad", "tokens", "tags", "", "ü"]
)
SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".conll", ".conllu", ".txt", "", ".csv.gz")
KINDS = (None, *get_args(Kind))
COLUMNS = st.one_of(st.none(), NAMES, st.integers(-1, 4), st.sampled_from(["0", "2", "²"]))


@st.composite
def tables(draw: st.DrawFn) -> str:
    """A CSV or its kin; then a piece of it is lost, doubled or spoilt: quotes without an end, ragged rows."""
    width, mark = draw(st.integers(1, 5)), draw(st.sampled_from(",;\t|^ "))
    rows = draw(st.lists(st.lists(CELLS, min_size=width, max_size=width), max_size=12))
    if draw(st.booleans()):
        rows.insert(0, draw(st.lists(NAMES, min_size=width, max_size=width)))
    end = draw(LINE_ENDS)
    if draw(st.booleans()):
        return end.join(mark.join(row) for row in rows)  # with the marks and quotes that its cells have
    file = io.StringIO()
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    csv.writer(file, delimiter=mark, quoting=quoting, lineterminator=end).writerows(rows)
    return file.getvalue()


LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r", "\n\n"])
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), CELLS, st.just("half \ud83d")),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=6,
)
MESSAGES = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "tool", "?"]), "content": VALUES}),
    st.fixed_dictionaries({"from": st.sampled_from(["human", "gpt", None]), "value": CELLS}),
    VALUES,
)
OBJECTS = st.one_of(
    st.fixed_dictionaries({"text": CELLS, "label": st.one_of(VALUES, WORDS)}),
    st.fixed_dictionaries({"tokens": st.lists(WORDS, max_size=4), "ner_tags": st.lists(VALUES, max_size=4)}),
    st.fixed_dictionaries({"good": VALUES, "bad": CELLS}),
    *(
        st.fixed_dictionaries(dict.fromkeys(names.split(), st.one_of(CELLS, VALUES, st.lists(MESSAGES, max_size=4))))
        for names in (
            "messages",
            "conversations system",
            "prompt completion",
            "instruction input output",
            "chosen rejected",
        )
    ),
    st.fixed_dictionaries({"question": VALUES, "choices": st.lists(VALUES, max_size=4), "answer": VALUES}),
    st.dictionaries(NAMES, VALUES, max_size=5),
)
RAW_JSON = st.sampled_from(
    ['{"a":', "[", "]", '{"text": 1e999, "label": -0}', "1" * 5000, '{"text": "\\ud800"}', "null"]
)
JSON = st.one_of(
    st.lists(OBJECTS, max_size=8).map(json.dumps),
    st.lists(st.one_of(OBJECTS.map(json.dumps), OBJECTS.map(json.dumps), RAW_JSON), max_size=8).map("\n".join),
    st.lists(OBJECTS, max_size=3).map(lambda rows: json.dumps(rows, indent=1)),
)
TAGGED = st.lists(
    st.one_of(
        st.tuples(WORDS, st.sampled_from([" ", "\t", ","]), st.sampled_from(["O", "B-PER", "NOUN", "_", ""])).map(
            "".join
        ),
        st.sampled_from(["", "# text = x", "-DOCSTART- O", "1-2\tx\t_\t_", "1\tx\tx\tNOUN"]),
    ),
    max_size=20,
).map("\n".join)
PREFIXED = st.lists(
    st.tuples(st.sampled_from(["DESC:manner", "NUM:date", "__label__a", "__label__b,", "0", "1", ""]), CELLS).map(
        " ".join
    ),
    max_size=20,
).map("\n".join)
PROSE = st.lists(
    st.one_of(CELLS, st.sampled_from(["A line.", "and one, more", "!" * 300, "無" * 900, "\f"])), max_size=30
).map("\n".join)
TEXTS = st.one_of(tables(), JSON, TAGGED, PREFIXED, PROSE, st.text())
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252")


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Bytes of a file: structured and near-missed, or of no kind at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary())
    raw = draw(TEXTS).encode(draw(st.sampled_from(ENCODINGS)), "replace")
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(raw)))
        how = draw(st.sampled_from(["cut", "insert", "double"]))
        if how == "cut":
            raw = raw[:at]
        elif how == "insert":
            raw = raw[:at] + draw(st.sampled_from([b'"', b"\0", b"\r", b"\xff", b"{", b"\t", b","])) + raw[at:]
        else:
            raw += raw[at:]
    return gzip.compress(raw, mtime=0) if draw(st.integers(0, 40)) == 0 else raw


OPTIONS = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(KINDS),
            "text": COLUMNS,
            "label": COLUMNS,
            "pair": COLUMNS,
            "limit": st.one_of(st.none(), st.integers(0, 5)),
        }
    ),
)


def sound(found: Examples) -> None:
    """What every reader promises: as many of each as there are examples, texts that any tokenizer can take."""
    assert len(found) > 0
    assert found.kind in get_args(Kind)
    for column in (found.texts, found.pairs, found.labels) if found.words is None else (found.words, found.tags):
        assert column is None or len(column) == len(found)
    if found.words is not None and found.tags is not None:
        assert [*map(len, found.words)] == [*map(len, found.tags)]
    answers = found.kind in ("chat", "completions")  # before which nothing may stand
    assert (found.turns is None) == (found.kind != "chat")
    assert found.rejected is None or (len(found.rejected), found.rejected.kind) == (len(found), found.kind)
    for turns in found.turns or ():
        assert any(turn.scored for turn in turns)
        assert all(turn.text.strip() and turn.text.encode() for turn in turns)
    for text in (
        *(() if answers else found.texts),
        *(found.pairs or ()),
        *(found.labels or ()),
        *(w for ws in found.words or () for w in ws),
    ):
        assert text.encode()  # no half characters, and nothing empty
        assert text.strip()


@settings(max_examples=often(200))
@given(content=contents(), suffix=st.sampled_from(SUFFIXES), options=OPTIONS)
@example(content=b"text,label\n", suffix=".csv", options={})
@example(content=b'{"text": 1e400, "label": 1e400}', suffix=".json", options={})
@example(content=b"[" * 5000, suffix=".json", options={})
@example(content=b'{"a":' * 900 + b"1" + b"}" * 900, suffix=".json", options={"text": "a"})
def test_a_file_is_read_or_refused(content: bytes, suffix: str, options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_bytes(content)
    try:
        found = read(path, **options)
    except ForgetlabError as error:
        one_short_line(error)
        return
    sound(found)
    try:
        sides = split(found)
    except ForgetlabError as error:
        one_short_line(error)
        return
    assert sum(map(len, sides)) == len(found)
    assert min(map(len, sides)) > 0


@settings(max_examples=often(50))
@given(
    content=st.one_of(contents(), JSON.map(lambda text: text.encode("utf-8", "replace"))),
    suffix=st.sampled_from(SUFFIXES),
    kind=st.sampled_from((*KINDS, *PROBES)),
)
def test_a_file_makes_a_task_or_is_refused(
    content: bytes, suffix: str, kind: str | None, tmp_path: Path, bert: Model
) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_bytes(content)
    try:
        task = task_from(path, bert, kind=kind)
    except ForgetlabError as error:
        one_short_line(error)
    else:
        assert len(task.test) > 0
        task.encoded(bert, "test")


def one_short_line(error: ForgetlabError) -> None:
    assert str(error).isprintable()
    assert 0 < len(str(error)) < 3000


# --- names, methods, settings and numbers ---

MARKS = "ab/:,=.~@\\$\0 \n*1"


@settings(max_examples=often(60))
@given(
    st.one_of(
        st.text(alphabet=MARKS), st.text(), st.from_regex(r"[a-z./:~]{0,9}(:(text|label|k|limit)=[^,]{0,3},?){0,3}")
    )
)
def test_a_source_is_taken_apart_or_refused(name: str) -> None:
    for part in parted(name):
        assert part
        try:
            found = parsed(part)
        except ForgetlabError as error:
            one_short_line(error)
        else:
            assert part.startswith(found.name)


@settings(max_examples=often(60))
@given(st.one_of(st.text(alphabet=MARKS, min_size=1, max_size=40), st.text(min_size=1), st.just("~nobody/x")))
def test_a_name_of_no_file_is_refused(name: str) -> None:
    try:
        found = read(name)
    except ForgetlabError as error:
        one_short_line(error)
    else:
        assert Path(name).expanduser().is_file()
        sound(found)


NUMBERS = st.one_of(
    st.floats().map(repr),
    st.integers().map(str),
    st.sampled_from(
        ["1e300", "-1e300", "1e999", "1" * 400, "1" * 5000, "1_0", "٣", "0x10", "", "inf", "exact", "True", "1+1"]
    ),
)


@st.composite
def specs(draw: st.DrawFn) -> str:
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from([*METHODS]))
        keys = st.sampled_from([*settings_of(name), "lam", "old", "self", "x"])
        given = [f"{key}={value}" for key, value in draw(st.lists(st.tuples(keys, NUMBERS), max_size=3))]
        parts.append(f"{name}:{','.join(given)}" if given else name)
    spec = draw(st.sampled_from(["+", " + ", "++"])).join(parts)
    at = draw(st.integers(0, len(spec)))
    return (
        spec if draw(st.booleans()) else spec[:at] + draw(st.sampled_from([":", "=", "+", ",", " ", "\0"])) + spec[at:]
    )


@settings(max_examples=often(120))
@given(st.one_of(specs(), st.text()))
def test_the_text_of_methods_makes_them_or_is_refused(spec: str) -> None:
    try:
        made = make_methods(spec, None)
    except ForgetlabError as error:
        one_short_line(error)
        return
    assert made
    for method in made:
        assert isinstance(method, Method)
        assert all(math.isfinite(value) for value in vars(method).values() if isinstance(value, float))


CONTROLS = {
    "steps": SimpleNamespace(value=100, min=20, max=500),
    "lr": SimpleNamespace(value=1e-3, min=-6.0, max=-1.0, base=10.0),
    "on": SimpleNamespace(value=True),
    "what": SimpleNamespace(value="a", options=("a", "b c")),
    "new": SimpleNamespace(value=""),
}
SETTINGS = st.fixed_dictionaries(
    {
        "steps": st.integers(20, 500),
        "lr": st.floats(1e-6, 1e-1),
        "on": st.booleans(),
        "what": st.sampled_from(["a", "b c"]),
        "new": st.text(max_size=60),
    }
)


@settings(max_examples=often(60))
@given(SETTINGS)
def test_a_settings_line_comes_back_as_it_went(given_settings: dict[str, Any]) -> None:
    back = from_line("own", to_line("own", given_settings), CONTROLS)
    assert back == given_settings | {"lr": pytest.approx(given_settings["lr"], rel=1e-4)}


@settings(max_examples=often(60))
@given(
    st.one_of(
        st.text(),
        st.lists(
            st.tuples(
                st.sampled_from([*CONTROLS, "x", ""]),
                st.sampled_from(["=", "", "=="]),
                st.one_of(NUMBERS, st.text(max_size=9)),
            ).map("".join),
            max_size=5,
        ).map(lambda parts: "forgetlab 1 own: " + ", ".join(parts)),
        st.from_regex(r"forgetlab \d{1,5000} [a-z]{1,4}:.{0,20}", fullmatch=True),
    )
)
def test_any_settings_line_is_taken_or_refused(line: str) -> None:
    try:
        found = from_line("own", line, CONTROLS)
    except ForgetlabError as error:
        one_short_line(error)
        return
    assert 20 <= found.get("steps", 20) <= 500
    assert 1e-6 <= found.get("lr", 1e-3) <= 0.1
    assert isinstance(found.get("on", True), bool)
    assert found.get("what", "a") in ("a", "b c")


ANYTHING = st.one_of(
    st.integers(),
    st.integers(300, 6000).map(lambda digits: 10**digits),
    st.floats(),
    st.booleans(),
    st.none(),
    st.text(max_size=5),
    st.complex_numbers(),
    st.decimals(),
    st.fractions(),
    st.integers(-128, 127).map(np.int8),
    st.floats(width=32).map(np.float32),
    st.floats(width=16).map(np.float16),
    st.lists(st.integers(), max_size=3).map(np.array),
    st.lists(st.integers(), max_size=2),
)


@settings(max_examples=often(80))
@given(ANYTHING, st.integers(-2, 2), st.booleans())
def test_a_number_is_itself_or_refused(value: object, low: int, above: bool) -> None:
    for check in (
        lambda: whole("x", value, low),
        lambda: number("x", value, low, above=above),
        lambda: flag("x", value),
    ):
        try:
            found = check()
        except ForgetlabError as error:
            one_short_line(error)
        else:
            assert type(found) in (int, float, bool)
            assert math.isfinite(found)
            assert found == (float(value) if type(found) is float else value)
