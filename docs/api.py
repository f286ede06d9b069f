"""The book's page of all public names, from their docstrings: `python docs/api.py > api.md`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from textwrap import fill
from typing import Any

from forgetlab.remedies import METHODS
from forgetlab.training import Method

ROOMS = (
    "forgetlab",
    "forgetlab.models",
    "forgetlab.tasks",
    "forgetlab.training",
    "forgetlab.training.huggingface",
    "forgetlab.remedies",
    "forgetlab.importance",
    "forgetlab.interference",
    "forgetlab.metrics",
    "forgetlab.sources",
    "forgetlab.sources.world",
    "forgetlab.diff",
    "forgetlab.experiments",
    "forgetlab.plots",
    "forgetlab.simulators",
    "forgetlab.labs",
    "forgetlab.teaching",
)


def page() -> str:
    """The page as Markdown: a section a room, and in it a name with its signature, its text and its example."""
    return "# Every public name\n\n" + "\n".join(part for room in ROOMS for part in _of_room(room))


def _of_room(room: str) -> Iterator[str]:
    module = import_module(room)
    yield f"## {room}\n\n{_text(inspect.getdoc(module) or '')}"
    things = {name: getattr(module, name) for name in module.__all__}
    if room == "forgetlab.remedies":  # one that its list does not name is found by the command and the labs too
        things |= {remedy.__name__: remedy for remedy in METHODS.values() if remedy is not Method}
    for name, thing in things.items():
        if inspect.isclass(thing) or inspect.isroutine(thing):
            yield f"### {name}\n\n```python\n{name}{_signature(thing)}\n```\n\n{_text(inspect.getdoc(thing) or '')}"


def _signature(thing: Any) -> str:
    try:
        said = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(thing)))
        said = re.sub(r"<class '([^']*)'>", r"\1", said)
        return fill(said, 68, subsequent_indent="    ", break_long_words=False)
    except ValueError:  # of a builtin
        return ""


def _text(doc: str) -> str:
    """A docstring as Markdown: words as they stand, examples as code."""
    words, prompt, example = doc.partition(">>> ")
    code = f"```pycon\n{prompt}{example}\n```\n" if prompt else ""
    parts = re.sub(r"\n(?=(?:Raises|Returns|Source)\b)", "\n\n", words).split("`")
    parts[::2] = [re.sub(r"([\\*_|<>$\[\]{}#~^])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts) + "\n" + code


if __name__ == "__main__":
    print(page())
