"""Ask the model, as a learner uses it."""

import re
from html import unescape

import pytest
import torch

from forgetlab.experiments import recipes
from forgetlab.labs import ask
from forgetlab.labs.kit.base import Lab
from forgetlab.models import asking

SHORT = "forgetlab 1 ask: model=tiny-bert, lr=0.01, steps=20, seed=1"


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORGETLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def trained(own_cache: None) -> Lab:
    """A lab that has trained tiny-bert for 20 steps."""
    lab = ask.show(driver="inline")
    assert "Press Train" in lab.message.value
    lab.line.value = SHORT
    return lab


def words(lab: Lab) -> str:
    return unescape(re.search('aria-label="([^"]*)"', lab.picture.value)[1])


def type_in(lab: Lab, text: str) -> str:
    lab.view["text"].value = text
    return lab.picture.value


def test_the_answers_are_those_of_the_two_models(trained: Lab) -> None:
    """The same run by hand gives the same answers (but for last bits: copies lie elsewhere in memory)."""
    bench = recipes.prepare(ask.recipe(trained.settings()))
    typed, told = "paris loved the [MASK] .", []
    for record in bench.run(ask.recipe(trained.settings())):
        if record.step in (0, 20):
            told.append(
                [asking.answer(bench.model, t, seed=1, heads=ask.HEADS["tiny-bert"]) for t in (ask.SENTENCE, typed)]
            )
    type_in(trained, ask.SENTENCE)
    for (expected, _), when in zip(told, ("before", "after"), strict=True):
        found = trained.state["answers"][when]
        assert found["words"] == expected["words"] == ["anna", "flew", "to", "[MASK]", "."]
        assert dict(found["fills"][0][1]) == pytest.approx(dict(expected["fills"][0][1]), rel=1e-4)
        assert found["heads"].keys() == {"entities", "sentiment"}
        for head, rows in expected["heads"].items():
            for own, other in zip(found["heads"][head], rows, strict=True):
                assert dict(own) == pytest.approx(dict(other), rel=1e-4, abs=1e-6)
    assert trained.state["records"][-1]["step"] == 20
    assert words(trained).startswith("“anna flew to [MASK] .”, after 20 steps: the gap filled with washington 12")
    type_in(trained, typed)
    for answers, when in zip(told, ("before", "after"), strict=True):
        word, p = answers[1]["fills"][0][1][0]
        assert f"{word} {100 * p:.0f}\u202f% {when}" in words(trained)


def test_typing_trains_nothing(trained: Lab) -> None:
    state, message = trained.state, trained.message.value
    page = type_in(trained, "the play was not bad .")
    assert page.count("Each word hidden in its turn") == 1
    assert "of 6 words hidden in turn it guessed" in words(trained)
    assert "of 6 entity tags changed; sentiment" in words(trained)
    assert trained.state is state
    assert trained.message.value == message
    assert "not in tiny-bert's vocabulary: zebra" in unescape(type_in(trained, "zebra loved paris ."))


@pytest.mark.parametrize("text", ["", "   ", "x" * 10_000, "a " * 5000, "anna [CLS] paris"])
def test_what_cannot_be_answered_is_refused_in_words(trained: Lab, text: str) -> None:
    type_in(trained, text)
    assert words(trained).startswith("No answer: ")
    assert "No answer:" in re.sub("<[^>]*>", "", trained.picture.value)
    type_in(trained, "anna flew to paris .")
    assert words(trained).startswith("“anna flew to paris .”")


@pytest.mark.parametrize("text", ['<img src=x onerror="alert(1)">', "</table><script>x</script>", "a & b \" ' <MASK>"])
def test_what_is_typed_stays_text(trained: Lab, text: str) -> None:
    page = type_in(trained, text)
    assert "<img" not in page
    assert "<script" not in page
    assert "<MASK" not in page
    assert f"“{text}”" in unescape(re.sub("<[^>]*>", "", page))


def test_kept_answers_and_a_sentence_of_ones_own(trained: Lab) -> None:
    """A lab that opens on a kept result has no model: the first sentence typed trains one, the next ones do not."""
    type_in(trained, ask.SENTENCE)
    lab = ask.show(driver="inline")
    lab.line.value = SHORT
    assert lab.source == "cached"
    assert words(lab) == words(trained)
    type_in(lab, "")
    assert lab.source == "cached"
    type_in(lab, "anna walked to [MASK] .")
    assert lab.source == "live"
    assert words(lab).startswith("“anna walked to [MASK] .”, after 20 steps")
    state = lab.state
    type_in(lab, "paris walked to [MASK] .")
    assert lab.state is state
    lab.training["model"].value = "tiny-gpt"  # trains 20 steps, answers the sentence that stands there
    assert "next word" in words(lab)
    assert words(lab).startswith("“paris walked to [MASK] .”")
    type_in(lab, ask.SENTENCE)
    lab.line.value = SHORT
    assert lab.source == "cached"
    assert words(lab) == words(trained)


def test_an_empty_sentence_before_anything_was_trained() -> None:
    lab = ask.show(driver="inline")
    type_in(lab, "")
    assert lab.state is None
    assert "the sentence is empty" in lab.message.value


def test_a_diverged_model_is_said_to_have_no_answer(trained: Lab) -> None:
    copies, settings = ask.Copies(), trained.settings()
    bench = recipes.prepare(ask.recipe(settings))
    bench.new.prepare(bench.model, 1)
    copies.keep(bench.model, settings, 0)
    with torch.no_grad():
        for p in bench.model.parameters():
            p.fill_(float("nan"))
    copies.keep(bench.model, settings, 5)
    answers = copies.answers("anna flew to [MASK] .", settings, 5)
    both = ("anna flew to [MASK] .", answers["before"], answers["after"], 5)
    assert "no longer finite" in ask.told(*both)
    page = re.sub("<[^>]*>", " ", ask.page(*both))
    assert "washington" in page  # before
    assert "no longer finite" in page
    assert "–" in page


def test_the_settings_line_leaves_the_sentence_out(trained: Lab) -> None:
    assert trained.line.value == SHORT
