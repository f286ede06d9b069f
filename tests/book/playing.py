"""Labs of the book in a page of their own, for Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from book.player import page as pages
from book.player import records

WORDS = "what the lab opens on"


def write(folder: Path, names: Iterable[str], html: str = "") -> Path:
    """A page with these labs as the book has them, and the records of each that has some; returns its path."""
    player = folder / "player"
    shutil.copytree(pages.HERE, player, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    names = list(names)
    for name in names:
        if not (folder / "records" / f"{name}.js").exists():
            records.written(name, folder / "records")
    scripts = "<script>globalThis.forgetlab = {glossary: []}</script>"  # the book's other scripts come first
    scripts += "".join(f'<script defer src="{one}"></script>' for one in pages.scripts(names))
    labs = "".join(
        f'<div class="forgetlab-lab" data-lab="{name}" data-notebook="lesson.ipynb"><p>{WORDS}</p></div>'
        for name in names
    )
    head = f'<meta charset="utf-8"><title>labs</title><link rel="stylesheet" href="player/player.css">{scripts}'
    path = folder / "page.html"
    body = f'<body style="margin:16px;background:var(--fl-ground)"><main><h1>Labs</h1>{labs}{html}</main></body>'
    path.write_text(f'<!doctype html><html lang="en" data-theme="light"><head>{head}</head>{body}</html>', "utf-8")
    return path
