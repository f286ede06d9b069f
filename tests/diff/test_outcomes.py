"""What a model answers is what its score says, for every kind of task; and what two answers make of an item."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from transformers import AutoModelForSequenceClassification

from forgetlab import load, task
from forgetlab.diff import heads
from forgetlab.diff.findings import changed, finding, groups_of, parts, repeated
from forgetlab.diff.models.pair import Pair
from forgetlab.diff.outcomes import Outcome, outcome, outcomes
from forgetlab.errors import ForgetlabError
from forgetlab.metrics import expected_calibration_error
from forgetlab.metrics.evidence import Averaged
from forgetlab.metrics.tally import Tally
from forgetlab.models.model import Model
from forgetlab.sources import Examples
from forgetlab.sources.model_names import model_folder
from forgetlab.tasks import Classification, Tagging, Task
from forgetlab.tasks.from_data import task_from
from forgetlab.tasks.suites import MatthewsClassification
from tests.diff.conftest import moved

LIMIT = 24
CHAT = [{"messages": [{"role": "user", "content": f"the film {i}"}, {"role": "assistant", "content": "was good ."}]}
        for i in range(12)]  # fmt: skip
CHOICES = [{"question": "the film was", "choices": ["good .", f"bad {i} ."], "answer": i % 2} for i in range(12)]
WORSE = [{"prompt": "the film", "chosen": " was good .", "rejected": f" good was {i} ."} for i in range(12)]


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return {name: load(name, device="cpu") for name in ("tiny-bert", "tiny-gpt")}


def of(kind: str, model: Model, place: Path) -> Task:
    rows: dict[str, list[dict[str, Any]]] = {"chat": CHAT, "choices": CHOICES, "preferences": WORSE}
    if kind in rows:
        file = place / f"{kind}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows[kind]))
        return task_from(file, model, kind=kind)
    return task(kind)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("masked-lm", "tiny-bert"), ("entities", "tiny-bert"), ("acceptability", "tiny-bert")),
        *(("causal-lm", "tiny-gpt"), ("cloze", "tiny-gpt"), ("minimal-pairs", "tiny-gpt"), ("k-shot", "tiny-bert")),
        *(("chat", "tiny-gpt"), ("choices", "tiny-gpt"), ("preferences", "tiny-gpt"), ("writing", "tiny-gpt")),
    ],
)
def test_an_outcome_has_the_score_and_what_it_is_made_of(
    kind: str, name: str, models: dict[str, Model], tmp_path: Path
) -> None:
    model, one = models[name], of(kind, models[name], tmp_path)
    one.prepare(model)
    found = outcome(one, model, LIMIT)
    scores, tally = of(kind, model, tmp_path).scored(model, LIMIT)
    assert found.scores == scores
    assert (found.tally is None) == (tally is None) == (kind == "writing")
    if tally is None or found.tally is None:
        return
    assert torch.equal(found.tally.items, tally.items)
    if found.tokens:
        sums = np.zeros(len(tally.items))
        np.add.at(sums, found.tokens.item.numpy(), found.tokens.nll.double().numpy())
        assert sums == pytest.approx(tally.items[:, 0].numpy(), rel=1e-4)
        ids = one.encoded(model, "test").columns["input_ids"][one.sample(LIMIT)]
        assert torch.equal(ids[found.tokens.item, found.tokens.place], found.tokens.token)
    if found.said and found.gold and not isinstance(one, Tagging):
        right = np.mean([a == b for a, b in zip(found.said, found.gold, strict=True)])
        assert right == pytest.approx(scores["accuracy"])


def test_calibration_is_that_of_the_probabilities(models: dict[str, Model]) -> None:
    model, one = models["tiny-bert"], task("acceptability")
    found = outcome(one, model, 64)
    with torch.no_grad():
        batches = [(batch["targets"], one.logits(model, batch).softmax(-1)) for batch in one.test_batches(model, 64)]
        expected = expected_calibration_error(torch.cat([p for _, p in batches]), torch.cat([t for t, _ in batches]))
    assert found.calibration is not None
    told = finding(one, found, found, changed(one, found, found), limit=64)["calibration"]
    assert told is not None
    assert told["before"]["error"] == pytest.approx(expected, abs=1e-5)
    assert told["before"]["right"] == pytest.approx(found.scores["accuracy"])


def test_items_are_lost_and_gained_with_their_text_and_answers(models: dict[str, Model]) -> None:
    """A head that says one class to all loses the items of the other that were right, and gains those of its own."""
    model = models["tiny-bert"]
    one = task("acceptability")
    before = outcome(one, model, LIMIT)
    weights = model.snapshot()
    with torch.no_grad():
        model.heads["acceptability"].linear.weight.zero_()
        model.heads["acceptability"].linear.bias.copy_(torch.tensor([1.0, 0.0]))
    after = outcome(one, model, LIMIT)
    model.restore(weights)
    told = finding(one, before, after, changed(one, before, after), limit=LIMIT)
    assert one.test.labels is not None
    rows, label = one.sample(LIMIT).tolist(), sorted({*one.test.labels})[0]
    assert before.said is not None
    expected = [(one.test.texts[i], one.test.labels[i], said) for i, said in zip(rows, before.said, strict=True)]
    lost = {text for text, gold, said in expected if said == gold != label}
    gained = {text for text, gold, said in expected if said != gold == label}
    assert lost
    assert {item["text"] for item in told["lost"]} == {" ".join(text.split()) for text in lost}
    assert {item["text"] for item in told["gained"]} == {" ".join(text.split()) for text in gained}
    assert {(item["after"], item["gold"] != label) for item in told["lost"]} == {(label, True)}
    flips = told["flips"]
    assert flips is not None
    assert (flips["lost"], flips["gained"]) == (len(lost), len(gained)) == (told["lost_items"], told["gained_items"])


def test_sentences_with_the_most_lost_entities_come_first(models: dict[str, Model]) -> None:
    one = task("entities")
    before = outcome(one, models["tiny-bert"], LIMIT)
    assert before.tally is not None
    hitless = Tally(before.tally.columns, before.tally.items * torch.tensor([0, 0, 1]))
    said = [("O",) * len(tags) for tags in before.said or []]
    nothing = Outcome(before.facts, {"f1": 0.0}, hitless, said=said, gold=before.gold)
    told = finding(one, before, nothing, changed(one, before, nothing), limit=LIMIT)
    hits = [item["loss"] for item in told["lost"]]
    assert hits == sorted(hits, reverse=True)
    assert told["flips"] is not None
    assert sum(hits) == told["flips"]["lost"] == float(before.tally.items[:, 0].sum())
    assert told["flips"]["gained"] == 0
    assert told["counted"] == "entities"
    assert told["lost"][0]["after"] == "none"
    assert "(" in (told["lost"][0]["gold"] or "")


def test_the_parts_of_a_perplexity_make_up_the_whole(models: dict[str, Model]) -> None:
    one, model = task("causal-lm"), models["tiny-gpt"]
    before = outcome(one, model, LIMIT)
    weights = model.snapshot()
    after = outcome(one, moved(model, by=0.02), LIMIT)
    model.restore(weights)
    assert before.tokens is not None
    within = parts(one, model, LIMIT, before.tokens)
    change = changed(one, before, after)
    told = finding(one, before, after, change, limit=LIMIT, within=within)
    assert change is not None
    assert change.loss == pytest.approx(math.log(after.scores["perplexity"] / before.scores["perplexity"]))
    for groups in (told["by_token_class"], told["by_position"]):
        assert len(groups) > 1
        assert sum(part["tokens"] for part in groups) == len(before.tokens.nll)
        assert sum(part["share"] * (part["change"]["loss"] or 0.0) for part in groups) == pytest.approx(change.loss)
    # by hand: the nats of the first quarter's tokens
    lengths = one.encoded(model, "test").lengths[one.sample(LIMIT)].tolist()
    columns = [column.tolist() for column in (before.tokens.item, before.tokens.place, before.tokens.nll)]
    own = [nll for item, place, nll in zip(*columns, strict=True) if place < lengths[item] / 4]
    assert told["by_position"][0]["change"]["before"] == pytest.approx(math.exp(np.mean(own)))
    worst = told["lost"][0]
    assert worst["loss"] == max(item["loss"] for item in told["lost"])


def test_matthews_and_shares_of_draws_have_their_items_too(models: dict[str, Model]) -> None:
    model, plain = models["tiny-bert"], task("acceptability")
    assert plain.train is not None
    one = MatthewsClassification("acceptability", plain.train, plain.test)
    found = outcome(one, model, LIMIT)
    told = finding(one, found, found, changed(one, found, found), limit=LIMIT)
    assert told["flips"] is not None
    assert told["flips"]["lost"] == told["lost_items"] == 0
    assert told["change"]["loss"] == 0
    shots = task("k-shot")
    found = outcome(shots, model, LIMIT)
    assert finding(shots, found, found, changed(shots, found, found), limit=LIMIT)["flips"] is None


def test_one_item_shows_nothing(models: dict[str, Model]) -> None:
    one = task("masked-lm")
    found = outcome(one, models["tiny-bert"], 1)
    told = finding(one, found, found, changed(one, found, found), limit=1, allowed=0.1)
    assert told["verdict"] == "not enough evidence"
    assert told["change"]["smallest"] == math.inf


# -- heads -------------------------------------------------------------------------------------------


def test_a_learned_head_is_the_logistic_regression_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200, 5)) * [1, 10, 0.1, 1, 1] + 3
    y = (x[:, 0] + generator.normal(size=200) > 3).astype(int) + (x[:, 1] > 10)
    weight, bias = heads.logistic(torch.from_numpy(x), torch.from_numpy(y), 3)
    z = (x - x.mean(0)) / x.std(0)
    theirs = LogisticRegression(C=1.0, tol=1e-9, max_iter=10_000).fit(z, y)
    ours = torch.from_numpy(x) @ weight.t() + bias
    assert ours.softmax(-1).numpy() == pytest.approx(theirs.predict_proba(z), abs=1e-4)


def test_what_neither_has_is_learned_on_before_and_lent(tuned: Path) -> None:
    pair = Pair("tiny-bert", [str(tuned)], device="cpu")
    texts = tuple(f"{word} the film" for word in ("good", "bad") for _ in range(8))
    rows = Examples("labelled", texts, labels=("yes",) * 8 + ("no",) * 8)
    one = Classification("mine", rows, rows)
    backbone = {name: weight.clone() for name, weight in pair.become("before").body.state_dict().items()}
    notes = heads.ready(pair, [one])
    assert any("one was learned on it" in note and "lent to" in note for note in notes)
    assert pair.lent[str(tuned)] == ("mine",)
    found = outcomes(pair, [one], None)
    assert found["before"]["mine"].scores["accuracy"] == 1.0
    pair.become("before")
    assert all(torch.equal(weight, backbone[name]) for name, weight in pair.model.body.state_dict().items())
    assert {n for n, _ in pair.weights(str(tuned))} >= {"heads.mine.linear.weight"}


def test_before_guesses_where_after_alone_has_a_head_for_the_new_task(tuned: Path) -> None:
    pair = Pair("tiny-bert", [str(tuned)], device="cpu")
    new = task("sentiment")
    notes = heads.ready(pair, [new, task("entities")], new)
    assert any("BEFORE has no head for it; its score is that of one who knows" in note for note in notes)
    found = outcomes(pair, [new], 64)
    assert found["before"]["sentiment"].scores["accuracy"] == pytest.approx(new.guesser(pair.model, 64), abs=0.1)
    assert {*(found["before"]["sentiment"].said or [])} <= {*new.labels}  # type: ignore[attr-defined]
    assert len({*(found["before"]["sentiment"].said or [])}) == 1
    alone = load(str(tuned), device="cpu")
    assert found[str(tuned)]["sentiment"].scores == new.score(alone, 64)


def test_a_task_that_the_model_cannot_do_is_refused(tuned: Path, tmp_path: Path) -> None:
    pair = Pair("tiny-bert", [str(tuned)], device="cpu")
    with pytest.raises(ForgetlabError, match="needs a causal language model"):
        heads.ready(pair, [task("writing")])


def test_answers_to_one_prompt_are_no_items_of_their_own() -> None:
    """Praise has 32 answers to each of nine prompts: what they say of other prompts is what nine items say."""
    one, random = task("praise"), np.random.default_rng(0)
    by_prompt = np.repeat(random.random((2, len(one.test))), one.items() // len(one.test), axis=1)
    rewards = torch.from_numpy(np.stack([by_prompt, np.ones_like(by_prompt)], axis=-1))
    before, after = (
        Outcome({"name": "praise", "metric": "reward"}, {}, Tally(("reward", "one"), part)) for part in rewards
    )
    found = changed(one, before, after, groups_of(one, load("tiny-gpt", device="cpu"), None))
    assert found is not None
    assert isinstance(found.test, Averaged)
    assert found.test.freedom == pytest.approx(len(one.test) - 1)


def test_after_answers_by_the_classifier_that_transformers_trained(tmp_path: Path) -> None:
    new = task("sentiment")
    names = {i: label.upper() for i, label in enumerate(reversed(new.labels))}  # type: ignore[attr-defined]
    theirs = moved(
        AutoModelForSequenceClassification.from_pretrained(model_folder("tiny-bert"), num_labels=2, id2label=names)
    ).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    after = str(tmp_path / "theirs")
    pair = Pair("tiny-bert", [after], device="cpu")
    notes = heads.ready(pair, [new], new)
    assert any("answers by the classifier in its own folder" in note for note in notes)
    found = outcomes(pair, [new], LIMIT)[after]["sentiment"]
    rows = new.sample(LIMIT).tolist()
    with torch.no_grad():
        batch = pair.model.tokenizer([new.test.texts[i] for i in rows], padding=True, return_tensors="pt")
        said = [names[i].lower() for i in theirs(**batch).logits.argmax(-1).tolist()]
    assert found.said == said
    assert len({*said}) == 2


def test_a_classifier_that_is_of_no_use_is_named_once_and_only_where_a_head_is_lacking(tmp_path: Path) -> None:
    afters = [str(tmp_path / name) for name in ("one", "other")]
    for folder in afters:
        names = {0: "spam", 1: "ham", 2: "eggs"}
        AutoModelForSequenceClassification.from_pretrained(
            model_folder("tiny-bert"), num_labels=3, id2label=names
        ).save_pretrained(folder)
    pair = Pair("tiny-bert", afters, device="cpu")
    notes = heads.ready(pair, [task("entities"), task("sentiment", size=64)])
    said = [note for note in (*pair.notes, *notes) if "is not used" in note]
    assert said == [f"sentiment: the classifier of {afters[0]}, {afters[1]} has the classes spam, ham, eggs, not the "
                    "task's; it is not used"]  # fmt: skip
    assert f"entities: {afters[0]}, {afters[1]} answers by BEFORE's head" in notes


def test_test_items_that_repeat_each_other_count_as_one_and_it_is_said(tmp_path: Path) -> None:
    """Fifty rows of five texts are about as sure as a test of five, not as one of fifty."""
    model, file = load("tiny-bert", device="cpu"), tmp_path / "a.csv"
    rows = [
        f"the film was {word},{label}"
        for word, label in zip(("good", "bad", "dull", "fine", "long"), "ynnyn", strict=True)
    ]
    for many, told in ((rows * 10, ["only 5 of the 50"]), (rows, [])):
        file.write_text("\n".join(["text,label", *many]), encoding="utf-8")
        one = task_from(f"{file}:test={file}", model)
        groups = groups_of(one, model, None)
        found = repeated(one, groups)
        assert len(found) == len(told)
        assert all(words in note for words, note in zip(told, found, strict=True))
        right = torch.tensor([1.0, 1, 1, 0, 1]), torch.tensor([0.0, 1, 0, 0, 1])
        outcomes_ = [
            Outcome(
                {"name": "a", "metric": "accuracy"},
                {},
                Tally(("right", "one"), torch.stack([side.repeat(len(many) // 5), torch.ones(len(many))], 1).double()),
            )
            for side in right
        ]
        change = changed(one, *outcomes_, groups)
        assert change is not None
        if told:
            repeats = change
        else:
            alone = change
    assert repeats.loss == pytest.approx(alone.loss)
    assert repeats.high - repeats.low > 0.6 * (alone.high - alone.low)
