"""How a learner's function is judged: on several inputs, against the right one, then against the usual mistakes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from forgetlab.teaching.page import judged

TOLERANCE = 1e-4  # relative, to the largest number of the answer
NOTHING = "It returns nothing yet: put your own line in the place of the dots, and return its value."
NO_RETURN = "returns nothing, though it does on another input: every way through the function must end in a `return`."


@dataclass(frozen=True)
class Verdict:
    """Whether an exercise is solved, and why or why not in words; a cell shows the words."""

    passed: bool
    words: str

    def __repr__(self) -> str:
        return ("Solved. " if self.passed else "Not yet. ") + self.words

    def _repr_html_(self) -> str:
        return judged("right" if self.passed else "not yet", repr(self))

    def __bool__(self) -> bool:
        return self.passed


def diagnose(
    function: Callable[..., Any],
    cases: Sequence[tuple[Any, ...]],
    right: Callable[..., Any],
    mistakes: Mapping[str, Callable[..., Any]],
    praise: str,
) -> Verdict:
    """Call a learner's function on every case and compare with `right`; name the mistake that gives the same answers.

    cases: tuples of arguments; the function gets copies. right: the answer, by an independent way. mistakes:
    {words: a function with that mistake}; the first whose answers are the learner's is named, where it differs from
    the right one. Answers may be numbers, arrays, tensors, booleans, strings, or lists and dicts of them.
    """
    if not callable(function):
        return Verdict(False, f"Expected a function, got {type(function).__name__}: give its name without brackets.")
    answers = []
    for case in cases:
        try:
            answers.append(function(*copy.deepcopy(case)))
        except Exception as error:  # whatever a learner's code does
            return Verdict(False, f"{_shown(case) if case else 'It'} raised {type(error).__name__}: {error}")
    empty = [answer is None or answer is Ellipsis for answer in answers]
    if any(empty):
        return Verdict(False, NOTHING if all(empty) else f"{_shown(cases[empty.index(True)])} {NO_RETURN}")
    wanted = [right(*copy.deepcopy(case)) for case in cases]
    if all(map(same, answers, wanted)):
        return Verdict(True, praise)
    for words, wrong in mistakes.items():
        found = [wrong(*copy.deepcopy(case)) for case in cases]
        if all(map(same, answers, found)) and not all(map(same, found, wanted)):
            return Verdict(False, words)
    i = next(i for i, pair in enumerate(zip(answers, wanted, strict=True)) if not same(*pair))
    if isinstance(answers[i], str) and not isinstance(wanted[i], str):
        return Verdict(False, f"{_shown(cases[i])} gives a text, {_short(answers[i])!r}; expected {_short(wanted[i])}.")
    if shapes := _other_shape(answers[i], wanted[i]):
        return Verdict(False, f"The numbers are right, the shape is not: it is {shapes[0]}, expected is {shapes[1]}.")
    return Verdict(False, f"{_shown(cases[i])} gives {_short(answers[i])}; expected {_short(wanted[i])}.")


def same(a: Any, b: Any) -> bool:
    """Whether two answers agree within TOLERANCE; shapes and keys must be equal."""
    if isinstance(b, Mapping):
        return isinstance(a, Mapping) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in b)
    if isinstance(b, str | bool):
        return isinstance(a, str | bool | np.bool_) and a == b
    if isinstance(b, list | tuple) and any(isinstance(x, torch.Tensor | str | Mapping | list | tuple) for x in b):
        return isinstance(a, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    try:
        x, y = _array(a), _array(b)
    except (TypeError, ValueError, RuntimeError):
        return False
    if x.shape != y.shape:
        return False
    scale = float(np.abs(y[np.isfinite(y)]).max(initial=0.0))
    return bool(np.allclose(x, y, rtol=0, atol=TOLERANCE * max(scale, 1e-12), equal_nan=True))


def _array(value: Any) -> np.ndarray:
    if isinstance(value, str):  # numpy would read "0.5" as a number
        raise TypeError("a text is no number")
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    return np.asarray(value, dtype=float)


def _other_shape(a: Any, b: Any) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The two shapes, where the numbers agree and the shapes do not."""
    try:
        x, y = _array(a), _array(b)
    except (TypeError, ValueError, RuntimeError):
        return None
    alike = x.size == y.size > 0 and x.shape != y.shape and same(x.reshape(-1), y.reshape(-1))
    return (x.shape, y.shape) if alike else None


def _shown(case: tuple[Any, ...]) -> str:
    for told in (_short, _shape):
        shown = ", ".join(map(told, case))
        if len(shown) < 120:
            return f"Called with ({shown}), it"
    return "On one of the inputs it"


def _shape(value: Any) -> str:
    return f"a {tuple(value.shape)} array" if isinstance(value, torch.Tensor | np.ndarray) else _short(value)


def _short(value: Any) -> str:
    if isinstance(value, torch.Tensor | np.ndarray):
        array = _array(value)
        value = round(float(array), 5) if array.ndim == 0 else np.round(array, 4).tolist()
    elif isinstance(value, float):
        value = round(value, 5)
    text = str(value)
    return text if len(text) < 80 else f"{text[:77]}…"
