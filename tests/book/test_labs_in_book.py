"""Every lab in the built book, from its file with every host blocked, as a reader plays it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason="Playwright is not installed: pip install -r requirements.txt")

from playwright.sync_api import Browser, Locator, Page

from forgetlab import labs
from forgetlab.labs import LABS, records
from forgetlab.labs.kit.settings import from_line, to_line
from tests.book.pages import opened

pytestmark = pytest.mark.slow
ONE_RUN = {"own"}  # of the reader's own files: nothing is recorded but what it opens on
SHOWS = re.compile(r'class="forgetlab-lab" data-lab="(\w+)"')


def lessons(book: Path) -> dict[Path, list[str]]:
    """The labs of each page, each at the first page that shows it."""
    found: dict[Path, list[str]] = {}
    seen = set[str]()
    for path in sorted(book.glob("[0-9][0-9]_*.html")):
        names = [name for name in dict.fromkeys(SHOWS.findall(path.read_text("utf-8"))) if name not in seen]
        seen.update(names)
        if names:
            found[path] = names
    return found


@contextmanager
def quiet(started: Browser, path: Path, **options: Any) -> Iterator[Page]:
    """A page of the book; at its end no script has failed, nothing was missed and nothing was asked of a host."""
    said, missed = list[str](), list[str]()
    one = opened(started, path, **options)
    one.page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    one.page.on("requestfailed", lambda request: missed.append(request.url))
    with one as page:
        yield page
    assert (missed, said) == ([], [])


class Played:
    """A lab of a page, and the Python lab whose settings line it has."""

    def __init__(self, page: Page, name: str) -> None:
        self.name, self.box = name, page.locator(f'.fl-lab[aria-label^="The lab {name},"]').first
        self.live = labs.show(name, driver="inline")

    @property
    def line(self) -> Locator:
        return self.box.locator(".fl-line input")

    @property
    def says(self) -> str:
        return self.box.locator(".fl-says").inner_text()

    @property
    def settings(self) -> dict[str, Any]:
        """Those in its line, as the Python lab reads them."""
        return {**self.live.settings(), **from_line(self.name, self.line.input_value(), self.live.training)}

    def picture(self) -> str:
        return self.box.locator(".fl-panels").inner_html() + self.box.locator(".fl-html").inner_html()

    def paste(self, text: str) -> str:
        self.line.fill(text)
        self.line.press("Enter")
        return self.says

    def opens_as_the_lab_does(self) -> None:
        assert self.box.locator(".fl-source").inner_text() == ("simulated" if self.live.instant else "recorded")
        assert self.line.input_value() == to_line(self.name, self.live.settings())
        assert len(self.says) > 20
        assert len(self.picture()) > 1000

    def moves_by_keyboard(self) -> int:
        """Each control is moved by one stop: the line follows, or the picture; how many can be moved."""
        fields, views = (
            self.box.locator(".fl-controls :is(input, select)"),
            {c.description for c in self.live.view.values()},
        )
        pictures, count = {self.says + self.picture()}, 0
        for i in range(fields.count()):
            self.box.get_by_role("button", name="Reset").click()
            field, before = fields.nth(i), self.settings
            at, last = field.evaluate("e => [Number(e.value), e.options ? e.options.length - 1 : Number(e.max)]")
            if last == 0:  # no other run but by moving something else first
                continue
            field.press("ArrowLeft" if at == last else "ArrowRight")
            label = self.box.locator(f'label[for="{field.get_attribute("id")}"]').inner_text()
            assert (self.settings != before) == (label not in views), f"{self.name}: {label}"
            pictures.add(self.says + self.picture())
            count += 1
        assert len(pictures) > 0.6 * count, self.name  # some settings have no part in a run: an estimator without EWC
        return count

    def takes_a_line(self) -> None:
        """One beside the grid leads to the nearest run, and says so; that of the opening settings leads back."""
        opening, beside = self.live.settings(), self.beside()
        words = self.paste(to_line(self.name, beside))
        if self.live.instant:
            assert self.settings == beside
        else:
            assert "No run was recorded at these settings. This is the nearest one:" in words
        self.paste(to_line(self.name, opening))
        assert self.line.input_value() == to_line(self.name, opening)
        assert "Nothing was changed" in self.paste(f"forgetlab 1 {self.name}: depth=3")

    def beside(self) -> dict[str, Any]:
        """Settings between the stops of one control."""
        for name, control in self.live.training.items():
            recorded = {settings[name] for settings, _ in records.read(self.name)}
            if isinstance(control.value, float):
                step = 0.37 * control.step
                value = control.value * control.base**step if hasattr(control, "base") else control.value + step
                return {**self.live.settings(), name: float(f"{value:.5g}")}
            if isinstance(control.value, int) and (free := {*range(control.min, control.max + 1)} - recorded):
                return {**self.live.settings(), name: min(free)}
        raise AssertionError(f"{self.name} has no number")


@pytest.mark.parametrize("lesson", range(14))
def test_the_labs_of_a_lesson_answer(started: Browser, book: Path, lesson: int) -> None:
    path = next(book.glob(f"{lesson:02}_*.html"))
    names = lessons(book).get(path, [])
    with quiet(started, path) as page:
        assert page.locator(".fl-trouble").all_inner_texts() == []
        for name in names:
            lab = Played(page, name)
            lab.opens_as_the_lab_does()
            if name in ONE_RUN:
                continue
            assert lab.moves_by_keyboard() > 0
            lab.box.get_by_role("button", name="Reset").click()
            assert lab.line.input_value() == to_line(name, lab.live.settings())
            lab.takes_a_line()
        page.set_viewport_size({"width": 400, "height": 800})
        page.wait_for_timeout(100)
        assert overflowing(page) == []


def overflowing(page: Page) -> list[str]:
    """What reaches over the right edge of a narrow page, and cannot be scrolled within its own box."""
    return list(
        page.evaluate(
            """() => {
              const wide = document.documentElement.clientWidth, scrolls = (e) => e && e !== document.body &&
                (['auto', 'scroll', 'hidden'].includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
              return [...document.querySelectorAll('main article *')]
                .filter((e) => !e.ownerSVGElement && !scrolls(e.parentElement))
                .filter((e) => e.getBoundingClientRect().right > wide + 0.5)
                .map((e) => e.outerHTML.slice(0, 150));
            }"""
        )
    )


def test_all_labs_are_there(book: Path) -> None:
    assert sorted(name for names in lessons(book).values() for name in names) == sorted(LABS)
