"""The shipped files: hashes, splits, labels that little solvers written here agree with, bytes made anew."""

import hashlib
import json
import math
import re
from collections import Counter
from functools import cache
from random import Random

import pytest

from forgetlab.errors import ForgetlabError
from forgetlab.sources import shipped
from forgetlab.sources.shipped import data_folder
from forgetlab.sources.world import REGISTERS, corpus, draw, parser
from forgetlab.sources.world.corpus import grammar
from forgetlab.sources.world.examples import rows
from forgetlab.sources.world.write import write_manifest
from forgetlab.tasks import embedded
from tests.sources.world.test_language import lexicon, listed, polarity

TASKS = data_folder() / "tasks"
FILES = sorted(path.name for path in TASKS.glob("*.jsonl"))
LABELLED = ("acceptability", "entailment", "entities", "minimal-pairs", "register", "sentiment", "cloze")


@cache
def rows_of(file):
    return [json.loads(line) for line in (TASKS / file).read_text(encoding="utf-8").splitlines()]


def texts(file):
    """The whole texts of a file's rows: those that a model may see from beginning to end."""
    for row in rows_of(file):
        if "words" in row:
            yield " ".join(row["words"])
        elif "pair" in row:
            yield f"{row['text']} ||| {row['pair']}"
        elif "choices" in row:
            yield f"{row['text']} {row['answer']} ."
        elif "good" in row:
            yield from (row["good"], row["bad"])
        else:
            yield row["text"]


def files(part, *names):
    found = [f for f in FILES if f".{part}." in f and (not names or f.split(".")[0] in names)]
    assert found
    return found


def heldout_words():
    return {w for _, attributes, words in lexicon() if "heldout" in attributes for e in words for w in e.split("/")}


# -- the folder as a whole ------------------------------------------------------------------------------------


def test_the_manifest_lists_every_file_with_its_hash():
    root = data_folder()
    listed_files = json.loads((root / "manifest.json").read_text())
    on_disk = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()} - {"manifest.json"}
    if not any(name.startswith("models/") for name in listed_files):  # not trained yet
        on_disk = {name for name in on_disk if not name.startswith("models/")}
    assert set(listed_files) == on_disk
    for name, digest in listed_files.items():
        assert hashlib.sha256((root / name).read_bytes()).hexdigest() == digest, name


def test_a_changed_or_a_missing_file_is_noticed(tmp_path, monkeypatch):
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_text("two")
    write_manifest(tmp_path)
    write_manifest(tmp_path)  # the first manifest is no data
    wanted = {"b.txt": hashlib.sha256(b"two").hexdigest(), "world/a.txt": hashlib.sha256(b"one").hexdigest()}
    assert json.loads((tmp_path / "manifest.json").read_text()) == wanted
    monkeypatch.setattr(shipped, "data_folder", lambda: tmp_path)
    monkeypatch.setattr(shipped, "manifest", lambda: wanted)
    (tmp_path / "b.txt").write_text("2")  # outside the folder that is checked
    shipped.check_shipped(tmp_path / "world")
    (tmp_path / "world" / "a.txt").write_text("1")
    with pytest.raises(ForgetlabError, match=r"world/a\.txt is not the shipped file"):
        shipped.check_shipped(tmp_path / "world")
    (tmp_path / "world" / "a.txt").unlink()
    with pytest.raises(ForgetlabError, match=r"world/a\.txt is missing"):
        shipped.check_shipped(tmp_path / "world")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("entailment", "heldout"),
        ("cloze", "test"),
        ("text:clinic", "train"),
        ("text:general", "test"),
        ("register", "test"),
    ],
)
def test_a_file_made_anew_is_the_shipped_one_byte_for_byte(name, split):
    made = "".join(json.dumps(row) + "\n" for row in rows(name, split))
    assert made.encode() == (TASKS / f"{name.replace(':', '-')}.{split}.jsonl").read_bytes()


@pytest.mark.parametrize("name", ["sentiment", "entities", "acceptability", "minimal-pairs"])
def test_the_first_rows_of_the_slower_files_come_back_and_another_seed_gives_others(name):
    assert rows(name, "test", size=40) == rows_of(f"{name}.test.jsonl")[:40]
    assert rows(name, "test", size=40, seed=1) != rows_of(f"{name}.test.jsonl")[:40]


