"""Every question is whole and judged as it says; the cards and the quiz work as a learner uses them."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import ipywidgets as widgets
import pytest

from forgetlab.errors import ForgetlabError
from forgetlab.sources.shipped import data_folder
from forgetlab.teaching import ask, final_quiz
from forgetlab.teaching.notebook import WIDGET
from forgetlab.teaching.questions import FINAL, Judged, Option, Question, _read, find, judge, questions
from forgetlab.teaching.quiz import Card, Quiz, as_html, as_text

FILES = sorted((data_folder() / "quiz").glob("*.json"))
ALL = [question for file in FILES for question in questions(file.stem)]
TOPICS = {
    "phenomenon",
    "mechanisms",
    "measuring",
    "importance",
    "interference",
    "regularising",
    "replay",
    "architecture",
    "learning rates",
    "choosing",
    "real models",
    "limits",
    "rewards",
}
EVERY = pytest.mark.parametrize("question", ALL, ids=lambda question: question.id)

OPTIONS = (Option("one & <all>", False, "Not one."), Option("two", True, "Two it is."), Option("three", True, "And 3."))
SINGLE = Question("x-single", "replay", "single", "Which is < 3?", "Because.", OPTIONS[:2])
MULTIPLE = Question("x-multiple", "limits", "multiple", "Which ones?", "Both.", OPTIONS)
NUMBER = Question(
    "x-number",
    "replay",
    "numeric",
    "How much?",
    "So it is.",
    (),
    -0.15,
    0.004,
    "nats",
    ((0.15, "Sign."), (-0.3, "Sum.")),
)


# -- what is written --------------------------------------------------------------------------------


@EVERY
def test_a_question_is_whole(question: Question) -> None:
    assert question.topic in TOPICS
    assert len(question.ask) > 15
    assert len(question.why) > 15
    if question.kind == "numeric":
        assert not question.options
        assert question.tolerance > 0
        assert len(question.unit) <= 12  # beside the box there is no more room
        assert question.traps
    else:
        assert not question.traps
        assert 2 <= len(question.options) <= 10
        texts = [option.text for option in question.options]
        assert len(set(texts)) == len(texts)
        assert all(len(option.why) > 10 for option in question.options)
        assert len({option.why for option in question.options}) == len(texts)


@EVERY
def test_every_answer_gets_its_own_words(question: Question) -> None:
    if question.kind == "numeric":
        right = judge(question, f"{question.answer:.10g}")
        assert right.right
        assert question.why in right.words
        for wrong, words in question.traps:
            said = judge(question, f"{wrong:.10g}")
            assert not said.right
            assert said.words == f"Not right. {words}"
    else:
        for i, option in enumerate(question.options):
            assert option.why in judge(question, i).words
        rights = [i for i, option in enumerate(question.options) if option.right]
        assert judge(question, rights).right
        for i in set(range(len(question.options))) - set(rights):
            assert not judge(question, [*rights, i]).right


def test_ids_are_unique_and_begin_with_their_place() -> None:
    ids = Counter(question.id for question in ALL)
    assert [name for name, count in ids.items() if count > 1] == []
    for file in FILES:
        for question in questions(file.stem):
            assert question.id.startswith(f"{file.stem}-")
            assert find(question.id) is question


def test_the_files_hold_no_field_that_is_not_read() -> None:
    for file in FILES:
        assert set(json.loads(file.read_text(encoding="utf-8"))) == {"questions"}


def test_the_final_quiz_covers_every_topic_in_every_kind() -> None:
    asked = questions(FINAL)
    assert len(asked) >= 28
    topics = Counter(question.topic for question in asked)
    assert set(topics) == TOPICS
    assert min(topics.values()) >= 2
    kinds = Counter(question.kind for question in asked)
    assert kinds["multiple"] >= 6
    assert kinds["numeric"] >= 5


def test_the_right_option_of_the_final_quiz_shows_neither_by_its_length_nor_by_its_place() -> None:
    single = [question for question in questions(FINAL) if question.kind == "single"]
    longest = [max(question.options, key=lambda option: len(option.text)).right for question in single]
    assert sum(longest) < len(single) / 2
    places = Counter([option.right for option in question.options].index(True) for question in single)
    assert max(places.values()) < len(single) / 2
    for question in single:
        lengths = [len(option.text) for option in question.options]
        assert max(lengths) < 1.5 * min(lengths), question.id


def test_the_right_option_shows_neither_by_its_place_nor_by_its_length() -> None:
    single = [question for question in ALL if question.kind == "single"]
    for count in (3, 4):
        asked = [question for question in single if len(question.options) == count]
        places = Counter([option.right for option in question.options].index(True) for question in asked)
        assert len(asked) > 30
        assert all(0.65 < places[i] * count / len(asked) < 1.35 for i in range(count)), places
    chance = [1 / len(question.options) for question in single]
    spread = math.sqrt(sum(p * (1 - p) for p in chance))
    for extreme in (max, min):
        found = [extreme(question.options, key=lambda option: len(option.text)).right for question in single]
        assert sum(found) < sum(chance) + 2 * spread, f"{sum(found)} of {len(single)}, by chance {sum(chance):.0f}"


def test_the_order_of_the_options_is_drawn_by_the_id_whatever_the_file_has() -> None:
    for file in FILES:
        for entry in json.loads(file.read_text(encoding="utf-8"))["questions"]:
            if "options" in entry:
                turned = _read({**entry, "options": entry["options"][::-1]})
                assert turned == find(entry["id"])
                other = _read({**entry, "id": f"{entry['id']}-other"})
                assert set(other.options) == set(turned.options)


def test_no_question_is_asked_twice() -> None:
    def words(question: Question) -> set[str]:
        said = [question.ask, *(option.text for option in question.options if option.right), str(question.answer)]
        return set(re.findall(r"[\w.]+", " ".join(said).lower()))

    for one, other in combinations(ALL, 2):
        shared = words(one) & words(other)
        assert len(shared) < 0.5 * len(words(one) | words(other)), (one.id, other.id)


# -- judging ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("typed", ["-0.15", "−0.15", " -0,15 ", "-.15", "-0.150", "-0.15 nats", "≈ -0.146", "-1.5e-1"])
def test_a_number_is_understood_as_people_write_it(typed: str) -> None:
    assert judge(NUMBER, typed).right


@pytest.mark.parametrize("typed", ["12288", "12,288", "12 288", "12_288", "1.2288e4"])
def test_thousands_may_be_set_apart(typed: str) -> None:
    assert judge(Question("x", "replay", "numeric", "?", "", (), 12288, 0.5), typed).right


def test_a_decimal_comma_is_no_mark_of_thousands() -> None:
    three = Question("x", "replay", "numeric", "?", "", (), 1.099, 0.001)
    assert judge(three, "1,099").right
    assert not judge(three, "1099").right


def test_a_wrong_number_is_told_its_trap_or_its_side() -> None:
    assert judge(NUMBER, "0.15") == Judged(False, "Not right. Sign.")
    assert judge(NUMBER, "-30%").words == "Not right: too low. Try again."
    assert judge(NUMBER, "0").words == "Not right: too high. Try again."


@pytest.mark.parametrize("typed", ["", "lots", "nan", "inf", "1/0", None])
def test_what_is_no_number_is_no_answer(typed: str | None) -> None:
    said = judge(NUMBER, typed)
    assert not said.right
    assert not said.given
    assert ("is not a number" if typed else "Type a number first.") in said.words


def test_the_edge_of_the_tolerance_is_inside() -> None:
    edge = Question("x", "replay", "numeric", "?", "", (), 0.15, 0.01)
    assert judge(edge, "0.16").right
    assert judge(edge, "0.14").right
    assert not judge(edge, "0.161").right


def test_options_are_judged_one_by_one_and_together() -> None:
    assert judge(SINGLE, 1) == Judged(True, "Right. Two it is. Because.")
    assert judge(SINGLE, 0) == Judged(False, "Not right. Not one.")
    assert judge(MULTIPLE, [1, 2]) == Judged(True, "Right. Two it is. And 3. Both.")
    assert judge(MULTIPLE, [2]) == Judged(False, "Right so far, but not all of it. And 3.")
    assert judge(MULTIPLE, [0, 1, 2]) == Judged(False, "Not right. Not one. Two it is. And 3.")
    for nothing in (None, []):
        assert judge(MULTIPLE, nothing) == Judged(False, "Choose an answer first.", given=False)


def test_an_unknown_question_or_lesson_is_said_in_words() -> None:
    with pytest.raises(ForgetlabError, match=r"final-bwtt"):
        find("final-bwtt")
    with pytest.raises(ForgetlabError, match="lesson"):
        find("99-nothing")


@pytest.mark.parametrize(
    "entry",
    [
        {"kind": "single", "options": [{"text": "a", "right": False, "why": "b"}]},
        {"kind": "multiple", "options": []},
        {"kind": "numeric"},
        {"kind": "essay", "answer": 1.0},
        {"kind": "numeric", "answer": 1.0, "hint": "an unknown field"},
    ],
)
def test_a_question_without_an_answer_is_refused(
    entry: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "quiz").mkdir()
    whole = {"id": "zz-one", "topic": "replay", "ask": "?", "why": "", **entry}
    (tmp_path / "quiz" / "zz.json").write_text(json.dumps({"questions": [whole]}))
    monkeypatch.setattr("forgetlab.teaching.questions.data_folder", lambda: tmp_path)
    with pytest.raises(ForgetlabError, match="zz-one"):
        questions("zz")


# -- a card, as it is used --------------------------------------------------------------------------


def words(html: str) -> str:
    return re.sub("<[^>]*>", "", html)


def choose(card: Card, answer: object) -> None:
    """What a pointer or the keyboard does to the controls."""
    if card.question.kind == "multiple":
        for i, box in enumerate(card.choices):
            box.value = i in answer  # type: ignore[operator]
    elif card.question.kind == "single":
        card.choices[0].index = answer
    else:
        card.choices[0].value = answer


def right_answer(question: Question) -> object:
    if question.kind == "numeric":
        return f"{question.answer:.10g}"
    rights = [i for i, option in enumerate(question.options) if option.right]
    return rights if question.kind == "multiple" else rights[0]


@pytest.mark.parametrize(
    ("question", "wrong", "words_to_wrong"),
    [(SINGLE, 0, "Not one."), (MULTIPLE, [0, 1], "Not one. Two it is."), (NUMBER, "0.15", "Sign.")],
    ids=["single", "multiple", "numeric"],
)
def test_choose_answer_again(question: Question, wrong: object, words_to_wrong: str) -> None:
    heard: list[bool] = []
    card = Card(question, lambda judged: heard.append(judged.right))
    card.buttons["Answer"].click()
    assert re.search("Choose an answer first|Type a number first", words(card.note.value))
    assert card.judged is None
    assert heard == []

    choose(card, wrong)
    card.buttons["Answer"].click()
    assert words(card.note.value) == f"✗ Not right. {words_to_wrong}"
    assert heard == [False]

    card.buttons["Clear"].click()
    assert words(card.note.value) == ""
    assert all(control.value in ("", False, None) for control in card.choices)

    choose(card, right_answer(question))
    card.buttons["Answer"].click()
    assert words(card.note.value).startswith("✓ Right. ")
    assert heard == [False, True]


def test_ask_shows_the_question_of_that_name() -> None:
    card = ask("final-bwt")
    assert card.question is find("final-bwt")
    choose(card, "-0.1")
    card.buttons["Answer"].click()
    assert "T − 1" in card.note.value


@EVERY
def test_every_question_can_be_answered_on_its_card(question: Question) -> None:
    card = Card(question)
    choose(card, right_answer(question))
    card.buttons["Answer"].click()
    assert card.judged is not None
    assert card.judged.right


# -- the quiz, as it is used ------------------------------------------------------------------------


def test_the_quiz_is_walked_answered_tried_again_and_begun_anew() -> None:
    quiz = Quiz([SINGLE, MULTIPLE, NUMBER])
    back, following, anew = (quiz.buttons[name] for name in ("Back", "Next", "Clear all answers"))
    assert words(quiz.place.value) == "Question 1 of 3: replay"
    back.click()
    assert quiz.at == 0
    assert quiz.scores() == {"replay": (0, 0, 2), "limits": (0, 0, 1)}

    choose(quiz.cards[0], 0)
    quiz.cards[0].buttons["Answer"].click()
    assert quiz.scores()["replay"] == (0, 1, 2)
    following.click()
    quiz.cards[1].buttons["Answer"].click()  # nothing chosen: nothing answered
    assert quiz.scores()["limits"] == (0, 0, 1)
    following.click()
    following.click()
    assert words(quiz.place.value) == "Question 3 of 3: replay"
    assert quiz._page.children == (quiz.cards[2],)
    choose(quiz.cards[2], "-0.15")
    quiz.cards[2].buttons["Answer"].click()
    assert quiz.scores()["replay"] == (1, 2, 2)

    back.click()
    back.click()
    quiz.cards[0].buttons["Clear"].click()
    choose(quiz.cards[0], 1)
    quiz.cards[0].buttons["Answer"].click()
    assert quiz.scores()["replay"] == (2, 2, 2)
    assert "Score: 2 of 3" in quiz.score.value
    assert re.search("replay</th><td[^>]*>2 of 2 right</td><td>0 unanswered", quiz.score.value)
    assert re.search("limits</th><td[^>]*>0 of 1 right</td><td>1 unanswered", quiz.score.value)

    anew.click()
    assert anew.description == "Really clear all?"
    following.click()  # not sure after all
    assert anew.description == "Clear all answers"
    anew.click()
    assert quiz.scores()["replay"] == (2, 2, 2)
    anew.click()
    assert anew.description == "Clear all answers"
    assert quiz.at == 0
    assert quiz.scores() == {"replay": (0, 0, 2), "limits": (0, 0, 1)}
    assert all(control.value in ("", False, None) for card in quiz.cards for control in card.choices)
    assert "Score: 0 of 3" in quiz.score.value


def test_the_final_quiz_can_be_passed() -> None:
    quiz = final_quiz()
    for card in quiz.cards:
        choose(card, right_answer(card.question))
        card.buttons["Answer"].click()
        quiz.buttons["Next"].click()
    assert all(right == answered == count for right, answered, count in quiz.scores().values())
    assert f"Score: {len(quiz.cards)} of {len(quiz.cards)}" in quiz.score.value


# -- without a kernel -------------------------------------------------------------------------------


class Text(HTMLParser):
    """The words of some HTML: those folded away, and the others."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.deep, self.open, self.folded = 0, "", ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.deep += tag == "details"

    def handle_endtag(self, tag: str) -> None:
        self.deep -= tag == "details"

    def handle_data(self, data: str) -> None:
        if self.deep:
            self.folded += data
        else:
            self.open += data


