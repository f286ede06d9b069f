"""Recipes as values, methods from their text, summaries by hand, and tasks from files."""

import json
import math
import statistics
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from forgetlab import ForgetlabError, Recipe, load, sweep
from forgetlab.__main__ import main
from forgetlab.experiments.recipes import prepare, summarise
from forgetlab.remedies.architectures import Frozen
from forgetlab.remedies.by_name import METHODS, make_methods, settings
from forgetlab.remedies.regularizers import L2SP
from forgetlab.remedies.replay import ExperienceReplay
from forgetlab.sources import read, split
from tests.conftest import small_model

QUICK = Recipe(steps=4, every=2, batch_size=8, limit=16, learn_steps=5, device="cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A random encoder without a language-model head, as an ordinary transformers folder."""
    model = small_model()
    model.body.bert.save_pretrained(tmp_path / "encoder")
    model.tokenizer.save_pretrained(tmp_path / "encoder")
    small_model(causal=True).save(tmp_path / "gpt")
    rows = [f"the plays were {w} .,{label}" for w, label in (("dull", "bad"), ("moving", "good"), ("slow", "bad")) * 20]
    numbered = [row.replace("the plays", f"the {i} plays") for i, row in enumerate(rows)]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label", *numbered]))
    lines = [f"anna\tB-PER\nis\tO\nolder{i}\tO\n" for i in range(40)]
    (tmp_path / "names.conll").write_text("\n".join(lines))
    (tmp_path / "plain.txt").write_text("\n\n".join(f"anna is older than boris number {i} ." for i in range(150)))
    return tmp_path


def test_the_key_is_stable_and_tells_recipes_apart(tmp_path: Path) -> None:
    assert Recipe().key() == Recipe().key()
    keys = {replace(Recipe(), **change).key() for change in ({}, {"lr": 2e-3}, {"seed": 1}, {"methods": "l2sp"})}
    assert len(keys) == 4
    data = tmp_path / "a.csv"
    data.write_text("text,label\n")
    first = Recipe(new=str(data)).key()
    data.write_text("text,label\nx,y\n")
    assert Recipe(new=str(data)).key() != first  # what the file holds counts, not its name alone


def test_same_recipe_same_numbers() -> None:
    recipe = replace(QUICK, methods="replay:ratio=0.5+l2sp:lam=0.1")
    runs = sweep([recipe, replace(recipe, seed=1), recipe])
    without_time = [
        [{**record, "seconds": 0, "train_seconds": 0, "setup_seconds": 0} for record in run["records"]] for run in runs
    ]
    assert without_time[0] == without_time[2]  # a run leaves nothing behind for the next
    assert without_time[0] != without_time[1]
    json.dumps(runs, allow_nan=False)


def test_methods_from_text() -> None:
    bench = prepare(QUICK)
    one, two = make_methods("l2sp:lam=0.5,beta=0.01+replay:ratio=0.3,memory=50", bench.watch)
    assert isinstance(one, L2SP)
    assert (one.lam, one.beta) == (0.5, 0.01)
    assert isinstance(two, ExperienceReplay)
    assert (two.ratio, two.memory) == (0.3, 50)
    assert isinstance(make_methods("frozen", [])[0], Frozen)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("l2ps", "unknown method 'l2ps'; did you mean 'l2sp'"),
        ("l2sp:lamda=1", "unknown setting of l2sp 'lamda'; did you mean 'lam'"),
        ("l2sp:lam", "l2sp: expected NAME=NUMBER, got 'lam'"),
        ("l2sp:lam=big", "lam must be a number of 0 or more, got 'big'"),
        ("l2sp:lam=-1", "lam must be a number of 0 or more, got -1"),
        ("l2sp:lam=nan", "lam must be a number of 0 or more, got nan"),
        ("replay:old=3", "unknown setting of replay 'old'"),
    ],
)
def test_bad_methods(spec: str, message: str) -> None:
    with pytest.raises(ForgetlabError) as caught:
        make_methods(spec, None)
    assert message in str(caught.value)


