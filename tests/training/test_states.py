"""A model through random runs, interrupts, restores and files: after restore() it is the model that was loaded."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from forgetlab import load, task
from forgetlab.errors import ForgetlabError
from forgetlab.models.model import Model
from forgetlab.remedies.by_name import make_methods
from forgetlab.training.method import Method
from tests.conftest import often, small_model
from tests.training.test_runs import HOOKS, Breaking, plain, run_of, state_of

METHODS = ["none", "frozen", "lora", "adapters", "columns", "lora:r=2", "ewc:examples=4", "si:walk=1", "lwf",
           "replay", "pcgrad", "early-stopping"]  # fmt: skip


@cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """A small model with a head, as a folder."""
    made, model = tempfile.TemporaryDirectory(), small_model()
    task("entities").prepare(model)
    model.save(made.name)
    return made


def loaded() -> Model:
    return load(folder().name, device="cpu")


@cache
def old() -> list[Any]:
    return [task("entities", size=32)]


def made(method: str) -> list[Method]:
    return make_methods(method, old())


@cache
def expected(method: str) -> list[dict[str, Any]]:
    """The records of a run on the model just loaded."""
    return plain(run_of(loaded(), methods=made(method), watch=old(), lr=0.01))


@cache
def state_loaded() -> dict[str, Any]:
    return state_of(loaded())


class Life(RuleBasedStateMachine):
    """What one may do with a model, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.model = loaded()
        self.run: Generator[Any, None, None] | None = None
        self.open = False  # whether the run has begun and not ended
        self.kept: dict[str, torch.Tensor] | None = None

    @rule(method=st.sampled_from(METHODS), seed=st.integers(0, 1), begin=st.booleans())
    def make(self, method: str, seed: int, begin: bool) -> None:
        if self.open:
            with pytest.raises(ForgetlabError, match="still open"):
                run_of(self.model)
            return
        self.run = run_of(self.model, methods=made(method), watch=old(), lr=0.01, seed=seed)
        if begin:
            self.go_on()

    @rule()
    def go_on(self) -> None:
        if self.run is None:
            return
        try:
            self.open = next(self.run, None) is not None
        except ForgetlabError:  # such as LoRA of other settings than an earlier run's
            self.open = False

    @rule(how=st.sampled_from(["close", "throw", "forget"]))
    def end(self, how: str) -> None:
        if self.run is not None and how == "close":
            self.run.close()
        elif self.run is not None and how == "throw":
            with suppress(KeyboardInterrupt, StopIteration):
                self.run.throw(KeyboardInterrupt)
        self.run, self.open = None, False

    @rule(method=st.sampled_from(METHODS), hook=st.sampled_from(HOOKS))
    def break_off(self, method: str, hook: str) -> None:
        with suppress(KeyboardInterrupt, ForgetlabError):  # the latter where another run is open
            list(run_of(self.model, methods=[*made(method), Breaking(hook, KeyboardInterrupt)], watch=old()))

    @rule()
    def take(self) -> None:
        self.kept = self.model.snapshot()

    @rule()
    def put_back(self) -> None:
        if self.kept is None:
            return
        with suppress(ForgetlabError):  # of a model with additions or heads that it has not, or the reverse
            self.model.restore(self.kept)
            now = self.model.state_dict()
            assert all(torch.equal(now[name], p) for name, p in self.kept.items())
        self.open = False

    @rule()
    def save(self) -> None:
        with tempfile.TemporaryDirectory() as place, suppress(ForgetlabError):  # one with additions cannot be saved
            self.model.save(Path(place))
            again, now = load(place, device="cpu").state_dict(), self.model.state_dict()
            assert again.keys() == now.keys()
            assert all(torch.equal(again[name], p) for name, p in now.items())

    @rule(method=st.sampled_from(METHODS))
    def restore(self, method: str) -> None:
        self.model.restore()
        self.open = False
        assert state_of(self.model) == state_loaded()
        assert plain(run_of(self.model, methods=made(method), watch=old(), lr=0.01)) == expected(method)

    @invariant()
    def what_the_model_remembers_stays(self) -> None:
        assert {n: p.numpy().tobytes() for n, p in self.model._pretrained.items()} == state_loaded()["weights"]

    def teardown(self) -> None:
        self.model.restore()
        assert state_of(self.model) == state_loaded()


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=often(5), stateful_step_count=8, deadline=None)
