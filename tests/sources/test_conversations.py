"""Rows of conversations, completions, instructions and preferences, as they are found, and what is said of bad ones."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from forgetlab.errors import ForgetlabError
from forgetlab.sources import Examples, from_rows, read, split
from forgetlab.sources.messages import Turn

ASKED, SAID = {"role": "user", "content": "two and two?"}, {"role": "assistant", "content": "four"}
TURNS = (Turn("user", "two and two?"), Turn("assistant", "four", True))
GOOD = {"messages": [ASKED, SAID]}


def write(folder: Path, rows: list[Any], name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


FORMS: dict[str, tuple[Any, tuple[Turn, ...]]] = {
    "OpenAI": (GOOD, TURNS),
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": "two and two?"}, {"from": "gpt", "value": "four"}]},
        TURNS,
    ),
    "its own system column": (
        {
            "system": "be short",
            "conversations": [{"from": "human", "value": "two and two?"}, {"from": "gpt", "value": "four"}],
        },
        (Turn("system", "be short"), *TURNS),
    ),
    "parts of text": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "two and two?"}]}, SAID]},
        TURNS,
    ),
    "prompt and completion": ({"prompt": [ASKED], "completion": [SAID]}, TURNS),
    "an answer before, in the prompt": (
        {"prompt": [ASKED, SAID, ASKED], "completion": [SAID]},
        (TURNS[0], TURNS[1]._replace(scored=False), *TURNS),
    ),
    "weights": (
        {"messages": [ASKED, {**SAID, "weight": 0}, ASKED, {**SAID, "weight": 1}]},
        (TURNS[0], TURNS[1]._replace(scored=False), *TURNS),
    ),
    "two answers in a row": ({"messages": [ASKED, SAID, SAID]}, (*TURNS, TURNS[1])),
    "the user's last word": ({"messages": [ASKED, SAID, ASKED]}, (*TURNS, TURNS[0])),
    "Alpaca": ({"instruction": "two and two?", "input": "", "output": "four"}, TURNS),
    "Alpaca with an input": (
        {"instruction": "add", "input": "2 2", "output": 4},
        (Turn("user", "add\n2 2"), Turn("assistant", "4", True)),
    ),
    "Dolly": (
        {"instruction": "add", "context": "2 2", "response": "4"},
        (Turn("user", "add\n2 2"), Turn("assistant", "4", True)),
    ),
    "preferences": ({"prompt": [ASKED], "chosen": [SAID], "rejected": [{**SAID, "content": "five"}]}, TURNS),
    "preferences without a prompt": (
        {"chosen": [ASKED, SAID], "rejected": [ASKED, {**SAID, "content": "five"}]},
        TURNS,
    ),
    "UltraFeedback": (
        {"prompt": "two and two?", "chosen": [ASKED, SAID], "rejected": [ASKED, {**SAID, "content": "five"}]},
        TURNS,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_found_by_its_columns(form: str, tmp_path: Path) -> None:
    row, turns = FORMS[form]
    found = read(write(tmp_path, [row] * 3))
    assert found.kind == "chat"
    assert found.turns == (turns,) * 3
    assert found.notes == ()
    if "chosen" in row:
        assert found.rejected is not None
        assert found.rejected.turns == ((*turns[:-1], turns[-1]._replace(text="five")),) * 3


def test_strings_are_kept_as_they_are_or_become_turns(tmp_path: Path) -> None:
    path = write(tmp_path, [{"prompt": "2+2 =", "completion": " 4\n"}] * 3)
    assert read(path) == Examples("completions", ("2+2 =",) * 3, (" 4\n",) * 3)
    assert read(path, kind="chat").turns == ((Turn("user", "2+2 ="), Turn("assistant", " 4\n", True)),) * 3
    assert read(path, kind="text").texts == ("2+2 = 4\n",) * 3  # whole: nothing is dropped
    path = write(tmp_path, [{"prompt": "2+2 =", "chosen": " 4", "rejected": " 5"}] * 3)
    found = read(path)
    assert found == Examples("completions", ("2+2 =",) * 3, (" 4",) * 3, rejected=found.rejected)
    assert found.rejected == Examples("completions", ("2+2 =",) * 3, (" 5",) * 3)
    assert read(path, limit=2).rejected == Examples("completions", ("2+2 =",) * 2, (" 5",) * 2)
    talk = "\n\nHuman: two and two?\n\nAssistant:"
    found = read(write(tmp_path, [{"chosen": f"{talk} It is four.", "rejected": f"{talk} In time."}] * 3))
    assert (found.texts[0], (found.pairs or ())[0]) == (talk, " It is four.")
    path = write(tmp_path, [{"instruction": "add", "input": "2 2", "output": "4"}] * 3)
    assert read(path, kind="completions") == Examples("completions", ("add\n2 2",) * 3, ("4",) * 3)
    assert read(write(tmp_path, [GOOD] * 3), kind="text").texts == ("User: two and two?\n\nAssistant: four",) * 3


def test_columns_of_other_names(tmp_path: Path) -> None:
    path = write(tmp_path, [{"id": i, "q": {"text": f"{i} and {i}?"}, "a": 2 * i} for i in range(3)])
    found = read(path, prompt="q.text", answer="a")
    assert (found.kind, found.texts, found.pairs) == (
        "completions",
        ("0 and 0?", "1 and 1?", "2 and 2?"),
        ("0", "2", "4"),
    )
    assert read(write(tmp_path, [{"talk": [ASKED, SAID], "n": 1}] * 3), text="talk").turns == (TURNS,) * 3
    for options, match in (
        ({"prompt": "q.txet", "answer": "a"}, "unknown column 'q.txet'; did you mean 'q.text'"),
        ({"prompt": "q.text"}, "no answer among 'id', 'q', 'a', 'q.text'; name it: answer=NAME"),
        ({"answer": "b"}, "unknown column 'b'; known: a, id, q"),
        ({"answer": "a", "kind": "labelled"}, 'kind="labelled" has no answer'),
    ):
        with pytest.raises(ForgetlabError, match=match):
            read(write(tmp_path, [{"id": i, "q": {"text": "?"}, "a": 1} for i in range(3)]), **options)


def test_objects_within_objects_have_dotted_names(tmp_path: Path) -> None:
    rows = [{"data": {"review": {"body": f"text {i}"}, "marks": ["ab"[i % 2], "c"]}} for i in range(6)]
    found = read(write(tmp_path, rows), text="data.review.body", label="data.marks.0")
    assert found == Examples("labelled", tuple(f"text {i}" for i in range(6)), labels=tuple("ababab"))
    with pytest.raises(ForgetlabError, match=r"no text column among 'data' \(.*: text=data.review.body\)"):
        read(write(tmp_path, rows))


BAD: list[tuple[Any, str]] = [
    ({"messages": [{"role": "critic", "content": "x"}, SAID]}, "the unknown role 'critic'"),
    ({"messages": [{"role": "user", "content": " "}, SAID]}, "an empty message of the user"),
    ({"messages": [ASKED, {"role": "assistant", "content": None}]}, "an empty message of the assistant"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, SAID]},
        "with parts other than text \\(image_url\\)",
    ),
    ({"messages": [{"role": "user", "content": {"a": 1}}, SAID]}, "a dict where a text is expected"),
    ({"messages": [ASKED]}, "no answer to learn"),
    ({"messages": []}, "no answer to learn"),
    ({"messages": [ASKED, {**SAID, "weight": 0}]}, "no answer to learn"),
    ({"messages": ["hello", SAID]}, "a message without role and content"),
    ({"messages": "hello"}, "a message without role and content"),
    ({"messages": [ASKED, {**SAID, "tool_calls": [{"id": 1}]}]}, "calls of tools, which are not read"),
    ({"messages": [ASKED, {"role": "tool", "content": "4"}, SAID]}, "calls of tools, which are not read"),
    ({"messages": [ASKED, SAID], "tools": [{"name": "add"}]}, "calls of tools, which are not read"),
    ({"prompt": "a"}, "no messages"),
]


@pytest.mark.parametrize(("row", "match"), BAD)
def test_a_bad_row_is_left_out_and_counted_and_a_bad_file_refused(row: Any, match: str, tmp_path: Path) -> None:
    found = read(write(tmp_path, [GOOD, GOOD, row]))
    assert found.turns == (TURNS,) * 2
    assert [note for note in found.notes if "left out" in note][0].startswith("1 row of 3 left out: ")
    with pytest.raises(ForgetlabError, match=f"1 row of 3 left out: .*{match}.*first: line 3|{match}"):
        raise ForgetlabError(found.notes[0])
    if row != {"prompt": "a"}:
        with pytest.raises(
            ForgetlabError, match=f"2 rows of 3 left out: .*{match} \\(first: line 2\\); expected rows such"
        ):
            read(write(tmp_path, [GOOD, row, row]))


def test_answers_that_are_called_bad_are_not_learned(tmp_path: Path) -> None:
    found = read(write(tmp_path, [{"prompt": "a", "completion": str(i), "label": i > 0} for i in range(3)]))
    assert found.pairs == ("1", "2")
    assert found.notes == ("1 row of 3 left out: an answer whose label is false (first: line 1)",)
    labelled = read(write(tmp_path, [{"prompt": "a", "response": f"b {i}", "label": "xy"[i % 2]} for i in range(6)]))
    assert labelled.kind == "labelled"  # names are classes, as ever


def test_rows_of_several_kinds_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [GOOD, GOOD, {"prompt": "a", "completion": "b"}])
    with pytest.raises(
        ForgetlabError,
        match=r"2 with messages \(first: line 1\), 1 with prompt and completion \(first: line 3\); part it into files",
    ):
        read(path)
    with pytest.raises(ForgetlabError, match="1 rows of strings and 1 of messages"):
        read(write(tmp_path, [{"prompt": "a", "completion": "b"}, {"prompt": [ASKED], "completion": [SAID]}]))


def test_what_fits_no_kind_is_told_the_kinds(tmp_path: Path) -> None:
    path = write(tmp_path, [{"question": f"q {i}", "answer": f"a {i}"} for i in range(6)])
    with pytest.raises(ForgetlabError, match="kind=text for texts alone, or prompt=NAME,answer=NAME for answers"):
        read(path)
    for kind in ("chat", "completions"):
        with pytest.raises(
            ForgetlabError, match=f"no row is of kind {kind}; expected rows such as .*messages.*instruct"
        ):
            read(path, kind=kind)  # type: ignore[arg-type]
    with pytest.raises(ForgetlabError, match="its rows are conversations, not completions"):
        read(write(tmp_path, [GOOD] * 3), kind="completions")
    with pytest.raises(ForgetlabError, match='no text column among .*expected rows such as {"text"'):
        read(write(tmp_path, [{"turns": [["hi"], ["yo"]]}] * 3))


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    row = {"id": 7, "messages": [ASKED, {**SAID, "reasoning_content": "well"}], "empty": None}
    assert read(write(tmp_path, [row] * 3)).notes == (
        "read as messages; not read: 'id'",
        "of the messages not read: 'reasoning_content'",
    )


def test_chats_are_split_by_what_they_ask(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"q {i // 2}"}, {**SAID, "content": str(i)}]} for i in range(40)]
    train, test = split(read(write(tmp_path, rows)))
    assert train.turns is not None
    assert test.turns is not None
    assert len(train.turns) + len(test.turns) == 40
    assert not {*train.texts} & {*test.texts}
    assert all(turns[0].text == text for turns, text in zip(test.turns, test.texts, strict=True))


def test_tables_hold_completions_and_instructions_too(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Prompt,Completion,id\n2+2?,four,1\n3+3?,six,2\n4+4?,,3\n")
    found = read(tmp_path / "a.csv")
    assert (found.kind, found.texts, found.pairs) == ("completions", ("2+2?", "3+3?"), (" four", " six"))
    assert found.notes == (
        "cells lose the spaces at their ends: one is put before each answer",
        "1 row of 3 left out: no prompt and completion (first: line 4)",
        "read as prompt and completion; not read: 'id'",
    )
    (tmp_path / "b.tsv").write_text("instruction\toutput\nadd 2 and 2\tfour\nadd 3 and 3\tsix\n")
    assert read(tmp_path / "b.tsv").turns == tuple(
        (Turn("user", f"add {n} and {n}"), Turn("assistant", said, True)) for n, said in ((2, "four"), (3, "six"))
    )
    (tmp_path / "c.csv").write_text("q,a\n2+2?,four\n3+3?,six\n")
    assert read(tmp_path / "c.csv", prompt="q", answer="a").pairs == (" four", " six")


# --- files that are no text ---


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_archives_are_unpacked(suffix: str, pack: Any, tmp_path: Path) -> None:
    whole = write(tmp_path, [GOOD] * 3).read_bytes()
    path = tmp_path / f"rows.jsonl.{suffix}"
    path.write_bytes(pack(whole))
    assert read(path) == read(tmp_path / "rows.jsonl")
    (tmp_path / f"a.csv.{suffix}").write_bytes(pack(b"text,label\na b,x\nc d,y\n"))
    assert read(tmp_path / f"a.csv.{suffix}").labels == ("x", "y")
    for broken in (pack(whole)[:-20], pack(whole)[:10] + b"spoilt" + pack(whole)[16:]):
        path.write_bytes(broken)
        with pytest.raises(ForgetlabError, match=r"rows.jsonl.* is a damaged \w+ archive"):
            read(path)
    path.write_bytes(b"no archive at all\n\nbut text")
    assert read(path).kind == "text"  # the content decides, not the name


def test_an_archive_that_grows_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forgetlab.sources.packed.LARGEST", 1000)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"a" * 2000))
    with pytest.raises(ForgetlabError, match="a.txt.gz holds more than 1e-06 GB"):
        read(tmp_path / "a.txt.gz")


def test_parquet_and_arrow_hold_any_kind_of_rows(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="Parquet is read by pyarrow: pip install pyarrow")
    from pyarrow import ipc, parquet

    def written(rows: list[dict[str, Any]], name: str) -> list[Path]:
        table = pa.Table.from_pylist(rows)
        paths = [tmp_path / f"{name}.{end}" for end in ("parquet", "arrow", "stream.arrow")]
        parquet.write_table(table, paths[0])
        for path, writer in zip(paths[1:], (ipc.new_file, ipc.new_stream), strict=True):
            with pa.OSFile(str(path), "wb") as file, writer(file, table.schema) as out:
                out.write_table(table)
        return paths

    for path in written([GOOD] * 3, "chats"):
        assert read(path).turns == (TURNS,) * 3
    for path in written([{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(6)], "labels"):
        assert read(path).labels == tuple("ababab")
    for path in written([{"data": {"body": f"text {i}"}, "n": i} for i in range(6)], "nested"):
        assert read(path, text="data.body", kind="text").texts == tuple(f"text {i}" for i in range(6))
    words = [{"tokens": ["anna", "sings"], "ner_tags": ["B-PER", "O"]}] * 4
    for path in written(words, "tags"):
        assert read(path).words == (("anna", "sings"),) * 4
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ForgetlabError, match="is a damaged Arrow file|is empty"):
        read(path)
    (tmp_path / "tags.parquet").write_bytes((tmp_path / "tags.parquet").read_bytes()[:-30])
    with pytest.raises(ForgetlabError, match="is a damaged Parquet file"):
        read(tmp_path / "tags.parquet")


def test_rows_of_ones_own_are_read_as_in_a_file(tmp_path: Path) -> None:
    rows = [GOOD, {**GOOD, "id": 1}]
    assert from_rows(rows) == read(write(tmp_path, rows))
    rows = [{"body": f"text {i}", "mark": "ab"[i % 2]} for i in range(6)]
    assert from_rows(iter(rows), text="body", label="mark") == read(write(tmp_path, rows), text="body", label="mark")
    for bad, options, match in (
        (["text"], {}, "rows must be dicts such as .* got 'text'"),
        ([], {}, "no examples found|no text column"),
        ([GOOD], {"anwser": "a"}, "unknown option 'anwser'; did you mean 'answer'"),
    ):
        with pytest.raises(ForgetlabError, match=match):
            from_rows(bad, **options)  # type: ignore[arg-type]
    datasets = pytest.importorskip("datasets", reason="its data sets are rows too")
    assert from_rows(datasets.Dataset.from_list([GOOD] * 2)).turns == (TURNS,) * 2


def test_class_names_in_a_parquet_file_of_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="class names are in the features of `datasets`")
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    rows = {"text": [f"text {i}" for i in range(6)], "label": [0, 1] * 3}
    datasets.Dataset.from_dict(rows, features=datasets.Features(features)).to_parquet(str(tmp_path / "a.parquet"))
    assert read(tmp_path / "a.parquet").labels == ("bad", "good") * 3


@pytest.mark.parametrize("more", [{}, {"id": 7}])
def test_messages_in_a_table_are_strings_of_json(tmp_path: Path, more: dict[str, Any]) -> None:
    """As pandas writes them; Python's own notation of lists is refused, where it was read as plain text."""
    import pandas

    chats = [
        [{"role": "user", "content": f'say "{i}", please'}, {"role": "assistant", "content": "yes"}] for i in range(6)
    ]
    path = tmp_path / "chats.csv"
    rows = [{**more, "messages": json.dumps(chat)} for chat in chats]
    pandas.DataFrame([*rows, {**more, "messages": "[{cut"}]).to_csv(path, index=False)
    found = read(path)
    assert found.kind == "chat"
    assert found.turns is not None
    assert [[turn.text for turn in turns] for turns in found.turns] == [[m["content"] for m in chat] for chat in chats]
    assert any("1 row of 7 left out" in note for note in found.notes)
    pandas.DataFrame([{**more, "messages": str(chat)} for chat in chats]).to_csv(path, index=False)
    with pytest.raises(
        ForgetlabError, match=r"line 2: 'messages' holds messages as a string that is no JSON; .*to_json"
    ):
        read(path)


def test_some_chats_among_texts_are_not_taken_for_empty_texts(tmp_path: Path) -> None:
    path = write(tmp_path, [GOOD, *({"text": f"plain words {i}"} for i in range(9))])
    with pytest.raises(ForgetlabError, match=r"rows of several kinds: 1 with messages \(first: line 1\), 9 without"):
        read(path)
    assert len(read(path, text="text")) == 9
