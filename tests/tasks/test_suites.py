"""Suites and own data: likelihoods against slow loops, Matthews against scikit-learn, and what odd data are told."""

import json
import random
from pathlib import Path

import pytest
import torch
from sklearn.metrics import matthews_corrcoef

from forgetlab import ForgetlabError, finetune, load, sources, suite, task
from forgetlab.metrics.tally import matthews
from forgetlab.models.model import Model
from forgetlab.sources import Examples
from forgetlab.tasks import CausalLM, Classification, MaskedLM, Tagging
from forgetlab.tasks.from_data import task_from
from forgetlab.tasks.likelihood import option_log_probabilities
from forgetlab.tasks.probes import KShot, MinimalPairs, MultipleChoice
from forgetlab.tasks.source_names import is_hub_name
from forgetlab.tasks.suites import GLUE, MatthewsClassification, glue
from forgetlab.tasks.writing import Generation, Writing, variety

QUESTION = "anna is older than boris . boris is older than carla . the oldest is"
OPTIONS = ["anna", "boris is", "carla . the oldest"]


def lines(path: Path, rows: list) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def by_hand(model: Model, context: str, option: str) -> tuple[float, int]:
    """One option at a time, one token at a time."""
    tokenizer = model.tokenizer
    before, own = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (context, option))
    total = 0.0
    for i, token in enumerate(own):
        if model.causal:
            ids = torch.tensor([[tokenizer.bos_token_id, *before, *own[:i]]])
            place = -1
        else:
            ids = torch.tensor([[tokenizer.cls_token_id, *before, *own, tokenizer.sep_token_id]])
            place = 1 + len(before) + i
            ids[0, place] = tokenizer.mask_token_id
        with torch.no_grad():
            total += float(model.body(input_ids=ids).logits[0, place].log_softmax(-1)[token])
    return total, len(own)


@pytest.mark.parametrize("causal", [True, False])
def test_options_token_by_token(causal: bool, gpt: Model, bert: Model) -> None:
    model = gpt if causal else bert
    sums, counts = option_log_probabilities(model, [QUESTION] * 3, OPTIONS, at_once=2)
    for option, total, count in zip(OPTIONS, sums.tolist(), counts.tolist(), strict=True):
        expected, tokens = by_hand(model, QUESTION, option)
        assert (total, count) == (pytest.approx(expected, rel=1e-4), tokens)


def test_a_context_that_is_too_long_loses_its_beginning(gpt: Model) -> None:
    long = " ".join(["boris ."] * 100)
    sums, counts = option_log_probabilities(gpt, [long], ["anna is"])
    kept = " ".join(long.split()[-(gpt.max_length - 3) :])
    assert counts.tolist() == [2]
    assert float(sums) == pytest.approx(by_hand(gpt, kept, "anna is")[0], rel=1e-4)


def test_multiple_choice_counts_the_best_option_per_token(gpt: Model) -> None:
    contexts = [QUESTION, "boris is in the park . boris is", ""]
    choices = [OPTIONS, ["older", "in the park"], ["anna is here .", "the"]]
    found = [[by_hand(gpt, c, o) for o in options] for c, options in zip(contexts, choices, strict=True)]
    per_token = [max(range(len(f)), key=lambda i, f=f: f[i][0] / f[i][1]) for f in found]
    summed = [max(range(len(f)), key=lambda i, f=f: f[i][0]) for f in found]
    score = MultipleChoice("mine", contexts, choices, per_token).score(gpt)
    assert score["accuracy"] == 1
    assert score["unnormalised"] == pytest.approx(sum(a == b for a, b in zip(per_token, summed, strict=True)) / 3)
    assert score["chance"] == pytest.approx((1 / 3 + 1 / 2 + 1 / 2) / 3)
    wrong = [(a + 1) % len(c) for a, c in zip(per_token, choices, strict=True)]
    assert MultipleChoice("mine", contexts, choices, wrong).score(gpt, 2)["accuracy"] == 0


def test_a_model_that_knows_is_above_chance() -> None:
    """The shipped riddles as a user would write them, by the one constructor."""
    model, cloze = load("tiny-gpt", device="cpu"), task("cloze")
    score = MultipleChoice("riddles", cloze.questions[:100], cloze.choices[:100], cloze.answers[:100]).score(model)
    assert score["accuracy"] > score["chance"] + 0.2


