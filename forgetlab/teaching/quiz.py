"""Questions on the page: choose or type, press Answer, read why; the final quiz with a score per topic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import ipywidgets as widgets

from forgetlab.teaching import compat, page
from forgetlab.teaching.notebook import Living
from forgetlab.teaching.questions import FINAL, Judged, Question, find, judge, questions

CLEAR_ALL = "Clear all answers"


class Card(Living):
    """One question as a widget. `judged` is the last verdict, None before; on_answer is called with each."""

    def __init__(self, question: Question, on_answer: Callable[[Judged], None] | None = None) -> None:
        self.question = question
        self.judged: Judged | None = None
        self._on_answer = on_answer
        self.choices = _choices(question)
        self.note = compat.note()
        self.buttons = {
            "Answer": compat.button("Answer", self.answer, primary=True),
            "Clear": compat.button("Clear", self.clear),
        }
        for control in self.choices:  # a new choice is not what the words beside it judge
            control.observe(lambda _: self._hush(), "value")
        super().__init__([widgets.HTML(_asked(question)), *self.choices, compat.row(*self.buttons.values()), self.note])

    def answer(self) -> None:
        """Judge what is chosen or typed now."""
        verdict = judge(self.question, self._given())
        self.note.value = compat.said(verdict.words, verdict.kind)
        if not verdict.given:
            return
        self.judged = verdict
        if self._on_answer:
            self._on_answer(verdict)

    def clear(self) -> None:
        """Forget what is chosen or typed."""
        for control in self.choices:
            if isinstance(control, widgets.RadioButtons):
                control.index = None
            else:
                control.value = "" if isinstance(control, widgets.Text) else False
        self._hush()

    def _hush(self) -> None:
        self.note.value = compat.said("")

    def still(self) -> dict[str, str]:
        return {"text/plain": as_text(self.question), "text/html": as_html(self.question)}

    def _given(self) -> int | list[int] | str | None:
        if self.question.kind == "multiple":
            return [i for i, box in enumerate(self.choices) if box.value]
        (control,) = self.choices
        return control.index if self.question.kind == "single" else str(control.value)


def _choices(question: Question) -> list[widgets.Widget]:
    wide = widgets.Layout(width="auto", max_width="640px")
    if question.kind == "numeric":
        return [compat.text(question.unit or "number")]
    texts = [option.text for option in question.options]
    if question.kind == "multiple":
        made = [widgets.Checkbox(value=False, description=text, indent=False, layout=wide) for text in texts]
    else:
        made = [widgets.RadioButtons(options=texts, value=None, description="", layout=wide)]
    for control in made:
        control.add_class(page.CHOICES)
    return made


def ask(name: str) -> Card:
    """The question with this id as a widget; without a kernel it reads as text, its answer folded."""
    return Card(find(name))


class Quiz(Living):
    """The questions one at a time, by topic, with the score of each topic; an answer can be tried again.

    A question counts as right when its latest answer is; `scores()` → {topic: (right, answered, questions)}.
    """

    def __init__(self, asked: Sequence[Question]) -> None:
        self.cards = [Card(question, lambda _: self._show()) for question in asked]
        self.at = 0
        self.place, self.score = compat.note(), widgets.HTML()
        self.buttons = {
            "Back": compat.button("Back", lambda: self.go(self.at - 1)),
            "Next": compat.button("Next", lambda: self.go(self.at + 1)),
            CLEAR_ALL: compat.button(CLEAR_ALL, self.reset),
        }
        self._page = compat.column()
        super().__init__([self.place, self._page, compat.row(*self.buttons.values()), self.score])
        self._show()

    def go(self, to: int) -> None:
        """Turn to a question, counted from 0; at the ends it stays."""
        self.buttons[CLEAR_ALL].description = CLEAR_ALL
        self.at = min(max(to, 0), len(self.cards) - 1)
        self._show()

    def reset(self) -> None:
        """Forget all answers; asks back first, and is sure at the second call in a row."""
        button = self.buttons[CLEAR_ALL]
        if button.description == CLEAR_ALL:
            button.description = "Really clear all?"
            return
        for card in self.cards:
            card.clear()
            card.judged = None
        self.go(0)

    def scores(self) -> dict[str, tuple[int, int, int]]:
        found: dict[str, tuple[int, int, int]] = {}
        for card in self.cards:
            right, answered, count = found.get(card.question.topic, (0, 0, 0))
            judged = card.judged
            found[card.question.topic] = (
                right + bool(judged and judged.right),
                answered + (judged is not None),
                count + 1,
            )
        return found

    def still(self) -> dict[str, str]:
        asked = [card.question for card in self.cards]
        numbered = [f"{i}. {as_text(question)}" for i, question in enumerate(asked, 1)]
        return {
            "text/plain": "\n\n".join(numbered),
            "text/html": "<ol>" + "".join(f"<li>{as_html(question)}</li>" for question in asked) + "</ol>",
        }

    def _show(self) -> None:
        card = self.cards[self.at]
        self._page.children = (card,)
        self.place.value = compat.said(f"Question {self.at + 1} of {len(self.cards)}: {card.question.topic}")
        rows = "".join(
            f"<tr><th scope='row' style='text-align:left;white-space:normal'>{escape(topic)}</th>"
            f"<td style='padding:0 8px'>{right} of {count} right</td><td>{count - answered} unanswered</td></tr>"
            for topic, (right, answered, count) in self.scores().items()
        )
        total = sum(right for right, _, _ in self.scores().values())
        head = f"Score: {total} of {len(self.cards)}"
        self.score.value = (
            f"<table style='white-space:nowrap'><caption style='text-align:left'>{head}</caption>{rows}</table>"
        )


def final_quiz() -> Quiz:
    """The quiz over the whole handbook."""
    return Quiz(questions(FINAL))


# -- without a kernel -------------------------------------------------------------------------------


def as_text(question: Question) -> str:
    """The question and its options as plain lines, without the answer."""
    lines = [question.ask, *(f"  {_letter(i)}) {option.text}" for i, option in enumerate(question.options))]
    if question.kind == "multiple":
        lines[0] += " (Several may be right.)"
    return "\n".join(lines)


def as_html(question: Question) -> str:
    """The question, its options, and the answer with its reasons folded away."""
    options = "".join(f"<li>{escape(option.text)}</li>" for option in question.options)
    if question.options:
        answer = "; ".join(f"{_letter(i)}) {option.text}" for i, option in enumerate(question.options) if option.right)
        reasons = " ".join(option.why for option in question.options if option.right)
    else:
        answer, reasons = f"{question.answer:.10g} {question.unit}".strip(), ""
    said = " ".join(part for part in (answer.rstrip(".") + ".", reasons, question.why) if part)
    folded = f"<details><summary>Answer</summary>{escape(said)}</details>"
    listed = f"<ol type='a'>{options}</ol>" if options else ""
    return f"<div>{_asked(question)}{listed}{folded}</div>"


def _asked(question: Question) -> str:
    several = " <em>(Several may be right.)</em>" if question.kind == "multiple" else ""
    return f"<p class='{page.ASKED}' style='line-height:1.4;max-width:640px'>{escape(question.ask)}{several}</p>"


def _letter(i: int) -> str:
    return "abcdefghij"[i]
