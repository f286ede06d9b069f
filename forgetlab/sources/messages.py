"""A conversation as turns, from OpenAI's messages (role, content) or ShareGPT's (from, value)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

ROLES = {
    "system": ("system", "developer"),
    "user": ("user", "human", "prompter"),
    "assistant": ("assistant", "gpt", "model", "bot", "chatgpt"),
    "tool": ("tool", "function", "function_call", "observation", "ipython", "tool_call", "tool_response"),
}
_ROLE = {name: role for role, names in ROLES.items() for name in names}
_CALLS = ("tool_calls", "function_call")
_READ = {"role", "from", "content", "value", "weight", *_CALLS}
TOOLS = "calls of tools, which are not read"


class Turn(NamedTuple):
    """Who speaks ("system", "user" or "assistant"), what, and whether it is to be learned and scored."""

    role: str
    text: str
    scored: bool = False


class LeftOut(Exception):
    """Why a row is not read, in a few words that are the same for all such rows."""


def is_messages(value: Any) -> bool:
    """Whether a value begins like a list of messages."""
    if not isinstance(value, list | tuple) or not value or not isinstance(value[0], Mapping):
        return False
    return {"role", "content"} <= {*value[0]} or {"from", "value"} <= {*value[0]}


def role_of(message: Mapping[str, Any]) -> str | None:
    """Who speaks: "system", "user", "assistant" or "tool"; None for another."""
    return _ROLE.get(str(message.get("role", message.get("from"))).strip().lower())


def turns_of(messages: Any, scored: bool = True, unread: set[str] | None = None) -> tuple[Turn, ...]:
    """The turns of a list of messages; an empty system message is none.

    scored: whether the assistant's turns are learned; one with "weight": 0 (OpenAI) never is. unread: gets the names of
    fields that are not read. Raises LeftOut for calls of tools, roles that are not known and messages without text.
    """
    turns = []
    for message in messages if isinstance(messages, list | tuple) else [messages]:
        if not is_messages([message]):
            raise LeftOut("a message without role and content")
        if (role := role_of(message)) is None:
            raise LeftOut(f"the unknown role {str(message.get('role', message.get('from')))[:30]!r}")
        if role == "tool" or any(message.get(name) for name in _CALLS):
            raise LeftOut(TOOLS)
        text = text_of(message.get("content", message.get("value")))
        if unread is not None:
            unread.update(name for name in message if name not in _READ and message[name])
        if text.strip():
            turns.append(Turn(role, text, scored and role == "assistant" and message.get("weight") != 0))
        elif role != "system":
            raise LeftOut(f"an empty message of the {role}")
    return tuple(turns)


def text_of(content: Any) -> str:
    """The text of a message: a string, a number, or a list of parts that are all text. Raises LeftOut for others."""
    if content is None:
        return ""
    if isinstance(content, str):
        return whole_text(content)
    if isinstance(content, int | float) and not isinstance(content, bool):
        return str(content)
    if not isinstance(content, list | tuple):
        raise LeftOut(f"a {type(content).__name__} where a text is expected")
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if kind != "text" or not isinstance(part.get("text"), str):
            raise LeftOut(f"a content with parts other than text ({kind})")
    return whole_text("".join(part["text"] for part in content))


def plain_layout(turns: Sequence[Turn]) -> tuple[str, list[tuple[int, int]]]:
    """Turns as one text, "User: …", "Assistant: …" with a blank line between them, and where the scored texts stand.

    >>> plain_layout([Turn("user", "two and two?"), Turn("assistant", "four", True)])
    ('User: two and two?\\n\\nAssistant: four', [(31, 35)])
    """
    text, spans = "", []
    for turn in turns:
        text += ("\n\n" if text else "") + f"{turn.role.capitalize()}: "
        if turn.scored:
            spans.append((len(text), len(text) + len(turn.text)))
        text += turn.text
    return text, spans


def whole_text(text: str) -> str:
    """The text without half surrogate pairs, which JSON allows and no encoding of text does."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)
