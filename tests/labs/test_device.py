"""Where there is a GPU, the small models stay on the CPU: they have answered before it has started."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from forgetlab import labs
from forgetlab.labs import own, watch
from forgetlab.labs.kit.benches import Benches

FOLDER = Path(labs.__file__).parent


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that cannot be used: whatever is moved there fails."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.mark.usefixtures("pretended")
def test_a_shipped_model_runs_on_the_cpu_and_the_lab_says_so() -> None:
    settings = {"lr": 1e-3, "steps": 2, "similarity": 1.0, "seed": 0}
    states = list(Benches().run(replace(watch.recipe(settings), limit=8)))
    assert states[0]["progress"] == "step 0 of 2, on cpu"


@pytest.mark.usefixtures("pretended")
def test_a_model_of_ones_own_may_use_the_gpu() -> None:
    names = ("new", "watch", "methods", "text", "label")
    settings = {"steps": 20, "lr": 1e-3, "seed": 0, **dict.fromkeys(names, "")}
    assert own.recipe({**settings, "model": ""}).device == "cpu"
    assert own.recipe({**settings, "model": "./my-model"}).device == "auto"


def test_labs_that_load_a_shipped_model_themselves_say_cpu() -> None:
    lines = [line for file in FOLDER.rglob("*.py") for line in file.read_text(encoding="utf-8").splitlines()]
    loads = [line for line in lines if re.search(r"load\W+\"tiny-", line)]
    assert len(loads) >= 3
    assert all('device="cpu"' in line for line in loads)


@pytest.mark.parametrize("name", ["dreams", "matrix", "scatter"])
def test_a_labs_work_leaves_the_global_generator_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell's seeded draws are what they are alone, whatever a lab does beside it in another thread."""

    def touched(*_: object, **__: object) -> None:
        raise AssertionError("a lab has touched torch's global generator")

    lab = labs.show(name, driver="inline")
    for room in (torch, torch.random):
        for function in ("manual_seed", "set_rng_state", "seed"):
            monkeypatch.setattr(room, function, touched)
    before = torch.get_rng_state()
    states = lab._work(lab.settings())
    for _ in range(3):
        next(states)
        assert torch.equal(torch.get_rng_state(), before)
    states.close()
