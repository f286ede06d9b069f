"""Questions and how an answer is judged; `data/quiz/*.json` holds them, `quiz` shows them.

The options of a question stand in an order drawn by its id: the same for everybody, however they were written down.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from typing import Any, Literal

from forgetlab.errors import ForgetlabError, unknown
from forgetlab.sources.shipped import data_folder

Kind = Literal["single", "multiple", "numeric"]
FINAL = "final"
DRAW = 123  # of the draws of the options' order one that spreads the right answers evenly; the tests count


@dataclass(frozen=True)
class Option:
    """One answer to choose: its text, whether it is right, and what to say to who chose it."""

    text: str
    right: bool
    why: str


@dataclass(frozen=True)
class Question:
    """One question of a lesson or of the final quiz.

    id: unique; a lesson's begin with its number. kind: one option, several, or a number. why: said with the right
    answer. numeric: right within `tolerance` (absolute) of `answer`, in `unit`; `traps`: usual wrong numbers, and
    what each shows.
    """

    id: str
    topic: str
    kind: Kind
    ask: str
    why: str
    options: tuple[Option, ...] = ()
    answer: float = math.nan
    tolerance: float = 0.0
    unit: str = ""
    traps: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Judged:
    """Whether an answer is right, and the feedback to it in words.

    given: False if there was nothing to judge. partly: not all of the right options were chosen, and no wrong one.
    """

    right: bool
    words: str
    given: bool = True
    partly: bool = field(default=False, compare=False)

    @property
    def kind(self) -> str:
        """ "right", "not yet" or "wrong"; "" if there was nothing to judge."""
        return "" if not self.given else "right" if self.right else "not yet" if self.partly else "wrong"


def judge(question: Question, answer: int | Sequence[int] | str | None) -> Judged:
    """Judge the index of an option, the indices of several, or a number as it was typed."""
    if question.kind == "numeric":
        return _judge_number(question, str(answer or ""))
    chosen = {answer} if isinstance(answer, int) else {int(i) for i in answer or ()}
    if not chosen:
        return Judged(False, "Choose an answer first.", given=False)
    wanted = {i for i, option in enumerate(question.options) if option.right}
    right = chosen == wanted
    said = [question.options[i].why for i in sorted(chosen)]
    opening = "Right." if right else "Right so far, but not all of it." if chosen < wanted else "Not right."
    return Judged(right, _joined([opening, *said, *([question.why] if right else [])]), partly=chosen < wanted)


def _judge_number(question: Question, typed: str) -> Judged:
    values = _read_number(typed, question.unit)
    if not typed.strip():
        return Judged(False, "Type a number first.", given=False)
    if not values:
        return Judged(False, f"“{typed[:40]}” is not a number; write one such as 0.25 or -3.", given=False)
    if any(_near(value, question.answer, question.tolerance) for value in values):
        return Judged(True, _joined(["Right.", question.why]))
    for wrong, words in question.traps:
        if any(_near(value, wrong, question.tolerance) for value in values):
            return Judged(False, _joined(["Not right.", words]))
    return Judged(False, f"Not right: {'too high' if values[0] > question.answer else 'too low'}. Try again.")


def _read_number(typed: str, unit: str) -> list[float]:
    """The numbers that may be meant: in “12,288” the comma may mark thousands, or be the decimal one."""
    bare = re.sub(r"[\s_]", "", typed).replace("−", "-").lstrip("×=≈")
    bare = bare.removesuffix(re.sub(r"\s", "", unit)).rstrip("%")
    readings = [bare.replace(",", ".")]
    if re.fullmatch(r"-?[1-9]\d{0,2}(,\d{3})+(\.\d+)?", bare):
        readings.append(bare.replace(",", ""))
    found = []
    for reading in readings:
        with suppress(ValueError):
            found.append(float(reading))
    return [value for value in found if math.isfinite(value)]


def _near(value: float, target: float, tolerance: float) -> bool:
    return abs(value - target) <= tolerance + 1e-12  # 0.16 is within 0.01 of 0.15, in floats too


def _joined(parts: Sequence[str]) -> str:
    return " ".join(part for part in parts if part)


@cache
def questions(where: str) -> tuple[Question, ...]:
    """All questions of a lesson ("00" to "13"), or of the final quiz (FINAL), in their order."""
    folder = data_folder() / "quiz"
    file = folder / f"{where}.json"
    if not file.is_file():
        raise unknown("lesson", where, sorted(path.stem for path in folder.glob("*.json")))
    return tuple(_read(entry) for entry in json.loads(file.read_text(encoding="utf-8"))["questions"])


def find(name: str) -> Question:
    """The question with this id."""
    found = {question.id: question for question in questions(name.partition("-")[0])}
    if name not in found:
        raise unknown("question", name, list(found))
    return found[name]


def _shuffled(name: str, options: list[Option]) -> tuple[Option, ...]:
    """By a hash of the question's id and the option's own words, so that the order in the file does not count."""
    return tuple(sorted(options, key=lambda option: sha256(f"{DRAW} {name} {option.text}".encode()).digest()))


def _read(entry: dict[str, Any]) -> Question:
    try:
        made = Question(
            **{
                **entry,
                "options": _shuffled(str(entry.get("id")), [Option(**option) for option in entry.get("options", ())]),
                "traps": tuple((float(value), words) for value, words in entry.get("traps", ())),
            }
        )
    except TypeError as error:
        raise ForgetlabError(f"the question {entry.get('id')!r} is not written as expected: {error}") from None
    rights = sum(option.right for option in made.options)
    fits = {"single": rights == 1, "multiple": rights >= 1, "numeric": math.isfinite(made.answer)}
    if not fits.get(made.kind, False):
        raise ForgetlabError(f"the question {made.id!r} of kind {made.kind!r} has no answer that fits")
    return made
