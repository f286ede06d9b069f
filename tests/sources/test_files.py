"""Files in every format, as users really write them, and what is said about the broken ones."""

import contextlib
import csv
import gzip
import json
import math
import random
from pathlib import Path

import pytest

from forgetlab.errors import ForgetlabError
from forgetlab.sources import Examples, machine_text, passages, read, split

ROWS = [
    ("a warm and funny film", "positive"),
    ("dull, long, and far too loud", "negative"),
    ("not bad at all", "positive"),
    ('she said "no" and left', "negative"),
]
TEXTS, LABELS = zip(*ROWS, strict=True)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_csv(folder: Path, name: str, rows, delimiter: str = ",", **options) -> Path:
    path = folder / name
    with path.open("w", newline="", encoding=options.pop("encoding", "utf-8")) as file:
        csv.writer(file, delimiter=delimiter, **options).writerows(rows)
    return path


def refused(path, match: str, **options) -> None:
    with pytest.raises(ForgetlabError, match=match) as caught:
        read(path, **options)
    assert "\n" not in str(caught.value)


# --- CSV ---


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", "^"])
@pytest.mark.parametrize("name", ["data.csv", "data.txt", "data"])
def test_header_in_any_delimiter(tmp_path, delimiter, name):
    found = read(write_csv(tmp_path, name, [("text", "label"), *ROWS], delimiter))
    assert (found.kind, found.texts, found.labels, found.notes) == ("labelled", TEXTS, LABELS, ())


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("turned", [False, True])
def test_no_header_loses_no_row(tmp_path, delimiter, turned):
    rows = [row[::-1] for row in ROWS] if turned else ROWS
    found = read(write_csv(tmp_path, "data.csv", rows, delimiter))
    assert (found.kind, found.texts, found.labels) == ("labelled", TEXTS, LABELS)
    assert found.notes[0].startswith("no header row seen")


def test_a_rare_class_or_a_short_text_in_the_first_row_is_no_header(tmp_path):
    for first in [("fine", "neutral"), ("so so", "mixed"), ("meh", "0")]:
        found = read(write_csv(tmp_path, "data.csv", [first, *ROWS, *ROWS[:2]]), text=0, label="1")
        if first != ("fine", "neutral"):  # two single words over longer texts: nobody could tell
            assert found.texts[0] == first[0]


def test_headers_without_a_usual_name(tmp_path):
    found = read(write_csv(tmp_path, "data.csv", [("utterances", "verdict"), *ROWS]))
    assert (found.texts, found.labels) == (TEXTS, LABELS)
    assert "label column 'verdict': it has few different values" in found.notes
    numbered = [(text, str(number)) for number, (text, _) in enumerate(ROWS * 2)]
    path = write_csv(tmp_path, "data.csv", [("utterances", "id"), *numbered])
    refused(path, "no label column among 'utterances', 'id'; name it: .*, or kind=text for texts alone")
    assert read(path, kind="text").texts == TEXTS * 2


def test_headers_of_numbers_and_of_excel(tmp_path):
    assert read(write_csv(tmp_path, "data.csv", [("0", "1"), *ROWS])).texts == TEXTS
    path = write_csv(
        tmp_path,
        "data.csv",
        [("Quality", "#1 ID", "#1 String"), ("1", "72", TEXTS[0]), ("0", "73", TEXTS[1])],
    )
    assert read(path, kind="text").texts == TEXTS[:2]
    path = write(tmp_path, "data.csv", 'id,"What they\nsaid"\n1,a fine day\n')
    refused(path, "unknown column 'label'; known: What they said, id", text="what they said", label="label")
    assert read(write(tmp_path, "data.csv", "sep=;\ntext;label\nwell, yes;a\n")).texts == ("well, yes",)


def test_a_name_that_is_there_twice_is_still_a_header(tmp_path):
    rows = [(text, "other", label) for text, label in ROWS]
    found = read(write_csv(tmp_path, "data.csv", [("text", "text", "label"), *rows]))
    assert (found.texts, found.labels) == (TEXTS, LABELS)
    assert found.notes == ("2 columns are called 'text': the first is read",)


