"""Every lesson runs from a clean kernel, on whichever generation of widgets this environment has."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from tests.notebooks.execute import execute, lessons

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("path", lessons(), ids=lambda p: p.stem)
def test_it_executes(path: Path) -> None:
    for cell in execute(path).cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            assert not (output.output_type == "stream" and output.name == "stderr"), output.text


@pytest.mark.parametrize("path", lessons(), ids=lambda p: p.stem)
def test_it_is_committed_executed_and_light(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 1_500_000
    assert "widgets" not in notebook.metadata
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    images = [o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert images
    assert all(len(o.data["text/plain"]) > 40 for o in images)  # the alt text