# -- splits ---------------------------------------------------------------------------------------------------


def test_no_test_text_is_in_any_training_split_of_any_task():
    train = {text for file in files("train") for text in texts(file)}
    questions = {text.rsplit(" ", 2)[0] for text in train}
    assert len(train) > 15_000
    tested = 0
    for part in ("test", "heldout"):
        for file in files(part):
            for text in texts(file):
                assert text not in train, (file, text)
                tested += 1
            if file.startswith("cloze"):
                assert not questions & {row["text"] for row in rows_of(file)}
    assert tested > 8000


def test_no_test_premise_is_a_training_premise():
    train = {row["text"] for row in rows_of("entailment.train.jsonl")}
    assert not train & {row["text"] for row in rows_of("entailment.test.jsonl")}


def holds_heldout(text):
    return bool(heldout_words() & set(text.split()))


def test_held_out_words_are_in_every_held_out_text_and_in_no_other_labelled_one():
    held, others = files("heldout"), files("train", *LABELLED) + files("test", *LABELLED)
    assert len(held) >= 4
    for file in held + others:
        for row, text in zip(rows_of(file), texts(file), strict=False):
            if row.get("label") != "bad" and "bad" not in row:  # those are the next test's
                assert holds_heldout(text) == (file in held), (file, text)


def test_breaking_a_text_brings_in_no_held_out_word():
    bad = [
        row.get("bad") or row["text"]
        for file in ("acceptability.train.jsonl", "acceptability.test.jsonl", "minimal-pairs.test.jsonl")
        for row in rows_of(file)
        if "bad" in row or row["label"] == "bad"
    ]
    assert not [text for text in bad if holds_heldout(text)]


def test_each_label_is_equally_frequent_and_test_texts_do_not_repeat():
    for file in FILES:
        found = rows_of(file)
        labels = [row["label"] for row in found if "label" in row]
        counts = {label: labels.count(label) for label in labels}
        assert not labels or max(counts.values()) - min(counts.values()) <= 1, file
        if ".test." in file and "minimal" not in file and "acceptability" not in file:
            assert len(set(texts(file))) == len(found), file


# -- language-model text: the floors --------------------------------------------------------------------------


@pytest.mark.parametrize("register", REGISTERS)
def test_the_shipped_floors_are_the_parsers(register):
    symbol, found = REGISTERS[register], rows_of(f"text-{register}.test.jsonl")
    for row in Random(register).sample(found, 60):
        words, exact = row["text"].split(), parser()
        assert row["nats"] == pytest.approx(-exact.logprob(words, symbol), abs=1e-6)
        gap = row["gap"]
        assert 0 <= gap < len(words)
        hidden = [*words[:gap], None, *words[gap + 1 :]]
        nats = exact.logprob(hidden, symbol) - exact.logprob(words, symbol)
        assert row["gap_nats"] == pytest.approx(nats, abs=2e-6)
        assert row["gap_nats"] >= 0


@pytest.mark.slow
@pytest.mark.parametrize("register", ["general", "notices"])
def test_the_floors_of_the_tasks_are_what_the_rows_say(register):
    found = rows_of(f"text-{register}.test.jsonl")
    causal, masked = embedded.task(f"causal-lm:{register}", size=10), embedded.task(f"masked-lm:{register}", size=10)
    words = sum(len(row["text"].split()) + 1 for row in found)
    assert math.log(causal.floor) == pytest.approx(sum(row["nats"] for row in found) / words)
    assert math.log(masked.floor) == pytest.approx(sum(row["gap_nats"] for row in found) / len(found))
    # 512 texts come near the grammar's own floor
    nats, length = parser().entropy(REGISTERS[register]), parser().expected_length(REGISTERS[register])
    assert causal.floor == pytest.approx(math.exp(nats / (length + 1)), rel=0.05)  # the end is a prediction too


# -- labels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["train", "test", "heldout"])
def test_sentiment_labels_are_the_polarity_of_the_text(part):
    for row in rows_of(f"sentiment.{part}.jsonl")[:400]:
        assert {"positive": 1, "negative": -1}[row["label"]] == polarity(row["text"]), row


