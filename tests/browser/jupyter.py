"""A real JupyterLab in a headless Chromium: open a notebook, run it, and use its labs as a person does."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Locator, Page, sync_playwright

PATIENCE = 120.0  # seconds that a busy machine may take
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
MARGIN = 0.5  # px that are lost in rounding
NAMES = ("chromium", "chromium-browser", "google-chrome")
SETTINGS = {  # cells that are not in view must stay in the page, and nothing may pop up over it
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
}
# Times of new pictures and new words in an element, in ms since the first key, click or run after it was called.
RECORD = """(element) => {
  const box = element.closest('.jp-Cell'), seen = [];
  window.seen = seen; window.begun = null;
  const begin = (event) => { if (window.begun === null) window.begun = event.timeStamp; };
  for (const kind of ['keydown', 'click']) box.addEventListener(kind, begin, {capture: true, once: true});
  if (window.recorder) window.recorder.disconnect();
  let last = box.querySelector('img[alt]');
  window.recorder = new MutationObserver(() => {
    const img = box.querySelector('img[alt]');
    const says = [...box.querySelectorAll('[role=status]')].map(e => e.textContent).join('\\n');
    // a new picture is a new element, even where it looks the same; a faint one is an earlier run's
    const entry = {new: !!img && img !== last && !img.closest('[style*=opacity]'), says};
    if (entry.new) last = img;
    const done = () => requestAnimationFrame(() => {
      entry.ms = performance.now() - (window.begun ?? NaN); seen.push(entry);
    });
    entry.new ? img.decode().then(done, done) : done();
  });
  window.recorder.observe(box, {subtree: true, childList: true, characterData: true, attributes: true});
}"""


def chromium() -> str | None:
    """Where Chromium is: $CHROMIUM, else on the path."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def write(path: Path, cells: Sequence[str]) -> None:
    """A notebook of code cells."""
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, path)


