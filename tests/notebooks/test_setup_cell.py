"""The set-up cell on a machine that has everything but forgetlab: from a wheel, from a repository, from nowhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import ipywidgets
import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from tests.notebooks import bare, colab
from tests.notebooks.execute import execute, lessons

pytestmark = pytest.mark.slow

AFTER = """
import forgetlab, sys
from forgetlab.labs.kit.runner import pick_driver
print(forgetlab.__file__.startswith(sys.prefix), pick_driver())"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose name has a space, with nothing in it but what a test puts there."""
    monkeypatch.setenv("JUPYTER_PATH", str(bare.machine(tmp_path / "machine")))
    empty = tmp_path / "my content"
    empty.mkdir()
    return empty


def lone(folder: Path, source: str) -> Path:
    """A notebook of the set-up cell and one that looks at what it did."""
    cells = [nbformat.v4.new_code_cell(code) for code in (source, AFTER)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "lesson.ipynb")
    return folder / "lesson.ipynb"


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    """What its two cells say, all of it on stdout."""
    outputs = [cell.outputs for cell in notebook.cells]
    assert all(output.get("name") == "stdout" for cell in outputs for output in cell), outputs
    return ["".join(output.text for output in cell) for cell in outputs]


def added_and_nothing_else(words: list[str]) -> None:
    assert words[0].startswith("forgetlab 0.")
    assert "\nAdded: forgetlab 0." in words[0]
    assert "Nothing was replaced: torch " in words[0]
    assert words[1].split() == ["True", "inline"]


def test_a_wheel_beside_the_notebook(folder: Path, wheel: Path) -> None:
    built = Path(shutil.copy(wheel, folder))
    shutil.copy(built, folder / f"{built.stem} (1).whl")  # as Colab names what is uploaded again: no wheel to pip
    (source,) = {cell.source for path in lessons() for cell in nbformat.read(path, 4).cells if "setup" in tags(cell)}
    pointed = re.search(r'"git\+https://github\.com/([\w./-]+)"', source)
    assert source == colab.set_up(pointed[1] if pointed else "")
    added_and_nothing_else(printed(execute(lone(folder, source), "bare")[0]))


@pytest.mark.skipif(not ipywidgets.__version__.startswith("7."), reason="Colab's way: make test-colab runs it")
def test_a_repository(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "repository"
    for name in ("forgetlab", "data", "notebooks", "benchmarks", "docs"):
        shutil.copytree(bare.ROOT / name, there / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(bare.ROOT / name, there)
    me = ["-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "--quiet"], ["add", "."], [*me, "commit", "--quiet", "-m", "all"]):
        subprocess.run(["git", *command], cwd=there, check=True)
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")  # means: none, so no network
    source = colab.set_up("someone/forgetlab")
    assert "git+https://github.com/someone/forgetlab" in source
    local = source.replace("https://github.com/someone/forgetlab", there.as_uri())
    added_and_nothing_else(printed(execute(lone(folder, local), "bare")[0]))


def test_neither_is_said_in_one_sentence(folder: Path) -> None:
    with pytest.raises(CellExecutionError) as error:
        execute(lone(folder, colab.set_up("")), "bare")
    assert error.value.ename == "SystemExit"
    assert re.fullmatch(r"forgetlab is missing: upload [^.]+\.whl beside this notebook, or [\w ]+", error.value.evalue)
    assert "ERROR" not in str(error.value)  # pip was not asked


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])