def riddle_answer(question):
    """Solve "… the oldest is", "anna is in the", "the red bag belongs to" from the facts."""
    *facts, asked = question.split(" . ")
    if found := re.fullmatch(r"the (\w+)est is", asked):
        edges = [re.fullmatch(rf"(\w+) is {found[1]}er than (\w+)", fact).groups() for fact in facts]
        (top,) = {above for above, _ in edges} - {below for _, below in edges}
        return top
    if found := re.fullmatch(r"(\w+) is in the", asked):
        return dict(fact.split(" is in the ") for fact in facts)[found[1]]
    owned = {thing: who for who, thing in (fact.split(" has the ") for fact in facts)}
    return owned[asked.removeprefix("the ").removesuffix(" belongs to")]


def test_the_answer_of_a_riddle_follows_from_its_facts_and_is_a_choice():
    places = {"is": set(), "the": set(), "to": set()}
    for row in rows_of("cloze.test.jsonl"):
        assert row["answer"] == riddle_answer(row["text"]), row
        assert row["answer"] in row["choices"]
        assert len(set(row["choices"])) == len(row["choices"]) == (3 if "est is" in row["text"] else 2)
        assert set(row["choices"]) <= set(row["text"].split())
        places[row["text"].split()[-1]].add(row["choices"].index(row["answer"]))
    # no kind of riddle is solved by always naming the same choice; an oldest one stands first or third
    assert places == {"is": {0, 2}, "the": {0, 1}, "to": {0, 1}}


def judge(text, pair):
    """What the second sentence is to the first, read off the facts."""
    first, second = text.removesuffix(" ."), pair.removesuffix(" .")
    if found := re.fullmatch(r"(\w+) (?:gave|lent|brought|sent|handed) (\w+) the \w+ (\w+)", first):
        who, thing = second.split(" has the ")
        return "neutral" if thing != found[3] else {found[2]: "entails", found[1]: "contradicts"}[who]
    if found := re.fullmatch(r"(\w+) is (\w+)er than (\w+)", first):
        one, trait, two = re.fullmatch(r"(\w+) is less (\w+) than (\w+)", second).groups()
        ends = {(found[3], found[1]): "entails", (found[1], found[3]): "contradicts"}[one, two]
        return ends if trait == found[2] else "neutral"
    if found := re.fullmatch(r"(\w+) went from (\w+) to (\w+)", first):
        return {found[2]: "contradicts", found[3]: "entails"}[second.removeprefix(f"{found[1]} is in ")]
    if found := re.fullmatch(r"(\w+) left (\w+) on \w+", first):
        assert second.removeprefix(f"{found[1]} is in ") not in (second, found[2])
        return "neutral"
    if found := re.fullmatch(r"(\w+) and (\w+) (met|looked for) (\w+) at the \w+( in vain)?", first):
        who, whom = second.split(" met ")
        assert who == found[2]
        assert whom not in found.groups()[:2]
        return ("entails" if found[3] == "met" else "contradicts") if whom == found[4] else "neutral"
    if found := re.fullmatch(
        r"(?:no|many|some) \w+ came to the \w+ (?:, so (\w+) waited there (.*)|after (\w+))", first
    ):
        assert second == f"{found[1] or found[3]} was alone"
        return {"alone": "entails", "in a crowd": "contradicts", None: "neutral"}[found[2]]
    who, verb, work = re.fullmatch(r"(\w+) (\w+) the (\w+) , although .*", first).groups()
    assert second == f"{who} liked the {work}"
    return {"liked": "entails", "hated": "contradicts", "saw": "neutral"}[verb]


@pytest.mark.parametrize("part", ["train", "test", "heldout"])
def test_entailment_labels_follow_from_the_facts(part):
    for row in rows_of(f"entailment.{part}.jsonl"):
        assert row["label"] == judge(row["text"], row["pair"]), row


def test_the_second_sentence_alone_gives_nothing_away():
    """Guess from its frame (names, things, places and qualities left out): chance is a third."""

    def frame(row):
        words = row["pair"].split()
        return " ".join(w for w in words if w in {"has", "is", "less", "in", "met", "was", "alone", "liked"})

    train, test = rows_of("entailment.train.jsonl"), rows_of("entailment.test.jsonl")
    counts = Counter((frame(row), row["label"]) for row in train)
    labels = sorted({row["label"] for row in train})
    right = sum(max(labels, key=lambda k: counts[frame(row), k]) == row["label"] for row in test)
    assert right / len(test) < 0.42


