"""The tables that lessons quote, in a checkout and outside a notebook."""

from __future__ import annotations

import json
from statistics import fmean

import pytest

from forgetlab import ForgetlabError
from forgetlab.sources.shipped import carried
from forgetlab.teaching import results
from forgetlab.teaching.shipped import Table, excerpt


@pytest.mark.parametrize("name", ["remedies", "rewards"])
def test_a_table_is_the_file(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    results(name)
    assert capsys.readouterr().out == (carried("benchmarks/results") / f"{name}.md").read_text(encoding="utf-8") + "\n"
    if name == "remedies":
        results()
        assert capsys.readouterr().out.startswith("# Every remedy")


def test_fidelity_has_the_means_of_all_runs(capsys: pytest.CaptureFixture[str]) -> None:
    results("fidelity")
    rows = [line.strip("|").split("|") for line in capsys.readouterr().out.splitlines()[2:]]
    grid = json.loads((carried("benchmarks/results") / "fidelity.json").read_text(encoding="utf-8"))["digits"]["grid"]
    assert [row[0].strip() for row in rows] == [run["method"] for run in grid]
    assert [float(row[1].replace(",", "")) for row in rows] == [run["lam"] for run in grid]
    assert [float(row[2]) for row in rows] == pytest.approx([fmean(run["ACC"]) for run in grid], abs=0.01)


def test_another_name_is_refused() -> None:
    with pytest.raises(ForgetlabError, match="did you mean 'remedies'"):
        results("remedy")


TWO = """# All

Made of 5 seeds.

## first: half

Before: old 2.77.

| remedy | first | old | time a step |
| --- | --- | --- | --- |
| a | 0.9 ±0.1 | 3 | ×2 |
| a, twice | 0.8 ±0.1 | 4 | ×3 |

Best at the edge: none.

Longer, for what is added:

| remedy | first | old |
| --- | --- | --- |
| a, twice | 0.99 ±0.01 | 4 |

## costs

| remedy | memory |
| --- | --- |
| a | 1 |
"""


def test_an_excerpt_has_the_rows_in_the_order_asked_for_under_their_headings() -> None:
    first = "## first: half\n\nBefore: old 2.77.\n\n| remedy | first | time a step |\n| --- | --- | --- |\n"
    longer = "Longer, for what is added:\n\n| remedy | first |\n| --- | --- |\n| a, twice | 0.99 ±0.01 |"
    rows = "| a, twice | 0.8 ±0.1 | ×3 |\n| a | 0.9 ±0.1 | ×2 |\n\n"
    assert excerpt(TWO, ["a, twice", "a"], ["first", "time"]) == first + rows + longer
    assert excerpt(TWO, ["a"], ["memory"]) == "## costs\n\n| remedy | memory |\n| --- | --- |\n| a | 1 |"
    assert "Best at" not in excerpt(TWO, ["a"])
    assert excerpt(TWO, columns=["memory"]) == excerpt(TWO, ["a"], ["memory"])


def test_an_excerpt_of_a_row_or_column_that_is_not_there_is_refused() -> None:
    with pytest.raises(ForgetlabError, match="row 'a, twicee'; did you mean 'a, twice'"):
        excerpt(TWO, ["a, twicee"])
    with pytest.raises(ForgetlabError, match="column 'seconds'"):
        excerpt(TWO, ["a"], ["seconds"])


def test_the_remedies_are_found_by_name_and_column(capsys: pytest.CaptureFixture[str]) -> None:
    results("remedies", only=["ewc", "none"], columns=["sentiment", "masked-lm"])
    shown = [Table(block) for block in capsys.readouterr().out.split("\n\n") if block.startswith("|")]
    assert [row[0] for row in shown[0].rows] == ["ewc", "none"]
    assert shown[0].head == ["remedy", "sentiment", "masked-lm perplexity"]
