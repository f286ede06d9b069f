"""Wording that the readers share: counts, and the lines that were left out."""

from __future__ import annotations

from pathlib import Path

from forgetlab.errors import ForgetlabError


def count(number: int, noun: str) -> str:
    """Such as "1 row" or "2 rows"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def skipped(path: Path, bad: list[int], total: int, unit: str, expected: str, also: str = "") -> list[str]:
    """A note on the lines left out, none where there are none; an error where they are most of the file.

    bad: their numbers. unit: "line" or "entry". also: what else was left out with them.
    """
    if not bad:
        return []
    units, first = "entries" if unit == "entry" else "lines", f"first: {unit} {bad[0]}"
    if 2 * len(bad) > total:
        raise ForgetlabError(f"{path}: {len(bad)} of {total} {units} do not fit ({first}); expected {expected}")
    return [f"{len(bad)} of {total} {units} do not fit, skipped{also} ({first})"]
