"""A page of the book in Chromium, from a file, with every host blocked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from tests.browser.jupyter import PATIENCE


class opened:
    """A page on the file; at its end nothing was asked of any host, and no script has failed.

    script: runs before those of the page. options: of the browser's context, such as color_scheme="dark".
    """

    def __init__(self, started: Browser, file: Path, script: str = "", **options: Any) -> None:
        self.context = started.new_context(**{"viewport": {"width": 1280, "height": 720}, **options})
        self.context.set_default_timeout(PATIENCE * 1000)
        self.page, self.url, self.script = self.context.new_page(), file.as_uri(), script

    def __enter__(self) -> Page:
        self.asked, self.errors = list[str](), list[str]()
        self.context.on("request", lambda one: self.asked.append(one.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        if self.script:
            self.page.add_init_script(self.script)
        self.page.goto(self.url)
        return self.page

    def __exit__(self, *_: object) -> None:
        self.context.close()
        assert [one for one in self.asked if not one.startswith(("file:", "blob:", "data:", "about:"))] == []
        assert self.errors == []
