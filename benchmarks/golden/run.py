"""Holds an implementation against the golden values: agrees, another convention, a known mistake, or not offered.

python benchmarks/golden/run.py MINE [--json]
MINE: a Python file or a module with functions named as in golden.json (any of them), which take its inputs by name.
Needs numpy alone. Exit status 1 where a value differs. In Python: `check(module)`.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("golden.json")
RTOL = 1e-5  # room for float32; the other conventions lie further away
OK, OTHER, DIFFERS, ABSENT, FAILED = "agrees", "other convention", "differs", "not offered", "error"


def golden() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["values"]
    return found


def check(module: Any) -> list[dict[str, Any]]:
    """One row a value: {"name", "verdict", "says", "got", "expected"}, of the case that says most where it differs."""
    return [_row(value, getattr(module, value["name"], None)) for value in golden()]


def _row(value: dict[str, Any], function: Any) -> dict[str, Any]:
    row = {"name": value["name"], "verdict": ABSENT, "says": "", "got": None, "expected": None}
    if function is None:
        return row
    got = []
    for case in value["cases"]:
        try:
            answer = function(**json.loads(json.dumps(case["inputs"])))  # a copy: what it changes is its own
        except Exception as error:
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            return row | {"verdict": FAILED, "says": said, "expected": case["expected"]}
        if answer is None:
            return row
        got.append(_plain(answer))
    cases = value["cases"]
    wrong = [i for i, case in enumerate(cases) if not _same(got[i], case["expected"], case.get("tolerance"))]
    if not wrong:
        return row | {"verdict": OK, "got": got[0], "expected": cases[0]["expected"]}
    row |= {"verdict": DIFFERS, "got": got[wrong[0]], "expected": cases[wrong[0]]["expected"]}
    for says, kind in value["others"].items():
        if all(_same(one, case["others"][says], case.get("tolerance")) for one, case in zip(got, cases, strict=True)):
            return row | {"verdict": OTHER if kind == "convention" else DIFFERS, "says": says}
    return row | {"says": f"by {_apart(row['got'], row['expected'])}, and it is none of the known others"}


def _plain(answer: Any) -> Any:
    """Tensors, arrays and numpy's numbers as lists and floats."""
    if isinstance(answer, dict):
        return {str(key): _plain(one) for key, one in answer.items()}
    if hasattr(answer, "detach"):
        answer = answer.detach().cpu().numpy()
    return np.asarray(answer, dtype=float).tolist()


def _numbers(answer: Any, keys: Any = None) -> Iterator[float]:
    """The numbers of an answer; of a dict, of the keys that are expected."""
    if isinstance(answer, dict):
        for key in sorted(keys or answer):
            yield from _numbers(answer.get(key, float("nan")))
    elif isinstance(answer, list):
        for one in answer:
            yield from _numbers(one)
    else:
        yield float(answer)


def _both(got: Any, expected: Any) -> tuple[np.ndarray, np.ndarray] | None:
    keys = set(expected) if isinstance(expected, dict) else None
    if isinstance(got, dict) != isinstance(expected, dict):
        return None
    a, b = np.array(list(_numbers(got, keys))), np.array(list(_numbers(expected)))
    return (a, b) if a.shape == b.shape else None


def _same(got: Any, expected: Any, tolerance: Any = None) -> bool:
    both = _both(got, expected)
    if both is None:
        return False
    room = np.array(list(_numbers(tolerance))) if tolerance is not None else RTOL * np.abs(both[1]) + 1e-8
    return bool((np.abs(both[0] - both[1]) <= room).all())


def _apart(got: Any, expected: Any) -> str:
    both = _both(got, expected)
    return f"{np.nanmax(np.abs(both[0] - both[1])):.4g}" if both else "its shape"


def shown(answer: Any) -> str:
    """A number, or what there is room for of several."""
    if answer is None:
        return ""
    if isinstance(answer, dict):
        return ", ".join(f"{key} {shown(one)}" for key, one in answer.items())
    numbers = list(_numbers(answer))
    return ", ".join(f"{x:.6g}" for x in numbers[:3]) + (", …" if len(numbers) > 3 else "")


def line(row: dict[str, Any]) -> str:
    if row["verdict"] in (OK, ABSENT):
        said = row["verdict"]
    elif row["verdict"] == FAILED:
        said = f"error: {row['says']}"
    else:
        said = f"{row['verdict']}: {row['says']} ({shown(row['got'])}; expected {shown(row['expected'])})"
    return f"{row['name']:<27} {said}"


def load(name: str) -> Any:
    if not name.endswith(".py"):
        return importlib.import_module(name)
    sys.path.insert(0, str(Path(name).resolve().parent))  # files beside it
    found = importlib.util.spec_from_file_location(Path(name).stem, name)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mine", help="a Python file, or a module")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    given = parser.parse_args(arguments)
    rows = check(load(given.mine))
    print(json.dumps(rows) if given.json else "\n".join(map(line, rows)))
    return int(any(row["verdict"] in (DIFFERS, FAILED) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
