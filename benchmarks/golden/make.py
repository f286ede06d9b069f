"""Writes golden.json: inputs, exact expected values, and what other conventions and known mistakes give for them.

python -m benchmarks.golden.make
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from benchmarks.golden.values import Value, answers, labels, language, transfer, weights

FILE = Path(__file__).with_name("golden.json")
VALUES: tuple[Value, ...] = (*transfer.VALUES, *weights.VALUES, *language.VALUES, *answers.VALUES, *labels.VALUES)


def read(value: Any) -> Any:
    """Numbers written in decimals, as exact fractions; counts, words and ids stay."""
    if isinstance(value, float):
        return Fraction(str(value))
    if isinstance(value, list):
        return [read(one) for one in value]
    return {k: read(v) for k, v in value.items()} if isinstance(value, dict) else value


def plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    return float(value) if isinstance(value, (Fraction, Decimal)) else value


def entry(value: Value) -> dict[str, Any]:
    others = dict(value.conventions) | dict(value.mistakes)
    cases = []
    for inputs in value.cases:
        given = read(inputs)
        case = {"inputs": inputs, "expected": plain(value.exact(**given))}
        if value.tolerance:
            case["tolerance"] = plain(value.tolerance(**given))
        cases.append(case | {"others": {says: plain(formula(**given)) for says, formula in others.items()}})
    return {
        "name": value.name,
        "arguments": list(value.cases[0]),
        "formula": value.formula,
        "source": value.source,
        "convention": value.convention,
        "others": dict.fromkeys(value.conventions, "convention") | dict.fromkeys(value.mistakes, "mistake"),
        "cases": cases,
    }


def on_one_line(match: re.Match[str]) -> str:
    return "[" + re.sub(r",\s+", ", ", match[1]) + "]"


def text() -> str:
    about = "Golden values for measures of forgetting: docs/golden.md. Written by benchmarks/golden/make.py."
    found = json.dumps({"about": about, "values": [entry(value) for value in VALUES]}, ensure_ascii=False, indent=1)
    found = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", on_one_line, found)
    return re.sub(r"\[\s+(\[[^{}]*?\])\s+\]", on_one_line, found) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    print(f"{FILE.name}: {len(VALUES)} values")
