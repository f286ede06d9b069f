"""What is refused before torch is loaded, and what a budget leaves out before it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from forgetlab.errors import ForgetlabError
from forgetlab.experiments import comparison
from forgetlab.experiments.plan import Plan, method_names
from forgetlab.experiments.recipe import Recipe
from forgetlab.experiments.recommendation import choice, recommend
from forgetlab.experiments.search import Search
from forgetlab.remedies.by_name import METHODS
from tests.experiments.test_recommendation import FROZEN, PLAIN, REPLAY, dot

REFUSED = """
import sys
from forgetlab.__main__ import main
for arguments in %r:
    assert main(arguments) == 2, arguments
    heavy = {"torch", "transformers", "numpy", "matplotlib", "pandas", "datasets"} & {*sys.modules}
    assert not heavy, (arguments, heavy)
"""


def test_a_command_that_cannot_work_is_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "no model").mkdir()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("")
    compared = {
        "no file absent.csv": ["--new", "absent.csv"],
        "no file gone/away.txt": ["--watch", "entities,gone/away.txt"],
        "unknown task or file 'entitis'; did you mean 'entities'?": ["--watch", "entitis"],
        "unknown model 'tiny-brt'; did you mean 'tiny-bert'?": ["--model", "tiny-brt"],
        "there is no folder ./nowhere": ["--model", "./nowhere"],
        "no model is not a transformers checkpoint": ["--model", "no model"],
        "unknown method 'l2ps'; did you mean 'l2sp'?": ["--methods", "none,ewc:lam=1e+03+l2ps"],
        "no method given": ["--methods", ","],
        "lr must be a number above 0, got nan": ["--lr", "nan"],
        "steps must be a whole number above 0, got 0": ["--steps", "0"],
        "limit must be a whole number above 0, got 0": ["--limit", "0"],
        "similarity must be between 0 and 1, got 2.0": ["--similarity", "2"],
        "--keep must be between 0 and 1, got 1.5": ["--keep", "1.5"],
        "--budget must be a time": ["--budget", "soon"],
        "--seeds must be 1 or more, got 0": ["--seeds", "0"],
        "thesis is no empty folder and holds no report": ["--out", "thesis"],
        "thesis is no empty folder and holds no model": ["--save", "thesis"],
        "a model cannot be saved in there": ["--out", "there", "--save", "there"],
        "file is no folder": ["--save-all", "file"],
        "unknown place to report to 'wandbb'; did you mean 'wandb'?": ["--report-to", "wandbb"],
        "register is the new task and watched too": ["--new", "register", "--watch", "register"],
    }
    others = {"no file absent.txt": ["pretrain", "--text", "absent.txt", "--out", "x"]}
    every = {**{said: ["compare", *more] for said, more in compared.items()}, **others}
    done = subprocess.run(
        [sys.executable, "-c", REFUSED % [*every.values()]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(every)
    for line, said in zip(lines, every, strict=True):
        assert line.startswith(f"forgetlab: {said}") or said in line, line
    assert {path.name for path in tmp_path.iterdir()} == {"no model", "thesis", "file"}


def test_the_names_read_from_the_files_are_those_of_the_remedies() -> None:
    assert sorted(method_names()) == sorted(METHODS)


# -- first tries within a budget --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "size", "kept", "dropped"), [(9.9, 1, 4, ["si"]), (5.0, 2, 4, ["si"]), (9.9, 2, 5, [])]
)
def test_what_has_no_time_for_a_first_try_is_said_before_the_start(
    left: float, size: int, kept: int, dropped: list[str], tmp_path: Path
) -> None:
    """Runs of 2.4 s: four in 9.9 s, one after the other; four in 5 s by two at a time."""
    plan = Plan(Recipe(), ["l2sp", "ewc", "frozen", "si"], [0], tmp_path, budget=60.0)
    search = Search(plan.names(), [0], 0.95, lambda pairs, share: {})
    sweep: Any = SimpleNamespace(
        kept=SimpleNamespace(get=lambda recipe: None), pool=SimpleNamespace(size=lambda: size), estimate=2.4
    )
    told = comparison._too_many(plan, search, sweep, left)
    assert len(search.methods) == kept
    assert bool(told) == bool(dropped)
    if dropped:
        assert f"at about 2.4 s a run; left out from the start: {', '.join(dropped)}; " in told
    tried = {replace(Recipe(), methods="si:strength=1")}  # it is in the folder: that costs nothing
    search = Search(plan.names(), [0], 0.95, lambda pairs, share: {})
    sweep.kept.get = lambda recipe: recipe if recipe in tried else None
    comparison._too_many(plan, search, sweep, left)
    assert "si" in search.methods


def test_what_was_not_tried_is_named_and_none_is_no_english_word() -> None:
    lines = recommend([PLAIN, FROZEN, REPLAY], 0.95, untried=["lwf", "wise"])
    assert lines[-1] == "Not tried: lwf, wise. --methods all --budget 30m gives each its turn."
    enough = dot("none", [0.99, 0.99, 0.99], [0.99, 0.99, 0.99])
    ways = [[enough, REPLAY], [PLAIN, FROZEN], [PLAIN], [dot("none", [0.96], [0.9]), dot("ewc", [0.97], [0.91])]]
    for dots in ways:
        for line in recommend(dots, 0.95):
            assert "none" not in line.replace("none is known", "").replace("--methods none,ewc,replay", ""), line
    assert recommend([enough, REPLAY], 0.95)[0].startswith("To keep ≥ 95 % of the old scores: plain fine-tuning (keeps")


def test_the_choice_is_what_the_advice_names_first() -> None:
    assert choice([PLAIN, FROZEN, REPLAY], 0.95) is REPLAY
    assert choice([PLAIN, REPLAY], 0.95, to_lose=False) is None
    assert choice([PLAIN, REPLAY], 0.95, watched=False) is None
    assert choice([FROZEN, dot("lora", [1.0], [0.02])], 0.95) is None  # nothing learns
    assert choice([FROZEN], 0.95) is FROZEN
    assert choice([dot("none", [], [], diverged=2)], 0.95) is None


def test_the_checks_that_need_torch_come_before_a_model_is_loaded(tmp_path: Path) -> None:
    plan = Plan(Recipe(), ["l2sp:lam=-1"], [0], tmp_path)
    plan.check()
    with pytest.raises(ForgetlabError, match="lam must be a number of 0 or more, got -1"):
        plan.check_methods()
