"""An installed forgetlab needs no checkout: the wheel carries the data, the lessons and what they link to."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError

import pytest

from forgetlab.teaching.lessons import home
from tests.notebooks import bare
from tests.notebooks.execute import lessons


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Mapping[str, str]:
    """An environment whose forgetlab is what a wheel holds, in a folder whose name has a space."""
    folder = tmp_path_factory.mktemp("my site")
    zipfile.ZipFile(wheel).extractall(folder / "site packages")
    return {**os.environ, "PYTHONPATH": str(folder / "site packages"), "HF_HUB_OFFLINE": "1"}


@pytest.mark.slow
def test_the_wheel_works_away_from_the_checkout(installed: Mapping[str, str], tmp_path: Path) -> None:
    code = (
        "import forgetlab, pathlib; model = forgetlab.load('tiny-bert', device='cpu')\n"
        "record = list(forgetlab.finetune(model, forgetlab.task('sentiment'), steps=2))[-1]\n"
        "print(pathlib.Path(forgetlab.__file__).parents[1], record.status, sep='|')\n"
        "forgetlab.teaching.results()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import forgetlab.teaching;" + code],
        cwd=tmp_path,
        env=installed,
        capture_output=True,
        text=True,
        check=True,
    )
    first, *table = done.stdout.splitlines()
    assert first == f"{installed['PYTHONPATH']}|done"
    assert "\n".join(table).strip() == (bare.ROOT / "benchmarks/results/remedies.md").read_text().strip()


@pytest.mark.slow
def test_lab_puts_the_lessons_into_a_folder_and_opens_the_first(installed: Mapping[str, str], tmp_path: Path) -> None:
    pytest.importorskip("jupyterlab")
    mine = tmp_path / "my lessons" / "notebooks" / lessons()[3].name
    mine.parent.mkdir(parents=True)
    mine.write_text("my work")
    command = [sys.executable, "-m", "forgetlab", "lab", "my lessons", "--no-browser"]
    config = {"JUPYTER_CONFIG_DIR": str(tmp_path / "config"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    server = subprocess.Popen(
        command, cwd=tmp_path, env={**installed, **config}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        said = ""
        for line in server.stdout or ():
            said += line
            if found := re.search(r"(http://[\w.:]+)/lab/tree/notebooks/00_start_here\.ipynb\?token=(\w+)", line):
                break
        assert found, said
        assert f"the lessons are in {mine.parent}\n" in said
        for path in ("notebooks/00_start_here.ipynb", "benchmarks/results/remedies.md"):
            assert fetched(f"{found[1]}/files/{path}?token={found[2]}") == (bare.ROOT / path).read_bytes()
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)
    assert {path.name for path in mine.parent.glob("*.ipynb")} == {path.name for path in lessons()}
    assert mine.read_text() == "my work"


def test_a_checkout_serves_its_own_lessons_and_copies_none(tmp_path: Path) -> None:
    assert home(tmp_path / "unused") == bare.ROOT
    assert not any(tmp_path.iterdir())


def fetched(address: str) -> bytes:
    for _ in range(100):  # the address is printed a moment before it answers
        with suppress(URLError), urllib.request.urlopen(address) as answer:
            return bytes(answer.read())
        time.sleep(0.2)
    raise AssertionError(f"{address} does not answer")


def test_importing_forgetlab_loads_nothing_heavy() -> None:
    code = "import sys, forgetlab; print([m for m in ('torch', 'transformers', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