def test_variety_by_a_slow_count() -> None:
    texts = ["a b c d a b c d a", "x", "the end ."]
    pairs = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "a")] * 2 + [("the", "end"), ("end", ".")]
    got = variety(texts)
    assert got["distinct_2"] == len(set(pairs)) / len(pairs)
    assert got["distinct_1"] == 8 / 13
    assert got["repetition"] == pytest.approx(1 - 4 / 6)  # abcd bcda cdab dabc abcd bcda; the others have none
    assert variety([]) == {"distinct_1": 0, "distinct_2": 0, "repetition": 0}


def test_generation_writes_on_from_prompts(gpt: Model) -> None:
    prompts = ["anna is in the park .", "boris .", "the oldest is anna and boris is here ."]
    one = Generation("mine", prompts, prompt_tokens=4, tokens=6)
    one.prepare(gpt)
    assert len(one.write(gpt, 8)) == 2  # "boris ." is too short
    assert one.score(gpt) == one.score(gpt)
    greedy = load("tiny-gpt", device="cpu")
    with torch.no_grad():
        greedy.body.lm_head.weight.zero_()
        greedy.body.transformer.ln_f.weight.zero_()
        greedy.body.transformer.ln_f.bias.fill_(1.0)
        greedy.body.lm_head.weight[greedy.tokenizer.convert_tokens_to_ids("anna")] = 100.0
    assert Generation("mine", prompts, prompt_tokens=4, tokens=8).write(greedy, 1) == [" ".join(["anna"] * 8)]
    assert Generation(count=3).score(greedy)["repetition"] > 0.9
    with pytest.raises(ForgetlabError, match="no prompt has 50 tokens; expected longer texts, or prompt_tokens=9"):
        Generation("mine", prompts, prompt_tokens=50).prepare(gpt)


def test_matthews_is_scikit_learns() -> None:
    draw = random.Random(0)
    for classes in (2, 3):
        gold = [draw.randrange(classes) for _ in range(60)]
        guess = [g if draw.random() < 0.6 else draw.randrange(classes) for g in gold]
        counts = torch.zeros(classes, classes)
        for g, p in zip(gold, guess, strict=True):
            counts[g, p] += 1
        assert float(matthews(counts.flatten())) == pytest.approx(matthews_corrcoef(gold, guess))
    assert float(matthews(torch.tensor([5.0, 0, 3, 0]))) == matthews_corrcoef([0] * 5 + [1] * 3, [0] * 8) == 0


def pretend_hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    asked = []

    def hub(name, config=None, *, split, text=None, pair=None, kind=None, limit=None, revision=None, **other):
        assert not any(other.values())
        asked.append((name, config, split, text, pair, kind, limit, revision))
        if kind == "text":
            return Examples("text", tuple(f"anna is older than boris {i} ." for i in range(40)))
        n = 40 if split == "train" else 12
        texts = tuple(f"anna is {i} ." for i in range(n))
        labels = tuple("yes" if i % 3 else "no" for i in range(n))
        return Examples("pairs" if pair else "labelled", texts, texts if pair else None, labels)

    monkeypatch.setattr(sources, "hub", hub)
    monkeypatch.setattr("forgetlab.sources.hub_data.hub", hub)
    return asked


