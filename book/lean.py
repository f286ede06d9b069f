"""What comes with the book's parts and is never asked for: source maps, and the theme's other languages."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

UNUSED = ("**/*.map", "_static/locales")


def setup(app: Any) -> dict[str, bool]:
    """As Sphinx asks of an extension."""
    app.connect("build-finished", lambda app, error: None if error else lighten(Path(app.outdir)), priority=900)
    return {"parallel_read_safe": True}


def lighten(folder: Path) -> None:
    """Remove it from a built book."""
    for path in [path for pattern in UNUSED for path in folder.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
