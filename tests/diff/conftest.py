"""A model before and after, small enough that a test takes a blink."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from forgetlab import load, task


def moved(model: torch.nn.Module, seed: int = 1, by: float = 0.05) -> Any:
    """The model with every weight a little elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight += by * torch.randn(weight.shape, generator=generator)
    return model


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `Model.save` leaves of a fine-tune of tiny-bert with a new head."""
    place = tmp_path_factory.mktemp("tuned") / "tuned-bert"
    model = load("tiny-bert", device="cpu")
    task("sentiment").prepare(model)
    moved(model).save(place)
    return place