def test_summary_by_hand() -> None:
    def run(method: str, finals: tuple[float, float]) -> dict:
        records = [
            {
                "step": s,
                "scores": {"a": {"accuracy": x}, "b": {"perplexity": y}},
                "train_seconds": s * 0.1,
                "drift": s,
                "status": st,
            }
            for s, x, y, st in ((0, 0.5, 3.0, "running"), (10, *finals, "done"))
        ]
        return {"recipe": {"methods": method}, "records": records}

    tasks = [{"name": "a", "metric": "accuracy"}, {"name": "b", "metric": "perplexity"}]
    rows = summarise([run("none", (0.9, 30.0)), run("none", (0.7, 60.0)), run("l2sp", (0.8, 6.0))], tasks)
    assert [row["method"] for row in rows] == ["none", "l2sp"]
    assert rows[0]["tasks"]["a"]["after"] == pytest.approx(0.8)
    assert rows[0]["tasks"]["a"]["change"] == pytest.approx(0.3)
    assert rows[0]["tasks"]["a"]["spread"] == pytest.approx(statistics.stdev([0.9, 0.7]))
    assert rows[0]["tasks"]["b"]["change"] == pytest.approx(45 / 3)
    assert rows[1]["tasks"]["b"]["spread"] is None
    assert rows[0]["seconds_per_step"] == pytest.approx(0.1)
    lost = run("none", (0.5, None))  # type: ignore[arg-type]
    lost["records"][-1]["status"] = "diverged"
    row = summarise([run("none", (0.9, 30.0)), lost], tasks)[0]
    assert row["status"] == ["diverged", "done"]
    unknown = dict.fromkeys(("after", "spread", "error", "change", "told", "kept"))
    assert row["tasks"]["b"] == {"before": 3.0, **unknown}
    assert row["tasks"]["a"]["after"] is None  # the 0.5 of a broken model is no score


def test_files_on_an_encoder(folder: Path) -> None:
    recipe = replace(
        QUICK, model=str(folder / "encoder"), new=str(folder / "reviews.csv"), watch=(str(folder / "names.conll"),)
    )
    bench = prepare(recipe)
    assert bench.new.labels == ("bad", "good")
    assert "learned first, for 5 steps: names" in bench.notes
    assert any("are unknown to encoder" in note for note in bench.notes)
    records = list(bench.run(recipe))
    assert list(records[-1].scores) == ["reviews", "names"]
    assert records[-1].status == "done"


def test_the_watched_task_is_learned_before_the_run(folder: Path) -> None:
    recipe = replace(QUICK, model=str(folder / "encoder"), new=str(folder / "reviews.csv"))
    watched = replace(recipe, watch=(str(folder / "names.conll"),), learn_steps=60, lr=5e-3)
    first = next(prepare(watched).run(watched)).scores["names"]
    assert first["f1"] > 0.95


def test_text_on_a_causal_model(folder: Path) -> None:
    recipe = replace(QUICK, model=str(folder / "gpt"), new=str(folder / "plain.txt"), watch=("causal-lm",))
    records = list(prepare(recipe).run(recipe))
    assert records[-1].scores["plain"]["perplexity"] < records[0].scores["plain"]["perplexity"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"new": "sentimen"}, "unknown task or file 'sentimen'; did you mean 'sentiment'"),
        ({"new": "no/such.csv"}, "no/such.csv"),
        ({"watch": ("entitis",)}, "unknown task or file 'entitis'; did you mean 'entities'"),
        ({"model": "tiny-bret"}, "unknown model 'tiny-bret'; did you mean 'tiny-bert'"),
        ({"methods": "ewk"}, "unknown method 'ewk'"),
    ],
)
def test_bad_recipes(change: dict, message: str) -> None:
    with pytest.raises(ForgetlabError) as caught:
        prepare(replace(QUICK, **change))
    assert message in str(caught.value)


def test_bad_files(folder: Path) -> None:
    (folder / "nolabel.csv").write_text("text,id\n" + "\n".join(f"anna is older {i} .,{i}" for i in range(30)))
    (folder / "oneclass.csv").write_text("text,label\n" + "\n".join(f"anna is older {i} .,yes" for i in range(30)))
    encoder = replace(QUICK, model=str(folder / "encoder"), watch=("sentiment",))
    for name, message in (
        ("nolabel.csv", "--label"),
        ("oneclass.csv", "every label is 'yes'"),
        ("plain.txt", "encoder has no language-model head"),
    ):
        with pytest.raises(ForgetlabError) as caught:
            prepare(replace(encoder, new=str(folder / name)))
        assert message in str(caught.value), name
    with pytest.raises(ForgetlabError, match="say what to watch"):
        prepare(replace(QUICK, model=str(folder / "encoder"), new=str(folder / "reviews.csv")))


