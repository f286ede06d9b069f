"""Saved models against runs of the same recipe, their cards against the results, and what a disk may do to them."""

from __future__ import annotations

import copy
import errno
import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM

from forgetlab import ForgetlabError, load
from forgetlab.__main__ import main
from forgetlab.experiments import saving, sweeps
from forgetlab.experiments.folders import CARD, check_apart, check_model_folder
from forgetlab.experiments.plan import Plan, folder_name
from forgetlab.experiments.recipes import Bench, Recipe, prepare
from forgetlab.experiments.saving import Models, fits_a_folder, same_bits, winner, write_draft
from forgetlab.models.model import Model
from forgetlab.sources import Examples
from forgetlab.sources.json_files import read_json
from forgetlab.tasks import MaskedLM
from tests.conftest import FailingDisk
from tests.experiments.test_report import RESULTS, START, run

QUICK = ["--steps=6", "--every=3", "--batch=8", "--limit=16", "--device=cpu", "--processes=1"]


def reviews(path: Path) -> None:
    rows = [f"{w} the film {i},{'good' if w == 'liked' else 'bad'}" for i in range(20) for w in ("liked", "hated")]
    path.write_text("\n".join(["text,label", *rows]))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison that had finished, then resumed for its winner; its files have names that are odd."""
    folder = tmp_path_factory.mktemp("über all")
    reviews(folder / "my | reviews.csv")
    new = ["--new", str(folder / "my | reviews.csv"), "--watch", "entities", "--seeds=1", "--lr=1e-2"]
    command = ["compare", *QUICK, *new, "--steps=16", "--every=16", "--methods=none,ewc", "--out", str(folder / "out")]
    assert main(command) == 0
    before = {path: path.stat().st_mtime_ns for path in sweeps.files_of_runs(folder / "out" / "runs")}
    assert main([*command, "--resume", "--save", str(folder / "the model ü")]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before  # nothing was computed for the report
    assert {path.name for path in folder.iterdir()} == {"out", "the model ü", "my | reviews.csv"}
    return folder


def chosen(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What forgetlab.json says, and the run in results.json that it is."""
    about = read_json(folder / "the model ü" / CARD)
    assert about is not None
    results = json.loads((folder / "out" / "results.json").read_text())
    (own,) = [run for run in results["runs"] if run["key"] == about["key"]]
    return about, own


@pytest.mark.slow
def test_the_winner_of_a_finished_comparison_is_the_run_of_its_recipe_bit_for_bit(saved: Path) -> None:
    about, own = chosen(saved)
    results = json.loads((saved / "out" / "results.json").read_text())
    named = re.search(r"(?:scores|before): (.*?)(?: comes nearest)? \(keeps", results["recommendation"][0])
    assert named
    assert own["recipe"]["methods"] == {"plain fine-tuning": "none"}.get(named[1], named[1])
    assert own["recipe"]["seed"] == 0
    assert about["same_bits"] is True
    recipe = Recipe(**own["recipe"])
    bench = prepare(recipe)
    *_, last = bench.run(recipe)
    wanted = bench.model.snapshot()
    model = load(saved / "the model ü")
    assert model.snapshot().keys() == wanted.keys()
    assert all(torch.equal(weight, wanted[name]) for name, weight in model.snapshot().items())
    for task in (bench.new, *bench.watch):
        assert task.score(model, 16)[task.metric] == last.scores[task.name][task.metric]
        assert last.scores[task.name] == about["scores"]["after"][task.name]
    plain = AutoModelForMaskedLM.from_pretrained(saved / "the model ü").state_dict()
    assert all(torch.equal(plain[name], model.body.state_dict()[name]) for name in plain)


