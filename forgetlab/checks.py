"""Arguments that a user gives: refused in words, with the name of the argument and what it may be."""

from __future__ import annotations

import math
from collections.abc import Sequence

from forgetlab.errors import ForgetlabError


def whole(name: str, value: object, least: int = 1) -> int:
    """`value` as a whole number of `least` or more; raises ForgetlabError for anything else."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        wanted = "above 0" if least == 1 else f"of {least} or more"
        raise ForgetlabError(f"{name} must be a whole number {wanted}, got {value!r}")
    return value


def number(
    name: str,
    value: object,
    low: float = 0.0,
    high: float = math.inf,
    *,
    above: bool = False,
    below: bool = False,
) -> float:
    """`value` as a finite number in [low, high]; `above` and `below` leave out the ends. Raises ForgetlabError."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if good and (low < value if above else low <= value) and (value < high if below else value <= high):  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    if high == math.inf:
        wanted = f"a number above {low:g}" if above else f"a number of {low:g} or more"
    else:
        ends = ", both excluded" if above and below else f", {low:g} excluded" if above else ""
        ends = ends or (f", {high:g} excluded" if below else "")
        wanted = f"between {low:g} and {high:g}{ends}"
    raise ForgetlabError(f"{name} must be {wanted}, got {value!r}")


def flag(name: str, value: object) -> bool:
    """`value` as true or false; 0 and 1 count, as a command line gives them. Raises ForgetlabError."""
    if value in (0, 1):
        return bool(value)
    raise ForgetlabError(f"{name} must be true or false (or 1 or 0), got {value!r}")


def listed(name: str, values: object, kind: type, such: str) -> None:
    """Raise ForgetlabError unless `values` is a list, or another sequence, of `kind`. such: an example in words."""
    given = type(values).__name__
    if isinstance(values, Sequence) and not isinstance(values, str):
        odd = [value for value in values if not isinstance(value, kind)]
        if not odd:
            return
        given = f"one with a {type(odd[0]).__name__} in it"
    raise ForgetlabError(f"{name} must be a list of {kind.__name__}s, such as {such}, got {given}")
