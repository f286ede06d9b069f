"""The line in which a lab says how it stands."""

from __future__ import annotations

from threading import Lock

from forgetlab.teaching import compat


class Notice:
    """What a lab says. `turn` is held while it is said how a run stands, never while one works: Stop answers at once.

    opening: what stands before a result's words, which hang on the view; None: something else is said.
    """

    def __init__(self) -> None:
        self.widget = compat.note()
        self.turn = Lock()
        self.opening: str | None = None
        self._words = ""
        self._warned = False

    def say(self, words: str, opening: str | None = None, kind: str = "") -> None:
        """Say something else. kind: "wrong" for what went wrong."""
        self._words, self.opening = words, opening
        self.widget.value = compat.said(words, kind)

    def warn(self, trouble: str) -> None:
        """Add a trouble ("": none) to what is said, the first time only."""
        if trouble and not self._warned:
            self._warned = True
            self.say(f"{self._words} ({trouble})")
