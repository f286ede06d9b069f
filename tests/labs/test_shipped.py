"""What is shipped is what the labs open on, and what they compute."""

import json
from pathlib import Path

import pytest
import torch

from forgetlab import labs
from forgetlab.experiments import results
from tests.labs.conftest import SHIPPED


@pytest.fixture(autouse=True)
def _shipped_and_an_empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(results, "shipped_folder", SHIPPED)
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path))


def test_nothing_else_is_shipped() -> None:
    for path in SHIPPED().glob("*.json"):
        settings = json.loads(path.read_text())["settings"]
        name = path.stem.rpartition("-")[0]
        assert results.key(name, settings) == path.stem, f"{path.name} is stale: make results"


@pytest.mark.slow
def test_a_shipped_result_is_reproduced() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as it was written
    try:
        lab = labs.show("watch", driver="inline")
        assert lab.source == "cached"
        assert lab.state is not None
        kept = lab.state["records"]
        lab.train()
    finally:
        torch.set_num_threads(threads)
    assert lab.source == "live"
    live = lab.state["records"]
    assert [record["step"] for record in live] == [record["step"] for record in kept]
    for one, other in zip(live, kept, strict=True):
        # another processor rounds otherwise, and training makes the difference grow: tight at first, then the story
        close = 1e-3 if one["step"] == 0 else 0.1 if one["step"] <= 50 else None
        for task, scores in one["scores"].items() if close else ():
            assert scores == pytest.approx(other["scores"][task], rel=close, abs=close), (one["step"], task)
    for records in (live, kept):
        first, last = records[0]["scores"], records[-1]["scores"]
        assert last["sentiment"]["accuracy"] > first["sentiment"]["accuracy"] + 0.3
        assert last["masked-lm"]["perplexity"] > 3 * first["masked-lm"]["perplexity"]
        assert last["entities"]["f1"] < first["entities"]["f1"] - 0.1
