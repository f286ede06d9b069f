"""The page that trains, in Chromium from a file, with every host blocked: by keyboard and pointer, wide and narrow."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason="Playwright is not installed: pip install -r requirements.txt")
pytest.importorskip("axe_playwright_python", reason="axe-core is not installed: pip install -r requirements.txt")

from playwright.sync_api import Browser, Page

from book import build, program
from forgetlab.labs import LABS, show
from forgetlab.labs.kit.settings import from_line, to_line
from tests.book.pages import opened
from tests.browser.axe import serious
from tests.browser.jupyter import chromium

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not program.has_compiler(), reason="no ziglang, the compiler from PyPI: see requirements.txt"),
    pytest.mark.skipif(chromium() is None, reason="no Chromium: install Debian's chromium, or set CHROMIUM to one"),
]
SHORT = {"steps": 6, "samples": 20}
STILL = {"no pull": {"steps": 20}, "EWC, λ = 100": {**SHORT, "method": "EWC"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the page in it."""
    made = tmp_path_factory.mktemp("book")
    (made / build.NAME).write_text(build.page(made, STILL), encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> program.Program:
    return program.made(tmp_path_factory.mktemp("native"))


@pytest.fixture
def page(started: Browser, folder: Path) -> Iterator[Page]:
    with opened(started, folder / build.NAME) as one:
        yield one


def until_over(page: Page) -> None:
    page.wait_for_function("worker === null")


def trained(page: Page, **settings: Any) -> list[dict[str, Any]]:
    """The records of a run."""
    page.evaluate("own => train({...opening, ...own})", settings)
    until_over(page)
    return page.evaluate("shown.records")


@pytest.mark.parametrize("method", ["L2-SP", "EWC"])
def test_the_page_finds_the_digits_of_this_machine_twice(page: Page, native: program.Program, method: str) -> None:
    settings = {**SHORT, "method": method, "lam": 0.1 if method == "L2-SP" else 100.0, "seed": 5}
    first, second = trained(page, **settings), trained(page, **settings)
    assert first == second
    assert [record["step"] for record in first] == [0, 5, 6]
    for found, true in zip(first, native.run(settings), strict=True):
        perplexity = found.pop("perplexity")
        assert found == true  # bit for bit
        assert perplexity == pytest.approx(math.exp(true["nll"]))


def test_by_keyboard_and_pointer(page: Page) -> None:
    says = page.locator("#says")
    assert "recorded" in page.inner_text("#source")
    assert re.search(
        r"accuracy [\d.]+ → [\d.]+, perplexity [\d.]+ → [\d.]+, entity F1 1.00 → [\d.]+", says.inner_text()
    )
    page.locator("#steps").press("Home")  # trains at once: 20 steps
    page.wait_for_function("shown.live && shown.settings.steps === 20")
    until_over(page)
    assert "20 steps" in says.inner_text()
    assert "live, in this page" in page.inner_text("#source")
    page.locator("#lr").press("ArrowRight")
    assert page.locator("#lr").get_attribute("aria-valuetext") == "0.0018"
    until_over(page)
    page.get_by_role("radio", name="none").press("ArrowRight")
    assert page.evaluate("settings.method") == "L2-SP"
    until_over(page)
    assert page.locator("#chart-f1 polyline").count() == 4  # the recorded run, two faint ones, this one
    page.get_by_role("button", name="Pull the weights that matter.").click()
    page.wait_for_function("shown.settings.method === 'EWC'")
    page.wait_for_function("shown.records.length > 0")
    page.get_by_role("button", name="Stop").press("Enter")
    assert says.inner_text().endswith("Stopped.")
    assert page.get_by_role("button", name="Stop").is_disabled()
    page.locator("#steps").press("Home")  # and it goes on after that
    page.get_by_role("button", name="Stop").click()  # before anything was found
    assert page.evaluate("worker") is None
    page.get_by_role("button", name="Reset").click()
    assert page.evaluate("[settings, earlier.length]") == [dict(program.DEFAULTS), 0]


def test_a_rate_that_is_too_high_is_said(page: Page) -> None:
    trained(page, lr=1e30, steps=40)
    assert re.search(
        r"no longer finite after step \d+, and the run ended: the learning rate 1e\+30 is too high",
        page.inner_text("#says"),
    )
    assert len(trained(page, **SHORT)) == 3


def test_the_settings_line_fits_the_live_labs(page: Page) -> None:
    """What the page says, a lab reads; what a lab says, the page reads."""
    watch, pull = (show(name, driver="inline") for name in ("watch", "pull"))
    try:
        page.evaluate("choose({lr: 10 ** -2.5, steps: 40, seed: 3})")
        assert from_line("watch", page.input_value("#line"), watch.training) == pytest.approx(
            {"lr": 10**-2.5, "steps": 40, "similarity": 1.0, "seed": 3}, rel=1e-5
        )
        page.evaluate("choose({...opening, method: 'L2-SP', lam: 1e-4, seed: 2})")
        own = {"lam": 1e-4, "method": "L2-SP", "estimator": "auto", "samples": 100, "seed": 2}
        assert from_line("pull", page.input_value("#line"), pull.training) == own
        assert page.inner_text("#fits") == ""
        page.evaluate("choose({method: 'EWC', lam: 1e6, steps: 40})")
        assert page.input_value("#line") == to_line("pull", {**own, "lam": 1e6, "method": "EWC"})
        assert "pull has no slider" in page.inner_text("#fits")
        page.evaluate("choose(opening)")
        for lab in (watch, pull):
            given = page.evaluate("line => fromLine(line)", to_line(lab.name, lab.settings()))
            assert given == {**program.DEFAULTS, "method": "none" if lab is watch else "EWC"}
    finally:
        watch.close()
        pull.close()
    for line, words in {
        "anything": "begins with “forgetlab 1 watch:”",
        "forgetlab 2 watch: seed=0": "of version 2",
        "forgetlab 1 replay: seed=0": "of the lab “replay”",
        "forgetlab 1 watch: depth=3": "Unknown setting “depth”",
        "forgetlab 1 watch: lr=": "lr has no value",
        "forgetlab 1 watch: lr=7": "lr lies between 1e-05 and 0.1, got 7",
        "forgetlab 1 watch: steps=33.5": "steps is a whole number",
        "forgetlab 1 watch: similarity=0.5": "for the live lab",
        "forgetlab 1 pull: method=LwF": "“LwF” is in the live lab",
        "forgetlab 1 pull: samples=9000": "samples lies between 20 and 400",
    }.items():
        page.fill("#line", line)
        page.locator("#line").press("Enter")
        assert words in page.inner_text("#fits")
    assert page.evaluate("worker") is None
    assert "watch" in LABS


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_wide_and_narrow_and_axe_finds_nothing_serious(started: Browser, folder: Path, scheme: str) -> None:
    with opened(started, folder / build.NAME, color_scheme=scheme) as page:
        trained(page, **SHORT, method="EWC")
        assert serious(page) == []
        last = page.locator("#tries").bounding_box()
        assert last
        assert last["y"] + last["height"] <= 720  # all at one glance
        for width in (1280, 400):
            page.set_viewport_size({"width": width, "height": 720})
            page.wait_for_timeout(100)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert serious(page) == []


def test_without_scripts_there_is_the_still_picture_with_its_words_and_numbers(started: Browser, folder: Path) -> None:
    with opened(started, folder / build.NAME, java_script_enabled=False) as page:
        words = page.locator("#still img").get_attribute("alt") or ""
        assert re.search(r"no pull, 20 steps: accuracy [\d.]+ → .*EWC, λ = 100, 6 steps: accuracy", words)
        assert page.locator("#still img").evaluate("e => e.naturalWidth") > 300
        assert page.locator("#still tr").count() == 1 + 5 + 3
        assert not page.locator("#bench").is_visible()
        assert page.locator("noscript").inner_text()


def test_without_simd_it_says_so_and_shows_the_still_picture(started: Browser, folder: Path) -> None:
    with opened(started, folder / build.NAME, script="WebAssembly.validate = () => false") as page:
        assert "no WebAssembly with SIMD" in page.inner_text("#still")
        assert page.locator("#still img").is_visible()
        assert not page.locator("#bench").is_visible()


def test_texts_of_another_size_are_refused_in_words(page: Page) -> None:
    page.evaluate("texts = texts.slice(8)")
    trained(page, **SHORT)
    assert re.search(r"The training broke off: .*bytes, the program wants \d+", page.inner_text("#says"))


def test_it_is_small(folder: Path) -> None:
    assert (folder / build.NAME).stat().st_size < 2e6
