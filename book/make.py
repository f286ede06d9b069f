"""The whole book as a static site, what `make book` makes: `python -m book.make dist/book`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ("notebooks/README.md", "notebooks/*.ipynb", "benchmarks/results/remedies.md", "benchmarks/results/rewards.md")


def sources(folder: Path) -> None:
    """What Sphinx reads: the lessons as they are committed, the tables, every public name."""
    for path in (path for pattern in PAGES for path in sorted(ROOT.glob(pattern))):
        shutil.copy(path, folder)
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


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
