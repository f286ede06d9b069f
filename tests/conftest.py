"""Models small enough that a test of the training loop takes a blink."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from forgetlab.models.model import Model
from forgetlab.training.pretraining import Pretraining, random_model, world_tokenizer
from tests.notebooks import bare

# Names of files and folders: files of a minute each, the lessons one by one, and small ones to fill the ends.
LONGEST_FIRST = (
    *("book", "test_cli.py", "test_widgets.py", "huggingface", "browser", "test_places.py", "experiments"),
    *("tests", "notebooks", "hub", "labs", "tasks"),
)

# Generated inputs: the same few at every run of the suite; with FORGETLAB_NIGHTLY=1 new ones, fifty times as many,
# each within five seconds (`make nightly`).
NIGHTLY = os.environ.get("FORGETLAB_NIGHTLY") == "1"
LONG = NIGHTLY or os.environ.get("FORGETLAB_LONG") == "1"
COMMON = {"database": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}
settings.register_profile("suite", max_examples=40, derandomize=True, deadline=None, **COMMON)
settings.register_profile("nightly", max_examples=2000, deadline=5000, print_blob=True, **COMMON)
settings.load_profile("nightly" if NIGHTLY else "suite")


def often(count: int) -> int:
    """How often: `count` times in the suite, fifty times as often by night: @settings(max_examples=often(10))."""
    return 50 * count if NIGHTLY else count


# rooms that are tried as a whole, by running what a user runs: no unit tests (`make check` leaves them out)
WHOLE = {"labs", "hub", "book", "diff"}


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two workers: a file at a time (its fixtures are shared), lessons one by one, the longest work first."""

    def place(item: pytest.Item) -> int:
        known = {item.path.name, item.path.parent.name}
        return next((i for i, name in enumerate(LONGEST_FIRST) if name in known), len(LONGEST_FIRST))

    items.sort(key=place)
    for item in items:
        if not LONG and item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="long: CI runs it, FORGETLAB_LONG=1 make test, make nightly"))
        if WHOLE.intersection(item.path.relative_to(Path(__file__).parent).parts):
            item.add_marker(pytest.mark.slow)
        alone = item.name.startswith("test_it_executes")
        shared = "the book" if "book" in getattr(item, "fixturenames", ()) else str(item.path)  # built once
        item.add_marker(pytest.mark.xdist_group(item.name if alone else shared))


def built_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """A folder that one of all workers has built, for all of them: build(folder) fills it, or raises."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            draft = folder.with_name(f"{name}-draft-{os.getpid()}")
            draft.mkdir()
            build(draft)
            draft.rename(folder)
    return folder


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """forgetlab's wheel, to be copied from."""
    (built,) = built_once(tmp_path_factory, "wheel", bare.wheel).iterdir()
    return built


SMALL = Pretraining(width=32, layers=2, heads=2, steps=0, texts=0)


def small_model(causal: bool = False, seed: int = 0) -> Model:
    """A random two-layer model of the embedded language (40k weights)."""
    name = "small-gpt" if causal else "small-bert"
    return random_model(name, world_tokenizer(causal), SMALL, causal, seed).eval()


@pytest.fixture
def bert() -> Model:
    return small_model()


@pytest.fixture
def gpt() -> Model:
    return small_model(causal=True)


class FailingDisk:
    """Operations on the disk that are counted, of which number `fails_at` (from 0; −1: none) raises OSError `code`."""

    def __init__(self, code: int) -> None:
        self.code, self.operations, self.fails_at = code, 0, -1

    def failing(self, real: Any) -> Any:
        """The operation as it is to stand in the place of `real`."""

        def operation(*given: Any, **more: Any) -> Any:
            self.operations += 1
            if self.operations - 1 == self.fails_at:
                raise OSError(self.code, os.strerror(self.code))
            return real(*given, **more)

        return operation
