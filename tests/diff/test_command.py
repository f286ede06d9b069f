"""The command: its files and its exit status, what a pull request shows, and what is refused in words."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from forgetlab import load
from forgetlab.__main__ import main
from forgetlab.diff.order import Order, numbered
from forgetlab.errors import ForgetlabError
from forgetlab.tasks.source_names import short_name, titles
from tests.diff.conftest import moved

Called = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Called:
    monkeypatch.chdir(tmp_path)

    def called(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        return main(["diff", *arguments, "--device", "cpu"]), *capfd.readouterr()

    return called


class Page(HTMLParser):
    """The tags of a page: every one that is opened is closed, and nothing is fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.alts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.links += [str(given[name]) for name in ("src", "href") if name in given]
        self.alts += [str(given.get("alt"))] if tag == "img" else []
        if tag not in ("img", "meta", "br", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_diff_writes_its_report_and_says_what_was_lost(tuned: Path, tmp_path: Path, call: Called) -> None:
    status, said, _ = call("tiny-bert", str(tuned), "--new", "sentiment", "--watch", "masked-lm,entities",
                           "--limit", "60", "--allow", "entities=0.02,masked-lm=1.1x")  # fmt: skip
    assert status == 3
    out = tmp_path / "forgetlab-diff"
    assert {path.name for path in out.iterdir()} == {
        *("report.html", "diff.json", "diff.md", "loss.png", "flips.png", "parts.png")
    }
    found = json.loads((out / "diff.json").read_text())
    (after,) = found["afters"]
    tasks = {task["facts"]["name"]: task for task in after["tasks"]}
    assert [task["role"] for task in after["tasks"]] == ["new", "watched", "watched"]
    assert found["gate"] == after["gate"] == tasks["entities"]["verdict"] == "lost"
    assert tasks["sentiment"]["allowed"] is None
    for task in tasks.values():
        change = task["change"]
        assert change["low"] <= change["loss"] <= change["high"]
    assert "gate: lost: a task lost more than is allowed" in said
    assert re.search(r"entities: lost \(allowed 0\.020\)\. Its f1 is 0\.\d+ lower", said)
    page = Page((out / "report.html").read_text())
    assert page.open == []
    assert all(link.startswith("data:image/png") for link in page.links)
    assert len(page.links) == 3
    assert "entities" in page.alts[0]
    pull = (out / "diff.md").read_text()
    assert pull.index("**Lost: a task lost more") < pull.index("| task |")
    assert len([line for line in pull.splitlines() if line.startswith("|")]) == 5
    assert "sentiment: BEFORE has no head for it" in pull
    # once more, over it; a gate of a task that stayed as it was
    status, said, _ = call("tiny-bert", str(tuned), "--watch", "masked-lm", "--limit", "20", "--allow", "masked-lm=99x")
    assert status == 0
    assert "gate: fine" in said


def test_too_few_items_are_no_evidence(tmp_path: Path, call: Called) -> None:
    moved(load("tiny-bert", device="cpu"), by=1e-4).save(tmp_path / "near")
    few = ["tiny-bert", "near", "--watch", "acceptability", "--limit", "20"]
    status, said, _ = call(*few, "--allow", "acceptability=0.01")
    assert status == 4
    assert re.search(r"The smallest loss that this test could have shown is 0\.\d+", " ".join(said.split()))
    assert "gate: not enough evidence" in said
    assert call(*few)[0] == 0


def test_checkpoints_of_a_run_are_curves_in_their_order(tmp_path: Path, call: Called) -> None:
    assert numbered(["b/run-9", "a"]) == ["b/run-9", "a"]
    for step, by in ((100, 0.03), (20, 0.01)):
        moved(load("tiny-gpt", device="cpu"), by=by).save(tmp_path / f"checkpoint-{step}")
    status, said, _ = call("tiny-gpt", "checkpoint-100", "checkpoint-20", "--watch", "causal-lm,cloze", "--limit", "16")
    assert status == 0
    assert said.index("→ checkpoint-20\n") < said.index("→ checkpoint-100\n")
    assert (tmp_path / "forgetlab-diff" / "curves.png").is_file()
    assert Page((tmp_path / "forgetlab-diff" / "report.html").read_text()).open == []


REFUSED = """
import sys
from forgetlab.__main__ import main
for arguments in %r:
    assert main(["diff", *arguments]) == 2, arguments
    heavy = {"torch", "transformers", "numpy", "matplotlib"} & {*sys.modules}
    assert not heavy, (arguments, heavy)
"""


def test_what_cannot_work_is_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("mine")
    pair = ["tiny-bert", "tiny-gpt"]
    refused = {
        "unknown model 'tiny-brt'; did you mean 'tiny-bert'?": ["tiny-bert", "tiny-brt"],
        "there is no folder ./nowhere": ["tiny-bert", "./nowhere"],
        "thesis is not a transformers checkpoint": ["tiny-bert", "thesis"],
        "tiny-bert: the same model twice": ["tiny-bert", "tiny-bert"],
        "no file absent.csv": [*pair, "--watch", "absent.csv"],
        "unknown task or file 'entitis'; did you mean 'entities'?": [*pair, "--watch", "entitis"],
        "register is the new task and watched too": [*pair, "--new", "register", "--watch", "register"],
        "say what to watch": ["hub/one", "hub/other"],
        "--limit must be a whole number above 0, got 0": [*pair, "--limit", "0"],
        "--within must be between 0 and 1, got 2.0": [*pair, "--within", "2"],
        "--within 'little' is no budget; expected points": [*pair, "--within", "little"],
        "'abc' is no allowance": [*pair, "--allow", "entities=abc"],
        "unknown task in --allow 'entites'; did you mean 'entities'": [
            *pair,
            "--watch",
            "entities",
            "--allow",
            "entites=0.1",
        ],
        "thesis is no empty folder and holds no report": [*pair, "--out", "thesis"],
        "--repair mends one model, and 2 AFTERs are given": [*pair, "hub/other", "--repair", "mended"],
    }
    code = REFUSED % ([*refused.values()],)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == len(refused)
    for said, line in zip(refused, lines, strict=True):
        assert line.startswith("forgetlab: ")
        assert said in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tiny-gpt", "--watch", "masked-lm"], "another architecture"),
        (["TUNED", "--watch", "entities", "--allow", "entites=0.1"], "unknown task in --allow 'entites'; did you mean"),
        (["TUNED", "--watch", "entities", "--allow", "entities=1.1x"], "expected points of it"),
        (["TUNED", "--watch", "writing"], "needs a causal language model"),
        (["TUNED", "--watch", "empty.csv"], "empty.csv"),
        (["TUNED", "--watch", "entities,entities:name=entities"], "takes no name"),
    ],
)
def test_what_the_models_and_data_do_not_allow_is_said_in_a_line(
    arguments: list[str], said: str, tuned: Path, tmp_path: Path, call: Called
) -> None:
    (tmp_path / "empty.csv").write_text("text,label\n")
    given = [str(tuned) if argument == "TUNED" else argument for argument in arguments]
    status, _, error = call("tiny-bert", *given)
    assert status == 2
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "forgetlab-diff").exists()


