"""One source, one task: the library, the command and the lab read the same file in the same way."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from forgetlab import ForgetlabError, finetune, load, task, task_from
from forgetlab.errors import flag, number, unknown, whole
from forgetlab.experiments import recipes, report, tables
from forgetlab.experiments.recipes import Recipe
from forgetlab.labs import own
from forgetlab.models.model import Model
from forgetlab.remedies.by_name import make_methods
from forgetlab.sources import read
from forgetlab.tasks import Classification, MaskedLM
from forgetlab.tasks.from_data import check_source
from forgetlab.tasks.probes import MinimalPairs, MultipleChoice
from forgetlab.tasks.source_names import Source, is_hub_name, parsed, parted, short_name, source_files
from tests.conftest import small_model

FILES: dict[str, tuple[list[object], type]] = {
    "pairs.jsonl": ([{"good": f"anna is here {i} .", "bad": f"anna here is {i} ."} for i in range(5)], MinimalPairs),
    "riddles.jsonl": (
        [{"text": "who ?", "choices": ["anna", "boris"], "label": i % 2} for i in range(8)],
        MultipleChoice,
    ),
    "labels.jsonl": ([{"text": f"anna saw film {i} .", "label": i % 2} for i in range(20)], Classification),
    "corpus.jsonl": ([{"text": f"anna is older than boris {i} ."} for i in range(20)], MaskedLM),
}
COLA = [
    (f"s{i % 3}", str(int(i % 4 > 0)), "" if i % 4 else "*?"[i % 8 // 4], f"the boat number {i} sailed over the sea .")
    for i in range(80)
]


def write(path: Path, rows: list[object]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.mark.parametrize("name", FILES)
def test_the_library_the_command_and_the_lab_make_the_same_task(name: str, tmp_path: Path, bert: Model) -> None:
    rows, expected = FILES[name]
    path = str(write(tmp_path / name, rows))
    by_library = task_from(path, bert)
    for role in ("new", "watch"):
        by_command, _ = recipes._resolve(path, bert, role, Recipe())
        assert type(by_command) is type(by_library) is expected
        assert by_command.test == by_library.test
        assert by_command.train == by_library.train
    by_lab = own.recipe(dict.fromkeys(("model", "methods", "text", "label"), "") | LAB | {"watch": f"{path}, cloze"})
    assert by_lab.watch == (path, "cloze")


LAB = {"new": "sentiment", "steps": 20, "lr": 1e-3, "seed": 0}


def test_lines_of_json_are_cut_at_line_ends_only(tmp_path: Path, bert: Model) -> None:
    """A line separator within a string is a letter of JSON; and the file may be in any encoding."""
    rows = [{"good": "anna\u2028is .", "bad": "is anna ."}, {"good": "a b .", "bad": "b a ."}]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "rows.jsonl").write_bytes(text.encode("utf-16"))
    assert task_from(tmp_path / "rows.jsonl", bert).test.texts[0] == "anna\u2028is ."
    (tmp_path / "rows.jsonl").write_text(text + '\n{"good": "cut')
    with pytest.raises(ForgetlabError, match="line 3: expected one JSON object on each line"):
        task_from(tmp_path / "rows.jsonl", bert)


def test_a_letter_as_the_answer(tmp_path: Path, bert: Model) -> None:
    path = write(tmp_path / "a.jsonl", [{"question": "", "choices": ["x", "y"], "answer": "b"}])
    assert task_from(path, bert).answers == [1]
    for odd in ("ß", "9" * 5000, "²", ["x"]):
        write(path, [{"question": "", "choices": ["x", "y"], "answer": odd}])
        with pytest.raises(ForgetlabError, match="line 1: the answer is"):
            task_from(path, bert)


# --- options at a source's end ---


def test_options_stand_at_the_end_of_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parsed("cola.tsv:text=3,label=1") == Source("cola.tsv", {"text": "3", "label": "1"})
    assert parsed(r"C:\data\x.csv:kind=text") == Source(r"C:\data\x.csv", {"kind": "text"})
    assert parsed(r"C:\data\x.csv") == Source(r"C:\data\x.csv")
    assert parsed("owner/name:config@rev:label=a b, name=n") == Source(
        "owner/name:config@rev", {"label": "a b", "name": "n"}
    )
    assert parsed("masked-lm:notices") == Source("masked-lm:notices")
    Path("x.csv:text=3").write_text("text,label\na,b\n")
    Path("a,b:c.csv").write_text("text,label\na,b\n")
    assert parsed("x.csv:text=3") == Source("x.csv:text=3")
    assert parsed("x.csv:text=3:text=0") == Source("x.csv:text=3", {"text": "0"})
    for given, parts in {
        "cola.tsv:text=3,label=1, licences": ["cola.tsv:text=3,label=1", "licences"],
        "a,b:c.csv": ["a,b:c.csv"],
        "a,b:c.csv:text=0,label=1,cloze,x.csv:text=3": ["a,b:c.csv:text=0,label=1", "cloze", "x.csv:text=3"],
        "masked-lm, entities,,": ["masked-lm", "entities"],
    }.items():
        assert parted(given) == parts
    assert source_files(["a,b:c.csv:text=0", "cloze", "gone.csv:text=1"]) == [Path("a,b:c.csv")]
    for given, match in {
        "x.csv:txt=3": "unknown option of x.csv 'txt'; did you mean 'text'",
        "x.csv:text=": "text has no value",
        "x.csv:text=1,text=2": "text has two values",
    }.items():
        with pytest.raises(ForgetlabError, match=match):
            parsed(given)


def test_a_watched_file_has_columns_of_its_own(tmp_path: Path, bert: Model) -> None:
    """CoLA as it is downloaded: source, 0 or 1, a mark that most rows lack, the sentence; no header."""
    path = tmp_path / "cola.tsv"
    path.write_text("\n".join("\t".join(row) for row in COLA))
    with pytest.raises(ForgetlabError, match=r"any of 2 columns: '0' \(s0, s1, s2\), '1' \(0, 1\); name one"):
        recipes._resolve(str(path), bert, "watch", Recipe())
    task, notes = recipes._resolve(f"{path}:text=3,label=1,name=acceptable", bert, "watch", Recipe(text="9"))
    assert isinstance(task, Classification)
    assert (task.name, task.labels, task.size() + len(task.test)) == ("acceptable", ("0", "1"), 80)
    assert notes == ["cola.tsv: no header row seen: columns have numbers, from 0"]
    assert task_from(path, bert, text=3, label=1).test == task.test
    with pytest.raises(ForgetlabError, match="text is given twice, as '3' and as 2"):
        task_from(f"{path}:text=3", bert, text=2)
    for bad in ("k=x", "limit=0", "limit=²"):
        with pytest.raises(ForgetlabError, match="must be a whole number above 0"):
            task_from(f"{path}:{bad}", bert)
    with pytest.raises(ForgetlabError, match="sentiment is an embedded task, which takes no label"):
        task_from("sentiment:label=1", bert)


def test_a_changed_file_changes_the_key_of_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (f"{tmp_path}/a.csv:text=0", "~/a.csv"):
        keys = set()
        for content in ("text,label\na,b\n", "text,label\na,c\n"):
            (tmp_path / "a.csv").write_text(content)
            keys.add(Recipe(watch=(name,)).key())
        assert len(keys) == 2


def test_two_tasks_of_one_name_are_said_before_anything_is_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "_learn", lambda *_: pytest.fail("it trained"))
    monkeypatch.setattr(recipes, "load", lambda *_, **__: small_model())
    rows = FILES["labels.jsonl"][0]
    (tmp_path / "old").mkdir()
    paths = [str(write(folder / "a.jsonl", rows)) for folder in (tmp_path, tmp_path / "old")]
    with pytest.raises(ForgetlabError, match="two tasks have the same name: a, a; give one another: FILE:name=OTHER"):
        recipes.prepare(Recipe(new=paths[0], watch=(paths[1],)))


# --- names ---

ODD = ["$a$b{^\\$", "$\\frac{", "two\nlines\x1b[31m", "ü<b>&amp;%s {x}"]


@pytest.mark.parametrize("stem", ODD)
def test_odd_names_are_drawn_and_reported(stem: str, tmp_path: Path) -> None:
    """A figure that fails does so after all the training."""
    path = write(tmp_path / f"{stem[:200]}.jsonl", FILES["labels.jsonl"][0])
    results = fake(short_name(str(path)), f"./my{stem}")
    page = report.write(results, tmp_path / "out")
    assert page.is_file()
    tables.table(results).encode()


def test_a_name_that_is_not_utf8(tmp_path: Path, bert: Model) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jsonl")
    try:
        Path(path).write_text("\n".join(json.dumps(row) for row in FILES["labels.jsonl"][0]))
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    task = task_from(path, bert)
    assert task.name == "caf\ufffd"
    report.write(fake(task.name, path), tmp_path / "out")
    assert Recipe(new=path).key() == Recipe(new=path).key()
    with pytest.raises(ForgetlabError, match="no file"):
        task_from(f"{path}x", bert)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("a\0b.csv", "no NUL"),
        ("a\0b", "no NUL"),
        ("~nobody-here/x.csv", "the home of ~nobody-here is not known"),
        ("\ud800.csv", "half characters"),
        ("x/" * 5000, "a name of 10,000 characters"),
        ("./" + "x" * 300, "so long a name"),
        ("sentimant", "did you mean 'sentiment'"),
        ("gone.csv:text=1", "no file gone.csv"),
    ],
)
def test_wrong_names_are_said_in_words_before_anything_is_loaded(
    name: str, match: str, monkeypatch: pytest.MonkeyPatch, bert: Model
) -> None:
    monkeypatch.setattr(recipes, "load", lambda *_, **__: pytest.fail("it loaded"))
    for act in (
        lambda: check_source(name),
        lambda: task_from(name, bert),
        lambda: recipes.prepare(Recipe(new=name)),
        lambda: recipes.prepare(Recipe(watch=(name,))),
    ):
        with pytest.raises(ForgetlabError, match=match) as caught:
            act()
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 2000
    assert not is_hub_name(name)


def fake(new: str, model: str) -> dict[str, object]:
    """Results of two methods on a task of that name."""
    names = [new, f"{new}-watched"]

    def record(step: int, at: float) -> dict[str, object]:
        return {
            "step": step,
            "status": "done",
            "message": "",
            "drift": at,
            "drift_per_layer": {"layer $0": at, "layer $1": at},
            "scores": {name: {"accuracy": 0.5 + at} for name in names},
        }

    runs = [
        {
            "recipe": {"methods": m, "seed": 0, "steps": 2, "lr": 1e-3, "new": new, "watch": None},
            "records": [record(0, 0.0), record(2, 0.2)],
        }
        for m in ("none", "l2sp:lam=0.1")
    ]
    tasks = [
        {"name": n, "kind": "labelled", "metric": "accuracy", "higher_is_better": True, "floor": None} for n in names
    ]
    score = {"before": 0.5, "after": 0.7, "spread": None, "change": 0.2}
    summary = [
        {
            "method": m,
            "seeds": 1,
            "status": ["done"],
            "seconds_per_step": 0.1,
            "drift": 0.2,
            "tasks": dict.fromkeys(names, score),
        }
        for m in ("none", "l2sp:lam=0.1")
    ]
    facts = {"forgetlab": "0", "machine": {}, "model": {"name": model, "parameters": 1}, "new": new, "notes": [new]}
    return {**facts, "tasks": tasks, "runs": runs, "summary": summary, "recommendation": [f"{new} is learned."]}


# --- numbers ---


def test_numbers_of_numpy_are_numbers() -> None:
    for made in (np.int64(10), np.int8(10), np.uint64(10), 10):
        found = whole("steps", made)
        assert (type(found), found) == (int, 10)
    for made in (np.float32(0.5), np.float64(0.5), np.float16(0.5), 0.5):
        found = number("lam", made)
        assert (type(found), found) == (float, 0.5)
    assert number("lam", np.int32(3)) == 3.0
    assert flag("t_squared", np.bool_(True)) is True
    recipe = Recipe(steps=np.int64(10), lr=np.float32(0.5), seed=np.int8(1), watch=["cloze"])
    assert recipe == Recipe(steps=10, lr=0.5, seed=1, watch=("cloze",))
    assert recipe.key() == replace(recipe, steps=10).key()


@pytest.mark.parametrize(
    "value",
    [10**400, 10**5000, -(10**400), float("nan"), float("inf"), "3", None, True, np.bool_(1), 2j, [1]],
    ids=[*"abcdefghijk"],
)
def test_what_is_no_number_is_refused_in_one_short_line(value: object) -> None:
    for check in (whole, number):
        with pytest.raises(ForgetlabError, match=r"^x must be .*, got ") as caught:
            check("x", value)
        assert len(str(caught.value)) < 300
    if not isinstance(value, bool | np.bool_):
        with pytest.raises(ForgetlabError, match="must be true or false"):
            flag("x", value)
    with pytest.raises(ForgetlabError, match="must be true or false"):
        flag("x", np.array([1, 2]))


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "~nobody-here/x", "x" * 300, "./a\0b", "x" * 5000])
def test_wrong_names_of_models_and_folders_are_said_in_words(name: str) -> None:
    for act in (lambda: load(name), lambda: report.check_folder(name)):
        with pytest.raises(ForgetlabError, match="no file or folder"):
            act()


def test_a_seed_of_numpy_is_a_seed(bert: Model) -> None:
    same = [
        [record.scores for record in finetune(bert, task("sentiment"), seed=s, steps=1, batch_size=4, limit=8)]
        for s in (3, np.int64(3))
        if bert.restore() is None
    ]
    assert same[0] == same[1]


@pytest.mark.parametrize("seed", [10**400, 1.5, None, float("nan"), 2**63], ids=[*"abcde"])
def test_a_seed_is_a_whole_number_of_64_bits(seed: object, bert: Model) -> None:
    for act in (lambda: finetune(bert, task("sentiment"), seed=seed), lambda: task("sentiment", size=4, seed=seed)):
        with pytest.raises(ForgetlabError, match="seed must be a whole number of 64 bits"):
            list(act())


def test_a_temperature_beyond_all_measure() -> None:
    for spec in ("lwf:temperature=1e300", "generative:temperature=1e300", f"lwf:temperature={10**400}"):
        with pytest.raises(ForgetlabError, match="temperature must be between 0 and 1000, 0 excluded"):
            make_methods(spec, None)


def test_an_error_is_one_line_and_short() -> None:
    assert str(ForgetlabError("two\nlines\x1b")) == "two lines "
    many = [f"column {i}" for i in range(100_000)]
    assert len(str(unknown("column", "x" * 10**6, many))) < 5000


def test_a_lone_mark_of_half_a_character_is_read_away(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"text": "half \ud83d", "label": "a"}, {"text": "b", "label": "b"}])
    assert read(tmp_path / "a.jsonl").texts[0] == "half \ufffd"
