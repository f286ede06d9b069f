"""The one error class of the project, its nearest-match hint, and arguments checked in words."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from numbers import Integral, Real

LONGEST = 2000  # characters of a message: a value of a megabyte is no help
MOST = 2**63 - 1  # of a whole number: what torch and files can hold
SHOWN = 200  # characters of what was given, and names of what works: more would hide the rest of a message


class ForgetlabError(ValueError):
    """Bad input, said in one line: what was given, what was expected, the nearest thing that works.

    >>> print(ForgetlabError("no file two\\nlines.csv"))
    no file two lines.csv
    """

    def __init__(self, message: object = "") -> None:
        line = "".join(c if c.isprintable() else " " for c in str(message))
        super().__init__(line if len(line) <= LONGEST else f"{line[: LONGEST - SHOWN]} … {line[-SHOWN:]}")


def unknown(what: str, given: object, known: Iterable[str]) -> ForgetlabError:
    """An error for a name that is not among the `known` ones; suggests the nearest match.

    what: the kind of thing in words, such as "task". given: the name. known: the names that work.

    >>> print(unknown("task", "sentimant", ["entities", "sentiment"]))
    unknown task 'sentimant'; did you mean 'sentiment'?
    """
    names = sorted(known)
    near = get_close_matches(str(given)[:SHOWN], names[:10_000], n=1, cutoff=0.5)  # each is compared: that takes time
    listed = ", ".join(name[:SHOWN] for name in names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    hint = f"did you mean {near[0][:SHOWN]!r}?" if near else f"known: {listed or 'none'}"
    return ForgetlabError(f"unknown {what} {shown(given)}; {hint}")


def one_of(what: str, given: object, known: Collection[str]) -> None:
    """Raise `unknown` for a name that is not among the `known` ones. what, given, known: see there."""
    if given not in known:
        raise unknown(what, given, known)


def shown(value: object) -> str:
    """A value as a message shows it, cut where it is long.

    >>> shown(10**400)[:5], len(shown(10**400)), shown("a")
    ('10000', 201, "'a'")
    """
    try:
        text = repr(value)
    except Exception:  # a whole number of 5000 digits; an object that cannot say what it is
        text = f"a {type(value).__name__}"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def in_words(error: Exception) -> str:
    """An error as a message shows it: a ForgetlabError explains itself, of any other the type helps."""
    return f"error: {error}" if isinstance(error, ForgetlabError) else f"error: {type(error).__name__}: {error}"


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
