"""Two ways to teach: its numbers against runs and sums made by hand, and the lab as a user meets it."""

from __future__ import annotations

import re
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch

from forgetlab import labs
from forgetlab.experiments.recipes import Bench, prepare
from forgetlab.labs import reward
from forgetlab.labs.kit import benches, written
from forgetlab.labs.kit.base import Lab
from forgetlab.labs.kit.shown import Result
from forgetlab.labs.kit.written import Written, divergence
from forgetlab.labs.views.reward import PROMPTS, times
from forgetlab.models.loading import load
from forgetlab.models.model import Model
from forgetlab.remedies.by_name import make_methods
from forgetlab.remedies.regularizers import KLAnchor
from forgetlab.sources.world import fluency, parser
from forgetlab.tasks import CausalLM
from forgetlab.tasks.embedded import task
from forgetlab.tasks.rewarded import Rewarded, filtered
from forgetlab.training.loop import finetune

SMALL: dict[str, Any] = {"steps": 10, "samples": 2}


@cache
def bench() -> Bench:
    return prepare(reward.recipe(labs.show("reward", driver="inline").settings()))


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(written, "ANSWERS", 2)
    monkeypatch.setattr(reward, "BEST", 24)
    monkeypatch.setattr(benches, "prepare", lambda recipe: bench())  # loaded once for all tests


@pytest.fixture
def model() -> Model:
    bench().model.restore()
    return bench().model


