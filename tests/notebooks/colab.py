"""Point the lessons at a repository, for Google Colab: `make colab REPO=https://github.com/OWNER/NAME`.

Writes an "Open in Colab" badge below each title, and lets the set-up cells install from there. Again with another
repository: moved; without one: taken away.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat

from tests.notebooks.execute import lessons

BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
OURS = re.compile(r"\n\n" + re.escape(BADGE) + r"\([^)]*\)")
PLACE = re.compile(r'\["(?:forgetlab|git\+[^"]*)"\]')


def point(path: Path, repository: str) -> None:
    """Rewrite one lesson; `repository` is "OWNER/NAME", or "" for none."""
    notebook = nbformat.read(path, as_version=4)
    first = notebook.cells[0]
    title, line, rest = OURS.sub("", first.source).partition("\n")
    url = f"https://colab.research.google.com/github/{repository}/blob/main/notebooks/{path.name}"
    first.source = title + (f"\n\n{BADGE}({url})" if repository else "") + line + rest
    for cell in notebook.cells:
        if "setup" in cell.metadata.get("tags", ()):
            place = f"git+https://github.com/{repository}" if repository else "forgetlab"
            cell.source = PLACE.sub(f'["{place}"]', cell.source)
    nbformat.write(notebook, path)


def main(asked: str) -> None:
    found = re.fullmatch(r"(?:https://github\.com/)?([\w.-]+/[\w.-]+?)(?:\.git)?/?", asked)
    if asked and not found:
        sys.exit(f"expected REPO=https://github.com/OWNER/NAME, got {asked!r}")
    for path in lessons():
        point(path, found[1] if found else "")
        print(path.name)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
