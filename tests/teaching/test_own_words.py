"""The handbook is in its own words: it shares no run of eight words with the chapter that it accompanies.

The chapter is not in the repository; `chapter_runs.json` has a short hash of each of its runs, made by

    python -m tests.teaching.test_own_words CHAPTER.txt
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from html import unescape
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
RUNS = Path(__file__).with_name("chapter_runs.json")
LENGTH = 8  # words
DIGITS = 10  # of sha256: among a million runs a false alarm is still unlikely
# Runs that nobody can word otherwise: formulas and titles of papers. Each with its reason.
ALLOWED: dict[str, str] = {}


def runs(text: str) -> list[str]:
    """Every run of eight words of a text: lower case, letters and digits only."""
    words = re.findall(r"[^\W_]+", text.lower())
    return [" ".join(words[i : i + LENGTH]) for i in range(len(words) - LENGTH + 1)]


def digest(run: str) -> str:
    return sha256(run.encode()).hexdigest()[:DIGITS]


def write(chapter: Path) -> int:
    """Write the hashes of a chapter's runs; returns their number."""
    hashes = sorted({digest(run) for run in runs(chapter.read_text(encoding="utf-8"))})
    RUNS.write_text(json.dumps({"length": LENGTH, "hashes": " ".join(hashes)}, indent=1) + "\n", encoding="utf-8")
    return len(hashes)


@cache
def known() -> frozenset[str]:
    return frozenset(json.loads(RUNS.read_text(encoding="utf-8"))["hashes"].split())


def strings(value: Any) -> Iterator[str]:
    """All strings inside a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from strings(one)


def texts(file: Path) -> list[str]:
    """What a file says: a notebook's cells, a JSON file's strings, or all of it."""
    if file.suffix == ".ipynb":
        return [unescape(cell.source) for cell in nbformat.read(file, as_version=4).cells]
    content = file.read_text(encoding="utf-8")
    return list(strings(json.loads(content))) if file.suffix == ".json" else [content]


def shared(parts: list[str], hashes: frozenset[str]) -> list[str]:
    """The runs of some texts that are among the hashes, without the allowed ones."""
    return [run for part in parts for run in runs(part) if digest(run) in hashes and run not in ALLOWED]


def files() -> list[Path]:
    patterns = (
        "*.md",
        "notebooks/*.ipynb",
        "notebooks/*.md",
        "data/quiz/*.json",
        "data/glossary/*.json",
        "docs/**/*.md",
    )
    found = [path for pattern in patterns for path in ROOT.glob(pattern)]
    return sorted([*found, *(ROOT / "forgetlab").rglob("*.py")])


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_no_sentence_is_shared_with_the_chapter(file: Path) -> None:
    assert shared(texts(file), known()) == []


def test_the_files_that_readers_see_are_among_those_read() -> None:
    names = {str(file.relative_to(ROOT)) for file in files()}
    assert {"README.md", "notebooks/00_start_here.ipynb", "data/glossary/terms.json", "data/quiz/final.json"} <= names


def test_a_copied_run_is_found_however_it_is_set() -> None:
    source = "A model that learns one thing may, without warning, lose another."
    hashes = frozenset(map(digest, runs(source)))
    assert len(hashes) == 4
    assert shared(["As we know, a **model** that\nlearns `one` thing may; without warning …"], hashes) == [
        "a model that learns one thing may without",
        "model that learns one thing may without warning",
    ]
    assert shared(["A model that learns one thing may lose another without warning."], hashes) == []


def test_a_notebook_and_a_json_file_are_read_cell_by_cell(tmp_path: Path) -> None:
    cells = [nbformat.v4.new_markdown_cell("one two &amp; three"), nbformat.v4.new_code_cell("# four")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
    assert texts(tmp_path / "a.ipynb") == ["one two & three", "# four"]
    (tmp_path / "a.json").write_text('{"a": ["one", {"b": "two", "c": 3}]}')
    assert texts(tmp_path / "a.json") == ["one", "two"]


def test_the_hashes_are_those_of_a_whole_chapter() -> None:
    content = json.loads(RUNS.read_text(encoding="utf-8"))
    hashes = content["hashes"].split()
    assert content["length"] == LENGTH
    assert len(hashes) > 3500
    assert hashes == sorted(set(hashes))
    assert all(re.fullmatch(f"[0-9a-f]{{{DIGITS}}}", one) for one in hashes)


if __name__ == "__main__":
    print(write(Path(sys.argv[1])), "runs")