def test_a_class_on_one_side_of_the_split_only_is_noted(folder: Path) -> None:
    """Which side a text falls on is decided by its hash, so both kinds of odd class are looked for there."""
    rows = (folder / "reviews.csv").read_text().splitlines()[1:]
    train, test = split(read(folder / "reviews.csv"))
    lone = [next(i for i, row in enumerate(rows) if row.startswith(side.texts[0])) for side in (train, test)]
    for i, label in zip(lone, ("late", "odd"), strict=True):
        rows[i] = f"{rows[i].rpartition(',')[0]},{label}"
    (folder / "uneven.csv").write_text("\n".join(["text,label", *rows]))
    for name, wanted in (
        ("reviews.csv", []),
        (
            "uneven.csv",
            [
                "uneven: 1 of 4 classes are only on the test side, never learned: odd",
                "uneven: 1 of 4 classes are never tested: late",
            ],
        ),
    ):
        recipe = replace(QUICK, model=str(folder / "encoder"), new=str(folder / name), watch=("sentiment",))
        assert [note for note in prepare(recipe).notes if " classes are " in note] == wanted


@pytest.mark.slow
def test_every_method_runs_by_its_name() -> None:
    recipe = Recipe(steps=10, every=10, limit=16, batch_size=8)
    bench = prepare(recipe)
    for name in METHODS:
        if "walk" in settings(name):
            name += ":walk=2"
        first, *_, last = bench.run(replace(recipe, methods=name))
        assert last.status in ("done", "stopped"), name
        assert all(math.isfinite(v) for scores in last.scores.values() for v in scores.values()), name
        assert first.costs["trained_parameters"] > 0, name
    bench.model.restore()
    assert bench.model.snapshot().keys() == load("tiny-bert").snapshot().keys()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ewc:lam=-1", "lam must be a number of 0 or more, got -1"),
        ("ewc:lam=nan", "lam must be a number of 0 or more, got nan"),
        ("ewc:estimator=exat", "unknown estimator 'exat'; did you mean 'exact'"),
        ("online-ewc:gamma=2", "gamma must be between 0 and 1"),
        ("replay:ratio=7", "ratio must be"),
        ("replay:memory=0", "memory must be a whole number above 0"),
        ("replay:sampling=fair", "unknown sampling 'fair'"),
        ("ecw", "unknown method 'ecw'; did you mean 'ewc'"),
        ("ewc:lamda=3", "unknown setting of ewc 'lamda'; did you mean 'lam'"),
        ("ewc:lam", "expected NAME=NUMBER"),
        ("wise:alpha=2", "alpha must be"),
        ("safety-brake:drop=2", "drop must be"),
    ],
)
def test_a_bad_setting_is_said_before_anything_is_loaded(spec: str, message: str) -> None:
    with pytest.raises(ForgetlabError, match=message):
        prepare(Recipe(model="no-such-model", methods=spec))


def test_a_plus_within_a_number_parts_nothing() -> None:
    first, second = make_methods("l2sp:lam=1e+03+frozen", None)
    assert first.lam == 1000.0
    assert isinstance(second, Frozen)


def recipe_of(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """The recipe that the command line makes; nothing is run."""
    seen: list[Recipe] = []

    def plan(recipe: Recipe, **more: object) -> None:
        seen.append(recipe)
        raise ForgetlabError("seen")

    monkeypatch.setattr("forgetlab.experiments.plan.Plan", plan)
    assert main(["compare", *arguments]) == 2
    return seen[0]


def test_the_command_line_says_every_field_of_a_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "--model m --new a.csv --watch b.csv:text=1,label=2,c.txt --steps 7 --lr 0.5 --batch 3 --every 2 "
    said += "--similarity 0.25 --learn-steps 9 --limit 11 --text t --label l --kind pairs --device cpu "
    said += "--precision bfloat16 --max-length 700"
    assert recipe_of(said.split(), monkeypatch) == Recipe(
        "m", "a.csv", ("b.csv:text=1,label=2", "c.txt"), "none", 7, 0.5, 3, 0, 2, 0.25, 9, 11, "t", "l", "pairs", "cpu",
        "bfloat16", 700,
    )  # fmt: skip
    assert len(said.split()) / 2 == len(fields(Recipe)) - 2  # all but the methods and the seed


@pytest.mark.parametrize(("model", "lr"), [("tiny-bert", 1e-3), ("tiny-gpt", 1e-3), ("./other", 5e-5)])
def test_without_options_it_is_the_default_recipe_at_the_models_rate(
    model: str, lr: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recipe_of(["--model", model], monkeypatch) == Recipe(model=model, lr=lr)


def test_help_waits_for_no_torch() -> None:
    code = "import sys, forgetlab.__main__ as cli; cli._parser().format_help(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
