"""Arguments that a user gives: refused in words, with the name of the argument and what it may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real

from forgetlab.errors import ForgetlabError, shown

MOST = 2**63 - 1  # of a whole number: what torch and files can hold


def whole(name: str, value: object, least: int = 1) -> int:
    """`value`, numpy's too, as a whole number from `least` to MOST; raises ForgetlabError for anything else.

    >>> import numpy as np
    >>> whole("steps", np.int64(10))
    10
    """
    if isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= MOST:
        return int(value)
    wanted = "of 64 bits" if least == -MOST else "above 0" if least == 1 else f"of {least} or more"
    if isinstance(value, Integral) and int(value) > MOST:
        wanted += f" and {MOST:.0e} or less"
    raise ForgetlabError(f"{name} must be a whole number {wanted}, got {shown(value)}")


def a_seed(value: object) -> int:
    """`value`, numpy's too, as a seed that torch's generators take; raises ForgetlabError for anything else."""
    return whole("seed", value, -MOST)


def number(
    name: str,
    value: object,
    low: float = 0.0,
    high: float = math.inf,
    *,
    above: bool = False,
    below: bool = False,
) -> float:
    """`value` as a finite number in [low, high]; `above` and `below` leave out the ends. Raises ForgetlabError.

    >>> import numpy as np
    >>> number("lam", np.float32(0.5))
    0.5
    """
    found = math.nan
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            found = float(value)
        except OverflowError:  # a whole number beyond 1e308
            found = math.inf
    if math.isfinite(found) and (low < found if above else low <= found) and (found < high if below else found <= high):
        return found
    if high == math.inf:
        wanted = f"a number above {low:g}" if above else f"a number of {low:g} or more"
    else:
        ends = ", both excluded" if above and below else f", {low:g} excluded" if above else ""
        ends = ends or (f", {high:g} excluded" if below else "")
        wanted = f"between {low:g} and {high:g}{ends}"
    raise ForgetlabError(f"{name} must be {wanted}, got {shown(value)}")


def flag(name: str, value: object) -> bool:
    """`value` as true or false; 0 and 1 count, as a command line gives them. Raises ForgetlabError."""
    try:
        if value in (0, 1):
            return bool(value)
    except (TypeError, ValueError, RuntimeError, ArithmeticError):  # an array has no one truth, a signalling NaN none
        pass
    raise ForgetlabError(f"{name} must be true or false (or 1 or 0), got {shown(value)}")


def listed(name: str, values: object, kind: type, such: str) -> None:
    """Raise ForgetlabError unless `values` is a list, or another sequence, of `kind`. such: an example in words."""
    given = type(values).__name__
    if isinstance(values, Sequence) and not isinstance(values, str):
        odd = [value for value in values if not isinstance(value, kind)]
        if not odd:
            return
        given = f"one with a {type(odd[0]).__name__} in it"
    raise ForgetlabError(f"{name} must be a list of {kind.__name__}s, such as {such}, got {given}")
