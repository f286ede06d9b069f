"""The tables that lessons quote, in a checkout and outside a notebook."""

from __future__ import annotations

import json
import re
from statistics import fmean

import pytest

from forgetlab import ForgetlabError
from forgetlab.sources.shipped import carried
from forgetlab.teaching import results


def test_remedies_are_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    results()
    assert capsys.readouterr().out == (carried("benchmarks/results") / "remedies.md").read_text(encoding="utf-8") + "\n"


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


def test_every_table_named_in_a_lesson_is_there() -> None:
    words = "".join(path.read_text(encoding="utf-8") for path in carried("notebooks").glob("*.ipynb"))
    for name in set(re.findall(r'results\(\\"(\w+)\\"\)', words)):
        results(name)
