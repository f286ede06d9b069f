"""What TensorBoard and W&B are told against the records, read back by their own readers."""

from __future__ import annotations

import importlib.util
import json
import time
from pathlib import Path
from typing import Any

import pytest

from forgetlab.errors import ForgetlabError
from forgetlab.experiments import trackers
from forgetlab.experiments.trackers import Trackers

TASKS = [{"name": "new", "metric": "accuracy"}, {"name": "old one", "metric": "f1"}]
RECIPE = {"methods": "ewc:lam=1+replay", "seed": 3, "lr": 0.5, "steps": 20}


def records() -> list[dict[str, Any]]:
    found = []
    for i, loss in enumerate((None, 0.5, 0.25)):
        scores = {"new": {"accuracy": 0.5 + i / 8}, "old one": {"f1": 1 - i / 8, "recall": None}}
        found.append({"step": 10 * i, "loss": loss, "drift": i / 4, "penalty": {"ewc": i / 2}, "scores": scores})
    return found


def run(key: str = "abcdef0123456789") -> dict[str, Any]:
    return {"recipe": RECIPE, "key": key, "records": records()}


WANTED = {
    "new/new/accuracy": [(0, 0.5), (10, 0.625), (20, 0.75)],
    "watch/old one/f1": [(0, 1.0), (10, 0.875), (20, 0.75)],
    "penalty/ewc": [(0, 0.0), (10, 0.5), (20, 1.0)],
    "drift": [(0, 0.0), (10, 0.25), (20, 0.5)],
    "train/loss": [(10, 0.5), (20, 0.25)],
}


def in_tensorboard(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.slow
def test_tensorboard_has_every_record_once_however_they_came(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    said: list[str] = []
    told = Trackers(["tensorboard"], tmp_path, TASKS, said.append)
    for key, live in (("0" * 16, 0), ("1" * 16, 2), ("2" * 16, 3)):  # found whole; two of three were told; all were
        for record in records()[:live]:
            told.record(RECIPE, key, record)
        told.landed(run(key))
        told.record(RECIPE, key, records()[-1])  # late, from a thread
    folders = sorted((tmp_path / "tensorboard").iterdir())
    assert [folder.name for folder in folders] == [f"ewc-lam=1+replay,-seed-3-{n * 8}" for n in "012"]
    for folder in folders:
        assert in_tensorboard(folder) == WANTED
    told.record(RECIPE, "3" * 16, records()[0])
    told.close()  # an interrupt; then the run begins anew
    again = Trackers(["tensorboard"], tmp_path, TASKS, said.append)
    again.landed(run("3" * 16))
    assert in_tensorboard(sorted((tmp_path / "tensorboard").iterdir())[-1]) == WANTED
    assert said == []


def history(file: Path) -> list[dict[str, Any]]:
    """The rows in a .wandb file: a head of 7 bytes, then LevelDB's log: blocks of pieces (checksum, size, kind)."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole, found = file.read_bytes(), 7, b"", list[dict[str, Any]]()
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # too little left of a block for another head
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole = data[at + 7 : at + 7 + size] if kind in (1, 2) else whole + data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            record = Record.FromString(whole)
            if items := record.history.item:
                found.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items})
    return found


@pytest.mark.slow
def test_wandb_offline_has_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    trackers.check(["wandb"])
    said: list[str] = []
    told = Trackers(["wandb"], tmp_path / "out" / "runs", TASKS, said.append)
    (tmp_path / "out" / "runs").mkdir(parents=True)
    told.landed(run())
    assert said == []
    (file,) = (tmp_path / "out" / "runs" / "wandb").glob("offline-run-*/*.wandb")
    deadline = time.monotonic() + 30
    while len(found := history(file)) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)  # a process of its own writes it
    for name, values in WANTED.items():
        assert [(one["_step"], one[name]) for one in found if name in one] == values
    assert file.parent.name.endswith(run()["key"])


def test_what_is_missing_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    for place in trackers.PLACES:
        with pytest.raises(ForgetlabError, match=f"--report-to {place} needs the package {place}: pip install {place}"):
            trackers.check([place])
    monkeypatch.setattr(trackers, "find_spec", importlib.util.find_spec)
    with pytest.raises(ForgetlabError, match="unknown place to report to 'tensorbord'; did you mean 'tensorboard'"):
        trackers.check(["tensorbord"])


def test_a_place_that_fails_costs_what_it_would_have_shown_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def begin(folder: Path, recipe: Any, key: str) -> Any:
        def log(step: int, values: Any) -> None:
            if step == 10:
                raise OSError(28, "No space left on device\nand more")
            seen.append(step)

        return log, lambda: seen.append(-1)

    monkeypatch.setattr(trackers, "_tensorboard", begin)
    said: list[str] = []
    told = Trackers(["tensorboard"], tmp_path, TASKS, said.append)
    told.landed(run("0" * 16))
    told.landed(run("1" * 16))
    told.close()
    assert said == ["tensorboard shows no more of this: OSError: [Errno 28] No space left on device"]
    assert seen == [0]
