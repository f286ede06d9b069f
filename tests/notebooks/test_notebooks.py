"""Every lesson runs from a clean kernel, on whichever generation of widgets this environment has, and is whole."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import ipywidgets
import nbformat
import pytest

from tests.notebooks import bare, colab, memory
from tests.notebooks.execute import WIDGET, execute, lessons

LESSONS = pytest.mark.parametrize("path", lessons(), ids=lambda p: p.stem)
COLAB = ipywidgets.__version__.startswith("7.")  # there all run, always; with what is new, all but the first are long
EXECUTED = [pytest.param(path, marks=[] if COLAB or not i else pytest.mark.long) for i, path in enumerate(lessons())]


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def tagged(path: Path, tag: str) -> list[Any]:
    return [cell for cell in read(path).cells if tag in cell.metadata.get("tags", ())]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """Where the lessons run, in which kernel: this checkout; on Colab's widgets an empty folder with the wheel."""
    if not COLAB:
        return lessons()[0].parent, "python3"
    monkeypatch.setenv("JUPYTER_PATH", str(bare.machine(tmp_path / "machine")))
    (tmp_path / "content").mkdir()
    shutil.copy(request.getfixturevalue("wheel"), tmp_path / "content")
    return tmp_path / "content", "bare"


@pytest.mark.slow
@pytest.mark.parametrize("path", EXECUTED, ids=lambda p: p.stem)
def test_it_executes(path: Path, place: tuple[Path, str]) -> None:
    folder, kernel = place
    if path.parent != folder:
        shutil.copy(path, folder)
    with memory.watched(every=0.3) as most:
        notebook, said = execute(folder / path.name, kernel)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            assert not (output.output_type == "stream" and output.name == "stderr"), output.text
    hidden = [words for words in said if re.search(r"(^|>)error|Traceback", words)]
    assert not hidden
    if Path("/proc/self/smaps_rollup").exists():  # Linux counts what a process holds
        assert 0.2e9 < most[0] < memory.BINDER
        if kernel == "python3" and path == lessons()[0]:
            recorded = json.loads(memory.RESULT.read_text(encoding="utf-8"))["peak of a lesson, MB"]
            assert most[0] / 1e6 == pytest.approx(recorded[path.stem], rel=0.5)


@LESSONS
def test_it_is_committed_executed_and_light(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size < 1_500_000
    assert "widgets" not in notebook.metadata
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in shown if WIDGET in output.get("data", {})]
    images = [output for output in shown if "image/png" in output.get("data", {})]
    assert images
    for output in images:
        assert output.metadata["image/png"]["alt"] == output.data["text/plain"]
        assert len(output.data["text/plain"]) > 40


def test_the_set_up_is_the_same_in_all() -> None:
    setups = {cell.source for path in lessons() for cell in tagged(path, "setup")}
    assert len(setups) == 1
    assert all(len(tagged(path, "setup")) == 1 for path in lessons())
    assert len([line for line in setups.pop().splitlines() if line]) <= 8


@LESSONS
def test_it_has_the_anatomy_of_a_lesson(path: Path) -> None:
    number = path.name[:2]
    code = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "code")
    words = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    assert words.startswith(f"# {number} ")
    assert f'terms("{number}")' in code
    assert f'ask("{number}-' in code
    assert "labs." in code
    assert len(tagged(path, "stub")) >= 2
    for heading in ("Predict first", "Your turn", "Takeaways", "Sources"):
        assert heading in words, f"no {heading!r}"


@LESSONS
def test_it_says_how_long_it_takes_and_what_ten_minutes_are_for(path: Path) -> None:
    """200 words, or ten lines of code, are a minute; a question half of one; a lab and an exercise three each."""
    cells = read(path).cells
    prose = [
        re.sub("<details>.*?</details>", "", c.source, flags=re.DOTALL) for c in cells if c.cell_type == "markdown"
    ]
    read_code = [
        c.source for c in cells if c.cell_type == "code" and not {"setup", "stub"} & {*c.metadata.get("tags", ())}
    ]
    lines = [line for source in read_code for line in source.splitlines() if line.strip()]
    words, done = sum(len(source.split()) for source in prose), "\n".join(read_code)
    asked, labs = (len(re.findall(pattern, done)) for pattern in (r"ask\(\"", r"labs\.\w+\.show"))
    wanted = words / 200 + len(lines) / 10 + asked / 2 + 3 * (labs + len(tagged(path, "stub")))
    said = re.search(r"^About (\d+) minutes", prose[0], re.MULTILINE)
    assert said
    assert abs(int(said[1]) / wanted - 1) < 0.25, f"says {said[1]} minutes, counted {wanted:.0f}"
    (line,) = [line for line in prose[0].splitlines() if line.startswith("**Ten minutes only?**")]
    headings = [heading for source in prose for heading in re.findall("^#+ (.*)$", source, re.MULTILINE)]
    way = re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", line)
    assert way[-1] == "Takeaways"
    assert set(way) <= set(headings), set(way) - set(headings)


def test_links_between_lessons_and_files_hold() -> None:
    names = [path.name for path in lessons()]
    for path, following in itertools.zip_longest(lessons(), names[1:], fillvalue=""):
        cells = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
        words = colab.linked("\n".join(cells), "")  # whichever repository `make colab` has pointed them at
        assert f"]({following})" in words or not following, f"{path.name} → {following}"
        for target in re.findall(r"\]\(((?!https?:|#)[^)]+)\)", words):
            assert (path.parent / target.partition("#")[0]).exists(), f"{path.name}: {target}"


EXERCISES = [(path, cell.metadata["exercise"]) for path in lessons() for cell in tagged(path, "stub")]


@pytest.mark.parametrize(("path", "name"), EXERCISES, ids=lambda x: x if isinstance(x, str) else x.name[:2])
def test_the_stub_fails_and_the_solution_passes(path: Path, name: str) -> None:
    (stub,) = [cell.source for cell in tagged(path, "stub") if cell.metadata["exercise"] == name]
    (folded,) = [cell.source for cell in tagged(path, "solution") if cell.metadata["exercise"] == name]
    solution = re.search(r"```python\n(.*)\n```", unescape(folded), re.DOTALL)
    assert solution
    *_, call = stub.strip().splitlines()
    assert call.startswith(f"{name}(")
    namespace: dict[str, Any] = {}
    body = stub.strip().removesuffix(call)
    exec(body, namespace)
    verdict = eval(call, namespace)
    assert not verdict.passed
    assert len(verdict.words) > 15
    exec(solution[1], namespace)
    verdict = eval(call, namespace)
    assert verdict.passed, verdict.words
    assert len(verdict.words) > 15
