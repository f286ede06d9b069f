"""Pictures of labs in a real page, wide and at 360 px: python -m tests.browser.screenshots FOLDER [LAB…]"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from forgetlab.labs import LABS
from tests.browser.jupyter import Notebook, Server, browser, write

WIDTHS = {"wide": 1112, "narrow": 360}


def main(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        server = Server(Path(place))
        try:
            cells = [f"from forgetlab import labs\nlabs.show({name!r})" for name in names]
            write(server.root / "labs.ipynb", cells)
            with browser() as page:
                notebook = Notebook(page, server, "labs.ipynb")
                notebook.run_all()
                for problem in notebook.errors():
                    print(problem)
                labs = {name: notebook.lab(index) for index, name in enumerate(names)}
                for lab in labs.values():
                    train = lab.box.get_by_role("button", name="Train", exact=True)
                    if train.count() and not lab.picture.count():
                        lab.press("Train")
                        lab.until(lambda lab=lab: "training …" not in lab.says and not progress(lab.says), "end")
                for kind, width in WIDTHS.items():
                    next(iter(labs.values())).narrow(width, 1600)  # no bar of the page lies over a lab
                    page.wait_for_timeout(1000 * len(labs))  # each is drawn anew for its room
                    for name, lab in labs.items():
                        lab.box.screenshot(path=str(folder / f"{name}-{kind}.png"))
                        print(f"{name} at {width} px: sticks out {lab.outside()}, cut labels {lab.cut_labels()}")
        finally:
            server.close()


def progress(words: str) -> bool:
    """Whether a lab's words are those of a run under way."""
    return any(line.startswith("step ") for line in words.splitlines())


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:] or list(LABS))