def test_measures_are_no_classes(tmp_path):
    scores = [f"{i * 0.37:.2f}" for i in range(12)]
    rows = [(f"text number {i} of them", score) for i, score in enumerate(scores)]
    path = write_csv(tmp_path, "data.csv", [("text", "score"), *rows])
    refused(path, "column 'score' holds numbers of many values, such as 0.00, and only classes are learned here")
    assert read(path, kind="text").kind == "text"
    for few in (["1.0", "2.0", "3.0", "4.0"], ["0.5", "1.5"]):  # stars, as pandas writes them
        rows = [(f"text number {i} of them", few[i % len(few)]) for i in range(12)]
        assert read(write_csv(tmp_path, "data.csv", [("text", "score"), *rows])).labels == tuple(r[1] for r in rows)


def test_columns_by_name_and_by_number(tmp_path):
    rows = [(str(i), "en", text, label, "x") for i, (text, label) in enumerate(ROWS)]
    path = write_csv(tmp_path, "a.csv", [("id", "title", "What they said", "Gold-Label", "note"), *rows])
    for text, label in [
        ("What they said", "Gold-Label"),
        ("what_they_said", "gold label"),
        (2, "3"),
        ("2", 3),
    ]:
        found = read(path, text=text, label=label)
        assert (found.texts, found.labels) == (TEXTS, LABELS)
    path = write_csv(tmp_path, "b.csv", rows)
    assert read(path, text=2, label=3).labels == LABELS
    refused(path, "unknown column 'label'; known: 0, 1, 2, 3, 4 .no header row seen", label="label")
    path = write_csv(tmp_path, "c.csv", [("eins", "zwei drei vier"), ("so ein Tag", "ja"), ("nein", "ja")])
    assert read(path, label="Zwei Drei Vier").texts == ("so ein Tag", "nein")  # named, so there is a header


def test_label_asked_by_a_number_that_is_also_a_value(tmp_path):
    path = write_csv(tmp_path, "data.csv", [("0", "a fine day"), ("1", "rain again"), ("0", "sun at last")])
    assert read(path, label="0").labels == ("0", "1", "0")


def test_index_column_and_empty_columns(tmp_path):
    rows = [("", "text", "label", ""), *((str(i), *row, "") for i, row in enumerate(ROWS))]
    assert read(write_csv(tmp_path, "data.csv", rows)).labels == LABELS
    assert read(write_csv(tmp_path, "data.tsv", rows, "\t")).labels == LABELS


def test_quoted_newlines_and_delimiters(tmp_path):
    rows = [("one\ntwo, three\n\nfour", "x"), ('"all quoted"', "y"), ("a;b|c\td", "x")]
    found = read(write_csv(tmp_path, "data.csv", [("text", "label"), *rows]))
    assert (found.texts, found.labels) == (tuple(r[0] for r in rows), ("x", "y", "x"))
    path = write(tmp_path, "spaces.csv", 'label, text\nx, "a, b"\ny, "c, d"\n')
    assert read(path).texts == ("a, b", "c, d")


def test_stray_quotes_in_tsv_swallow_no_rows(tmp_path):
    rows = [('"quiet start', "a"), ('no end" here', "b"), ('5" screen', "a"), ('"', "b"), ("plain", "a")]
    path = write(tmp_path, "data.tsv", "\n".join(f"{text}\t{label}" for text, label in rows))
    assert read(path).texts == tuple(text for text, _ in rows)


def test_backslash_escapes(tmp_path):
    path = write(tmp_path, "data.csv", 'text,label\n"he said \\"no, never\\", twice",a\n"plain, text",b\n')
    assert read(path).texts == ('he said "no, never", twice', "plain, text")


def test_huge_cell_and_the_global_limit(tmp_path):
    before = csv.field_size_limit()
    found = read(write_csv(tmp_path, "data.csv", [("text", "label"), ("word " * 50_000, "x"), ("b", "y")]))
    assert len(found.texts[0]) > 200_000
    assert csv.field_size_limit() == before


def test_ragged_and_empty_rows(tmp_path):
    good = [f"text number {i},{'ab'[i % 2]}" for i in range(9)]
    path = write(tmp_path, "data.csv", "\n".join(["text,label", *good, "one, two, three,a", ",b", "last,", "", "z,a"]))
    found = read(path)
    assert len(found) == 10
    assert found.notes == (
        "1 of 14 lines do not fit, skipped (first: line 11)",
        "2 rows with empty text or label skipped (first: line 12)",
    )
    worse = write(tmp_path, "worse.csv", "text,label\na,b,c\nd,e,f\ng,h\ni\n")
    refused(worse, r"3 of 5 lines do not fit \(first: line 2\); expected 2 cells with delimiter ','")
    refused(write(tmp_path, "worse.tsv", "a\tb\nc\nd\te\tf\ng\th\ti\tj\n"), "lines do not fit")


