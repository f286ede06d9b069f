"""A machine as Colab hands it out: everything that forgetlab needs is there, and forgetlab is not.

On POSIX: the packages of this environment are linked, not copied.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEFT_OUT = re.compile(r"_?forgetlab|_editable_impl|__editable__|.*\.pth$")


def machine(folder: Path, colab: bool = True) -> Path:
    """Make one below `folder`; the Jupyter path that holds its kernel, "bare".

    colab: google.colab is imported when the kernel starts, as it is there.
    """
    venv.create(folder / "env", symlinks=True)
    (site,) = (folder / "env" / "lib").glob("python*/site-packages")
    behind = folder / "packages"
    behind.mkdir()
    taken: set[str] = set()
    for place in sys.path:  # the first of two versions wins, as at an import
        for entry in Path(place).iterdir() if Path(place).name == "site-packages" else ():
            name = re.sub(r"-.*(?=\.dist-info$)", "", entry.name).lower()
            if name not in taken and not LEFT_OUT.match(name):
                taken.add(name)
                (behind / entry.name).symlink_to(entry)
    (site / "behind.pth").write_text(f"{behind}\n")
    if colab:
        (site / "google" / "colab").mkdir(parents=True)
        (site / "google" / "colab" / "__init__.py").touch()
        (site / "colab.pth").write_text("import google.colab\n")
    kernel = folder / "jupyter" / "kernels" / "bare"
    kernel.mkdir(parents=True)
    argv = [str(folder / "env" / "bin" / "python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    own = {"PYTHONPATH": "", "FORGETLAB_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    own["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    spec = {"argv": argv, "display_name": "bare", "language": "python", "env": own}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    return folder / "jupyter"


def wheel(folder: Path) -> Path:
    """forgetlab's wheel, built into `folder` without a network."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*pip, str(ROOT)], check=True, capture_output=True)
    (built,) = folder.glob("forgetlab-*.whl")
    return built
