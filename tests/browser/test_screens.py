"""A lab, a question and a figure in a real JupyterLab, for keyboards, screen readers, small screens and dark pages."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("playwright", reason="Playwright is not installed: pip install -r requirements.txt")
pytest.importorskip("axe_playwright_python", reason="axe-core is not installed: pip install -r requirements.txt")

from playwright.sync_api import Locator, Page

from forgetlab.teaching.page import GAP, INCH, LEFT, sheet
from forgetlab.teaching.questions import find
from tests.browser.axe import serious
from tests.browser.jupyter import Notebook, Server, browser, chromium, write

ROOT = Path(__file__).parents[2]
QUESTION = "00-skills"
CELLS = [
    "from forgetlab import labs\nlabs.dynamics.show()",
    f"from forgetlab.teaching.quiz import ask\nask({QUESTION!r})",
    "from forgetlab.teaching.notebook import show\nfrom matplotlib.figure import Figure\n"
    "figure = Figure()\nfigure.subplots().plot([1, 3, 2])\nshow(figure, 'up to 3, “then” 2 – ≈ half')",
]
LAB, CARD, FIGURE = range(3)
SMALLEST = 11 * 110 / 72  # px: the smallest letters in a lab's picture, as drawn (tests/labs/test_screens.py)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="no Chromium: install Debian's chromium, or set CHROMIUM to one"),
]


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    server = Server(tmp_path_factory.mktemp("jupyter"))
    try:
        write(server.root / "screens.ipynb", CELLS)
        with browser() as page:
            opened = Notebook(page, server, "screens.ipynb")
            opened.run_all()
            assert opened.errors() == []
            lab = opened.lab(LAB)
            lab.until(lambda: lab.source, "figure")
            page.wait_for_function("() => document.querySelectorAll('[role=radiogroup]').length")
            yield opened
    finally:
        server.close()


@pytest.fixture
def elsewhere(notebook: Notebook) -> Iterator[Page]:
    """Another page of the same browser."""
    page = notebook.page.context.browser.new_page()
    yield page
    page.close()


def test_a_slider_is_named_and_read_as_its_readout_says(notebook: Notebook) -> None:
    lab = notebook.lab(LAB)
    said = {}
    for slider in lab.box.locator(".widget-slider").all():
        handle, readout = slider.locator("[role=slider]"), slider.locator(".widget-readout")
        label = slider.locator(".widget-label").inner_text()
        assert handle.get_attribute("aria-label") == label
        said[label] = handle.get_attribute("aria-valuetext")
        assert said[label] == readout.inner_text()
    assert said == {"learning rate η": "0.1", "decay per step": "0", "overlap": "0.5", "pull λ": "0"}
    handle = lab.slider("learning rate η")
    handle.press("ArrowRight")
    lab.until(lambda: handle.get_attribute("aria-valuetext") == "0.13", "new value")  # 10^(−1 + 1/8)
    assert handle.get_attribute("aria-valuenow") == "-0.9"  # what would be read else
    handle.press("ArrowLeft")
    lab.until(lambda: handle.get_attribute("aria-valuetext") == "0.1", "old value")


def test_options_are_a_group_named_by_their_question(notebook: Notebook) -> None:
    group = notebook.page.get_by_role("radiogroup", name=find(QUESTION).ask, exact=True)
    assert group.get_by_role("radio").count() == len(find(QUESTION).options)


def test_a_message_changes_its_words_and_not_its_element(notebook: Notebook) -> None:
    card = notebook.lab(CARD)
    region = card.box.get_by_role("status")
    assert region.count() == 1
    assert region.get_attribute("aria-live") == "polite"
    before = region.inner_text()
    region.evaluate("e => { e.marked = true }")
    card.press("Answer")
    card.until(lambda: region.inner_text() != before, "verdict")
    assert region.evaluate("e => e.marked === true")
    assert region.inner_text() == "Choose an answer first."


def test_axe_finds_nothing_serious_in_a_lab_a_question_and_a_figure(notebook: Notebook) -> None:
    ours = (".forgetlab", ".jp-RenderedImage")
    assert serious(notebook.page, *ours) == []
    handle = notebook.lab(LAB).slider("overlap")
    label = handle.evaluate("e => { const was = e.ariaLabel; e.removeAttribute('aria-label'); return was }")
    assert [one.partition(":")[0] for one in serious(notebook.page, *ours)] == ["aria-input-field-name"]
    handle.evaluate("(e, label) => e.setAttribute('aria-label', label)", label)


def test_a_figure_of_a_cell_has_the_words_that_it_carries(notebook: Notebook) -> None:
    image = notebook.cells.nth(FIGURE).locator("img")
    assert image.get_attribute("alt") == "up to 3, “then” 2 – ≈ half"


def test_on_a_small_screen_tracks_are_long_and_the_figure_is_drawn_for_it(notebook: Notebook) -> None:
    lab, width = notebook.lab(LAB), "e => e.naturalWidth"
    lab.narrow(700)
    lab.until(lambda: lab.picture.evaluate(width) == 704, "picture as it was made")
    for place in (400, 292):  # of a lab; the second on a screen of 400 px, beside JupyterLab's own bars
        lab.narrow(place)
        lab.until(lambda: lab.picture.evaluate(width) == 462, "picture in one column")
        for track in lab.box.locator(".slider-container").all():
            assert (track.bounding_box() or {})["width"] >= 150
        assert (lab.picture.bounding_box() or {})["width"] / 462 * SMALLEST >= 10
        assert lab.outside() == []
        assert lab.cut_labels() == []
    lab.narrow(900)
    lab.until(lambda: lab.picture.evaluate(width) == round((900 - LEFT - GAP) / INCH * 110), "picture for its room")


@pytest.mark.parametrize("width", [1280, 1000])
def test_controls_and_picture_are_seen_at_one_glance(notebook: Notebook, width: int) -> None:
    """In a window of 1280 × 720 px, and with the room that a file browser leaves of it."""
    lab, page = notebook.lab(LAB), notebook.page
    page.set_viewport_size({"width": width, "height": 720})
    lab.box.locator("xpath=self::*[contains(@class, 'forgetlab-beside')]").wait_for()
    lab.until(lambda: lab.picture.evaluate("e => e.naturalWidth") not in (704, 462), "picture for its room")
    lab.box.evaluate("e => e.scrollIntoView({block: 'start'})")
    view = page.locator(".jp-WindowedPanel-outer").first.bounding_box()
    parts = [lab.picture, *lab.box.get_by_role("slider").all(), *lab.box.get_by_role("button").all()]
    for part in parts:
        place = part.bounding_box()
        assert view
        assert place
        assert view["y"] - 1 <= place["y"] < place["y"] + place["height"] <= view["y"] + view["height"] + 1
    assert lab.outside() == []
    assert lab.cut_labels() == []


def lightness(picture: Locator) -> float:
    return float(np.asarray(Image.open(io.BytesIO(picture.screenshot())).convert("L")).mean())


def test_figures_are_dark_where_the_page_is(notebook: Notebook) -> None:
    figures = [notebook.lab(LAB).picture, notebook.cells.nth(FIGURE).locator("img")]
    assert min(map(lightness, figures)) > 200
    change = "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})"
    notebook.page.evaluate(change, "JupyterLab Dark")
    notebook.page.wait_for_selector("body[data-jp-theme-light=false]", state="attached")
    try:
        assert max(map(lightness, figures)) < 60
        assert serious(notebook.page, ".forgetlab") == []
    finally:
        notebook.page.evaluate(change, "JupyterLab Light")


def test_the_sliders_of_ipywidgets_7_are_named_too(elsewhere: Page) -> None:
    """Colab's pages are built by it: a handle of jQuery UI, without a role."""
    elsewhere.set_content(
        "<div class='widget-vbox forgetlab'><div class='widget-inline-hbox widget-slider widget-hslider'>"
        "<label class='widget-label'>rate</label><div class='slider-container'><div class='slider ui-slider'>"
        "<span tabindex='0' class='ui-slider-handle' style='left: 25%'></span></div></div>"
        f"<div class='widget-readout' contenteditable='true'>0.0010</div></div><div>{sheet().value}</div></div>"
    )
    handle = elsewhere.get_by_role("slider", name="rate", exact=True)
    assert handle.get_attribute("aria-valuetext") == "0.001"
    assert handle.get_attribute("aria-valuenow") == "25"
    elsewhere.evaluate("document.querySelector('.widget-readout').textContent = '1000'")
    elsewhere.wait_for_selector("[aria-valuetext='1000']", state="attached")
    assert serious(elsewhere, ".forgetlab") == []


@pytest.mark.skipif(find_spec("myst_nb") is None, reason="no Sphinx: pip install -r requirements-book.txt")
def test_axe_finds_nothing_serious_on_a_page_of_the_book(elsewhere: Page, tmp_path: Path) -> None:
    source, book = tmp_path / "source", tmp_path / "book"
    source.mkdir()
    for name, own in (("README.md", "index.md"), ("00_start_here.ipynb", "00_start_here.ipynb")):
        shutil.copy(ROOT / "notebooks" / name, source / own)
    build = [sys.executable, "-m", "sphinx", "-Q", "-c", str(ROOT / "docs"), str(source), str(book)]
    subprocess.run(build, check=True, timeout=120)
    elsewhere.goto((book / "00_start_here.html").as_uri())
    elsewhere.wait_for_selector(
        ".cell_output .fl-lab svg[aria-label]"
    )  # the lab that plays in the place of its picture
    assert serious(elsewhere) == []
