"""What the tests of the book share: the whole book, built once (tests/conftest.py gives them one worker), a browser."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from book.program import has_compiler

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built book, by the command of `make book`."""
    for name in ("sphinx_book_theme", "myst_nb"):
        pytest.importorskip(name, reason="Sphinx is not installed: pip install -r requirements-book.txt")
    if not has_compiler():
        pytest.skip("no ziglang, the compiler from PyPI: see requirements.txt")
    folder = tmp_path_factory.mktemp("built") / "book"
    subprocess.run([sys.executable, "-m", "book.make", str(folder)], check=True, cwd=Path(__file__).parents[2])
    return folder


@pytest.fixture(scope="module")  # a test of another room starts its own Playwright, and two at once are refused
def started() -> Iterator[Browser]:
    """Chromium without any host."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    from tests.browser.jupyter import FLAGS, chromium

    if chromium() is None:
        pytest.skip("no Chromium: install Debian's chromium, or set CHROMIUM to one")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=chromium(), args=[*FLAGS, "--host-resolver-rules=MAP * ~NOTFOUND"]
        )
        yield browser
        browser.close()