class Server:
    """JupyterLab on a free port. folder: an empty one; notebooks go to its `root`.

    env: added to the environment of the server and its kernels.
    """

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.root = folder / "root"
        self.root.mkdir()
        for name, values in SETTINGS.items():
            place = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(values))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        self.token = secrets.token_hex(16)
        own = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
            "FORGETLAB_CACHE": "cache",
        }
        places = {name: str(folder / place) for name, place in own.items()}
        quiet = {"PYDEVD_DISABLE_FILE_VALIDATION": "1", "JUPYTER_PREFER_ENV_PATH": "1", "JUPYTER_TOKEN": self.token}
        self.log = folder / "server.txt"
        options = [
            "--no-browser",
            "--ServerApp.allow_root=True",
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={self.url.rpartition(':')[2]}",
            "--ServerApp.port_retries=0",
            f"--ServerApp.root_dir={self.root}",
            "--LabApp.expose_app_in_browser=True",
            "--JupyterNotebookApp.expose_app_in_browser=True",
            "--LabApp.extension_manager=readonly",
        ]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jupyterlab", *options],
                cwd=self.root,
                env={**os.environ, **places, **quiet, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise RuntimeError(f"JupyterLab did not start:\n{self.log.read_text()}")
            time.sleep(0.2)

    def _ask(self, path: str, method: str = "GET") -> bytes:
        asked = urllib.request.Request(f"{self.url}{path}", method=method)
        asked.add_header("Authorization", f"token {self.token}")
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return bytes(answer.read())

    def _answers(self) -> bool:
        try:
            self._ask("/api/status")
        except OSError:
            return False
        return True

    def end_kernels(self) -> None:
        """End the kernels; the server stays."""
        for kernel in json.loads(self._ask("/api/kernels")):
            self._ask(f"/api/kernels/{kernel['id']}", "DELETE")

    def close(self) -> int:
        """End the server and its kernels; its exit status. Killed (a status below 0) where it does not end."""
        try:
            self._ask("/api/shutdown", "POST")
            return self.process.wait(30)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            return self.process.wait()


class Notebook:
    """A notebook in a page. at: "doc/tree" of JupyterLab, or "notebooks" of Notebook 7, which the same server has."""

    def __init__(self, page: Page, server: Server, name: str, at: str = "doc/tree") -> None:
        self.page = page
        page.goto(f"{server.url}/{at}/{name}?token={server.token}&reset", timeout=PATIENCE * 1000)
        self._until(
            "() => { const s = window.jupyterapp?.shell?.currentWidget?.sessionContext;"
            " return s?.isReady && s.session?.kernel?.connectionStatus === 'connected'"
            " && s.session.kernel.status === 'idle' }"
        )

    def _until(self, condition: str, seconds: float = PATIENCE) -> None:
        self.page.wait_for_function(condition, timeout=seconds * 1000)

    def run_all(self, seconds: float = PATIENCE) -> None:
        """Run every cell and wait for the last; a cell's error ends it."""
        self._command("notebook:run-all-cells", seconds)

    def run_cell(self, index: int, seconds: float = PATIENCE) -> None:
        """Run one cell, counted from 0."""
        self.page.evaluate(f"window.jupyterapp.shell.currentWidget.content.activeCellIndex = {index}")
        self._command("notebook:run-cell", seconds)

    def _command(self, name: str, seconds: float) -> None:
        self.page.evaluate(
            "name => { window.ran = false; window.begun = performance.now();"
            " window.jupyterapp.commands.execute(name).finally(() => { window.ran = true }) }",
            name,
        )
        self._until("() => window.ran", seconds)

    @property
    def cells(self) -> Locator:
        return self.page.locator(".jp-Cell")

    def errors(self) -> list[str]:
        """What the cells wrote as an error or on stderr."""
        bad = "application/vnd.jupyter.error", "application/vnd.jupyter.stderr"
        return self.page.locator(", ".join(f'[data-mime-type="{kind}"]' for kind in bad)).all_inner_texts()

    def lab(self, index: int) -> Lab:
        """The lab that the cell of that index shows; waits for it."""
        box = self.cells.nth(index).locator(".jp-OutputArea-output .widget-vbox").first
        box.wait_for(timeout=PATIENCE * 1000)
        return Lab(self.page, box)


class Lab:
    """A lab on a page; used by keyboard, or by pointer."""

    def __init__(self, page: Page, box: Locator) -> None:
        self.page, self.box = page, box

    def slider(self, label: str) -> Locator:
        """The handle of a slider, by its visible label."""
        named = self.page.locator(".widget-label", has_text=re.compile(f"^{re.escape(label)}$"))
        return self.box.locator(".widget-slider", has=named).locator(".noUi-handle")

    def move(self, label: str, key: str = "ArrowRight") -> None:
        """Press a key on a slider."""
        self.slider(label).press(key)

    def drag(self, label: str, pixels: float) -> None:
        """Take a slider's handle with the pointer, pull it to the right, and let it go."""
        handle = self.slider(label)
        handle.scroll_into_view_if_needed()
        box = handle.bounding_box()
        assert box
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + pixels, y, steps=5)
        self.page.mouse.up()

    def press(self, label: str) -> None:
        """Press a button by keyboard."""
        self.box.get_by_role("button", name=label, exact=True).press("Enter")

    @property
    def picture(self) -> Locator:
        return self.box.locator("img[alt]")

    @property
    def source(self) -> str:
        """The picture itself, as a data URL; "" where there is none yet."""
        return (self.picture.get_attribute("src") or "") if self.picture.count() else ""

    @property
    def alt(self) -> str:
        return (self.picture.get_attribute("alt") or "") if self.picture.count() else ""

    @property
    def says(self) -> str:
        """All its notes."""
        return "\n".join(self.box.locator("[role=status]").all_inner_texts())

    def until(self, reached: Any, what: str, seconds: float = PATIENCE) -> None:
        """Wait until reached() holds."""
        deadline = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < deadline, f"no {what} in {seconds:g} s; the lab says {self.says!r}"
            self.page.wait_for_timeout(50)

    def narrow(self, width: int, height: int = 900) -> None:
        """Make the page so wide that the lab itself has `width` pixels: prompts and side bars take the rest."""
        for _ in range(3):
            page = self.page.viewport_size
            assert page
            area = self.box.evaluate("e => e.closest('.jp-OutputArea-output').clientWidth")
            if area == width:
                return
            self.page.set_viewport_size({"width": page["width"] + width - area, "height": height})
            self.page.wait_for_timeout(500)

    def outside(self) -> list[str]:
        """What sticks out of the lab to the right, by more than the margin that every widget has."""
        return self.box.evaluate(
            "(e, margin) => { const edge = e.closest('.jp-OutputArea-output').getBoundingClientRect().right + margin;"
            " return [...e.querySelectorAll('*')].filter(c => c.getBoundingClientRect().right > edge"
            " && getComputedStyle(c).display !== 'none')"
            " .map(c => c.className + ' by ' + Math.round(c.getBoundingClientRect().right - edge + margin) + ' px') }",
            MARGIN,
        )

    def cut_labels(self) -> list[str]:
        """Labels whose words do not fit in their place."""
        return self.box.evaluate(
            "e => [...e.querySelectorAll('.widget-label')]"
            ".filter(l => l.textContent && (!l.offsetWidth || l.scrollWidth > l.offsetWidth + 1))"
            ".map(l => l.textContent)"
        )

    def record(self) -> None:
        """Begin to note when new pictures and words come; the clock starts at the next key or click."""
        self.box.evaluate(RECORD)

    def recorded(self) -> list[dict[str, Any]]:
        """Since then: [{ms, new (whether the picture is), says}]."""
        return self.page.evaluate("window.seen")


@contextmanager
def browser(width: int = 1000, height: int = 900) -> Iterator[Page]:
    """A page of a headless Chromium."""
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        try:
            yield started.new_page(viewport={"width": width, "height": height})
        finally:
            started.close()
