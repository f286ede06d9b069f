"""`make colab REPO=…` on copies of the lessons."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest

from tests.notebooks import colab
from tests.notebooks.execute import lessons


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    made = [Path(shutil.copy(path, tmp_path / path.name)) for path in (*lessons()[:2], lessons()[9])]
    monkeypatch.setattr(colab, "lessons", lambda: made)
    monkeypatch.setattr(colab, "README", Path(shutil.copy(colab.README, tmp_path)))
    return made


def test_badges_and_set_up_point_at_the_repository(copies: list[Path]) -> None:
    before = [path.read_text() for path in copies]
    colab.main("")
    plain = [nbformat.read(path, as_version=4) for path in copies]
    colab.main("https://github.com/someone/forgetlab")
    first = [path.read_text() for path in copies]
    for path, notebook in zip(copies, plain, strict=True):
        cells = nbformat.read(path, as_version=4).cells
        title = cells[0].source.split("\n")[0]
        assert title == notebook.cells[0].source.split("\n")[0]
        assert f"colab.research.google.com/github/someone/forgetlab/blob/main/notebooks/{path.name})" in cells[0].source
        (setup,) = [cell.source for cell in cells if "setup" in cell.metadata.get("tags", ())]
        assert '["git+https://github.com/someone/forgetlab"]' in setup
        words = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        assert not re.findall(r"\]\((?!https:)[^)]*\)", words)  # a lone notebook has nothing beside it
        assert "(https://colab.research.google.com/github/someone/forgetlab/blob/main/notebooks/" in words
    colab.main("someone/forgetlab")
    assert [path.read_text() for path in copies] == first  # once is enough
    colab.main("other/place.git")
    assert all("someone" not in path.read_text() for path in copies)
    assert all(path.read_text().count("colab-badge.svg") == 1 for path in copies)
    colab.main("")
    after = [path.read_text() for path in copies]
    assert after == before or all("colab-badge" in text for text in before)
    assert all("colab.research" not in text and "](0" in text for text in after)
    assert "](../benchmarks/results/remedies.md)" in after[2]


def test_the_readme_s_places_lead_to_the_repository(copies: list[Path]) -> None:
    colab.main("")
    plain = colab.README.read_text(encoding="utf-8")
    colab.main("someone/forgetlab")
    linked = colab.README.read_text(encoding="utf-8")
    found = re.findall(r"^\| \[[^]]+\]\((https://[^)]*someone/forgetlab[^)]*)\) \|", linked, re.MULTILINE)
    assert len(found) == len(colab.PLACES) == 4
    assert all("blob/main/" in url or "gh/someone/forgetlab/main?" in url or "codespaces.new" in url for url in found)
    assert all((colab.FOLDER.parent / path).is_file() for url in found for path in re.findall(r"notebooks/.*", url))
    colab.main("other/place")
    assert "someone" not in colab.README.read_text(encoding="utf-8")
    colab.main("")
    assert colab.README.read_text(encoding="utf-8") == plain


def test_what_is_no_repository_is_refused(copies: list[Path]) -> None:
    before = [path.read_text() for path in copies]
    with pytest.raises(SystemExit, match="expected REPO="):
        colab.main("https://example.org/someone")
    assert [path.read_text() for path in copies] == before
