"""A kernel and a front end without a page: it speaks the widgets' own messages, as JupyterLab and Colab do.

Works with jupyter_client 7.4 (Colab's generation) and 8.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.manager import KernelManager

ROOT = Path(__file__).parents[2]
TARGET = "jupyter.widget"
# an interrupt that met Python in a weak reference's callback or the like, which takes none: Stop asks again
LOST = re.compile(
    r"Exception ignored (?:in|while)[^\n]*\n(?:Traceback \(most recent call last\):\n(?:[ \t][^\n]*\n|\n)*)?"
    r"KeyboardInterrupt:? *(?:\n|$)"
)
PATIENCE = 120.0  # seconds that a busy machine may take; a test of seconds ends when it is done


class Kernel:
    """A running kernel and the state of its widgets.

    folder: an empty one for kept results and what the kernel writes to its terminal. env: added to the environment.
    Every error, warning on stderr or lost traceback of the kernel fails the next call, but for an interrupt that Python
    ignores: what it was to stop must stop all the same, which the tests wait for.
    """

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.cache = folder / "cache"
        self.terminal = folder / "terminal.txt"
        self.widgets: dict[str, dict[str, Any]] = {}
        self.problems: list[str] = []
        self._read = 0
        # torch and a debugger that is not used would speak up
        quiet = {"PYDEVD_DISABLE_FILE_VALIDATION": "1", "FORGETLAB_CACHE": str(self.cache), "OMP_NUM_THREADS": "1"}
        self.manager = KernelManager(kernel_name="python3")
        with self.terminal.open("wb") as out:
            own = {**os.environ, **quiet, **(env or {})}
            self.manager.start_kernel(env=own, cwd=str(ROOT), stdout=out, stderr=out)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=PATIENCE)

    def close(self) -> None:
        """End the kernel."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    # -- what a page does ---------------------------------------------------------------------------

    def run(self, code: str, seconds: float = PATIENCE) -> str:
        """Run code in a cell; its standard output."""
        asked = self.client.execute(code)
        printed: list[str] = []

        def ended(message: dict[str, Any]) -> bool:
            if message["parent_header"].get("msg_id") != asked:
                return False
            if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
                printed.append(message["content"]["text"])
            return message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"

        self._until(ended, seconds, f"the end of {code!r}")
        return "".join(printed)

    def send(self, comm: str, *, subshell: str | None = None, **state: Any) -> str:
        """Set traits of a widget from the page, as a move of its control does."""
        self.widgets[comm].update(state)
        return self._comm(comm, {"method": "update", "state": state, "buffer_paths": []}, subshell)

    def click(self, comm: str, *, subshell: str | None = None) -> str:
        """Press a button."""
        return self._comm(comm, {"method": "custom", "content": {"event": "click"}}, subshell)

    def interrupt(self) -> None:
        """The square button of a notebook."""
        self.manager.interrupt_kernel()

    def subshell(self) -> str:
        """A thread of the kernel for comm messages, such as JupyterLab asks for; "" where the kernel knows none."""
        session = self.client.session
        message = session.msg("create_subshell_request", {})
        self.client.control_channel.send(message)
        try:
            while True:
                reply = self.client.get_control_msg(timeout=5)
                if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                    return str(reply["content"].get("subshell_id", ""))
        except Empty:
            return ""

    def wait(self, reached: Callable[[], Any], seconds: float = PATIENCE, what: str = "a state") -> None:
        """Take messages until the widgets have reached a state."""
        if not reached():
            self._until(lambda message: bool(reached()), seconds, what)
        self.check()

    def taken(self, asked: str, seconds: float = PATIENCE) -> None:
        """Wait until the kernel has handled a message; a run in a thread of its own goes on after that."""

        def ended(message: dict[str, Any]) -> bool:
            mine = message["parent_header"].get("msg_id") == asked
            return mine and message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"

        self._until(ended, seconds, "the end of a message's handling")

    def check(self) -> None:
        """Raise for whatever went wrong in the kernel since the last look."""
        with self.terminal.open("rb") as file:
            file.seek(self._read)
            new = LOST.sub("", file.read().decode(errors="replace"))
            self._read = file.tell()
        if "Traceback" in new or "Error" in new:
            self.problems.append(f"terminal: {new}")
        if self.problems:
            problems, self.problems = self.problems, []
            raise AssertionError("in the kernel:\n" + "\n".join(problems))

    # -- messages -----------------------------------------------------------------------------------

    def _comm(self, comm: str, data: dict[str, Any], subshell: str | None) -> str:
        message = self.client.session.msg("comm_msg", {"comm_id": comm, "data": data})
        if subshell:
            message["header"]["subshell_id"] = subshell
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def _until(self, ended: Callable[[dict[str, Any]], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                message = self.client.get_iopub_msg(timeout=min(1.0, max(0.01, deadline - time.monotonic())))
            except Empty:
                self.check()
                assert self.manager.is_alive(), "the kernel died: " + self.terminal.read_text()
                assert time.monotonic() < deadline, f"{what} was not reached in {seconds:g} s; {self._seen()}"
                continue
            self._take(message)
            if ended(message):
                break
            assert time.monotonic() < deadline, f"{what} was not reached in {seconds:g} s; {self._seen()}"
        self.check()

    def _take(self, message: dict[str, Any]) -> None:
        kind, content = message["msg_type"], message["content"]
        if kind == "error":
            self.problems.append("\n".join(content["traceback"]) or content["ename"])
        elif kind == "stream" and content["name"] == "stderr":
            self.problems += filter(None, [LOST.sub("", content["text"])])
        elif kind == "comm_open" and content["target_name"].startswith(TARGET):
            self.widgets[content["comm_id"]] = dict(content["data"].get("state", {}))
        elif kind == "comm_msg" and content["data"].get("method") == "update":
            self.widgets.setdefault(content["comm_id"], {}).update(content["data"]["state"])
        elif kind == "comm_close":
            self.widgets.pop(content["comm_id"], None)

    def _seen(self) -> str:
        """What the notes of all widgets say, for the message of a failure."""
        notes = [str(w.get("value")) for w in self.widgets.values() if "aria-live" in str(w.get("value"))]
        return f"the notes say {notes[-6:]}"
