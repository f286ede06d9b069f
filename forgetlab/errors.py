"""The one error class of the project, and the nearest-match hint that its messages carry."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 2000  # characters of a message: a value of a megabyte is no help
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