def change(model: Model) -> None:
    """Move the weights a little."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=generator))


def judge(name: str = "praise") -> Rewarded:
    found = task(name)
    assert isinstance(found, Rewarded)
    return found


def alt(lab: Lab) -> str:
    return unescape(re.search('alt="([^"]*)"', lab.picture.value)[1])  # type: ignore[index]


def words(lab: Lab) -> str:
    return unescape(re.sub("<.*?>", "", lab.message.value))


def cells(lab: Lab) -> list[str]:
    """The table of what the model writes, row by row."""
    table = lab.picture.value.partition("<table")[2]
    return [unescape(re.sub("<.*?>", "", cell)).strip() for cell in re.findall("<t[hd].*?</t[hd]>", table)]


@pytest.mark.parametrize("teacher", [reward.LIKE, reward.GRPO, reward.OWN_BEST])
def test_a_lab_shows_the_run_that_its_controls_describe(teacher: str, model: Model) -> None:
    lab = labs.show("reward", driver="inline")
    assert words(lab) == "Press Train, or move a slider."
    lab.apply({**SMALL, "teacher": teacher, "beta": 0.3, "direction": "before ‖ now", "seed": 3})
    assert lab.state is not None, words(lab)
    model.restore()
    batch_size = 16
    if teacher == reward.LIKE:
        new = task("praise:like")
    elif teacher == reward.GRPO:
        new, batch_size = task("praise", samples=2, advantage="group"), 8
    else:
        own = filtered(judge(), model, 24, 3, over=0.3)
        new = CausalLM("own best answers", own, own)
    watch = [task("causal-lm:news"), task("praise:blame")]
    anchor = KLAnchor(0.3, direction="forward")
    how: Any = {"steps": 10, "every": 1, "batch_size": batch_size, "seed": 3, "limit": 64}
    records = [*finetune(model, new, methods=[anchor], watch=watch, **how)]
    shown = lab.state["records"]
    assert [record["step"] for record in shown] == list(range(11))
    for by_hand, record in zip(records, shown, strict=True):  # to look at the answers changes nothing
        found = {name: scores for name, scores in record["scores"].items() if name != "answers"}
        assert found == by_hand.scores
        assert record["penalty"] == by_hand.penalty
    assert words(lab) == alt(lab)
    again = labs.show("reward", driver="inline")
    again.line.value = lab.line.value  # pasted: the kept result of the same settings
    assert (again.settings(), again.source, alt(again)) == (lab.settings(), "cached", alt(lab))


def test_divergences_are_sums_over_the_tokens_of_the_answers(model: Model) -> None:
    """One answer at a time, through the whole model, against p (ln p − ln q) by hand."""
    praise = judge()
    probe = Written("answers", praise, praise, model)
    same = probe.score(model)
    assert (same["now_before"], same["before_now"]) == (0.0, 0.0)
    then, before = probe._then, load("tiny-gpt", device="cpu")
    change(model)
    drawn = probe._answers(model)

    def by_hand(answers: Any, first: Model, second: Model) -> float:
        total = 0.0
        for ids, scored, length in zip(answers.ids, answers.scored, answers.lengths.tolist(), strict=True):
            with torch.no_grad():
                p, q = (
                    m.body(input_ids=ids[None, :length]).logits[0].double().log_softmax(-1) for m in (first, second)
                )
            kl = (p.exp() * (p - q)).sum(-1)
            total += sum(float(kl[t - 1]) for t in range(1, length) if scored[t])
        return total / len(answers.texts)

    assert drawn.answers != then.answers
    found = probe.score(model)
    expected = by_hand(drawn, model, before), by_hand(then, before, model)
    assert min(expected) > 0.1
    assert (found["now_before"], found["before_now"]) == pytest.approx(expected, rel=1e-4)
    assert divergence(praise, drawn, before, model) != pytest.approx(expected[0], rel=0.01)  # an order that matters


def test_answers_are_judged_as_they_are_shown(model: Model) -> None:
    change(model)
    probe = Written("answers", judge("praise:hole"), judge(), model)
    scores = probe.score(model)
    (rows,) = probe.texts
    assert [len(answers) for answers in rows.values()] == [2] * 9
    assert set(PROMPTS) < set(rows)
    texts = [f"{prompt} {answer}".strip() for prompt, answers in rows.items() for answer, _, _ in answers]
    meant = [parser(0.5).accepts(text.split(), "Reviewpos") for text in texts]
    assert [one for answers in rows.values() for _, _, one in answers] == meant
    assert scores["meant"] == pytest.approx(sum(meant) / 18)
    paid = [value for answers in rows.values() for _, value, _ in answers]
    assert scores["reward"] == pytest.approx(sum(paid) / 18)
    assert paid == judge("praise:hole").reward(texts)
    assert scores["fluency"] == fluency(texts)
    assert scores["distinct"] == len({answer for answers in rows.values() for answer, _, _ in answers}) / 18


@pytest.mark.parametrize("kind", ["praise", "praise:hole"])
def test_own_best_answers_are_found_for_either_reward(kind: str, model: Model) -> None:
    own = reward.lessons({"teacher": reward.OWN_BEST, "seed": 0}, judge(kind), model, task)
    assert own.size() == 24
    assert own.train is not None
    whole = [f"{prompt} {answer}" for prompt, answer in zip(own.train.texts, own.train.pairs or (), strict=True)]
    assert min(judge(kind).reward(whole)) > 0.3


def test_view_and_prompt_change_the_picture_only() -> None:
    lab = labs.show("reward", driver="inline")
    lab.apply({**SMALL, "teacher": reward.LIKE, "reward": reward.HOLE, "steps": 20})
    state = lab.state
    assert state is not None
    records = state["records"]
    assert "true praise" in words(lab)
    assert f"of negative reviews on the same things ×{times(records, 'praise:blame')[-1]:#.3g}" in words(lab)
    rows = cells(lab)
    assert rows[:3] == ["", "answer 1", "answer 2"]
    assert [row for row in rows if re.match(r"\d", row)] == ["0 (before)", "4", "8", "12", "16", "20 (now)"]
    answer, value, meant = state["written"][-1][PROMPTS[0]][1]
    assert rows[-1] == f"{'✓' if meant else '✗'} {answer or '(nothing)'} ({value:.2f})"
    picture = lab.picture.value
    lab.view["prompt"].value = PROMPTS[1]
    assert (lab.state is state, PROMPTS[1] in lab.picture.value) == (True, True)
    assert cells(lab) != rows
    before = lab.picture.value
    lab.view["over"].value = "reward"
    assert lab.state is state
    assert len({picture, before, lab.picture.value}) == 3


def test_a_diverged_run_is_said_and_drawn() -> None:
    lab = labs.show("reward", driver="inline")
    lab.apply({**SMALL, "teacher": reward.LIKE})
    state: Any = dict(lab.state or {})
    end = state["records"][-1] | {"status": "diverged", "message": "the loss is no longer finite"}
    end["scores"] = {name: dict.fromkeys(scores) for name, scores in end["scores"].items()}
    lab._shown.result = Result({**state, "records": [*state["records"][:-1], end]}, "live")
    lab._redraw()
    assert alt(lab) == "Diverged: the loss is no longer finite."


def test_every_choice_and_slider_end_describes_a_run() -> None:
    lab = labs.show("reward", driver="inline")
    start = lab.settings()
    for key, control in lab.training.items():
        ends = list(control.options) if hasattr(control, "options") else [control.min, control.max]
        base = getattr(control, "base", None)
        for end in [base**e for e in ends] if base else ends:
            made = reward.recipe({**start, key: end})
            make_methods(made.methods, None)
            assert made.steps >= made.every >= 1
    for change_ in lab._presets.values():
        assert set(change_) <= set(start)


@pytest.mark.slow
def test_a_reward_with_a_hole_is_found_and_an_anchor_keeps_from_it() -> None:
    ends = {}
    for preset in ("hacked", "hole, anchored"):
        lab = labs.show("reward", driver="inline")
        lab.buttons[preset].click()
        assert lab.state is not None
        ends[preset] = lab.state["records"][-1]["scores"]["answers"]
    start = lab.state["records"][0]["scores"]["answers"]
    assert ends["hacked"]["reward"] > 0.9 > 0.5 > start["reward"]
    assert ends["hacked"]["meant"] < 0.1 < start["meant"]
    assert ends["hacked"]["fluency"] < 0.5 * start["fluency"]
    assert ends["hole, anchored"]["fluency"] > 0.7 * start["fluency"]
    assert ends["hole, anchored"]["now_before"] < 0.1 * ends["hacked"]["now_before"]
