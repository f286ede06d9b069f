"""What the kit holds: each value with its inputs, its exact formula, and what others compute under the same name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Formula = Callable[..., Any]


@dataclass(frozen=True)
class Value:
    """exact and the others take a case's inputs by name. conventions: published elsewhere; mistakes: not.

    tolerance: absolute, of a case, where the value is an estimate.
    """

    name: str
    formula: str
    source: str
    convention: str
    exact: Formula
    cases: Sequence[Mapping[str, Any]]
    conventions: Mapping[str, Formula] = field(default_factory=dict)
    mistakes: Mapping[str, Formula] = field(default_factory=dict)
    tolerance: Formula | None = None