@pytest.mark.slow
def test_the_card_says_recipe_scores_data_and_versions(saved: Path) -> None:
    about, own = chosen(saved)
    text = (saved / "the model ü" / "README.md").read_text(encoding="utf-8")
    digest = sha256((saved / "my | reviews.csv").read_bytes()).hexdigest()
    assert f"my \\| reviews.csv | `{digest}` |" in text
    assert about["made_from"] == {str(saved / "my | reviews.csv"): digest}
    assert len(re.findall(r"`[0-9a-f]{64}`", text)) == 1 + 2 * 2 + 1  # the file, both sides of two tasks, the rest
    recipe = eval(re.search(r"recipe = (Recipe\(.*?\n\))", text, re.S)[1], {"Recipe": Recipe})  # type: ignore[index]
    assert recipe == Recipe(**own["recipe"])
    assert f"torch {torch.__version__}" in text
    assert "bit for bit the run that was compared" in text
    row = next(line for line in text.splitlines() if line.startswith("| my "))
    before, after = (own["records"][i]["scores"]["my | reviews"]["accuracy"] for i in (0, -1))
    cells = re.findall(r"(\d\.\d\d) ±(\d\.\d\d)", row)
    assert [float(score) for score, _ in cells] == pytest.approx([before, after], abs=0.006)
    p, n = before, len(own["records"][0]["tallies"]["my | reviews"])
    assert float(cells[0][1]) == pytest.approx((p * (1 - p) / n) ** 0.5, abs=0.015)  # by the bootstrap
    assert "## What the comparison said" in text
    results = json.loads((saved / "out" / "results.json").read_text())
    assert all(f"- {line}" in text for line in results["recommendation"])


@pytest.mark.slow
def test_it_may_be_saved_again_and_nothing_else_may(saved: Path, tmp_path: Path) -> None:
    check_model_folder(saved / "the model ü")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    for folder in (tmp_path / "full", tmp_path / "full" / "thesis.txt"):
        with pytest.raises(ForgetlabError, match="holds no model saved by compare"):
            check_model_folder(folder)
    with pytest.raises(ForgetlabError, match="cannot write a model to /proc/model"):
        check_model_folder("/proc/model")
    with pytest.raises(ForgetlabError, match="where another thing lies"):
        check_apart(tmp_path / "out" / ".." / "out", tmp_path / "out")
    assert main(["compare", *QUICK, "--out", str(tmp_path / "a"), "--save", str(tmp_path / "a")]) == 2
    model = saved / "the model ü"
    assert main(["compare", *QUICK, "--model", str(model), "--save", str(model), "--out", str(tmp_path / "b")]) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"full"}


@pytest.mark.slow
def test_every_run_is_saved_as_it_ends_but_for_what_no_folder_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--out", str(tmp_path / "out"), "--save-all", str(tmp_path / "all")]
    command = ["compare", *QUICK, "--methods=lora:targets=query/value,adapters,wise", "--seeds=1", *places]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert f"models: {tmp_path / 'all'}   (2 runs; 1 more add parts that a transformers folder cannot hold)" in told
    names = ["lora-targets=query-value-seed0", "wise-seed0"]
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == names
    runs = {
        run["recipe"]["methods"]: run for run in json.loads((tmp_path / "out" / "results.json").read_text())["runs"]
    }
    for name, method in zip(names, ("lora:targets=query/value", "wise"), strict=True):
        model, recipe = load(tmp_path / "all" / name), Recipe(**runs[method]["recipe"])
        bench = prepare(recipe)
        for task in (bench.new, *bench.watch):  # LoRA is merged: the same function but for rounding
            told_score = runs[method]["records"][-1]["scores"][task.name][task.metric]
            assert task.score(model, 16)[task.metric] == pytest.approx(told_score, rel=1e-4)
    (tmp_path / "all" / "wise-seed0" / "config.json").unlink()
    (tmp_path / "all" / "wise-seed0" / CARD).unlink()
    (tmp_path / "all" / "wise-seed0" / "thesis.txt").write_text("mine")
    assert main([*command, "--resume"]) == 2  # it is nobody's any more
    assert (tmp_path / "all" / "wise-seed0" / "thesis.txt").read_text() == "mine"


# -- which run it is --------------------------------------------------------------------------------


def results(*rows: tuple[str, tuple[float, float, float]], ends: Sequence[str] = ("done",)) -> Any:
    """A comparison of methods by what (accuracy, perplexity, f1) they end with."""
    found = copy.deepcopy(RESULTS)
    found["runs"] = [run(method, seed, START, end, end=how) for method, end in rows for seed, how in enumerate(ends)]
    for one in found["tasks"]:
        one["guess"] = {"sentiment": 0.5, "masked-lm": 200.0, "entities": 0.0}[one["name"]]
    return found


GOOD, BETTER, BAD, IDLE = (0.9, 2.1, 0.79), (0.95, 2.0, 0.8), (0.99, 90.0, 0.2), (0.5, 2.0, 0.8)


