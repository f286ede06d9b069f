"""Models small enough that a test of the training loop takes a blink."""

from __future__ import annotations

import pytest
import torch

from forgetlab.models import Model
from forgetlab.pretraining import Shape, bert_body, gpt_body, world_tokenizer

SLOWEST_FIRST = ("notebooks", "browser", "labs")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two workers: a file at a time (its fixtures are shared), lessons one by one, the longest work first."""

    def place(item: pytest.Item) -> int:
        folder = item.path.parent.name
        return SLOWEST_FIRST.index(folder) if folder in SLOWEST_FIRST else len(SLOWEST_FIRST)

    items.sort(key=place)
    for item in items:
        alone = item.name.startswith("test_it_executes")
        item.add_marker(pytest.mark.xdist_group(item.name if alone else str(item.path)))


SMALL = Shape(width=32, layers=2, heads=2, steps=0, texts=0)


def small_model(causal: bool = False, seed: int = 0) -> Model:
    """A random two-layer model of the embedded language (40k weights)."""
    tokenizer = world_tokenizer(causal)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = (gpt_body if causal else bert_body)(tokenizer, SMALL)
    model = Model(body, tokenizer, "small-gpt" if causal else "small-bert")
    return model.eval()


@pytest.fixture
def bert() -> Model:
    return small_model()


@pytest.fixture
def gpt() -> Model:
    return small_model(causal=True)