def test_unclosed_quote(tmp_path):
    rows = [f'"text, {i}","{i % 2}"' for i in range(20)]
    path = write(tmp_path, "last.csv", "\n".join(["text,label", *rows, '"never closed, x', "a,0", "b,1"]))
    refused(path, r'a quote \("\) opened at line 22 or below is never closed')
    rows[4] = '"never closed, x'  # the next quote closes it: two rows are lost, and that is said
    found = read(write(tmp_path, "middle.csv", "\n".join(["text,label", *rows])))
    assert len(found) == 18
    assert found.notes == ("1 of 20 lines do not fit, skipped (first: line 6)",)


def test_one_column_is_text(tmp_path):
    for content in ["text\nHello, you.\nFine.\n", "Hello, you.\nFine.\n"]:
        found = read(write(tmp_path, "data.csv", content))
        assert (found.kind, found.texts) == ("text", ("Hello, you.", "Fine."))


def test_several_columns_are_text_only_when_told(tmp_path):
    path = write_csv(tmp_path, "data.csv", [("text", "label"), *ROWS])
    found = read(path, kind="text")
    assert (found.kind, found.texts, found.labels) == ("text", TEXTS, None)
    rows = [("id", "review"), *((str(i), text) for i, text in enumerate(TEXTS))]
    path = write_csv(tmp_path, "ids.csv", rows)
    refused(path, "no label column among 'id', 'review'")
    assert read(path, kind="text").texts == TEXTS


def test_missing_label_lists_the_columns(tmp_path):
    path = write_csv(tmp_path, "data.csv", [("id", "review"), ("1", "good one"), ("2", "bad one")])
    refused(path, r"no label column among 'id', 'review'; name it: label=NAME, --label NAME", kind="labelled")
    refused(path, "unknown column 'reviw'; did you mean 'review'", text="reviw")
    refused(path, "different columns", text="review", label="review")
    refused(path, 'kind="text" has no label', label="id", kind="text")
    refused(path, "unknown kind of examples 'labeled'; did you mean 'labelled'", kind="labeled")
    refused(path, "limit must be a whole number above 0, got 0", limit=0)
    refused(write(tmp_path, "empty.csv", "text,label\n"), "no examples found")


def test_one_class_is_no_error_here(tmp_path):
    assert read(write(tmp_path, "data.csv", "text,label\na b,x\nc d,x\n")).labels == ("x", "x")


@pytest.mark.parametrize("names", [("premise", "hypothesis"), ("Sentence1", "sentence2"), ("question1", "question2")])
def test_pairs(tmp_path, names):
    rows = [(f"a man sleeps {i}", f"a person rests {i}", "yes" if i % 2 else "no") for i in range(6)]
    path = write_csv(tmp_path, "data.tsv", [(*names, "label"), *rows], "\t")
    found = read(path)
    assert found.kind == "pairs"
    assert list(zip(found.texts, found.pairs, found.labels, strict=True)) == rows
    assert read(path, kind="labelled").pairs is None
    assert read(path, text=names[1], pair=names[0]).texts == found.pairs
    headless = write_csv(tmp_path, "bare.csv", rows)
    assert read(headless, text=0, pair=1, label=2).pairs == found.pairs
    refused(headless, "no second sentence", kind="pairs")
    refused(write_csv(tmp_path, "bare.csv", [row[:2] for row in rows]), "no label column", text=0, pair=1)


def test_limit_spreads_over_the_file(tmp_path):
    rows = [(f"text {i}", "a" if i < 50 else "b") for i in range(100)]
    found = read(write_csv(tmp_path, "data.csv", [("text", "label"), *rows]), limit=10)
    assert found.labels == ("a",) * 5 + ("b",) * 5
    assert found.notes == ("10 of 100 examples kept, spread evenly over the file",)


# --- guesses at columns ---


