"""The list of labs."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from forgetlab import ForgetlabError, labs
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
