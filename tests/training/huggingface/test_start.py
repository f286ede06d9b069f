"""A run that is only watched reads its start from a file, and finds what it would find in memory."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from forgetlab.remedies import L2SP
from forgetlab.training import start
from forgetlab.training.huggingface import trainer
from tests.training.huggingface.test_trainer import looks, trained, weights


def files(folder: Path) -> list[Path]:
    return list(folder.glob(".forgetlab-start-*"))


def test_a_start_in_a_file_gives_the_same_drift_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saving = {"save_strategy": "steps", "save_steps": 4}
    held = trained(tmp_path / "held", [], **saving)
    monkeypatch.setattr(start, "LARGE", 0)
    # as where no task's model remembers the weights: else they are shared, and need no file
    monkeypatch.setattr(trainer, "filed", lambda anchor, known, file: start.filed(anchor, {}, file))
    filed = trained(tmp_path / "filed", [], **saving)
    assert held._run is not None
    assert filed._run is not None
    assert (type(held._run.anchor), type(filed._run.anchor)) == (dict, start.Start)
    assert held._run.anchor.keys() == filed._run.anchor.keys()
    assert all(torch.equal(value, filed._run.anchor[name]) for name, value in held._run.anchor.items())
    assert looks(filed) == looks(held)
    assert filed.records[-1].drift > 0
    again = trained(tmp_path / "filed", [], resume=str(tmp_path / "filed" / "checkpoint-4"), **saving)
    assert all(torch.equal(value, weights(held)[name]) for name, value in weights(again).items())
    assert again.records[-1].drift == held.records[-1].drift
    assert len(files(tmp_path / "filed")) == 2
    del filed, again
    gc.collect()
    assert files(tmp_path / "filed") == []
    assert isinstance(trained(tmp_path / "l2sp", [L2SP(0.1)], max_steps=1)._begin().anchor, dict)
    assert files(tmp_path / "l2sp") == []
