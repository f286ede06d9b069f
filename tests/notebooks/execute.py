"""Execute lessons in clean kernels and write them back with their outputs: `make notebooks`.

python -m tests.notebooks.execute [NN …]
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"
SECONDS = 90


def lessons() -> list[Path]:
    return sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))


def execute(path: Path, kernel: str = "python3") -> tuple[nbformat.NotebookNode, list[str]]:
    """The notebook with fresh outputs, and what its widgets say; raises where a cell does."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=SECONDS, kernel_name=kernel, resources={"metadata": {"path": str(path.parent)}}
    )
    client.execute(env={**os.environ, "HF_HUB_OFFLINE": "1"})  # the same with a network as without
    states = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    said = [str(widget["state"].get("value", "")) for widget in states.values()]
    return notebook, said


def without_kernel(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook as it is committed: no times of day, no widgets, only what shows without a kernel."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day would change at every run
        if cell.get("outputs"):
            cell.outputs = merged(cell.outputs)
        for output in cell.get("outputs", []):
            if len(output.get("data", {})) > 1:
                output.data.pop(WIDGET, None)
            if "image/png" in output.get("data", {}):
                output.metadata["image/png"] = {"alt": output.data["text/plain"]}
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return notebook


def merged(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Printed lines in one piece, however the clock has split them."""
    found: list[nbformat.NotebookNode] = []
    for output in outputs:
        if found and output.output_type == "stream" and found[-1].get("name") == output.name:
            found[-1].text += output.text
        else:
            found.append(output)
    return found


if __name__ == "__main__":
    for lesson in lessons():
        if len(sys.argv) > 1 and lesson.name[:2] not in sys.argv[1:]:
            continue
        start = time.perf_counter()
        done = without_kernel(execute(lesson)[0])
        nbformat.write(done, lesson)
        count = sum(cell.cell_type == "code" for cell in done.cells)
        print(
            f"{lesson.name}: {count} code cells, {time.perf_counter() - start:.0f} s, {lesson.stat().st_size:,} bytes"
        )
