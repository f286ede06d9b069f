"""A lesson and two labs in a real browser, used by keyboard and pointer, wide and at 360 px."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="Playwright is not installed: pip install -r requirements.txt")
pytest.importorskip("axe_playwright_python", reason="axe-core is not installed: pip install -r requirements.txt")

from tests.browser.axe import serious
from tests.browser.jupyter import Notebook, Server, browser, chromium, write

LESSON = Path(__file__).parents[2] / "notebooks" / "00_start_here.ipynb"
CELLS = [
    "import os\nfrom forgetlab import labs\nprint(f'kernel {os.getpid()}')",
    "labs.cloud.show()",
    "labs.watch.show()",
    "import torch\nfrom pathlib import Path\n"
    "while not Path('over').exists():\n    torch.rand(200, 200) @ torch.rand(200, 200)",
]
CLOUD, WATCH, BUSY = 1, 2, 3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="no Chromium: install Debian's chromium, or set CHROMIUM to one"),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("jupyter"))
    yield started
    if started.process.poll() is None:
        started.close()


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    """The server, without kernels of earlier tests; the last test ends it."""
    yield shared
    if shared.process.poll() is None:
        shared.end_kernels()


def busy(notebook: Notebook) -> None:
    """Run the last cell, which computes until there is a file named over; do not wait for it."""
    notebook.page.evaluate(
        "i => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = i;"
        " window.jupyterapp.commands.execute('notebook:run-cell'); }",
        BUSY,
    )
    notebook.page.wait_for_function(
        f"() => document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')[{BUSY}].innerText === '[*]:'"
    )


def computes(notebook: Notebook) -> bool:
    return notebook.cells.nth(BUSY).locator(".jp-InputPrompt").inner_text() == "[*]:"


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_first_lesson_runs_from_top_to_bottom(server: Server) -> None:
    shutil.copy(LESSON, server.root / LESSON.name)
    with browser() as page:
        notebook = Notebook(page, server, LESSON.name)
        notebook.run_all()
        assert notebook.errors() == []
        prompts = page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()
        assert serious(page, ".forgetlab", ".jp-RenderedMarkdown", ".jp-RenderedImage") == []
    assert [p.strip() for p in prompts] == [f"[{i}]:" for i in range(1, len(prompts) + 1)]
    assert len(prompts) > 3


def test_labs_in_notebook_7(server: Server) -> None:
    write(server.root / "seven.ipynb", CELLS[:BUSY])
    with browser() as page:
        notebook = Notebook(page, server, "seven.ipynb", at="notebooks")
        assert page.evaluate("window.jupyterapp.name") == "Jupyter Notebook"
        for cell in range(BUSY):
            notebook.run_cell(cell)
        assert notebook.errors() == []
        cloud, watch = notebook.lab(CLOUD), notebook.lab(WATCH)
        cloud.until(lambda: cloud.source, "figure")
        seen, words = cloud.source, cloud.alt
        cloud.move("correlation", "PageUp")  # the arrow keys go from cell to cell here: they are Notebook 7's own
        cloud.until(lambda: cloud.source != seen and cloud.alt != words, "new figure after a move")
        assert "A kept result" in watch.says
        watch.press("Train")
        watch.until(lambda: "A kept result" not in watch.says, "begin of the training")
        watch.move("steps", "Home")
        watch.until(lambda: "After 20 steps" in watch.says, "end of the training")
        assert cloud.outside() == watch.outside() == []


def test_labs_by_keyboard_and_pointer_and_on_a_narrow_page(server: Server) -> None:
    write(server.root / "labs.ipynb", CELLS)
    with browser() as page:
        notebook = Notebook(page, server, "labs.ipynb")
        for cell in range(BUSY):
            notebook.run_cell(cell)
        assert notebook.errors() == []
        kernel = int(re.search(r"kernel (\d+)", notebook.cells.nth(0).inner_text())[1])  # type: ignore[index]
        assert alive(kernel)

        cloud = notebook.lab(CLOUD)
        cloud.until(lambda: cloud.source, "figure")
        seen, words = cloud.source, cloud.alt
        assert len(re.findall(r"\d", words)) > 8, words
        cloud.move("correlation")
        cloud.until(lambda: cloud.source != seen and cloud.alt != words, "new figure after a move")
        seen, words = cloud.source, cloud.alt
        cloud.drag("correlation", -60)
        cloud.until(lambda: cloud.source != seen and cloud.alt != words, "new figure after a drag")

        watch = notebook.lab(WATCH)
        assert "A kept result" in watch.says
        opened = watch.source
        assert opened
        watch.press("Train")
        watch.until(lambda: watch.source != opened, "first live figure")
        watch.move("steps", "Home")  # its low end; takes the place of the run under way
        watch.until(lambda: "After 20 steps" in watch.says, "end of the training")
        done, words = watch.source, watch.alt
        assert re.search(r"After 20 steps: sentiment [\d.]+ → [\d.]+, masked-lm [\d.]+ → [\d.]+", words), words
        watch.move("seed")
        watch.until(lambda: watch.source != done, "new figure after a move")
        watch.until(lambda: "After 20 steps" in watch.says and watch.alt != words, "end of the second training")
        fresh = watch.source
        watch.move("seed", "ArrowLeft")  # seen before: what was kept is shown, nothing is trained
        watch.until(lambda: "A kept result" in watch.says, "kept result")
        assert watch.alt == words
        assert watch.source != fresh

        busy(notebook)  # from here on a cell computes
        seen = cloud.source
        cloud.move("correlation", "ArrowLeft")
        cloud.until(lambda: cloud.source != seen, "new figure while a cell computes")
        watch.press("Train")
        watch.until(lambda: "A kept result" not in watch.says, "begin of the training while a cell computes")
        watch.press("Stop")
        watch.until(lambda: "Stopped" in watch.says or "After 20 steps" in watch.says, "end of the training")
        assert computes(notebook)
        (server.root / "over").touch()
        cloud.until(lambda: not computes(notebook), "end of the cell")

        cloud.narrow(360)
        for lab in (cloud, watch):
            assert lab.outside() == []
            assert lab.cut_labels() == []
            lab.picture.scroll_into_view_if_needed()
            shown = lab.picture.bounding_box()
            assert shown
            assert 300 < shown["width"] <= 360
        page.goto("about:blank")
    assert server.close() == 0, server.log.read_text()
    assert not alive(kernel)
    assert "Traceback" not in server.log.read_text()
