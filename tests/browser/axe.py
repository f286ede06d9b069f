"""axe-core on a page: what a keyboard or a screen reader would stumble over."""

from __future__ import annotations

from importlib.resources import files

from playwright.sync_api import Page


def serious(page: Page, *within: str) -> list[str]:
    """The serious and critical findings, each as "rule: element". within: CSS selectors; none: the whole page."""
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8"))
    context = {"include": [[one] for one in within]} if within else {"include": [["html"]]}
    found = page.evaluate("context => axe.run(context)", context)
    assert found["passes"], "nothing was looked at"
    bad = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {node['html'][:200]}" for one in bad for node in one["nodes"]]