@EVERY
def test_the_still_has_the_question_and_hides_the_answer(question: Question) -> None:
    plain, html = as_text(question), Text(as_html(question))
    for shown in (plain, html.open):
        assert question.ask in shown
        assert all(option.text in shown for option in question.options)
        assert question.why not in shown
        assert all(option.why not in shown for option in question.options)
    assert question.why in html.folded
    if question.kind == "numeric":
        assert f"{question.answer:.10g}" in html.folded
    for option in question.options:
        assert (option.why in html.folded) == option.right


def test_the_quiz_without_a_kernel_lists_all_its_questions() -> None:
    bundle = Quiz([SINGLE, MULTIPLE, NUMBER])._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", WIDGET}
    assert bundle["text/plain"].startswith(
        "1. Which is < 3?\n  a) one & <all>\n  b) two\n\n2. Which ones? (Several may"
    )
    assert Text(bundle["text/html"]).open.startswith("Which is < 3?one & <all>two")
    assert "Because." not in bundle["text/plain"]


def test_the_kept_html_is_escaped() -> None:
    assert "one &amp; &lt;all&gt;" in as_html(SINGLE)
    assert "<all>" not in as_html(SINGLE)


COMMON = (widgets.HTML, widgets.Button, widgets.Box, widgets.VBox, widgets.RadioButtons, widgets.Checkbox, widgets.Text)


def test_only_widgets_that_both_generations_have() -> None:
    quiz = final_quiz()
    seen: list[widgets.Widget] = [quiz, *quiz.cards]
    for widget in seen:
        seen.extend(getattr(widget, "children", ()))
    assert {type(widget) for widget in seen} - {Quiz, Card} <= set(COMMON)
    assert not [widget for widget in seen if isinstance(widget, widgets.Output)]
