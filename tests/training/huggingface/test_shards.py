"""A Trainer whose weights are spread over two processes (FSDP2) ends where one process alone does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import LONG
from tests.training.huggingface.shards import METHODS
from tests.training.huggingface.test_trainer import OLD, close, gpt_start, in_two_processes, trained, weights

IN_PARTS = ("ewc", "replay")  # watching and the pull of L2-SP are parts of the first


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that two processes have written their weights to, of every method."""
    folder = tmp_path_factory.mktemp("shards")
    in_two_processes("-m", "tests.training.huggingface.shards", str(folder), *(METHODS if LONG else IN_PARTS))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in IN_PARTS else pytest.mark.long) for name in METHODS]
)
def test_spread_over_two_processes_it_is_one(name: str, spread: Path, tmp_path: Path) -> None:
    first, second = (load_file(spread / f"{name}.{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(first[n], second[n]) for n in first)
    said = {n.removeprefix("record "): float(first.pop(n)) for n in [*first] if n.startswith("record ")}
    alone = trained(tmp_path, METHODS[name]())
    close(first, weights(alone), gpt_start())
    last = alone.records[-1]
    assert said["perplexity"] == pytest.approx(last.scores[OLD]["perplexity"], rel=1e-5)
    assert said["drift"] == pytest.approx(last.drift, rel=1e-4)
    each = {"ewc": 8.0}.get(name, 4.0)  # θ* and λΩ, or θ* alone, in float32
    assert said["bytes a weight"] == pytest.approx(each / 2, rel=0.02)  # half of them in each process
    assert said["penalty"] == pytest.approx(sum(last.penalty.values()), rel=1e-3)
