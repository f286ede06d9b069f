"""The list of labs, and the results they are shipped with."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from forgetlab import ForgetlabError, labs
from forgetlab.experiments import results
from forgetlab.labs import write as writing
from forgetlab.labs.kit import remedy
from forgetlab.labs.kit.base import Lab


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path / "cache"))


def test_every_lab_is_there_and_nothing_heavy_is_loaded_for_the_list() -> None:
    assert [name for name in labs.LABS if find_spec(f"forgetlab.labs.{name}") is None] == []
    assert set(labs.LABS) <= set(dir(labs))
    code = "import sys, forgetlab.labs; print([m for m in ('torch', 'matplotlib', 'ipywidgets') if m in sys.modules])"
    before = "import sys, forgetlab; print([m for m in ('torch', 'matplotlib', 'ipywidgets') if m in sys.modules])"
    loaded = [subprocess.run([sys.executable, "-c", c], capture_output=True, text=True).stdout for c in (code, before)]
    assert loaded[0] == loaded[1]


def test_a_lab_by_its_name() -> None:
    assert isinstance(labs.show("brake", driver="inline"), Lab)
    assert labs.brake.recipe.__module__ == "forgetlab.labs.brake"
    with pytest.raises(ForgetlabError, match="unknown lab 'brakes'; did you mean 'brake'"):
        labs.show("brakes")
    with pytest.raises(AttributeError, match="unknown lab 'mixx'; did you mean 'mix'"):
        _ = labs.mixx


def test_what_is_shipped_is_what_labs_keep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    (shipped / "stale.json").write_text("{}")
    monkeypatch.setattr(results, "shipped_folder", lambda: shipped)
    small, original = {"steps": 2, "every": 2, "batch_size": 8, "limit": 16}, remedy.recipe
    monkeypatch.setattr(remedy, "recipe", lambda *which, **more: replace(original(*which, **more), **small))
    written = writing.write(["freeze"])
    assert sorted(path.name for path in shipped.iterdir()) == written
    assert [name.partition("-")[0] for name in written] == ["lab", "plain"]
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path / "another"))
    lab = labs.show("freeze", driver="inline")
    assert lab.source == "cached"
    assert "kept result" in lab.message.value
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ForgetlabError, match="holds results already"):
        writing.write(["freeze"])


def test_numbers_are_rounded_and_all_else_is_left() -> None:
    given: dict[str, Any] = {"a": [1.23456789, 2, None, "x"], "b": {"c": 1e-12 / 3, "d": True}}
    assert writing.rounded(given) == {"a": [1.2346, 2, None, "x"], "b": {"c": 3.3333e-13, "d": True}}
    assert json.loads(json.dumps(writing.rounded(given), allow_nan=False)) == writing.rounded(given)
