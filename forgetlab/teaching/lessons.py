"""The lessons in JupyterLab, from a checkout or from an installed wheel: `python -m forgetlab lab`."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from forgetlab.errors import ForgetlabError
from forgetlab.sources.shipped import carried

FIRST = "notebooks/00_start_here.ipynb"


def home(folder: Path) -> Path:
    """The folder to serve: the checkout, else `folder` with the lessons, and the tables that they link to, put there.

    What is there already is left as it is: it may be a learner's work.
    """
    root = carried("notebooks").parent
    if (root / "pyproject.toml").is_file():
        return root
    for name in ("notebooks", "benchmarks/results"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for file in carried(name).iterdir():
            if file.is_file() and not (folder / name / file.name).exists():
                shutil.copyfile(file, folder / name / file.name)
    return folder.resolve()


def serve(folder: Path, browser: bool = True) -> None:
    """Run JupyterLab on lesson 00 until it is stopped; the address that it prints is the lesson's.

    Raises ForgetlabError where JupyterLab is not installed.
    """
    if find_spec("jupyterlab") is None:
        raise ForgetlabError("JupyterLab is not installed: pip install jupyterlab, or open a lesson where you like")
    from jupyterlab.labapp import main

    root = home(folder)
    print(f"the lessons are in {root / 'notebooks'}")
    # in this process, so that Ctrl-C is Jupyter's: it ends the kernels
    arguments = [f"--ServerApp.root_dir={root}", f"--LabApp.default_url=/lab/tree/{FIRST}"]
    arguments += [] if browser else ["--no-browser"]
    arguments += ["--allow-root"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
    main(arguments)
