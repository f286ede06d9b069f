"""What a user writes for remedies: told right from wrong by the text and the remedies' files alone, without torch.

A constructor says in its first lines what a setting may be: `self.share = number("share", share, 0, 1)`. Those
lines are read from its file and run here, so that a slip is told at once; the rest is told once torch is loaded.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from forgetlab.errors import ForgetlabError, flag, number, one_of, unknown, whole

FROM_OLD_TASKS = ("old", "fisher", "importance")  # a first argument of this name takes the watched tasks
HIDDEN = ("self", *FROM_OLD_TASKS, "anchor")
CHECKS: dict[str, Callable[..., object]] = {"number": number, "whole": whole, "flag": flag}
PACKAGE = Path(__file__).resolve().parents[1]


def parts(methods: str) -> list[str]:
    """The methods of a recipe, each with its settings: not parted at the plus of 1e+03.

    >>> parts("replay:ratio=0.3+l2sp:lam=1e+03")
    ['replay:ratio=0.3', 'l2sp:lam=1e+03']
    """
    return re.split(r"\+(?=\s*[A-Za-z])", methods)


def setting(method: str, text: str, takes: Mapping[str, Any]) -> tuple[str, Any]:
    """NAME=VALUE as a name and a number, or a word where the setting's default is one. takes: {name: default}.

    >>> setting("replay", "memory=10", {"ratio": 0.25, "memory": 2000})
    ('memory', 10)
    """
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


def method_names() -> list[str]:
    """The names that remedies have."""
    return ["none", *_remedies()]


def check_methods(methods: str) -> None:
    """Raise ForgetlabError for names, settings and values that no remedy takes.

    >>> check_methods("ewc:lam=-1")
    Traceback (most recent call last):
    forgetlab.errors.ForgetlabError: lam must be a number of 0 or more, got -1
    """
    for part in parts(methods):
        name, _, given = part.strip().partition(":")
        one_of("method", name, method_names())
        remedy = _remedies().get(name)
        takes = {key: value for key, value in _takes(remedy).items() if key not in HIDDEN}
        values = dict(setting(name, text, takes) for text in given.split(",") if text)
        for check, what, ends, more in _checks(remedy):
            if what in values:
                CHECKS[check](what, values[what], *ends, **more)


def _classes_in(files: Iterable[Path]) -> list[ast.ClassDef]:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
    return [one for tree in trees for one in tree.body if isinstance(one, ast.ClassDef)]


@cache
def _classes() -> dict[str, ast.ClassDef]:
    """The classes of remedies and of what they build on, by their names."""
    return {one.name: one for one in _classes_in([PACKAGE / "interference.py", *(PACKAGE / "remedies").rglob("*.py")])}


@cache
def _remedies() -> dict[str, ast.ClassDef]:
    """The classes by what records call them."""
    found = {}
    for one in _classes_in((PACKAGE / "remedies").rglob("*.py")):
        for line in one.body:
            if isinstance(line, ast.Assign | ast.AnnAssign) and isinstance(line.value, ast.Constant):
                target = line.targets[0] if isinstance(line, ast.Assign) else line.target
                if isinstance(target, ast.Name) and target.id == "name":
                    found[str(line.value.value)] = one
    return found


def _built(remedy: ast.ClassDef | None) -> tuple[ast.FunctionDef | None, ast.ClassDef | None]:
    """A class's constructor, which may be its base's, and the base of the class that has it."""
    while remedy:
        base = next((_classes().get(one.id) for one in remedy.bases if isinstance(one, ast.Name)), None)
        for one in remedy.body:
            if isinstance(one, ast.FunctionDef) and one.name == "__init__":
                return one, base
        remedy = base
    return None, None


def _takes(remedy: ast.ClassDef | None) -> dict[str, Any]:
    """{what its constructor takes: the default}; its `**more` is what the one above it takes."""
    made, base = _built(remedy)
    if made is None:
        return {}
    names = [one.arg for one in (*made.args.posonlyargs, *made.args.args)]
    defaults = [None] * (len(names) - len(made.args.defaults)) + [_value(one) for one in made.args.defaults]
    own = dict(zip(names, defaults, strict=True))
    own |= {one.arg: _value(default) for one, default in zip(made.args.kwonlyargs, made.args.kw_defaults, strict=True)}
    return {**own, **_takes(base), **own} if made.args.kwarg else own


def _checks(remedy: ast.ClassDef | None) -> Iterator[tuple[str, str, list[Any], dict[str, Any]]]:
    """The checks of a constructor's arguments, in its order: number("share", share, 0, 1) and its like."""
    made, base = _built(remedy)
    for line in made.body if made else ():
        for call in (one for one in ast.walk(line) if isinstance(one, ast.Call)):
            if ast.unparse(call.func) == "super().__init__":
                yield from _checks(base)
            elif isinstance(call.func, ast.Name) and call.func.id in CHECKS:
                what, given, *ends = call.args
                if isinstance(what, ast.Constant) and isinstance(given, ast.Name) and what.value == given.id:
                    more = {str(one.arg): _value(one.value) for one in call.keywords}
                    yield call.func.id, given.id, [_value(one) for one in ends], more


def _value(default: ast.expr | None) -> Any:
    """A default as it is written; None where that is no plain value."""
    with suppress(ValueError, TypeError):
        return ast.literal_eval(default) if default else None
    return None