def test_a_column_that_is_mostly_empty_is_never_guessed_to_be_the_labels(tmp_path):
    """CoLA's raw file has a mark in a third of its rows; taken for the label it cost 6,024 of 8,551 rows."""
    rows = [
        (f"s{i % 3}", str(i % 2), "*?"[i % 2] if i % 3 == 0 else "", f"the boat {i} sailed over the sea")
        for i in range(60)
    ]
    path = write_csv(tmp_path, "cola.tsv", rows, "\t")
    refused(path, r"may be in any of 2 columns: '0' \(s0, s1, s2\), '1' \(0, 1\); name one: label=NAME, --label NAME")
    assert len(read(path, text=3, label=1)) == 60
    path = write_csv(tmp_path, "two.tsv", [row[2:] for row in rows], "\t")
    refused(path, "no label column among '0', '1'")
    assert len(read(path, label=0)) == 20  # named: then the rest is left out, with a note
    named = [("text", "label", "topic"), *((row[3], row[2], row[1]) for row in rows)]
    found = read(write_csv(tmp_path, "named.csv", named))
    assert (len(found), {*found.labels}) == (60, {"0", "1"})
    assert found.notes == ("label column 'topic', by its name; not 'label'",)
    path = write_csv(tmp_path, "only.csv", [row[:2] for row in named])
    refused(path, "column 'label' looks like the label but is empty in 67% of 60 rows, and 40 would be left out; name")


@pytest.mark.parametrize(("missing", "good"), [(1, True), (3, True), (6, True), (8, False), (40, False)])
def test_a_guess_costs_a_few_per_cent_of_the_rows_at_most(tmp_path, missing, good):
    rows = [("utterances", "verdict")]
    rows += [(f"the boat number {i} sailed over the sea", "" if i < missing else "ab"[i % 2]) for i in range(100)]
    path = write_csv(tmp_path, "data.csv", rows)
    if good:
        assert len(read(path)) == 100 - missing
    else:
        refused(path, f"column 'verdict' looks like the label but is empty in {missing}% of 100 rows")
    assert len(read(path, label="verdict", text="utterances")) == 100 - missing


def test_lines_that_begin_with_their_label(tmp_path):
    """TREC in Latin-1, fastText, and a digit before each text; a numbered list and a play have no classes."""
    trec = "\n".join(f"{('DESC:manner', 'NUM:date', 'NUM:count')[i % 3]} How is Andr\u00e9 {i} ?" for i in range(30))
    found = read(write(tmp_path, "train_5500.label", trec.encode("latin-1")))
    assert (found.kind, found.texts[1], found.labels[:3]) == (
        "labelled",
        "How is Andr\u00e9 1 ?",
        ("DESC", "NUM", "NUM"),
    )
    assert found.notes[1:] == ("lines of LABEL:fine text: 2 labels are taken; label=fine for the 3 fine ones",)
    assert read(tmp_path / "train_5500.label", label="fine").labels[:3] == ("manner", "date", "count")
    assert read(tmp_path / "train_5500.label", kind="text").kind == "text"
    for form, labels in (("__label__{} a fine day {}", "ab"), ("{} a fine day {}", "01")):
        lines = [form.format(labels[i % 2], i) for i in range(20)]
        found = read(write(tmp_path, "data.txt", "\n".join([*lines, "no label"])))
        assert (found.labels[:2], found.texts[0], len(found)) == (tuple(labels), "a fine day 0", 20)
        assert found.notes[0] == "1 of 21 lines do not fit, skipped (first: line 21)"
    assert read(write(tmp_path, "list.txt", "\n".join(f"{i} things to do" for i in range(9)))).kind == "text"
    assert read(write(tmp_path, "play.txt", "ROMEO:o speak again\nJULIET:ay me\nNURSE:madam\n")).kind == "text"


@pytest.mark.parametrize(
    "name", ["wide.csv", "wide.tsv", "wide.txt", "wide.jsonl", "sparse.jsonl", "marks.csv", "marks.txt"]
)
def test_a_wide_file_is_read_or_refused(tmp_path, name):
    """It took seconds for a hundred thousand columns, and hours for as many marks: each was tried as a delimiter."""
    count = 100_000
    if "marks" in name:
        marks = "".join(
            c for c in map(chr, range(0x2000, 0x30000)) if not c.isalnum() and not 0xD800 <= ord(c) < 0xE000
        )
        assert read(write(tmp_path, name, f"text{marks[:count]}\na,b")).kind == "text"
        return
    names = [f"c{i}" for i in range(count)]
    content = {
        "wide.jsonl": lambda: json.dumps(dict.fromkeys(names, "x")),
        "sparse.jsonl": lambda: "\n".join(json.dumps({one: "x"}) for one in names[:20_000]),
        "wide.csv": lambda: "\n".join([",".join(names)] * 2),
    }.get(name, lambda: "\n".join(["\t".join(names)] * 2))()
    refused(write(tmp_path, name, content), "columns; expected a table of texts and labels, of 10,000 columns at most")


