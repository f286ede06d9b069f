"""The one error class of the project, and the nearest-match hint that its messages carry."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class ForgetlabError(ValueError):
    """Bad input, said in one line: what was given, what was expected, the nearest thing that works."""


def unknown(what: str, given: object, known: Iterable[str]) -> ForgetlabError:
    """An error for a name that is not among the `known` ones; suggests the nearest match.

    what: the kind of thing in words, such as "task". given: the name. known: the names that work.
    """
    names = sorted(known)
    near = get_close_matches(str(given), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
    return ForgetlabError(f"unknown {what} {given!r}; {hint}")


def in_words(error: Exception) -> str:
    """An error as a message shows it: a ForgetlabError explains itself, of any other the type helps."""
    return f"error: {error}" if isinstance(error, ForgetlabError) else f"error: {type(error).__name__}: {error}"
