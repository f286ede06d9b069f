"""The whole book as a static site, what `make book` makes: `python -m book.make dist/book`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from book.reading import glossary

ROOT = Path(__file__).parents[1]
PAGES = (
    "notebooks/*.ipynb",
    *("benchmarks/results/remedies.md", "benchmarks/results/rewards.md"),
    *(f"docs/{name}.md" for name in ("rewards-table", "real-models", "your-data", "strengths")),  # lessons lead there
)
UNUSED = ("**/*.map", "_static/locales")  # source maps, and the theme's other languages
# where the book opened once
MOVED = """<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>forgetlab: the handbook of forgetting</title>
<meta http-equiv="refresh" content="0; url=index.html"><p><a href="index.html">The handbook of forgetting</a></p></html>
"""


def sources(folder: Path) -> None:
    """What Sphinx reads: the lessons as they are committed, the tables, the terms, every public name."""
    for path in (path for pattern in PAGES for path in sorted(ROOT.glob(pattern))):
        shutil.copy(path, folder)
    shutil.copy(ROOT / "notebooks/README.md", folder / "index.md")
    lessons = {path.name[:2]: path.name for path in folder.glob("*.ipynb")}
    (folder / f"{glossary.PAGE}.md").write_text(glossary.page(lessons), encoding="utf-8")
    names = subprocess.run([sys.executable, "docs/api.py"], cwd=ROOT, check=True, capture_output=True).stdout
    (folder / "api.md").write_bytes(names)


def main(folder: Path) -> None:
    """Make the book anew in `folder`; its sources stay beside it, in `folder`-source."""
    read = folder.with_name(f"{folder.name}-source")
    for place in (folder, read):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    sources(read)
    sphinx = ["sphinx", "-q", "-c", "docs", "-d", str(read / ".doctrees"), str(read), str(folder)]
    for module in (sphinx, ["book.build", str(folder)]):
        subprocess.run([sys.executable, "-m", *module], cwd=ROOT, check=True)
    for path in [path for pattern in UNUSED for path in folder.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / "README.html").write_text(MOVED, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
