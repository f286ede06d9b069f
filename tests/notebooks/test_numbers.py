"""What the lessons say of shipped results is what those hold: printed tables, and numbers marked in the prose.

A number that comes from a result bears a mark, which no page shows: `11<!--digits: EWC ahead of L2-->`. It names
  digits: one of DIGITS below, of the permuted digits
  FILE: a/b/c, a place in benchmarks/results/FILE.json (FILE as it is there; with "%" behind the number, a share)
  table: row / column, the mean in a table of benchmarks/results/remedies.md
  recorded: row / column / before or after, in a table of docs/real-models.md
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import nbformat
import pytest

from forgetlab.labs.frontier import dots
from forgetlab.metrics.retention import pareto
from forgetlab.sources.shipped import carried, data_folder
from forgetlab.teaching import results
from forgetlab.teaching.questions import find
from forgetlab.teaching.shipped import Table
from tests.notebooks.execute import lessons

LESSONS = pytest.mark.parametrize("path", lessons(), ids=lambda p: p.stem)
MARK = re.compile(r"([−+-]?\d[\d,]*(?:\.\d+)?)(\s?%)?<!--([\w-]+): ([^>]+?)-->")
SPREAD = re.compile(r"±\s?\d")  # typed by hand, it is out of date at the next run
RESULTS = carried("benchmarks/results")
RECORDED = Path(__file__).parents[2] / "docs" / "real-models.md"


def _grid(method: str) -> list[dict[str, Any]]:
    grid = json.loads((RESULTS / "fidelity.json").read_text(encoding="utf-8"))["digits"]["grid"]
    return [run for run in grid if run["method"] == method]


def _best(method: str) -> dict[str, Any]:
    return max(_grid(method), key=lambda run: fmean(run["ACC"]))


EXACT, BATCHED = "EWC, EXACT", "EWC, BATCHED(128)"
DIGITS = {
    "EWC ahead of L2": lambda: fmean(_best(EXACT)["ACC"]) - fmean(_best("L2")["ACC"]),
    "λ of exact": lambda: _best(EXACT)["lam"],
    "λ of batched": lambda: _best(BATCHED)["lam"],
    "ratio of λ": lambda: _best(BATCHED)["lam"] / _best(EXACT)["lam"],
    "ratio of ΣF": lambda: fmean(_best(EXACT)["ΣF"]) / fmean(_best(BATCHED)["ΣF"]),
}


def value(source: str, name: str) -> float:
    """The number that a mark names."""
    if source == "digits":
        return float(DIGITS[name]())
    if source == "table":
        row, column = name.split(" / ")
        return _number(_cell((RESULTS / "remedies.md").read_text(encoding="utf-8"), row, column))
    if source == "recorded":
        row, column, end = name.split(" / ")
        before, after = _cell(RECORDED.read_text(encoding="utf-8"), row, column).split("→")
        return _number({"before": before, "after": after}[end])
    found: Any = json.loads((RESULTS / f"{source}.json").read_text(encoding="utf-8"))
    for key in name.split("/"):
        found = found[key]
    return float(found)


def _number(cell: str) -> float:
    return float(cell.split("±")[0].strip().lstrip("×").replace(",", ""))


def _cell(text: str, row: str, column: str) -> str:
    """What stands in the first table with this row and column."""
    for table in [Table(block) for block in text.split("\n\n") if block.startswith("|")]:
        for cells in table.rows:
            if cells[0] == row and column in table.head:
                return cells[table.head.index(column)]
    raise KeyError(f"{row} / {column}")


def wrong(text: str) -> list[str]:
    """The marked numbers of a text that are not what the results hold, rounded as they are written."""
    found = []
    for number, percent, source, name in MARK.findall(text):
        plain = number.replace(",", "").replace("−", "-")
        decimals = len(plain.partition(".")[2])
        held = value(source, name) * (100 if percent else 1)
        if abs(held - float(plain)) > 0.5 * 10**-decimals + 1e-9:
            found.append(f"{number} is said, {source}: {name} is {held:.5g}")
    return found


def prose(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def calls(path: Path) -> Iterator[ast.Call]:
    """Every call of `results` in a lesson."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and "results(" in cell.source and "get_ipython" not in cell.source:
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "results":
                    yield node


@LESSONS
def test_every_marked_number_is_the_results_own(path: Path) -> None:
    text = prose(path)
    assert wrong(text) == []
    assert len(MARK.findall(text)) == text.count("<!--"), "a mark without a number before it"


@LESSONS
def test_no_spread_is_typed_by_hand(path: Path) -> None:
    assert SPREAD.findall(prose(path)) == []


def test_no_question_quotes_a_spread() -> None:
    for file in (data_folder() / "quiz").glob("*.json"):
        for entry in json.loads(file.read_text(encoding="utf-8"))["questions"]:
            if entry["id"] != "final-seeds":  # made-up numbers: the question is what they allow
                assert not SPREAD.findall(json.dumps(entry, ensure_ascii=False)), entry["id"]


def test_a_planted_wrong_number_is_found() -> None:
    assert wrong("EWC is 11<!--digits: EWC ahead of L2--> points ahead") == []
    assert wrong("EWC is 12<!--digits: EWC ahead of L2--> points ahead") == [
        "12 is said, digits: EWC ahead of L2 is 11.177"
    ]
    told = f"{100 * value('overhead-cpu', 'models/tiny-bert/added/l2sp'):.0f}"
    assert wrong(f"+{told} %<!--overhead-cpu: models/tiny-bert/added/l2sp-->") == []
    assert len(wrong(f"+{told}1 %<!--overhead-cpu: models/tiny-bert/added/l2sp-->")) == 1
    with pytest.raises(KeyError):
        wrong("0.78<!--table: adapterz / sentiment-->")
    rows = "| remedy | sentiment |\n| --- | --- |\n| ewc | 0.93 ±0.05 |"
    assert _number(_cell(rows, "ewc", "sentiment")) == 0.93
    assert SPREAD.search("0.97 ± 0.02")


@LESSONS
def test_every_printed_table_is_there(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for call in calls(path):
        options = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg}
        results(*(ast.literal_eval(value) for value in call.args), **options)
        shown = capsys.readouterr().out
        for row in options.get("only", ()):
            assert f"\n| {row} |" in shown


def test_most_lessons_print_their_table() -> None:
    assert sum(any(True for _ in calls(path)) for path in lessons()) >= 8


def test_the_questions_on_the_front_are_what_the_benchmark_gives() -> None:
    remedies = dots()
    means = [(fmean(dot["kept"]), fmean(dot["new"])) for dot in remedies]
    (right,) = [option.text for option in find("10-front").options if option.right]
    assert right == str(len(pareto(means)))
    assert f"Of the {len(remedies)} remedies" in find("10-front").ask
    each = [set(pareto([(dot["kept"][seed], dot["new"][seed]) for dot in remedies])) for seed in range(5)]
    assert find("10-seeds").answer == len(set.intersection(*each))
    assert f"has {len(pareto(means))} remedies" in find("10-seeds").ask
