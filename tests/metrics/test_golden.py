"""The golden values: written as they are, told apart, agreed with by forgetlab; the runner names each known mistake."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.golden import make, run

KIT = Path(run.__file__).parent
GOLDEN = run.golden()


def test_the_file_holds_what_make_writes() -> None:
    assert run.FILE.read_text(encoding="utf-8") == make.text()


@pytest.mark.parametrize("value", GOLDEN, ids=lambda value: value["name"])
def test_every_convention_and_mistake_is_told_from_the_others(value: dict[str, Any]) -> None:
    names = ["expected", *value["others"]]
    sides = [{"expected": case["expected"], **case["others"]} for case in value["cases"]]
    for one, other in itertools.combinations(names, 2):
        apart = []
        for side in sides:
            both = run._both(side[one], side[other])
            assert both is not None
            apart.append(np.max(np.abs(both[0] - both[1]) / np.maximum(np.abs(both).max(0), 1e-9)))
        assert max(apart) > 100 * run.RTOL, (one, other)


def test_published_and_textbook_numbers() -> None:
    """Known without the kit: the matrix of FORMULAS, ln 3, 15 → 45, McNemar's counts, two lines of arithmetic."""
    formula = {value.name: value.exact for value in make.VALUES}
    R = make.read([[0.9, 0.1, 0.1], [0.95, 0.8, 0.1], [0.7, 0.75, 0.85]])
    assert (float(formula["backward_transfer"](R=R)), float(formula["forgetting_measure"](R=R))) == (-0.125, 0.15)
    fair = {"weights": [[0], [0]], "inputs": [[2]]}  # p = ½: p (1 − p) x² = 1
    assert make.plain(formula["fisher_exact"](**fair)) == [[1.0], [1.0]]
    assert make.plain(formula["fisher_empirical"](**fair, labels=[0])) == [[1.0], [1.0]]
    thirds = [[make.Fraction(1, 3)] * 3] * 3
    assert float(formula["perplexity"](table=thirds, texts=[[0, 1], [2, 0, 1]], end=2)) == pytest.approx(3, abs=1e-15)
    X = [[1, 0], [0, 1], [2, 1], [-1, 3]]
    assert float(formula["linear_cka_unbiased"](X=X, Y=[[3 * b, 3 * a] for a, b in X])) == 1.0
    # of 100 questions with 4 options all are guessed, evenly: 25 right each time, 18.75 flip each way, none known
    before, after = [1] * 25 + [0] * 75, [1] * 6 + [0] * 19 + [1] * 19 + [0] * 56
    chance = formula["flips_above_guessing"](before=before, after=after, options=4)
    assert make.plain(chance)["lost"] == pytest.approx(0.19 - 0.1875)
    assert make.plain(formula["knowledge_flips"](before=before, after=after, options=4))["lost"] < 0.01


def test_forgetlab_agrees_with_all_that_it_offers() -> None:
    done = {row["name"]: row["verdict"] for row in run.check(run.load(str(KIT / "forgetlab_values.py")))}
    assert {name for name, verdict in done.items() if verdict != run.OK} == {"flips_above_guessing"}
    assert done["flips_above_guessing"] == run.ABSENT


def mistaken(says: str) -> SimpleNamespace:
    """An implementation that gives for every value what `says` gives, where a value has it."""
    return SimpleNamespace(**{v["name"]: _answering(v, says) for v in GOLDEN if says in v["others"]})


def _answering(value: dict[str, Any], says: str) -> Any:
    def answer(**given: Any) -> Any:
        return next(case["others"][says] for case in value["cases"] if case["inputs"] == given)

    return answer


def test_every_known_mistake_and_convention_is_named() -> None:
    kinds: dict[str, set[str]] = {}
    for value in GOLDEN:
        for says, kind in value["others"].items():
            kinds.setdefault(says, set()).add(kind)
    for says, kind in kinds.items():
        rows = [row for row in run.check(mistaken(says)) if row["verdict"] != run.ABSENT]
        assert rows
        assert {row["says"] for row in rows} == {says}
        assert {row["verdict"] for row in rows} <= {run.OTHER if "convention" in kind else "", run.DIFFERS}


WRONG = """
import numpy as np

def backward_transfer(R):
    R = np.array(R)
    return (R[-1] - R.diagonal()).sum() / len(R)

def forgetting_measure(R):
    return (np.max(R, axis=0) - R[-1])[:-1].mean()

def linear_cka_unbiased(X, Y):
    X, Y = (np.array(x) - np.mean(x, 0) for x in (X, Y))
    return np.linalg.norm(Y.T @ X) ** 2 / np.linalg.norm(X.T @ X) / np.linalg.norm(Y.T @ Y)

def fisher_empirical(weights, inputs, labels):
    x, p = np.array(inputs), np.exp(np.array(inputs) @ np.array(weights).T)
    residual = np.eye(len(weights))[labels] - p / p.sum(1, keepdims=True)
    return (residual.T @ x / len(x)) ** 2

def perplexity(table, texts, end):
    return np.exp(np.mean([-np.log(table[t][t]) for text in texts for t in text]))

def perplexity_ratio(before, after):
    return after - before

def kept_share(before, after, guess):
    return after / before

def average_accuracy(R):
    return np.float32(np.mean(R[-1]))

def flips(before, after):
    return {"lost": 5, "gained": 3}

def forward_transfer(R, baseline):
    raise ValueError("no baseline is known")

def matthews(labels, predictions):
    return None
"""


def test_the_runner_says_what_is_wrong_with_a_wrong_file(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG, encoding="utf-8")
    command = [sys.executable, str(KIT / "run.py"), str(tmp_path / "wrong.py")]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env={"PYTHONIOENCODING": "utf-8"})
    said = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert done.returncode == 1, done.stderr
    assert said["average_accuracy"] == "agrees"
    assert said["backward_transfer"].startswith("differs: divides by T (-0.1; expected -0.133333)")
    assert said["forgetting_measure"].startswith("differs: the maximum includes the last row")
    assert said["linear_cka_unbiased"].startswith("other convention: biased CKA")
    assert said["fisher_empirical"].startswith("differs: the mean gradient of the batch is squared")
    assert said["perplexity"].startswith("differs: unshifted targets: each place is scored on the token just read (")
    assert said["perplexity_ratio"].startswith("differs: a difference of perplexities instead of their ratio")
    assert said["kept_share"].startswith("other convention: a ratio of the scores, guessing not subtracted")
    assert said["flips"].startswith("differs: by 1, and it is none of the known others")
    assert said["forward_transfer"] == "error: ValueError: no baseline is known"
    assert said["matthews"] == said["entity_f1"] == "not offered"


def test_the_runner_needs_numpy_alone() -> None:
    blocked = "import sys; sys.modules.update(dict.fromkeys(('torch', 'scipy', 'pandas', 'forgetlab')));"
    code = f"{blocked} sys.path.insert(0, {str(KIT)!r}); import run; print(len(run.check(None)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert int(done.stdout) == len(GOLDEN), done.stderr
    assert json.loads(run.FILE.read_text(encoding="utf-8"))["about"]
