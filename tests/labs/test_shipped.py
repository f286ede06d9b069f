"""What is shipped is what the labs open on, and what they compute."""

from pathlib import Path

import pytest
import torch

from forgetlab import labs
from forgetlab.experiments import results
from forgetlab.labs import write as writing
from tests.labs.conftest import SHIPPED


@pytest.fixture(autouse=True)
def _shipped_and_an_empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(results, "shipped_folder", SHIPPED)
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path))


def test_every_lab_has_its_records_and_nothing_else_is_shipped() -> None:
    wanted = {*(f"lab-{name}" for name in writing.RECORDED), "plain"}
    assert {path.name.removesuffix(".json.gz") for path in SHIPPED().iterdir()} == wanted
    assert [name for name in wanted if not results.recorded(name)] == [], "stale or damaged: make records"
    assert sum(path.stat().st_size for path in SHIPPED().iterdir()) < 6_000_000


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
