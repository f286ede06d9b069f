"""Labs open on nothing in these tests: the results that are shipped are tested apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from forgetlab.experiments import results

SHIPPED = results.shipped_folder


@pytest.fixture(scope="session", autouse=True)
def nothing_shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder in place of data/records."""
    empty = tmp_path_factory.mktemp("shipped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "shipped_folder", lambda: empty)
        yield empty