# --- encodings ---


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(tmp_path, encoding, newline):
    content = newline.join(["text,label", "“Café”,gut", "Größe,schlecht", ""])
    found = read(write(tmp_path, "data.csv", content.encode(encoding)))
    assert (found.texts, found.labels) == (("“Café”", "Größe"), ("gut", "schlecht"))
    assert found.notes == (("read as cp1252 (not UTF-8)",) if encoding == "cp1252" else ())


def test_utf16_without_order_mark_in_either_order(tmp_path):
    content = "text,label\nCafé,a\n"
    for mark, encoding in [(b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")]:
        assert read(write(tmp_path, "data.csv", mark + content.encode(encoding))).texts == ("Café",)
    refused(write(tmp_path, "data.csv", content.encode("utf-16-le")), "binary")
    refused(write(tmp_path, "data.csv", b"\xff\xfeabc"), "marked as utf-16")


def test_latin1_and_broken_utf8(tmp_path):
    found = read(write(tmp_path, "a.txt", "Café \x81".encode("latin-1")))
    assert found.notes == ("read as latin-1 (not UTF-8)",)
    found = read(write(tmp_path, "b.txt", ("Größe und Güte äöü éèê ñ ç ß " * 3).encode() + b"\xc3 end"))
    assert "ß" in found.texts[0]
    assert found.notes == ("1 broken byte in the UTF-8 read as \ufffd",)


# --- JSON ---


def test_json_lines(tmp_path):
    lines = [json.dumps({"id": i, "text": text, "label": i % 2}) for i, text in enumerate(TEXTS)]
    for name in ["data.jsonl", "data.ndjson", "data.json", "data.txt"]:
        found = read(write(tmp_path, name, "\n".join(lines)))
        assert (found.kind, found.texts, found.labels) == ("labelled", TEXTS, ("0", "1", "0", "1"))


def test_missing_values_as_pandas_writes_them(tmp_path):
    lines = [json.dumps({"text": text, "label": label}) for text, label in ROWS]
    found = read(write(tmp_path, "data.jsonl", "\n".join([*lines, '{"text": "no label", "label": NaN}'])))
    assert (found.texts, found.labels) == (TEXTS, LABELS)
    assert found.notes == ("1 row with empty text or label skipped (first: line 5)",)


def test_json_lists_of_words_and_tags(tmp_path):
    """As datasets' to_json writes the hub's sets of entities."""
    rows = [{"id": "0", "tokens": ["anna", "runs"], "ner_tags": ["B-PER", "O"]}, {"tokens": ["so"], "ner_tags": ["O"]}]
    lines = "\n".join(map(json.dumps, [*rows, {"tokens": ["two", "words"], "ner_tags": 5}]))
    for options in ({}, {"kind": "tags"}, {"text": "tokens", "label": "ner_tags"}):
        found = read(write(tmp_path, "a.jsonl", lines), **options)
        assert (found.kind, found.words) == ("tags", (("anna", "runs"), ("so",)))
        assert found.tags == (("B-PER", "O"), ("O",))
        assert found.notes == ("1 row without a tag for each word skipped",)
    both = json.dumps([{"text": "anna runs", "label": "x", "tokens": ["anna", "runs"], "tags": ["news", "sport"]}])
    assert read(write(tmp_path, "d.json", both)).labels == ("x",)
    numbers = json.dumps([{"tokens": ["anna"], "ner_tags": [3]}])
    refused(write(tmp_path, "b.json", numbers), "column 'ner_tags' holds 3; expected names of tags")
    refused(write(tmp_path, "c.json", '[{"text": "anna runs"}]'), "need a column of lists", kind="tags")


def test_json_list_and_values(tmp_path):
    values = [True, 1.5, None, "ja", 2]
    rows = [{"sentence": f"number {i}", "label": value} for i, value in enumerate(values)]
    found = read(write(tmp_path, "data.json", json.dumps(rows, indent=2)))
    assert found.labels == ("true", "1.5", "ja", "2")
    assert found.notes == ("1 row with empty sentence or label skipped (first: entry 3)",)
    assert read(write(tmp_path, "data.json", '["eins", "zwei"]')).texts == ("eins", "zwei")
    assert read(write(tmp_path, "data.jsonl", '{"text": "only one"}')).texts == ("only one",)


def test_json_hostile(tmp_path):
    nested = [{"text": ["a", "b"], "label": "x"}, {"text": "c", "label": "y"}]
    refused(write(tmp_path, "a.json", json.dumps(nested)), "column 'text' holds lists or objects")
    refused(write(tmp_path, "b.json", '{"data": [{"text": "a"}]}'), "no text column among 'data'")
    refused(write(tmp_path, "c.jsonl", "[" * 100_000), "1 of 1 lines do not fit")
    refused(write(tmp_path, "d.jsonl", "not json\nat all\n"), r"2 of 2 lines do not fit \(first: line 1\)")
    refused(write(tmp_path, "e.json", "[1, 2]"), r"2 of 2 entries do not fit \(first: entry 1\)")
    refused(write(tmp_path, "f.json", "[]"), "no ")
    lines = ['{"text": "half \\ud83d", "meta": {"a": 1}}', '{"text": "b"', '{"text": "c", "meta": {}}']
    found = read(write(tmp_path, "g.jsonl", "\n".join(lines)))
    assert found.texts == ("half \ufffd", "c")
    assert found.notes[0] == "1 of 3 lines do not fit, skipped (first: line 2)"


# --- plain text ---


def test_paragraphs(tmp_path):
    found = read(write(tmp_path, "data.txt", "One line\nof two.\n\n \n  Another.\n\n\n"))
    assert (found.kind, found.texts, found.notes) == ("text", ("One line of two.", "Another."), ())
    assert read(write(tmp_path, "data.txt", "One, two.\nThree, four.\nFive.")).texts == (
        "One, two.",
        "Three, four.",
        "Five.",
    )


def test_prose_is_no_table_and_no_columns(tmp_path):
    verse = "Shall I compare thee, my dear\nThou art more lovely, I fear\nRough winds do shake, so near\n"
    assert read(write(tmp_path, "poem.txt", verse)).texts == tuple(verse.strip().split("\n"))
    play = "All:\nSpeak, speak.\n\nFirst Citizen:\nLet us kill him.\nIs't a verdict?\n"
    assert read(write(tmp_path, "play.txt", play)).texts == (
        "All: Speak, speak.",
        "First Citizen: Let us kill him. Is't a verdict?",
    )
    assert read(write(tmp_path, "two.txt", "Go home\nStay here\n\nCome back\nRun now\n")).kind == "text"
    assert read(write(tmp_path, "note.txt", "[Illustration]\n\nA tale.\n")).kind == "text"


def test_long_paragraphs_are_cut_at_sentence_ends():
    sentences = [f"This is sentence number {i}, of just nine words." for i in range(40)]
    found = passages(" ".join(sentences))
    assert " ".join(found) == " ".join(sentences)
    assert all(piece.endswith("words.") and 30 <= len(piece.split()) <= 80 for piece in found)


def test_long_paragraphs_without_sentence_ends():
    words = " ".join(f"word{i}" for i in range(500))
    assert " ".join(passages(words)) == words
    assert max(len(piece.split()) for piece in passages(words)) <= 80
    verse = "\n".join(["and so the river runs along the wall"] * 30)
    assert all(piece.endswith("wall") for piece in passages("Title\n\n" + verse)[1:])
    assert max(map(len, passages("無" * 5000))) <= 800
    assert max(map(len, passages("これは文です。" * 500))) <= 800


def test_text_as_labelled_says_what_is_missing(tmp_path):
    refused(write(tmp_path, "data.txt", "Just text.\nNo columns.\n"), "no label column", kind="labelled")


# --- CoNLL columns ---

CONLL = "-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\nPeter NNP B-NP B-PER\n. . O O\n"
WORDS, TAGS = (("EU", "rejects"), ("Peter", ".")), (("B-ORG", "O"), ("B-PER", "O"))


@pytest.mark.parametrize("name", ["data.conll", "data.txt", "data.tsv", "data.annotated"])
@pytest.mark.parametrize("separator", [" ", "\t", "  "])
def test_conll(tmp_path, name, separator):
    found = read(write(tmp_path, name, CONLL.replace(" ", separator)))
    assert (found.kind, found.texts, found.words, found.tags) == ("tags", (), WORDS, TAGS)
    assert len(found) == 2
    assert found.notes == ()


@pytest.mark.parametrize("separator", [" ", "\t", ",", ";", "|"])
def test_two_columns_in_any_delimiter(tmp_path, separator):
    lines = [
        "word tag",
        "EU B-ORG",
        f"{separator} O" if separator in ",;|" else ", O",
        "",
        "Rome I-LOC",
        "is O",
        "",
    ]
    found = read(write(tmp_path, "data.txt", "\n".join(line.replace(" ", separator) for line in lines)))
    assert found.words == (("EU", separator if separator in ",;|" else ","), ("Rome", "is"))
    assert found.tags == (("B-ORG", "O"), ("I-LOC", "O"))
    assert found.notes == ("line 1 taken as the header",)


def test_conll_hash_tokens_comments_and_blank_lines(tmp_path):
    content = "# sent_id = 1\n#wow\tO\n# is\tO\n#\tO\n\t\n# newdoc\nParis\tB-LOC\n \nNew York\tB-LOC\n"
    found = read(write(tmp_path, "data.conll", content))
    assert found.words == (("#wow", "# is", "#"), ("Paris",), ("New York",))


def test_conll_other_columns(tmp_path):
    path = write(tmp_path, "data.conll", CONLL)
    assert read(path, label=1).tags == (("NNP", "VBZ"), ("NNP", "."))
    refused(path, "unknown column 9; known: 0, 1, 2, 3", label=9)
    assert read(path, kind="text").texts == ("EU rejects", "Peter .")
    universal = "# text = Im Haus\n1-2\tIm\t_\t_\t_\n1\tIn\tin\tADP\t_\n2\tdem\tder\tDET\t_\n3\tHaus\tHaus\tNOUN\t_\n"
    found = read(write(tmp_path, "data.conllu", universal))
    assert (found.words, found.tags) == ((("In", "dem", "Haus"),), (("ADP", "DET", "NOUN"),))


def test_conll_broken_lines(tmp_path):
    good = "a\tO\nb\tB-X\n\n" * 4
    found = read(write(tmp_path, "data.conll", good + "c\nd\tO\n\n" + good))
    assert len(found) == 8
    assert found.notes == ("1 of 18 lines do not fit, skipped with the sentence (first: line 13)",)
    assert read(write(tmp_path, "tabs.conll", "a\tO\t\nb\tB-X\t\n")).tags == (("O", "B-X"),)
    refused(write(tmp_path, "data.conll", "just\nwords\n"), "expected lines of one token and its tag")
    refused(write_csv(tmp_path, "data.csv", [("text", "label"), *ROWS]), "expected|do not fit", kind="tags")
    refused(write(tmp_path, "data.conll", "-DOCSTART-\n\n# only\n"), "expected lines of one token and its tag")


def test_one_word_texts_with_labels_are_no_conll(tmp_path):
    found = read(write(tmp_path, "data.tsv", "text\tlabel\ngood\tPOS\nbad\tNEG\nfine\tPOS\n"))
    assert (found.kind, found.labels) == ("labelled", ("POS", "NEG", "POS"))


# --- files that cannot be read ---


def test_paths(tmp_path, monkeypatch):
    write(tmp_path, "reviews.csv", "text,label\na,b\n")
    refused(tmp_path / "review.csv", "no file .*; did you mean reviews.csv")
    refused(str(tmp_path / "nothing-like-it"), "nothing there has a similar name")
    refused(tmp_path / "nowhere" / "a.csv", "there is no folder")
    refused(tmp_path, "is a folder; give a file, such as reviews.csv")
    refused("/dev/null", "not an ordinary file")
    refused("a\0b", "no file|cannot be read")

    def forbidden(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    refused(tmp_path / "reviews.csv", "cannot be read: permission denied")


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (b"", "is empty"),
        (b" \n\t\r\n", "is empty"),
        (b"\xef\xbb\xbf\n", "is empty"),
        (gzip.compress(gzip.compress(b"text,label\n", mtime=0), mtime=0), "an archive within an archive"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"PAR1rest", "a damaged Parquet file"),
        ((20).to_bytes(8, "little") + b'{"a":{"dtype":"F32"}}' + b"\0" * 20, "safetensors"),
        (b"%PDF-1.7\n", "PDF"),
        (b"text\0more", "binary file"),
        (bytes(range(256)), "binary file"),
    ],
)
def test_what_is_no_text(tmp_path, raw, match):
    refused(write(tmp_path, "data.csv", raw), match)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a.jsonl", "a.json", "a.conll"])
def test_noise_is_read_or_refused_and_never_a_crash(tmp_path, name):
    draw = random.Random(0)
    for _ in range(60):
        content = "".join(draw.choice('ab "\\\n\n\t,;|#{}[]:1é-O\x0c\u2028') for _ in range(draw.randrange(1, 60)))
        for options in ({}, {"kind": "labelled"}, {"kind": "tags"}, {"label": "a"}, {"text": 0, "label": 1}):
            with contextlib.suppress(ForgetlabError):
                found = read(write(tmp_path, name, content), **options)
                assert len(found) > 0
                for column in (found.pairs, found.labels):
                    assert column is None or len(column) == len(found.texts)


# --- splits ---


def many(count: int) -> Examples:
    return Examples(
        "labelled", tuple(f"text {i}" for i in range(count)), labels=tuple("ab"[i % 2] for i in range(count))
    )


def test_split_shares_and_parts():
    train, test = split(many(2000))
    assert 0.17 < len(test) / 2000 < 0.23
    assert set(train.texts) | set(test.texts) == set(many(2000).texts)
    assert not set(train.texts) & set(test.texts)
    assert all("ab"[int(text.split()[1]) % 2] == label for text, label in zip(test.texts, test.labels, strict=True))
    assert split(many(2000), seed=1) != (train, test)
    assert split(many(2000)) == (train, test)


def test_split_is_pinned():
    """The same on every machine and in every version: a changed split would spoil every stored result."""
    assert split(many(12), seed=3)[1].texts == ("text 6", "text 10")


def test_duplicates_stay_together_and_sides_do_not_depend_on_the_rest():
    texts = [f"Text  {i}" for i in range(300)] + [f"text {i} " for i in range(300)]
    train, test = split(Examples("text", tuple(texts)))

    def fold(texts):
        return {" ".join(text.lower().split()) for text in texts}

    assert not fold(train.texts) & fold(test.texts)
    fewer = split(Examples("text", tuple(texts[100:150])))
    assert fold(fewer[1].texts) <= fold(test.texts)


def test_split_of_tags_and_pairs():
    words = tuple((f"w{i}", "x") for i in range(50))
    train, test = split(Examples("tags", (), words=words, tags=words))
    assert len(train) + len(test) == 50
    assert test.tags == test.words
    pairs = Examples("pairs", tuple(f"t{i // 3}" for i in range(90)), tuple(map(str, range(90))), ("x",) * 90)
    train, test = split(pairs)
    assert not set(train.texts) & set(test.texts)
    assert len(train.pairs) + len(test.pairs) == 90


@pytest.mark.parametrize("count", [4, 5, 6, 9])
def test_no_side_is_empty(count):
    for seed in range(30):
        for test in (1e-6, 0.2, 0.999):
            sides = split(many(count), test=test, seed=seed)
            assert min(map(len, sides)) > 0
            assert sum(map(len, sides)) == count


def test_split_refuses():
    with pytest.raises(ForgetlabError, match="3 different texts: expected at least 4"):
        split(Examples("text", ("a", "b", "c", "A ")))
    for test in (0, 1, -0.1, math.nan):
        with pytest.raises(ForgetlabError, match="test must be between 0 and 1, both excluded"):
            split(many(10), test=test)


# --- this machine's text ---


@pytest.mark.parametrize("name", ["python-docs", "python-source", "licences"])
def test_machine_text(name):
    found = machine_text(name, limit=5_000)
    words = sum(len(text.split()) for text in found.texts)
    assert found.kind == "text"
    assert 3_000 < words <= 5_000
    assert found == machine_text(name, limit=5_000)
    assert max(len(text.split()) for text in found.texts) <= 200
    assert len({text.lower() for text in found.texts}) == len(found)
    if name == "python-source":
        assert any(text.startswith("def ") for text in found.texts)
    else:
        joined = " ".join(found.texts)
        assert ">>>" not in joined
        assert joined.count(" the ") > 0.03 * words


def test_machine_text_is_large():
    found = machine_text("python-docs", limit=100_000)
    assert 99_000 < sum(len(text.split()) for text in found.texts) <= 100_000


def test_machine_text_refuses():
    with pytest.raises(ForgetlabError, match="unknown machine text 'python-doc'; did you mean 'python-docs'"):
        machine_text("python-doc")
    with pytest.raises(ForgetlabError, match="no such text"):
        machine_text("licences", limit=1)


def test_sentences_of_equal_length_are_prose_not_columns(tmp_path):
    path = tmp_path / "plain.txt"
    path.write_text("\n\n".join(f"anna is older than boris number {i} ." for i in range(50)))
    assert read(path).kind == "text"


def test_conllu_with_too_few_columns_is_read_as_columns(tmp_path):
    path = tmp_path / "short.conllu"
    path.write_text("anna\tB-PER\nis\tO\n\nboris\tB-PER\nis\tO\n")
    assert read(path).tags == (("B-PER", "O"), ("B-PER", "O"))
