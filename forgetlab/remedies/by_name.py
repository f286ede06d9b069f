"""Remedies by name, with their settings as text: "l2sp:lam=0.1,beta=0.01+replay:ratio=0.3"."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pkgutil import walk_packages
from typing import Any, get_args

from forgetlab import sources
from forgetlab.errors import ForgetlabError, number, one_of, unknown
from forgetlab.tasks import MaskedLM, Task
from forgetlab.training.method import Family, Method


def found() -> dict[str, type[Method]]:
    """{name: remedy} of the modules in this folder: each subclass of Method with a `name` of its own, by family."""
    remedies: list[type[Method]] = [Method]
    for _, module, _ in walk_packages(import_module("forgetlab.remedies").__path__, "forgetlab.remedies."):
        classes = [c for c in vars(import_module(module)).values() if isinstance(c, type) and c.__module__ == module]
        remedies += [c for c in classes if issubclass(c, Method) and "name" in vars(c)]
    return {c.name: c for c in sorted(remedies, key=lambda c: get_args(Family).index(c.family))}


METHODS = found()
FROM_OLD_TASKS = ("old", "fisher", "importance")  # a first argument of this name takes the watched tasks
_ANY_TEXT = sources.Examples(kind="text", texts=("a",))
_STAND_IN = MaskedLM("stand-in", _ANY_TEXT, _ANY_TEXT)  # for checking the settings before any task is there


def make_methods(spec: str, old: Sequence[Task] | None) -> list[Method]:
    """Methods from their text: "l2sp:lam=0.1,beta=0.01+replay:ratio=0.3".

    old: the tasks that a remedy may remember or measure; None only checks the names and values.

    >>> [method.name for method in make_methods("l2sp:lam=0.1+replay:ratio=0.3", [old])]
    ['l2sp', 'replay']
    """
    made = []
    for part in re.split(r"\+(?=\s*[A-Za-z])", spec):  # not at the plus of 1e+03
        name, _, given = part.strip().partition(":")
        one_of("method", name, METHODS)
        takes = settings(name)
        options = dict(_setting(name, text, takes) for text in given.split(",") if text)
        for key in _parameters(METHODS[name]):
            if key in FROM_OLD_TASKS:
                options[key] = [_STAND_IN] if old is None else old
        made.append(METHODS[name](**options))
    return made


def settings(method: str) -> dict[str, Any]:
    """What can be set of a method in its text form: {name: default}."""
    hidden = (*FROM_OLD_TASKS, "anchor")
    return {key: p.default for key, p in _parameters(METHODS[method]).items() if key not in hidden}


def _parameters(remedy: type[Method]) -> dict[str, inspect.Parameter]:
    """What a remedy's constructor takes; its `**more` is what the one above it takes."""
    own = dict(inspect.signature(remedy).parameters)
    if own.pop("more", None):
        return {**own, **_parameters(remedy.__bases__[0]), **own}
    return own


def with_strength(remedy: str, strength: float) -> str:
    """A remedy's text form: `strength` times the usual value of its main setting, within what that may be.

    One without such a setting stays as it is. Raises ForgetlabError for an unknown name and a strength below 0.

    >>> with_strength("replay", 2), with_strength("ewc", 3), with_strength("frozen", 2)
    ('replay:ratio=0.5', 'ewc:strength=3', 'frozen')
    """
    one_of("remedy", remedy, METHODS)
    number("strength", strength)
    if (main := METHODS[remedy].main) is None:
        return remedy
    usual = settings(remedy)[main.name]
    if usual is None:  # as it suits the model
        if strength == 1:
            return remedy
        usual = main.usual
    value = min(main.high, max(main.low, strength * usual))
    text = str(round(value)) if isinstance(usual, int) else f"{value:.3g}".replace("e+", "e")  # + parts methods
    return f"{remedy}:{main.name}={text}"


def family(methods: str) -> Family:
    """The family of a recipe's methods; the first one decides.

    >>> family("replay:ratio=0.25+ewc"), family("cosine")
    ('replay', 'rates and stopping')
    """
    first = methods.partition("+")[0].partition(":")[0].strip()
    return METHODS[first].family if first in METHODS else "rates and stopping"


def _setting(method: str, text: str, takes: Mapping[str, Any]) -> tuple[str, Any]:
    """NAME=VALUE as a name and a number, or a word where the setting's default is one."""
    key, equals, value = (part.strip() for part in text.partition("="))
    if equals and key not in takes:
        raise unknown(f"setting of {method}", key, takes)
    try:
        found = float(value)
    except ValueError:
        found = None
    if equals and value and (isinstance(takes[key], str) or (takes[key] is None and found is None)):
        return key, value
    if found is None:
        raise ForgetlabError(f"{method}: expected NAME=NUMBER, got {text!r}")
    return key, int(found) if found.is_integer() and "." not in value and "e" not in value.lower() else found
