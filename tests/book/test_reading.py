"""The book's pages, from files, with every host blocked: terms, quizzes, links, without scripts, in print."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="Playwright is not installed: pip install -r requirements.txt")


def test_the_book_is_built(book: Path) -> None:
    assert (book / "README.html").is_file()