@pytest.mark.slow
def test_it_opens_the_model_and_writes_a_repair_with_its_diff(tuned: Path, tmp_path: Path, call: Called) -> None:
    status, said, _ = call("tiny-bert", str(tuned), "--new", "register", "--watch", "entities", "--limit", "60",
                           "--where", "--repair", "mended", "--within", "0.5", "--out", "there")  # fmt: skip
    assert status == 0
    found = json.loads((tmp_path / "there" / "diff.json").read_text())
    first, *rest = found["afters"]
    assert first["where"]["layers"]
    assert [one["task"] for one in first["reach"]] == ["entities"]
    assert (first["repair"]["chosen"] is not None) == (tmp_path / "mended" / "config.json").is_file() == bool(rest)
    assert "where: how far the weights moved" in said
    assert Page((tmp_path / "there" / "report.html").read_text()).open == []


def test_a_repair_is_not_written_into_a_model_that_is_compared(tmp_path: Path) -> None:
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    before, after = (str(tmp_path / name) for name in ("before", "after"))
    for inside in (
        tmp_path / "after" / "sub",
        tmp_path / "before" / "a" / "b",
        tmp_path / "after" / ".." / "after" / "x",
    ):
        order = Order(before, (after,), watch=("entities",), new="sentiment", repair=inside, out=tmp_path / "out")
        with pytest.raises(ForgetlabError, match=r"lies in .*, which is compared: choose a folder outside it"):
            order.check()
    Order(before, (after,), ("entities",), "sentiment", repair=tmp_path / "after-mended", out=tmp_path / "out").check()


def test_the_names_in_allow_are_those_that_the_tasks_will_have(tmp_path: Path) -> None:
    names = ("general.txt", "train.csv", "a.b.csv")
    for name in names:
        (tmp_path / name).write_text("\n".join(["text,label", *(f"it is fine {i},{i % 2}" for i in range(20))]))
    files = [str(tmp_path / name) for name in names]
    for source, own in zip(files, ("general", "train-csv", "a-b"), strict=True):
        assert short_name(source) == own
        assert own in titles(source)
    watch = (*files, "entities", f"{files[0]}:name=mine", "owner/set")
    for name in ("general", "train-csv", "a-b", "entities", "mine", "set"):
        Order("tiny-bert", ("hub/other",), watch, allow=((name, "0.1"),), out=tmp_path / "out").check()
    with pytest.raises(ForgetlabError, match="unknown task in --allow 'generall'; did you mean 'general'"):
        Order("tiny-bert", ("hub/other",), watch, allow=(("generall", "0.1"),), out=tmp_path / "out").check()
    # a task that its dials name: told after loading
    Order("tiny-bert", ("hub/other",), ("sentiment:turned=0.5",), allow=(("any", "0.1"),), out=tmp_path / "out").check()


def test_stopped_before_anything_is_written_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(order: Any, say: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("forgetlab.diff.run.execute", stop)
    assert main(["diff", "tiny-bert", "hub/other", "--watch", "sentiment"]) == 130
    assert "stopped; nothing was written" in capsys.readouterr().err
