"""Remedies by name, with their settings as text: "l2sp:lam=0.1,beta=0.01+replay:ratio=0.3"."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from forgetlab import sources
from forgetlab.errors import ForgetlabError, number, unknown
from forgetlab.remedies.architectures import Adapters, Frozen, LoRA, ProgressiveColumns
from forgetlab.remedies.interpolation import WeightInterpolation
from forgetlab.remedies.projection import AGEM, PCGrad
from forgetlab.remedies.regularizers import EWC, L2SP, MAS, SI, KLAnchor, LwF, OnlineEWC
from forgetlab.remedies.replay import ExperienceReplay, GenerativeReplay, Multitask
from forgetlab.remedies.schedules import Cosine, GradualUnfreezing, LayerwiseRates, SlantedTriangular, Warmup
from forgetlab.remedies.stopping import EarlyStopping, SafetyBrake
from forgetlab.tasks import MaskedLM, Task
from forgetlab.training.method import Family, Method

# A new remedy is one more line here; its family and its main setting are the class's own.
_REMEDIES: tuple[type[Method], ...] = (
    Method,
    L2SP,
    EWC,
    OnlineEWC,
    SI,
    MAS,
    LwF,
    KLAnchor,
    ExperienceReplay,
    GenerativeReplay,
    Multitask,
    Frozen,
    Adapters,
    LoRA,
    ProgressiveColumns,
    PCGrad,
    AGEM,
    LayerwiseRates,
    Warmup,
    Cosine,
    SlantedTriangular,
    GradualUnfreezing,
    EarlyStopping,
    SafetyBrake,
    WeightInterpolation,
)
METHODS: dict[str, type[Method]] = {remedy.name: remedy for remedy in _REMEDIES}
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
        if name not in METHODS:
            raise unknown("method", name, METHODS)
        takes = settings(name)
        options = dict(_setting(name, text, takes) for text in given.split(",") if text)
        for key in inspect.signature(METHODS[name]).parameters:
            if key in FROM_OLD_TASKS:
                options[key] = [_STAND_IN] if old is None else old
        made.append(METHODS[name](**options))
    return made


def settings(method: str) -> dict[str, Any]:
    """What can be set of a method in its text form: {name: default}."""
    parameters = inspect.signature(METHODS[method]).parameters
    hidden = (*FROM_OLD_TASKS, "anchor", "self", "args", "kwargs")
    return {key: parameter.default for key, parameter in parameters.items() if key not in hidden}


def with_strength(remedy: str, strength: float) -> str:
    """A remedy's text form: `strength` times the usual value of its main setting, within what that may be.

    One without such a setting stays as it is. Raises ForgetlabError for an unknown name and a strength below 0.

    >>> with_strength("replay", 2), with_strength("ewc", 3), with_strength("frozen", 2)
    ('replay:ratio=0.5', 'ewc:strength=3', 'frozen')
    """
    if remedy not in METHODS:
        raise unknown("remedy", remedy, METHODS)
    number("strength", strength)
    if (main := METHODS[remedy].main) is None:
        return remedy
    usual = settings(remedy)[main.name]
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
    if equals and value and (isinstance(takes[key], str) or (takes[key] is None and not _is_number(value))):
        return key, value
    if not equals or not _is_number(value):
        raise ForgetlabError(f"{method}: expected NAME=NUMBER, got {text!r}")
    found = float(value)
    return key, int(found) if found.is_integer() and "." not in value and "e" not in value.lower() else found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
