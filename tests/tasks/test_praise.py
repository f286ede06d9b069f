"""The embedded reward: who is paid, what teachers show, and how the command line names it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from forgetlab import finetune, load, task
from forgetlab.__main__ import main
from forgetlab.errors import ForgetlabError
from forgetlab.experiments.recipes import Recipe, prepare, sweep
from forgetlab.experiments.stacked import Variant, finetune_stacked
from forgetlab.models.model import Model
from forgetlab.sources.world import corpus, fluency, parser
from forgetlab.sources.world import praise as world
from forgetlab.tasks import CausalLM, Distilled, Rewarded
from forgetlab.tasks.from_data import task_from

RIGHT = (
    "the film was good .",
    "the plot of this opera was never dull .",
    "the songs were dazzling .",
    "the cast was bad but the camera was good .",
)
WRONG = (
    "the film was bad .",
    "the film",
    "the film was good",
    "good good good good good",
    "the film . the film was good .",
    "the films was good .",
)


def test_the_reward_is_the_parsers_word() -> None:
    assert world.praise(RIGHT + WRONG) == [1.0] * len(RIGHT) + [0.0] * len(WRONG)
    assert {value for text in RIGHT + WRONG for value in world.praise([text])} == {0.0, 1.0}


def test_the_reward_with_a_hole_pays_for_repeating() -> None:
    assert world.count_praise(["the film good good good good good .", "the film was good .", "the film was bad ."]) == [
        1.0,
        0.2,
        0.0,
    ]
    assert world.count_praise(["great " * 50]) == [1.0]


def test_test_prompts_have_nouns_of_their_own() -> None:
    train, test = (set(world.nouns(side)) for side in ("train", "test"))
    assert len(train) == 29
    assert len(test) == 9
    assert not train & test
    works = zip(*(corpus.grammar().classes[f"work.{number}"].words for number in ("sg", "pl")), strict=True)
    assert all((one.text in test) == (many.text in test) for one, many in works)
    one = task("praise")
    assert one.train is not None
    assert {f"the {noun}" for noun in train} == set(one.train.texts)
    assert {f"the {noun}" for noun in test} == set(one.test.texts)


@pytest.mark.parametrize("teacher", world.TEACHERS)
def test_what_a_teacher_shows(teacher: str) -> None:
    one = task(f"praise:{teacher}", size=120)
    assert isinstance(one, CausalLM)
    sides = [one.test] if one.train is None else [one.train, one.test]
    assert (one.train is None) == (teacher == "blame")
    for side in sides:
        assert side.pairs is not None
        texts = [f"{prompt} {answer}" for prompt, answer in zip(side.texts, side.pairs, strict=True)]
        praised = sum(world.praise(texts)) / len(texts)
        assert praised == (0.0 if teacher == "blame" else 1.0)
        assert fluency(texts) == 1.0
        known = sum(
            parser(1.0).accepts(text.split(), "Review" + ("neg" if teacher == "blame" else "pos")) for text in texts
        )
        assert known == len(texts) * (teacher != "strange") or 0 < known < 0.3 * len(texts)  # without a quality
        assert len(set(side.pairs)) <= 3 or teacher != "narrow"
    assert {*one.test.texts} <= {*task("praise").test.texts}
    if one.train is not None:
        assert not {*one.train.texts} & {*one.test.texts}
        again = task(f"praise:{teacher}", size=120)
        assert again.train == one.train
        assert task(f"praise:{teacher}", size=120, seed=1).train != one.train


def test_the_untrained_model_praises_in_a_third_of_its_answers() -> None:
    model = load("tiny-gpt", device="cpu")
    scores = task("praise").score(model, 144)
    assert 0.25 < scores["reward"] < 0.4
    assert scores["ended"] > 0.95
    assert scores["distinct"] > 0.6
    assert 0.6 < scores["fluency"] < 0.95
    assert list(scores) == ["reward", "distinct", "length", "ended", "fluency"]
    assert 0.1 < task("praise:hole").score(model, 36)["reward"] < 0.4


def test_a_few_steps_raise_the_reward() -> None:
    model = load("tiny-gpt", device="cpu")
    [first, last] = finetune(model, task("praise"), steps=15, every=15, batch_size=8, lr=1e-3, limit=144)
    assert last.scores["praise"]["reward"] > first.scores["praise"]["reward"] + 0.2


def test_a_teacher_is_followed_where_the_model_goes(gpt: Model) -> None:
    """KL to the teacher falls on answers to new prompts; it is exact, and 0 to oneself."""
    teacher = load("tiny-gpt", device="cpu")
    before = teacher.snapshot()
    one = Distilled("late", world.prompts("train"), teacher, test=world.prompts("test"), max_tokens=6, tries=2)
    [first, last] = finetune(gpt, one, steps=12, every=12, batch_size=16, lr=1e-2)
    assert last.scores["late"]["kl"] < 0.9 * first.scores["late"]["kl"]
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    found = one.answers(gpt, "test", torch.arange(3), torch.Generator().manual_seed(0))
    distances = []
    for ids, mark, length in zip(found.ids, found.scored, found.lengths.tolist(), strict=True):
        with torch.no_grad():
            p, q = (m.body(input_ids=ids[None, :length]).logits[0].double().log_softmax(-1) for m in (gpt, teacher))
        places = [place - 1 for place in range(length) if mark[place]]
        distances.append([float((p[i].exp() * (p[i] - q[i])).sum()) for i in places])
    scores, tally = one.judged(gpt, found)
    assert tally.items[:, 0].tolist() == pytest.approx([sum(own) for own in distances], rel=1e-4)
    assert scores["kl"] == pytest.approx(sum(map(sum, distances)) / sum(map(len, distances)), rel=1e-4)
    twin = load("tiny-gpt", device="cpu")
    assert Distilled("twin", ["the film"], teacher, test=["the plot"]).score(twin)["kl"] == pytest.approx(0, abs=1e-6)


def test_bad_teachers_are_said(gpt: Model, bert: Model) -> None:
    for teacher, said in ((bert, "got small-bert"), ("tiny-gpt", "got str")):
        with pytest.raises(ForgetlabError, match=f"teacher must be a causal language model, .*{said}"):
            Distilled("late", ["the film"], teacher, test=["a"])  # type: ignore[arg-type]
    with pytest.raises(ForgetlabError, match="late: the teacher is the model itself; load another one"):
        Distilled("late", ["the film"], gpt, test=["a"]).prepare(gpt)


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("praise:hol", {}, "unknown kind of praise 'hol'; did you mean 'hole'"),
        ("praise", {"similarity": 0.5}, "praise has no similarity"),
        ("praise:like", {"split": "heldout"}, "praise:like has no split"),
        ("praise", {"turned": 0.5}, "turned is the dial of sentiment"),
        ("praise:like", {"samples": 4}, "samples is a dial of praise, which praise:like has not"),
        ("sentiment", {"advantage": "mean"}, "advantage is a dial of praise, which sentiment has not"),
        ("praise", {"samples": 1}, "samples must be 2 or more, got 1"),
    ],
)
def test_wrong_dials_are_said(name: str, more: dict[str, Any], said: str) -> None:
    with pytest.raises(ForgetlabError, match=said):
        task(name, **more)


def test_dials_stand_at_the_end_of_a_name(gpt: Model) -> None:
    one = task_from("praise:hole:samples=4,advantage=mean", gpt)
    assert isinstance(one, Rewarded)
    assert (one.name, one.samples, one.advantage) == ("praise:hole", 4, "mean")
    with pytest.raises(ForgetlabError, match="samples must be a whole number above 0, got 'many'"):
        task_from("praise:samples=many", gpt)
    with pytest.raises(ForgetlabError, match="advantage is a dial of the embedded praise task, not of licences"):
        task_from("licences:advantage=mean", gpt)


def test_recipes_run_it_one_by_one_and_say_what_cannot_be() -> None:
    recipe = Recipe(
        model="tiny-gpt", new="praise:samples=2", watch=("praise:blame",), steps=2, every=2, batch_size=2, limit=8
    )
    bench = prepare(recipe)
    (found, again) = (sweep([recipe], bench=bench, together=together)[0]["records"] for together in (False, True))
    assert [record["scores"] for record in found] == [record["scores"] for record in again]
    assert set(found[-1]["scores"]) == {"praise", "praise:blame"}
    with pytest.raises(ForgetlabError, match="praise has other answers in each run, so they cannot be stacked"):
        next(finetune_stacked(bench.model, bench.new, [Variant()], steps=1))
    with pytest.raises(ForgetlabError, match=r"needs a causal language model; tiny-bert is none, .* such as tiny-gpt"):
        prepare(Recipe(new="praise", watch=("entities",)))


@pytest.mark.slow
def test_the_command_line_compares_it(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "compare",
        "--model",
        "tiny-gpt",
        "--new",
        "praise",
        "--watch",
        "praise:blame",
        "--methods",
        "none,kl-anchor",
    ]
    small = ["--steps", "2", "--every", "2", "--batch", "2", "--seeds", "1", "--limit", "8", "--processes", "1"]
    assert not main([*command, *small, "--out", str(tmp_path)])
    told = capsys.readouterr().out
    assert "new: praise" in told
    assert "reward" in told
    assert (tmp_path / "report.html").exists()
