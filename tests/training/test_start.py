"""What a plain run holds while it is watched: one copy of the weights beside the model and its optimizer, no more."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from forgetlab.metrics import drift
from forgetlab.models.model import Model
from forgetlab.remedies import L2SP
from forgetlab.tasks.embedded import task
from forgetlab.training import start
from forgetlab.training.loop import finetune
from forgetlab.training.record import Record
from tests.conftest import small_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def copies(model: Model) -> int:
    """How many tensors of the shape of the word embeddings live, each memory once: the model's own among them."""
    shape = model.body.get_input_embeddings().weight.shape
    tensors = [one for one in gc.get_objects() if type(one) in (torch.Tensor, torch.nn.Parameter)]
    return len({one.untyped_storage().data_ptr() for one in tensors if one.shape == shape})


def run(model: Model, **more: Any) -> Iterator[Record]:
    return finetune(model, task("sentiment", size=64), steps=4, every=2, batch_size=8, limit=8, **more)


def plain(records: Iterator[Record]) -> list[Any]:
    return [(r.step, r.loss, r.scores, r.drift, r.drift_per_layer) for r in records]


@pytest.fixture
def alone() -> Iterator[Model]:
    """A model among whose tensors are no older ones, so that those that live are soon counted."""
    gc.freeze()
    yield small_model()
    gc.unfreeze()


def test_a_plain_run_holds_one_copy_wherever_it_begins(
    alone: Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the weights that `restore` brings back the copy is shared; from others a large one lies in a file."""
    monkeypatch.setattr(start, "LARGE", 0)
    held: list[int] = []
    pair = drift._pair

    def counted(name: str, *given: Any) -> Any:
        found = pair(name, *given)
        if "word_embeddings" in name:
            held.append(copies(alone))
        return found

    monkeypatch.setattr(drift, "_pair", counted)
    for begins in ("as loaded", "where a run has ended"):
        for record in run(alone):
            trained = record.step > 0
            assert copies(alone) == 2 + 2 * trained, begins  # its own, `restore`'s, AdamW's two moments
            assert bool(list(folder.iterdir())) == (begins != "as loaded")
        assert held[-3:] == [2 + (begins != "as loaded") + 2 * (i > 0) for i in range(3)]  # as it is read
    gc.collect()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("disk", ["there", "full"])
def test_the_numbers_are_the_same_from_a_file(
    bert: Model, folder: Path, monkeypatch: pytest.MonkeyPatch, disk: str
) -> None:
    found = {}
    for large in (2**40, 0):
        bert.restore()
        monkeypatch.setattr(start, "LARGE", large)
        [*run(bert)]
        if disk == "full" and not large:
            monkeypatch.setattr(start, "save_file", refuse)
        records = run(bert, seed=1)
        first = next(records)
        assert bool(list(folder.glob("forgetlab-start-*"))) == (not large and disk == "there")
        found[large] = plain([first, *records])
        records.close()  # type: ignore[attr-defined]
    assert found[0] == found[2**40]
    assert found[0][-1][3] > 0


def refuse(tensors: object, file: Path) -> None:
    file.write_bytes(b"half")
    raise OSError(28, "No space left on device")


def test_a_method_may_read_its_start_from_memory_all_the_time(
    bert: Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [*run(bert)]
    monkeypatch.setattr(start, "LARGE", 0)
    next(run(bert, methods=[L2SP(0.1)]))
    assert list(folder.iterdir()) == []
