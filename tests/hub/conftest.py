"""A mirror of the hub on loopback, and an empty cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.mirror import Mirror, point_to


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    made = Mirror()
    point_to(made, tmp_path / "cache", monkeypatch)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)  # between its retries
    yield made
    made.stop()