def test_glue(bert: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = pretend_hub(monkeypatch)
    found = suite("glue", bert, size=30, revision="abc")
    assert [t.name for t in found.tasks] == list(GLUE)
    assert [t.metric for t in found.tasks] == ["matthews"] + ["accuracy"] * 6
    assert ("mnli", None, "validation_matched", None, None, None, 2000, "abc") in asked
    assert ("cola", None, "train", None, None, None, 30, "abc") in asked
    before = found.evaluate(bert)
    cola = found.tasks[0]
    guesses = [int(cola.logits(bert, b).argmax(-1)[0]) for b in one_by_one(cola, bert)]
    targets = [cola.labels.index(label) for label in cola.test.labels]
    assert before["cola"]["matthews"] == pytest.approx(matthews_corrcoef(targets, guesses))
    assert before["cola"]["accuracy"] == sum(a == b for a, b in zip(targets, guesses, strict=True)) / 12
    assert "matthews" in found.table(before, before)
    with pytest.raises(ForgetlabError, match="unknown GLUE task 'sst-2'; did you mean 'sst2'"):
        glue(["sst-2"])
    with pytest.raises(ForgetlabError, match="unknown suite 'gleu'; did you mean 'glue'"):
        suite("gleu", bert)


def one_by_one(one: Classification, model: Model) -> list:
    generator = torch.Generator()
    return [one._collate(model, "test", torch.tensor([i]), generator) for i in range(len(one.test))]


def test_matthews_is_the_main_score_of_a_run(bert: Model) -> None:
    shipped = task("acceptability", size=64)
    cola = MatthewsClassification("cola", shipped.train, shipped.test)
    final = list(finetune(bert, cola, steps=2, batch_size=8, limit=40))[-1]
    assert set(final.scores["cola"]) == {"matthews", "accuracy", "loss"}
    plain = Classification("cola", shipped.train, shipped.test).score(bert, 40)
    assert final.scores["cola"]["accuracy"] == pytest.approx(plain["accuracy"])
    assert final.scores["cola"]["loss"] == pytest.approx(plain["loss"], rel=1e-5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    words = ["the plays were dull {} .", "the plays were moving {} ."]
    rows = [f"{words[i % 2].format(i)},{['bad', 'good'][i % 2]}" for i in range(60)]
    lines(tmp_path / "reviews.csv", ["text,label", *rows])
    lines(tmp_path / "names.conll", [f"anna\tB-PER\nis\tO\nolder{i}\tO\n" for i in range(40)])
    (tmp_path / "plain.v2.txt").write_text("\n\n".join(f"anna is older than boris number {i} ." for i in range(150)))
    lines(tmp_path / "pairs.jsonl", [{"good": "anna is here .", "bad": "anna here is ."}] * 5)
    lines(tmp_path / "blimp.jsonl", [{"sentence_good": "anna is .", "sentence_bad": "is anna ."}] * 5)
    asked = {"question": QUESTION, "choices": ["anna", "boris"], "answer": "anna"}
    lines(tmp_path / "riddles.jsonl", [asked, asked | {"answer": "B"}, asked | {"answer": 1}])
    return tmp_path


def test_one_constructor_for_every_file(folder: Path, gpt: Model, bert: Model) -> None:
    made = {
        "reviews.csv": Classification,
        "names.conll": Tagging,
        "pairs.jsonl": MinimalPairs,
        "blimp.jsonl": MinimalPairs,
        "riddles.jsonl": MultipleChoice,
    }
    for name, expected in made.items():
        for model in (gpt, bert):
            one = task_from(folder / name, model)
            assert type(one) is expected
            assert one.name == name.partition(".")[0]
            one.prepare(model)
            assert one.metric in one.score(model, 8)
    assert type(task_from(folder / "plain.v2.txt", gpt)) is CausalLM
    assert type(task_from(folder / "plain.v2.txt", bert)) is MaskedLM
    assert task_from(folder / "plain.v2.txt", bert).name == "plain-v2"
    assert task_from(folder / "riddles.jsonl", gpt).answers == [0, 1, 1]
    shots = task_from(folder / "reviews.csv", gpt, kind="k-shot", k=4, name="shots")
    assert type(shots) is KShot
    assert 0 <= shots.score(gpt)["accuracy"] <= 1
    written = task_from(folder / "plain.v2.txt", gpt, kind="generation")
    written.prepare(gpt)
    assert 0 < written.score(gpt, 4)["distinct_2"] <= 1
    given = task_from(folder / "reviews.csv", gpt, test=folder / "reviews.csv")
    assert (len(given.train), len(given.test)) == (60, 60)
    machine = task_from("licences", gpt, limit=30)
    assert len(machine.train) + len(machine.test) == 30


@pytest.mark.parametrize("stem", ["train", "type", "keys"])
def test_a_file_whose_name_torch_means_otherwise(stem: str, tmp_path: Path, bert: Model) -> None:
    """train.csv is what most people's file is called, and a module has a method of that name."""
    path = tmp_path / f"{stem}.csv"
    path.write_text("text,label\n" + "".join(f"anna saw film {i},{i % 2}\n" for i in range(40)), encoding="utf-8")
    mine = task_from(path, bert)
    assert mine.name == f"{stem}-csv"
    assert list(finetune(bert, mine, steps=1, batch_size=4))[-1].status == "done"
    with pytest.raises(ForgetlabError, match=f"a head cannot be called '{stem}', .*: try my-{stem}"):
        task_from(path, bert, name=stem).prepare(bert)


def test_hub_names(folder: Path, gpt: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = pretend_hub(monkeypatch)
    one = task_from("owner/news:big@v1", gpt, kind="labelled", test="validation", text="sentence")
    assert (one.name, type(one), len(one.train), len(one.test)) == ("news-big", Classification, 40, 12)
    assert asked[0] == ("owner/news:big@v1", None, "train", "sentence", None, "labelled", None, None)
    assert asked[1][2] == "validation"
    assert not is_hub_name(f"{folder.name}x/y.csv")
    assert not is_hub_name("./a/b")
    assert not is_hub_name("sentiment")
    monkeypatch.chdir(folder.parent)
    assert not is_hub_name(f"{folder.name}/anything")
    found = suite("text", gpt, corpora=["owner/news", folder / "plain.v2.txt"], pairs=[folder / "pairs.jsonl"])
    assert [t.name for t in found.tasks] == ["news", "plain-v2", "pairs", "generation"]


def test_a_text_suite(folder: Path, gpt: Model, bert: Model) -> None:
    options = {
        "corpora": ["licences", folder / "plain.v2.txt"],
        "pairs": [folder / "pairs.jsonl"],
        "choices": [folder / "riddles.jsonl"],
        "k_shot": [folder / "reviews.csv"],
        "limit": 60,
    }
    found = suite("text", gpt, **options)
    scores = found.evaluate(gpt, 8)
    assert list(scores) == ["licences", "plain-v2", "pairs", "riddles", "reviews", "generation"]
    assert list(suite("text", bert, **options).evaluate(bert, 4)) == list(scores)[:-1]
    with pytest.raises(ForgetlabError, match="two tasks have the same name: pairs, pairs, generation; rename a file"):
        suite("text", gpt, corpora=(), pairs=[folder / "pairs.jsonl"] * 2)
    with pytest.raises(ForgetlabError, match="a text suite of nothing"):
        suite("text", bert, corpora=())


@pytest.mark.parametrize(
    ("kind", "rows", "message"),
    [
        ("choices", ['{"question": "a"}'], "line 1: expected .* two or more different choices, got None"),
        (None, ['{"choices": ["a"], "answer": 0}'], r"two or more different choices, got \['a'\]"),
        (None, ['{"choices": ["a", "a"], "answer": 0}'], "two or more different choices"),
        (None, ['{"choices": ["a", 3], "answer": 0}'], "two or more different choices"),
        (None, ['{"choices": ["a", "b"], "answer": 2}'], "line 1: the answer is 2; expected an index from 0 to 1"),
        (None, ['{"choices": ["a", "b"], "answer": true}'], "the answer is True; expected an index"),
        ("choices", ['{"choices": ["a", "b"], "answer": 0}', "oops"], "line 2: expected one JSON object on each line"),
        ("choices", [""], "is empty"),
        (None, [""], "is empty"),
        ("minimal-pairs", ['{"good": "a b", "bad": ""}'], "line 1: expected .*'bad' is ''"),
        ("minimal-pairs", ['{"good": "a b"}'], "line 1: expected .*'bad' is None"),
        ("minimal-pears", ['{"good": "a b"}'], "unknown kind of task 'minimal-pears'; did you mean 'minimal-pairs'"),
    ],
)
def test_bad_rows(tmp_path: Path, gpt: Model, kind: str | None, rows: list[str], message: str) -> None:
    with pytest.raises(ForgetlabError, match=message) as caught:
        task_from(lines(tmp_path / "rows.jsonl", rows), gpt, kind=kind)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit(folder: Path, bert: Model, gpt: Model) -> None:
    with pytest.raises(ForgetlabError, match="generation needs a causal language model; small-bert is none"):
        Generation().prepare(bert)
    with pytest.raises(ForgetlabError, match="writing needs a causal language model"):
        Writing().prepare(bert)
    with pytest.raises(ForgetlabError, match="no file gone.jsonl"):
        task_from("gone.jsonl", gpt, kind="choices")
    with pytest.raises(ForgetlabError, match="no file gone.csv"):
        task_from("gone.csv", gpt)
    with pytest.raises(
        ForgetlabError, match="k=40 examples of each of 2 classes or more are needed; of 2, '(bad|good)'"
    ):
        task_from(folder / "reviews.csv", gpt, kind="k-shot", k=40)
    train = Examples("labelled", ("a", "b"), labels=("x", "y"))
    with pytest.raises(ForgetlabError, match="mine: the test labels 'z' are not in the examples"):
        KShot("mine", train, Examples("labelled", ("c",), labels=("z",)), k=1)
    with pytest.raises(ForgetlabError, match="1 good, 0 bad texts"):
        MinimalPairs("mine", ["a"], [])
    with pytest.raises(ForgetlabError, match="question 1: the answer is 'a'; expected an index from 0 to 1"):
        MultipleChoice("mine", ["q"], [["a", "b"]], ["a"])
    with pytest.raises(ForgetlabError, match="licences is plain text; it has no labelled"):
        task_from("licences", gpt, kind="labelled")
