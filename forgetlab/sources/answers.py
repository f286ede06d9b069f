"""What one row asks and answers, in each usual form: as turns, or as two strings that are joined as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from forgetlab.sources.examples import Kind
from forgetlab.sources.messages import TOOLS, LeftOut, Turn, is_messages, role_of, text_of, turns_of

PROMPT, COMPLETION = "prompt", "completion"  # the roles of two strings that are joined as they are
Sides = tuple[tuple[Turn, ...], ...]  # one, or the chosen and the rejected one
Cells = Mapping[str, Any]  # what a row has, by what it means: "messages", "prompt", "system", …


def of_messages(cells: Cells, kind: Kind | None, unread: set[str]) -> Sides:
    """A whole conversation: every answer is learned."""
    if cells.get("tools") or cells.get("functions"):
        raise LeftOut(TOOLS)
    return (with_answer((*system(cells), *turns_of(cells["messages"], unread=unread))),)


def of_completion(cells: Cells, kind: Kind | None, unread: set[str]) -> Sides:
    """A prompt with its completion, strings or messages; of those with a label (KTO) the good ones."""
    if cells.get("label") is False:
        raise LeftOut("an answer whose label is false")
    return (answered(cells, cells["prompt"], cells["completion"], kind, unread),)


def of_instruction(cells: Cells, kind: Kind | None, unread: set[str]) -> Sides:
    """Alpaca's instruction, with its input below it."""
    asked = [text_of(cells.get(name)) for name in ("instruction", "input")]
    return (
        answered(cells, "\n".join(part for part in asked if part.strip()), cells["output"], kind or "chat", unread),
    )


def of_preference(cells: Cells, kind: Kind | None, unread: set[str]) -> Sides:
    """The two sides, each after the prompt; without one it is what both begin with."""
    prompt, chosen, rejected = cells.get("prompt"), cells["chosen"], cells["rejected"]
    lists = is_messages(chosen) and is_messages(rejected)
    whole = lists and not is_messages(prompt) and role_of(chosen[0]) != "assistant"
    if prompt is None or whole:  # in UltraFeedback it is a string, and in both lists too
        if not lists and not (isinstance(chosen, str) and isinstance(rejected, str)):
            raise LeftOut("sides that are neither two texts nor two lists of messages")
        same = _same(chosen, rejected)
        prompt, chosen, rejected = chosen[:same], chosen[same:], rejected[same:]
    if chosen == rejected or not chosen or not rejected:
        raise LeftOut("a chosen and a rejected side of which one is the other, or its beginning")
    return tuple(answered(cells, prompt, side, kind, unread) for side in (chosen, rejected))


Reader = Callable[[Cells, Kind | None, set[str]], Sides]


def answered(cells: Cells, prompt: Any, answer: Any, kind: Kind | None, unread: set[str]) -> tuple[Turn, ...]:
    """A prompt and its answer: of strings these two as they are, unless turns are asked for; else turns."""
    turns = kind == "chat" or any(isinstance(part, list | tuple) for part in (prompt, answer)) or system(cells)
    if not turns:
        return with_answer((Turn(PROMPT, text_of(prompt)), Turn(COMPLETION, text_of(answer), True)))
    asked = turns_of(prompt, False, unread) if is_messages(prompt) else said("user", prompt)
    told = turns_of(answer, True, unread) if is_messages(answer) else said("assistant", answer)
    return with_answer((*system(cells), *asked, *told))


def system(cells: Cells) -> tuple[Turn, ...]:
    """The system prompt in a column of its own."""
    return said("system", cells.get("system"))


def said(role: str, text: Any) -> tuple[Turn, ...]:
    """One turn, or none where there is no text."""
    found = text_of(text)
    return (Turn(role, found, role == "assistant"),) if found.strip() else ()


def with_answer(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The turns; raises LeftOut where none is to be learned."""
    if not any(turn.scored and turn.text.strip() for turn in turns):
        raise LeftOut("no answer to learn")
    return turns


def _same(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many messages two lists begin with; of two strings how many letters, to a word's end."""
    pairs = enumerate(zip(one, other, strict=False))
    same = next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
    if isinstance(one, str):
        same = max(0, one.rfind(" ", 0, same), one.rfind("\n", 0, same))
    return same
