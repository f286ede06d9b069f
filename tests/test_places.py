"""The places that lessons run in, other than this machine: Binder and a dev container by their own files and commands,
Kaggle by its generation of matplotlib and numpy."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from forgetlab import labs
from tests.notebooks import bare, memory
from tests.notebooks.execute import lessons

ROOT = Path(__file__).parents[1]
PINS = ROOT / "binder" / "requirements.txt"


def said(command: list[str], folder: Path, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=folder, env={**os.environ, **(env or {})}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pins(path: Path) -> set[str]:
    return {line for line in path.read_text(encoding="utf-8").splitlines() if re.match(r"[\w\[\]-]+==", line)}


def test_binder_has_the_tested_set_and_torch_for_a_cpu() -> None:
    assert pins(PINS) < pins(ROOT / "requirements.txt")
    assert {line.partition("==")[0] for line in pins(PINS)} > {"torch", "transformers", "ipywidgets", "jupyterlab"}
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in PINS.read_text(encoding="utf-8")
    assert (ROOT / "binder" / "runtime.txt").read_text(encoding="utf-8") == "python-3.11\n"
    assert os.access(ROOT / "binder" / "postBuild", os.X_OK)  # repo2docker runs it as it is


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="a machine of links")
def test_the_dev_container_s_command_makes_a_machine_that_runs_forgetlab(tmp_path: Path) -> None:
    """Its one command is Binder's two: packages and postBuild. In a new environment that has the packages' files, so
    that pip finds each of its pins there and fetches nothing."""
    asked = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    assert asked["postCreateCommand"].endswith("-r binder/requirements.txt && bash binder/postBuild")
    assert Path(ROOT, asked["customizations"]["codespaces"]["openFiles"][0]).is_file()
    clone = tmp_path / "a clone"
    for name in ("forgetlab", "data", "notebooks", "benchmarks", "binder"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    bare.machine(tmp_path / "machine", colab=False)
    path = f"{tmp_path / 'machine' / 'env' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    env = {"PATH": path, "PYTHONPATH": "", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "HF_HUB_OFFLINE": "1"}
    words = said(["bash", "-c", asked["postCreateCommand"]], clone, env)
    assert words.startswith("tiny-bert ")
    code = "import forgetlab, sys; print(forgetlab.__file__); sys.exit(forgetlab.load('tiny-bert').size != 216182)"
    assert said(["python", "-c", code], tmp_path, env).startswith(str(tmp_path / "machine"))  # what was built


def test_every_lesson_s_recorded_memory_fits_into_binder() -> None:
    """What it takes now is looked at where it runs: test_it_executes in tests/notebooks."""
    recorded = json.loads(memory.RESULT.read_text(encoding="utf-8"))["peak of a lesson, MB"]
    assert list(recorded) == [path.stem for path in lessons()]
    assert max(recorded.values()) * 1e6 < memory.BINDER
    words = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{max(recorded.values())} MB" in words


OPENING = """
import matplotlib, numpy
from forgetlab import labs
print(matplotlib.__version__, numpy.__version__)
for name in labs.LABS:
    shown = labs.show(name, driver="inline")
    still = shown.still()
    assert still["text/plain"], name
    print(name, len(still.get("image/png", "")))
    shown.close()
"""


@pytest.mark.slow
@pytest.mark.long
def test_every_lab_opens_with_kaggle_s_matplotlib_and_numpy(tmp_path: Path) -> None:
    """The oldest matplotlib that pyproject.toml allows, of the numpy before 2, in front of this environment's."""
    oldest = ["matplotlib==3.7.5", "numpy==1.26.4"]
    assert '"matplotlib>=3.7",' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path), *oldest]
    if fetched := subprocess.run(pip, capture_output=True, text=True).returncode:
        pytest.skip(f"pip could not fetch {' and '.join(oldest)} (status {fetched})")
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "FORGETLAB_CACHE": str(tmp_path / "cache")}
    first, *opened = said([sys.executable, "-c", OPENING], tmp_path, env).splitlines()
    assert first == "3.7.5 1.26.4"
    pictures = {line.split()[0]: int(line.split()[1]) for line in opened}
    assert pictures.keys() == labs.LABS.keys()
    assert sum(size > 5000 for size in pictures.values()) >= 18, pictures  # others show words beside them
