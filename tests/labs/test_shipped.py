"""What is shipped is what the labs open on."""

import json

import pytest

from forgetlab import labs, results
from tests.labs.conftest import SHIPPED


@pytest.mark.parametrize("name", labs.LABS)
def test_every_lab_opens_on_what_is_shipped(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(results, "shipped_folder", SHIPPED)
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path))
    lab = labs.show(name, driver="inline")
    assert lab.source == ("simulated" if lab.instant else "cached")
    assert "alt=" in lab.picture.value or "aria-label=" in lab.picture.value
    assert "error" not in lab.message.value


def test_nothing_else_is_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "shipped_folder", SHIPPED)
    for path in SHIPPED().glob("*.json"):
        settings = json.loads(path.read_text())["settings"]
        name = path.stem.rpartition("-")[0]
        assert results.key(name, settings) == path.stem, f"{path.name} is stale: make results"
