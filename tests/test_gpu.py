"""`make gpu`, which measures what a card does, as far as a machine without one can run it."""

from __future__ import annotations

import importlib
import io
import json
import re
import shutil
import subprocess
import sys
import types
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu.py"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module("gpu")


def said(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True)


def run_here(gpu: types.ModuleType, command: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What the script prints; the processes it would start for its groups are calls too, which load torch no more."""
    process = gpu.run

    def run(more: list[str], limit: float) -> tuple[str, str]:
        return (run_here(gpu, more, monkeypatch), "") if "--group" in more else process(more, limit)

    assert command[:2] == [sys.executable, str(SCRIPT)]
    with monkeypatch.context() as patch, redirect_stdout(io.StringIO()) as out:
        patch.setattr(sys, "argv", command[1:])
        patch.setattr(gpu, "run", run)
        gpu.main()
    return out.getvalue()


@pytest.mark.slow
@pytest.mark.long
def test_the_whole_script_in_small(gpu: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--small", "--out", str(tmp_path)]
    assert run_here(gpu, command, monkeypatch).endswith(f"written to {tmp_path}\n")
    result = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert result["tests"]["skipped"] >= 5 or result["tests"]["passed"] >= 5
    assert result["device"].startswith("cpu")
    found = result["found"]
    assert list(found) == ["lab", "stacked", "fisher", "DistilBERT size", "1B Llama size"]
    assert 0 < found["lab"]["cpu"]["first live point, s"] <= found["lab"]["cpu"]["whole run, s"]
    assert found["stacked"]["2"]["times one"] == pytest.approx(found["stacked"]["2"]["s"] / found["stacked"]["1"]["s"])
    # Weights of the matrices: in two layers of width 32, and for Llama the 2,000 words that it predicts. A step is
    # three products (forward, back to the inputs, back to the weights), two operations for each weight and token;
    # texts of up to 16 tokens, and attention's own products on top.
    matrices = {
        "DistilBERT size": 2 * (4 * 32 * 32 + 2 * 32 * 64),
        "1B Llama size": 2 * (2 * 32 * 32 + 2 * 32 * 8 + 3 * 32 * 128) + 2000 * 32,
    }
    for name, weights in matrices.items():
        runs = found[name]["runs"]
        assert list(runs) == ["bare loop", "none", "ewc", "replay", "lora"]
        assert all(run["steps per s"] > 0 for run in runs.values())
        assert 0.75 < runs["bare loop"]["operations of a step"] / (3 * 2 * weights * 2 * 16) < 1.1
    table = (tmp_path / "speed.md").read_text(encoding="utf-8")
    assert "| 1B Llama size, 2 texts of 16 tokens: lora |" in table
    assert (ROOT / "docs" / "speed.md").read_text(encoding="utf-8") == page
    assert table.partition("<!--")[0] == page.partition("<!--")[0]
    assert table.rpartition("-->")[2] == page.rpartition("-->")[2]


def test_make_gpu_runs_the_script() -> None:
    if not (make := shutil.which("make")):
        pytest.skip("no make here")
    command = [make, "-n", "-C", str(ROOT), "gpu", "DEVICE=cpu", "SMALL=1"]
    assert "python benchmarks/gpu.py --device cpu --small\n" in re.sub(
        " +", " ", subprocess.run(command, capture_output=True, text=True, check=True).stdout
    ).replace(" \n", "\n")


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a card")
def test_without_a_card_it_says_what_to_do() -> None:
    done = said()
    assert done.returncode == 1
    assert done.stderr == (
        "torch finds no CUDA device here; to see that the script works: make gpu DEVICE=cpu SMALL=1\n"
    )


def test_what_fails_is_said_and_loses_nothing_else(
    gpu: types.ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(sizes: object, device: str) -> dict[str, object]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    monkeypatch.setitem(gpu.GROUPS, "both", (9, {"first": broken, "second": lambda sizes, device: {"n": 1}}))
    gpu.measure("both", "cpu", True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line]
    why = "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert lines == [{"first": {"failed": why}}, {"second": {"n": 1}}]
    result = {
        "device": "a card",
        "torch": "2",
        "seconds": 1,
        "tests": {"passed": 5},
        "found": {"lab": lines[0]["first"]},
    }
    assert f"| lab | failed: {why} |  |" in gpu.table(result)


def test_a_process_that_dies_or_hangs_is_said(gpu: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    said, ended = gpu.run([sys.executable, "-c", "print('{}', flush=True); import time; time.sleep(60)"], 2)
    assert (said.strip(), ended) == ("{}", "stopped after 2 s")
    _, ended = gpu.run([sys.executable, "-c", "raise SystemExit('no driver')"], 30)
    assert ended == "its process ended: no driver"
    monkeypatch.setattr(gpu, "run", lambda command, limit: ('\n{"lab": {"n": 1}}\n', "its process ended: Killed"))
    found = gpu.measured("cpu", True)
    assert found["lab"] == {"n": 1}
    assert found["fisher"] == found["1B Llama size"] == {"failed": "its process ended: Killed"}