@pytest.mark.parametrize("label", ["entails", "contradicts"])
def test_entailment_labels_of_fresh_pairs_follow_from_the_facts(label):
    source, rng = grammar(), Random(5)
    for _ in range(600):
        text, _, pair = source.sample(label.capitalize(), rng).text.partition(" ||| ")
        assert judge(text, pair) == label, (text, pair)


def test_no_neutral_pair_is_entailed():
    source, rng = grammar(), Random(5)
    for _ in range(2000):
        text, _, pair = source.sample("Neutral", rng).text.partition(" ||| ")
        assert judge(text, pair) == "neutral", (text, pair)


def test_each_register_row_is_of_its_register_only():
    for row in rows_of("register.test.jsonl")[:250]:
        found = [r for r in REGISTERS if r != "general" and parser().accepts(row["text"].split(), REGISTERS[r])]
        assert found == [row["label"]], row


def test_acceptability_is_membership_in_the_language():
    for part in ("train", "test", "heldout"):
        for row in rows_of(f"acceptability.{part}.jsonl")[:250]:
            assert parser(0.5).accepts(row["text"].split()) == (row["label"] == "good"), row
            assert ("fault" in row) == (row["label"] == "bad")


def test_the_twins_of_a_minimal_pair_are_of_equal_length_and_differ():
    for row in rows_of("minimal-pairs.test.jsonl"):
        good, bad = row["good"].split(), row["bad"].split()
        assert len(good) == len(bad)
        assert 1 <= sum(a != b for a, b in zip(good, bad, strict=True)) <= 2
        assert parser(0.5).accepts(good)
        assert not parser(0.5).accepts(bad)


def test_entity_tags_are_well_formed_and_of_words_that_may_carry_them():
    classes = {"B-PER": "first_name", "I-PER": "surname", "B-LOC": "city", "B-ORG": "company", "I-ORG": "suffix"}
    names = set().union(*(listed(classes[tag]) for tag in ("B-PER", "I-PER", "B-LOC", "B-ORG")))
    for file in files("train", "entities") + files("test", "entities") + files("heldout", "entities"):
        for row in rows_of(file):
            assert len(row["words"]) == len(row["tags"])
            for before, word, tag in zip(["O", *row["tags"]], row["words"], row["tags"], strict=False):
                assert (word in names) <= (tag != "O"), row  # no common word is also a name
                assert tag == "O" or word in listed(classes[tag]), row
                assert tag[0] != "I" or before == "B" + tag[1:], row


# -- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: embedded.task("sentimnt"), "unknown task 'sentimnt'; did you mean 'sentiment'"),
        (lambda: embedded.task("sentiment:news"), "only masked-lm and causal-lm take a register, try 'sentiment'"),
        (lambda: embedded.task("causal-lm:stores"), "unknown register 'stores'; did you mean 'stories'"),
        (lambda: embedded.task("sentiment", split="helout"), "unknown split 'helout'; did you mean 'heldout'"),
        (lambda: embedded.task("sentiment", similarity=1.5), "similarity must be between 0 and 1, got 1.5"),
        (lambda: embedded.task("causal-lm", similarity=-0.5), "similarity must be between 0 and 1, got -0.5"),
        (lambda: rows("text:revews", "train"), "unknown register 'revews'; did you mean 'reviews'"),
        (lambda: corpus.register_symbol("zzz"), "unknown register 'zzz'; known: clinic, general, howto"),
        (lambda: next(draw("Newz", "train", Random(0))), "unknown symbol 'Newz'; did you mean 'News'"),
        (lambda: parser().accepts(["a"], "Storry"), "unknown symbol 'Storry'; did you mean 'Story'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(call, message):
    with pytest.raises(ForgetlabError, match=re.escape(message)):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: parser().entropy("Storry"),
        lambda: rows("sentimnt", "train", size=1),
        lambda: rows("sentiment", "tset", size=1),
        lambda: corpus.broken(grammar().sample("News", Random(0)), "agreemnt", Random(0)),
    ],
)
def test_these_names_are_refused_too(call):
    with pytest.raises(ForgetlabError):
        call()
