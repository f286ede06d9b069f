"""Point the lessons at a repository, for Google Colab: `make colab REPO=https://github.com/OWNER/NAME`.

Writes an "Open in Colab" badge below each title, lets the set-up cells install from there, and gives links to other
lessons and files the repository's address, since a notebook alone on Colab has nothing beside it. README's table of
places gets links. Again with another repository: moved; without one: taken away.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat

from tests.notebooks.execute import FOLDER, lessons

README = FOLDER.parent / "README.md"
COLAB = "https://colab.research.google.com/github/"
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
OURS = re.compile(r"\n\n" + re.escape(BADGE) + r"\([^)]*\)")
# a link to a neighbour, relative or with the address that this script has given it
LESSON = re.compile(rf"\]\((?:{COLAB}[\w.-]+/[\w.-]+/blob/main/notebooks/)?(\d\d_\w+\.ipynb)\)")
FILE = re.compile(r"\]\((?:\.\./|https://github\.com/[\w.-]+/[\w.-]+/blob/main/)((?:benchmarks|docs|data)/[\w./-]+)\)")

FIRST = "notebooks/00_start_here.ipynb"
PLACES = {  # a row of README's table → where it leads, for a repository
    "Google Colab": COLAB + "{}/blob/main/" + FIRST,
    "Binder": "https://mybinder.org/v2/gh/{}/main?urlpath=lab/tree/" + FIRST,
    "Codespaces, VS Code": "https://codespaces.new/{}",
    "Kaggle": "https://kaggle.com/kernels/welcome?src=https://github.com/{}/blob/main/" + FIRST,
}

SETUP = """\
import glob, importlib.metadata, sys  # set-up: adds forgetlab where it is missing, as on Colab, and replaces nothing

ways = "forgetlab is missing: upload forgetlab-….whl beside this notebook, or open a lesson by its Open in Colab badge"
before = {d.name: d.version for d in importlib.metadata.distributions()}
if "forgetlab" not in before:
    place = glob.glob("forgetlab-*-any.whl") or sys.exit(ways)
    get_ipython().system(f'"{sys.executable}" -m pip install --quiet --no-deps "{place[0]}"')
from forgetlab.teaching.notebook import setup

setup(before)"""


def set_up(repository: str) -> str:
    """The set-up cell, the same in all lessons."""
    if not repository:
        return SETUP
    lines = [line for line in SETUP.splitlines() if not line.startswith("ways")]
    return "\n".join(lines).replace("sys.exit(ways)", f'["git+https://github.com/{repository}"]')


def linked(text: str, repository: str) -> str:
    """A cell's words, their links to neighbours and files as addresses of the repository, or relative without one."""
    lesson = f"{COLAB}{repository}/blob/main/notebooks/" if repository else ""
    file = f"https://github.com/{repository}/blob/main/" if repository else "../"
    return FILE.sub(rf"]({file}\1)", LESSON.sub(rf"]({lesson}\1)", text))


def placed(text: str, repository: str) -> str:
    """README's words, with a link in each row of PLACES, or none."""
    for name, address in PLACES.items():
        cell = f"[{name}]({address.format(repository)})" if repository else name
        text = re.sub(rf"^\| (?:{name}|\[{name}\]\([^)]*\)) \|", f"| {cell} |", text, flags=re.MULTILINE)
    return text


def point(path: Path, repository: str) -> None:
    """Rewrite one lesson; `repository` is "OWNER/NAME", or "" for none."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if "setup" in cell.metadata.get("tags", ()):
            cell.source = set_up(repository)
        elif cell.cell_type == "markdown":
            cell.source = linked(cell.source, repository)
    first = notebook.cells[0]
    title, line, rest = OURS.sub("", first.source).partition("\n")
    url = f"{COLAB}{repository}/blob/main/notebooks/{path.name}"
    first.source = title + (f"\n\n{BADGE}({url})" if repository else "") + line + rest
    nbformat.write(notebook, path)


def main(asked: str) -> None:
    found = re.fullmatch(r"(?:https://github\.com/)?([\w.-]+/[\w.-]+?)(?:\.git)?/?", asked)
    if asked and not found:
        sys.exit(f"expected REPO=https://github.com/OWNER/NAME, got {asked!r}")
    repository = found[1] if found else ""
    for path in lessons():
        point(path, repository)
        print(path.name)
    README.write_text(placed(README.read_text(encoding="utf-8"), repository), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