def test_the_winner_is_the_first_sound_seed_of_what_is_recommended() -> None:
    found, reason = winner(results(("none", BAD), ("ewc", GOOD), ends=("diverged", "done", "done")), 0.9)
    assert found is not None
    assert (found["recipe"]["methods"], found["recipe"]["seed"], reason) == ("ewc", 1, "")


def test_what_no_folder_holds_gives_way_and_is_named() -> None:
    found, reason = winner(results(("none", BAD), ("adapters", BETTER), ("ewc", GOOD)), 0.9)
    assert found is not None
    assert found["recipe"]["methods"] == "ewc"
    assert reason == "adapters adds parts that a transformers folder cannot hold; ewc is the best that it can"
    specs = ("lora", "lora:shared=0", "columns", "ewc+adapters", "wise+l2sp:lam=1e+03")
    assert [fits_a_folder(spec) for spec in specs] == [True, False, False, False, True]


def test_where_nothing_is_recommended_nothing_is_saved_but_one_run_alone_is() -> None:
    assert winner(results(("none", IDLE), ("ewc", IDLE)), 0.9) == (None, "nothing is recommended")
    assert winner(results(("none", BAD), ("ewc", BAD), ends=("diverged",)), 0.9) == (None, "nothing is recommended")
    alone, reason = winner(results(("ewc", IDLE)), 0.9)
    assert alone is not None
    assert reason == ""


def test_two_runs_are_the_same_but_for_what_a_clock_says() -> None:
    one, other = run("ewc", 0, START, GOOD), run("ewc", 0, START, GOOD)
    other["records"][0]["seconds"] = 3.0
    assert same_bits(one, json.loads(json.dumps(other)))
    other["records"][1]["scores"]["entities"]["f1"] += 1e-12
    assert not same_bits(one, other)


def test_nothing_to_save_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    plan = Plan(Recipe(), ["adapters"], [0], tmp_path / "out", save=tmp_path / "model")
    plan.check()
    with pytest.raises(ForgetlabError, match="nothing to save: adapters adds parts"):
        plan.check_methods()
    names = [folder_name(replace(Recipe(), methods=m)) for m in ("a" * 200, "a" * 199 + "b", "é:x=1;y=2/3", "../x")]
    assert len({*names}) == 4
    assert all(len(name) < 120 and re.fullmatch(r"[\w.,=+-]+", name) and name[0] not in ".-" for name in names)


# -- a disk that refuses ----------------------------------------------------------------------------


@pytest.mark.parametrize("there", [False, True], ids=["a new folder", "over an earlier model"])
def test_a_disk_that_refuses_leaves_a_whole_model_or_none(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bert: Model
) -> None:
    """Each operation on the disk in its turn fails: what lies there then is loaded as one of the two, or refused."""
    recipe, examples = Recipe(methods="ewc"), Examples("text", ("the film",))
    bench = Bench(bert, MaskedLM("text", examples, examples), [])
    facts: Any = {"machine": {}, "model": {"name": "tiny-bert", "parameters": 1}, "new": "sentiment", "tasks": []}
    last = {"status": "done", "scores": {}, "step": 1, "train_seconds": 1.0, "drift": 0.0}
    done: Any = {"recipe": vars(recipe), "key": recipe.key(), "records": [last] * 2}
    folder = tmp_path / "model"
    models = Models(lambda _: folder, facts)
    disk = FailingDisk(errno.ENOSPC)

    def save(weight: float) -> None:
        with torch.no_grad():
            [p.fill_(weight) for p in bench.model.parameters()]
        write_draft(bench, Path(models.draft(recipe)))
        models.finish(done)

    if there:
        save(1.0)
    for name in ("replace", "rename", "write_text", "unlink", "mkdir", "chmod"):
        monkeypatch.setattr(Path, name, disk.failing(getattr(Path, name)))
    monkeypatch.setattr(saving.os, "fsync", disk.failing(os.fsync))
    said: list[str] = []
    while True:
        disk.operations, disk.fails_at = 0, disk.fails_at + 1
        try:
            save(2.0)
        except ForgetlabError as error:
            said.append(str(error))
        if disk.operations <= disk.fails_at:
            break
        assert not list(tmp_path.rglob(".model-*"))
        if (folder / "config.json").exists():
            first = next(iter(load_file(folder / "model.safetensors").values()))
            assert float(first.flatten()[0]) in (1.0, 2.0)
    assert len(said) > 10
    assert all(os.strerror(errno.ENOSPC) in one for one in said)
    assert next(load(folder).parameters())[0, 0] == 2.0
