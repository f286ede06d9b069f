"""What comes with the book's parts and is never asked for: source maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def setup(app: Any) -> dict[str, bool]:
    """As Sphinx asks of an extension."""
    app.connect("build-finished", lambda app, error: None if error else lighten(Path(app.outdir)), priority=900)
    return {"parallel_read_safe": True}


def lighten(folder: Path) -> None:
    """Remove them from a built book."""
    for path in folder.rglob("*.map"):
        path.unlink()
