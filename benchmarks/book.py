"""How long the labs of the built book take to answer: from a moved control until the picture of its run is painted.

    python -m benchmarks.book dist/book

In Chromium from the files, with every host blocked; writes benchmarks/results/book.json and book.md. For this nothing
else should be running.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
MOVES = 10
SHOWS = re.compile(r'class="forgetlab-lab" data-lab="(\w+)"')
# Its controls in turn, one stop up or back, each time until the frame after the next has been handed over.
MOVE = """async ([name, moves]) => {
  const box = document.querySelector(`.fl-lab[aria-label^="The lab ${name},"]`), times = [];
  const painted = () => new Promise((done) => requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = done;
    channel.port2.postMessage(0);
  }));
  const last = (field) => field.options ? field.options.length - 1 : Number(field.max);
  const fields = [...box.querySelectorAll('.fl-controls :is(input, select)')].filter((field) => last(field) > 0);
  box.scrollIntoView();
  for (let i = 0; fields.length && i < moves; i++) {
    const field = fields[i % fields.length], at = Number(field.value);
    await painted();
    field.value = at < last(field) ? at + 1 : at - 1;
    const begun = performance.now();
    field.dispatchEvent(new Event('input', {bubbles: true}));
    await painted();
    times.push(performance.now() - begun);
  }
  return times;
}"""


def measured(book: Path) -> dict[str, list[float]]:
    """lab → ms of each move; empty where a lab has one run only."""
    from playwright.sync_api import sync_playwright

    from tests.browser.jupyter import FLAGS, chromium

    found: dict[str, list[float]] = {}
    with sync_playwright() as play:
        flags = [*FLAGS, "--host-resolver-rules=MAP * ~NOTFOUND"]
        browser = play.chromium.launch(executable_path=chromium(), args=flags)
        for path in sorted(book.glob("[0-9][0-9]_*.html")):
            names = [name for name in SHOWS.findall(path.read_text("utf-8")) if name not in found]
            page = browser.new_page(viewport={"width": 1280, "height": 720})
            page.set_default_timeout(300_000)
            page.goto(path.as_uri())
            found |= {name: page.evaluate(MOVE, [name, MOVES]) for name in names}
            page.close()
        browser.close()
    return found


def report(result: Mapping[str, Any]) -> str:
    """book.md"""
    moved = {name: times for name, times in result["ms"].items() if times}
    quick = sum(statistics.median(times) <= 100 for times in moved.values())
    lines = [
        "# How fast the book's labs answer",
        "",
        f"From a moved control until the picture of its run is painted: {MOVES} moves, all controls in turn,",
        "in Chromium at 1280 × 720 from the files, every host blocked; made by `python -m benchmarks.book dist/book`.",
        f"{quick} of {len(moved)} labs take at most 100 ms. The whole book has {result['megabytes']:.1f} MB.",
        "",
        "| lab | median, ms | longest, ms |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {statistics.median(times):.0f} | {max(times):.0f} |" for name, times in moved.items()]
    return "\n".join(lines) + "\n"


def main(book: Path) -> None:
    size = sum(path.stat().st_size for path in book.rglob("*") if path.is_file()) / 1e6
    result = {"megabytes": size, "ms": measured(book)}
    (RESULTS / "book.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "book.md").write_text(report(result), encoding="utf-8")
    print(report(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
