"""Windows and macOS, as far as they can be had here: nothing that only POSIX has, other consoles, spaces in paths."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from forgetlab.__main__ import _parser

ROOT = Path(__file__).parents[1]
QUICK = ["--steps", "2", "--every", "2", "--batch", "8", "--limit", "16", "--seeds", "1", "--processes", "1"]
QUICK += ["--device", "cpu", "--watch", "masked-lm", "--methods", "none,frozen"]

WITHOUT_POSIX = """
import importlib, os, pkgutil, signal, sys
import dask, datasets, IPython, ipywidgets, jupyterlab.labapp, matplotlib.backends.backend_agg
import peft, torch, transformers

# what Windows lacks; the libraries have taken what they use there in its place
for name in ("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"):
    sys.modules[name] = None
for name in ("chown fork forkpty getegid geteuid getgid getloadavg getpgid getuid killpg mkfifo nice pathconf "
             "sched_getaffinity setsid statvfs sysconf uname wait4").split():
    delattr(os, name)
for name in "SIGALRM SIGCHLD SIGHUP SIGKILL SIGQUIT SIGUSR1 SIGUSR2 alarm pause setitimer sigwait".split():
    delattr(signal, name)

import forgetlab
found = [module.name for module in pkgutil.walk_packages(forgetlab.__path__, "forgetlab.")]
for name in found:
    importlib.import_module(name)
from forgetlab.__main__ import _console, main
_console()
status = main(["tasks"]) + main(["methods"]) + main(["models"]) + main(["compare", *sys.argv[1:]])
from forgetlab import labs
labs.show("watch", driver="inline")
print("modules:", len(found), "status:", status)
"""


def run(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **env}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True)


# the locale as well: files are UTF-8 whatever it says
OLD = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[bytes], Path]:
    """The main job without what only POSIX has, in a folder with a space, on a console that knows only ASCII."""
    here = tmp_path_factory.mktemp("Program Files")
    return run("-c", WITHOUT_POSIX, *QUICK, "--out", "my report", cwd=here, PYTHONIOENCODING="ascii", **OLD), here


@pytest.mark.slow
def test_nothing_that_only_posix_has(compared: tuple[subprocess.CompletedProcess[bytes], Path]) -> None:
    done, here = compared
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().endswith("status: 0\n")
    assert int(done.stdout.decode().split()[-3]) > 100
    assert (here / "my report" / "report.html").is_file()


@pytest.mark.slow
def test_the_table_on_a_console_that_knows_only_ascii(
    compared: tuple[subprocess.CompletedProcess[bytes], Path],
) -> None:
    done, here = compared
    table = done.stdout.decode("ascii").partition("\nmethod ")[2].partition("report:")[0]
    rows = [line for line in table.splitlines() if line.startswith(("none ", "frozen "))]
    assert len(rows) == 2
    assert all("~" in row and " x" in row for row in rows)
    assert "\\" not in table  # every sign of it has a plain one
    assert "×" in (here / "my report" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("utf-8", "1 → 2 ±3 ×4 −5 █ 日"), ("cp1252", "1 > 2 ±3 ×4 -5 # \\u65e5"), ("ascii", "1 > 2 ~3 x4 -5 # \\u65e5")],
)
def test_signs_that_a_console_lacks(tmp_path: Path, encoding: str, shown: str) -> None:
    code = "from forgetlab.__main__ import _console; _console(); print('1 → 2 ±3 ×4 −5 █ 日')"
    (tmp_path / "code.py").write_text(code, encoding="utf-8")
    done = run("code.py", cwd=tmp_path, PYTHONIOENCODING=encoding, **OLD)
    assert done.stdout.decode(encoding).strip() == shown


def test_demo_is_compare_with_its_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("forgetlab.__main__._compare", seen.append)
    plain, demo = _parser().parse_args(["compare", "--out", "there"]), _parser().parse_args(["demo", "--out", "there"])
    demo.action(demo)
    assert vars(seen[0]) == vars(plain)


@pytest.mark.slow
def test_a_checkout_on_windows_has_the_same_bytes(tmp_path: Path) -> None:
    """Git for Windows turns line ends into its own, unless told not to; the hashes of the data would not fit."""
    there = tmp_path / "there"
    (there / "data").mkdir(parents=True)
    names = (".gitattributes", "Makefile", "data/manifest.json", "data/world/lexicon.txt")
    (there / "data" / "world").mkdir()
    for name in names:
        shutil.copy(ROOT / name, there / name)

    def git(*command: str) -> None:
        who = ("-c", "user.name=n", "-c", "user.email=e", "-c", "core.autocrlf=true")
        subprocess.run(["git", *who, *command], cwd=there, check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "all")
    git("clone", ".", str(tmp_path / "here"))
    for name in names:
        assert (tmp_path / "here" / name).read_bytes() == (ROOT / name).read_bytes()
        assert b"\n" in (ROOT / name).read_bytes()
