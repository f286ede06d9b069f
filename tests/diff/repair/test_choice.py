"""A fine-tune in part undone: against the closed form on a quadratic, a slow search, and models that were saved."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification

from forgetlab import finetune, load, task
from forgetlab.__main__ import main
from forgetlab.diff.models.pair import Pair
from forgetlab.diff.repair.choice import RepairFound, repair, repair_html, repair_lines, save_repaired
from forgetlab.diff.repair.found import Look, budget, in_words
from forgetlab.diff.repair.saved import check_repair_folder
from forgetlab.diff.repair.search import best_of, hopeless, layer_by_layer, too_dear
from forgetlab.diff.repair.shown import alt_text
from forgetlab.errors import ForgetlabError
from forgetlab.metrics import layer_of
from forgetlab.metrics.tally import Tally
from forgetlab.remedies.interpolation import mixed
from forgetlab.sources import Examples
from forgetlab.sources.json_files import read_json
from forgetlab.sources.model_names import model_folder
from forgetlab.tasks import Task
from forgetlab.tasks.base import Scores
from tests.diff.models.test_pair import moved

ITEMS = 40
POINTS: Any = {"name": "new", "metric": "accuracy"}
RATIO: Any = {"name": "new", "metric": "perplexity"}


class Bowl(Task):
    """A loss (x − lowest)² of one weight x, on items whose mean noise is 0 in the choosing part and in the rest."""

    metric, kind, higher_is_better = "kl", "bowl", False

    def __init__(self, name: str, lowest: float, shift: Callable[[Tensor], Tensor] | None = None, own: int = 0) -> None:
        super().__init__(name, None, Examples(kind="text", texts=tuple(f"{i}" for i in range(ITEMS))))
        self.lowest, self.shift, self.own = lowest, shift, own

    def _scored(self, model: Any, limit: int | None) -> tuple[Scores, Tally | None]:
        rows = self.sample(limit)
        loss = (model.x.detach()[self.own] - self.lowest) ** 2 + torch.zeros(len(rows)).double()
        if self.shift is not None:
            loss = loss + self.shift(rows)
        items = torch.stack([loss, torch.ones(len(rows))], dim=1)
        return {"kl": float(loss.mean())}, Tally(("kl", "tokens"), items.double())

    def _collate(self, *_: Any) -> Any:
        raise NotImplementedError

    def logits(self, *_: Any) -> Any:
        raise NotImplementedError


class Line:
    """A pair of models with a weight in each layer: 0 before, 1 after."""

    def __init__(self, layers: int = 1) -> None:
        self.model: Any = torch.nn.Module()
        self.model.x, self.model.heads = torch.nn.Parameter(torch.zeros(layers).double()), {}
        self.asked: list[float] = []

    def between(self, after: str, share: Callable[[str, Tensor, Tensor], Tensor]) -> Any:
        start, end = torch.zeros(1).double(), torch.ones(1).double()
        own = [share(f"body.layer.{i}.weight", start, end) for i in range(len(self.model.x))]
        self.model.x.detach().copy_(torch.cat(own))
        self.asked.append(self.model.x[0].item())
        return self.model


@pytest.mark.parametrize("tenths", [1, 3, 5, 8])
def test_on_a_quadratic_it_is_the_closed_form(tenths: int) -> None:
    """Old loss α², new loss (1 − α)²: the least old loss within w is at α = 1 − √w, whatever the curve's scale."""
    share = tenths / 10
    found = repair(Line(), "after", [Bowl("old", 0)], Bowl("new", 1), within=share**2, few=10)
    assert found["chosen"] is not None
    assert found["chosen"]["alpha"] == pytest.approx(1 - share)
    for one in found["looks"][:11]:
        assert one["old"] == pytest.approx(one["alpha"] ** 2, abs=1e-6)
        assert one["new"] == pytest.approx((1 - one["alpha"]) ** 2, abs=1e-6)
    new, old = found["tasks"]
    assert (new["before"], new["after"], new["repaired"]) == pytest.approx((1, 0, share**2), abs=1e-6)
    assert (old["before"], old["after"], old["repaired"]) == pytest.approx((0, 1, (1 - share) ** 2), abs=1e-6)
    assert old["to_after"] == pytest.approx([(1 - share) ** 2 - 1] * 3, abs=1e-6)
    assert old["to_before"] == pytest.approx([(1 - share) ** 2] * 3, abs=1e-6)


def test_it_is_chosen_on_few_texts_and_told_on_the_others() -> None:
    """Losses of the rest that would change every choice change none; what is told is theirs."""
    few = set(Bowl("new", 1).sample(10).tolist())
    rest = lambda rows: torch.tensor([0.0 if int(row) in few else 5.0 for row in rows])  # noqa: E731
    line = Line()

    def against(rows: Tensor) -> Tensor:
        return rest(rows) * (2 if 0.2 < line.model.x[0].item() < 0.9 else 1)

    plain = repair(Line(), "after", [Bowl("old", 0)], Bowl("new", 1), within=0.25, few=10)
    other = repair(line, "after", [Bowl("old", 0, rest)], Bowl("new", 1, against), within=0.25, few=10)
    assert plain["chosen"] == other["chosen"]
    assert [one["old"] for one in plain["looks"]] == pytest.approx([one["old"] for one in other["looks"]])
    new = other["tasks"][0]
    assert (new["chosen_on"], new["scored_on"]) == (10, ITEMS - 10)
    assert new["repaired"] == pytest.approx(10.25, abs=1e-6)
    assert any("more than the budget" in line for line in repair_lines(other))
    assert not any("more than the budget" in line for line in repair_lines(plain))


def test_each_layer_gets_its_own_alpha() -> None:
    """Old loss x₀², new loss (1 − x₁)²: the layer that only forgets goes back, the one that only learns stays."""
    line = Line(2)
    found = repair(line, "after", [Bowl("old", 0, own=0)], Bowl("new", 1, own=1), within=0.04, few=10)
    assert found["chosen"] is not None
    assert (found["chosen"]["alpha"], found["chosen"]["layers"]) == (
        0.8,
        {"layer 0": pytest.approx(0.6), "layer 1": 1.0},
    )
    assert found["chosen"]["old"] == pytest.approx(0.36)
    one = repair(line, "after", [Bowl("old", 0, own=0)], Bowl("new", 1, own=1), within=0.04, few=10, by_layer=False)
    assert one["chosen"] is not None
    assert one["chosen"]["layers"] == {}
    assert one["looks"] == found["looks"][:11]


def test_layers_are_searched_in_turn_each_from_the_best_so_far() -> None:
    asked = []

    def at(alpha: float, layers: dict[str, float]) -> Look:
        asked.append({"a": alpha, "b": alpha, **layers})
        a, b = asked[-1]["a"], asked[-1]["b"]
        return {"alpha": alpha, "layers": layers, "old": a + b, "new": 0.5 * (1 - b), "scores": {}}

    start = at(0.9, {})
    found = layer_by_layer(at, start, ["a", "b"], within=0.1)
    tenths = [(round(10 * one["a"]), round(10 * one["b"])) for one in asked]
    assert tenths == [(9, 9), (7, 9), (7, 7), (7, 10)]  # less of a is taken; of b less is beyond the budget
    assert best_of([start, *found], 0.1)["layers"] == {"a": pytest.approx(0.7)}


def _slow(looks: list[Look], within: float) -> Look | None:
    """The rule in words: of the points within the budget the one that loses least, ties to the better new score."""
    best = None
    for one in looks:
        if one["new"] > within + 1e-9:
            continue
        if best is None or (one["old"], one["new"], one["alpha"]) < (best["old"], best["new"], best["alpha"]):
            best = one
    return best


def test_the_choice_is_that_of_a_slow_search() -> None:
    chosen = set()
    for seed in range(300):
        random = np.random.default_rng(seed)
        old, new = np.round(random.uniform(-0.1, 1, (2, 6)), 1)
        new[-1], old[0] = 0.0, 0.0
        looks = _looks(*zip((0.0, 0.2, 0.4, 0.6, 0.8, 1.0), old.tolist(), new.tolist(), strict=True))
        within = float(random.choice([0.0, 0.1, 0.3]))
        assert best_of(looks, within) == _slow(looks, within)
        chosen.add(best_of(looks, within)["alpha"])
    assert len(chosen) == 6


def _looks(*points: tuple[float, float, float]) -> list[Look]:
    return [{"alpha": a, "layers": {}, "old": old, "new": new, "scores": {"new": 0.9 - new}} for a, old, new in points]


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (((0, 0, 0.4), (0.5, 0.1, 0.05), (1, -0.1, 0)), "lost nothing of the old"),
        (
            ((0, 0, -0.1), (0.5, 0.1, 0), (1, 0.5, 0)),
            r"BEFORE, with AFTER's head, is within 0.01 of AFTER \(1.00 and 0.90\)",
        ),
        (((0, 0, 0.4), (0.5, 0.1, 0.05), (1, math.nan, 0)), "no finite numbers"),
        (((0, 0, math.nan), (0.5, 0.1, math.nan), (1, 0.4, math.nan)), "no finite numbers"),
        (((0, 0, 0.4), (0.5, 0.1, 0.05), (1, 0.5, 0)), ""),
    ],
)
def test_why_there_is_nothing_to_repair_is_said(points: Any, words: str) -> None:
    reason = hopeless(_looks(*points), 0.01, POINTS)
    assert re.search(words, reason)
    assert bool(reason) == bool(words)


def test_a_budget_that_nothing_meets_is_said_with_one_that_is_met() -> None:
    looks = _looks((0, 0, 0.4), (0.5, 0.1, 0.05), (0.9, 0.6, 0.02), (1, 0.5, 0))
    assert best_of(looks, 0.01)["alpha"] == 1
    said = too_dear(looks, 0.01, POINTS)
    assert "keeps new within 0.01 of AFTER; α = 0.5 would with a budget of 0.05" in said


def test_a_point_that_is_no_number_is_passed_over() -> None:
    looks = _looks((0, 0, 0.4), (0.3, math.nan, 0.0), (0.6, 0.2, math.nan), (0.8, 0.3, 0.005), (1, 0.5, 0))
    assert best_of(looks, 0.01)["alpha"] == 0.8


def test_a_budget_in_words_is_never_below_the_loss() -> None:
    assert [budget(loss, POINTS) for loss in (0.01, 0.0101, 0.0)] == ["0.01", "0.011", "0"]
    assert budget(math.log(1.02), RATIO) == "a factor of 1.02"
    assert budget(math.log(1.0201), RATIO) == "a factor of 1.021"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"new": None}, "needs the new task.*--new"),
        ({"old": []}, "needs an old task.*--watch"),
        ({"old": ["old"]}, "must be a list of Tasks"),
        ({"within": math.nan}, "within must be a number of 0 or more, got nan"),
        ({"within": -0.1}, "within must be"),
        ({"alphas": [1.5]}, "alpha must be between 0 and 1"),
        ({"few": 0}, "few must be a whole number"),
        ({"limit": 1}, "chosen on some test items and reported on others; expected two or more, got 1"),
    ],
)
def test_bad_input_is_said(change: dict[str, Any], words: str) -> None:
    line, given = Line(), {"old": [Bowl("old", 0)], "new": Bowl("new", 1), "within": 0.1, **change}
    with pytest.raises(ForgetlabError, match=words):
        repair(line, "after", **given)
    assert not line.asked  # before anything is computed


def test_a_task_without_items_or_without_a_head_is_refused() -> None:
    silent = Bowl("silent", 0)
    silent._scored = lambda model, limit: ({"kl": 0.0}, None)  # type: ignore[method-assign]
    with pytest.raises(ForgetlabError, match="silent: its score is no sum over test items"):
        repair(Line(), "after", [silent], Bowl("new", 1))
    headless = Bowl("headless", 0)
    headless.head = "lost"  # type: ignore[attr-defined]
    with pytest.raises(ForgetlabError, match="neither model has a head for headless"):
        repair(Line(), "after", [headless], Bowl("new", 1))


def _found(**change: Any) -> RepairFound:
    return {**repair(Line(), "tuned", [Bowl("old", 0)], Bowl("new", 1), within=0.09, few=10), **change}


def test_lines_and_html_say_what_was_chosen() -> None:
    found = _found()
    first, more, second, head, new, old = repair_lines(found)
    assert first.startswith("repair of tuned: θ_before + α (θ_after − θ_before) with α = 0.7; of 13 points tried")
    assert "new within 0.09 of AFTER" in f"{first} {more.strip()}"
    assert "chosen on 10 test texts of each task" in second
    assert [line.split("  ")[0] for line in (head, new, old)] == ["task", "new (new, 30 texts)", "old (old, 30 texts)"]
    assert "+0.090" in new
    assert "−0.510" in old
    html = repair_html(found)
    assert html.count("<tr>") == 3
    alt = re.search(r'alt="([^"]+)"', html)
    assert alt
    assert "α = 0.7 is chosen" in alt[1]
    assert "51 % kept" in alt[1]  # 1 − α² at 0.7


def test_lines_say_why_nothing_was_chosen() -> None:
    found = repair(Line(), "tuned", [Bowl("old", 0)], Bowl("new", 1), within=0.0, few=10)
    assert repair_lines(found)[0].startswith("no repair of tuned: no α below 1")
    assert "α = 0.9 would with a budget of 0.01" in " ".join(line.strip() for line in repair_lines(found))
    assert found["tasks"][0]["repaired"] is None
    assert "None is chosen" in alt_text(found)
    assert "<img" in repair_html(found)


def test_scores_that_are_no_numbers_are_told_without_a_figure() -> None:
    lost = Bowl("old", 0, lambda rows: torch.full((len(rows),), math.nan))
    found = repair(Line(), "tuned", [lost], Bowl("new", 1), within=0.1, few=10)
    assert found["chosen"] is None
    assert "AFTER's scores are no finite numbers: new 0, old nan" in " ".join(repair_lines(found))
    assert "<img" not in repair_html(found)


def test_names_of_users_stay_words() -> None:
    found = _found(after="<b>tuned</b>")
    found["tasks"][0]["facts"]["name"] = "a$b$<i>"
    for one in found["looks"]:
        one["scores"]["a$b$<i>"] = one["scores"]["new"]
    html = repair_html(found)
    assert "<i>" not in html
    assert "<b>" not in html


# -- models in folders ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny-bert after a fine-tune on reviews that costs it much of what it knew."""
    place, model = tmp_path_factory.mktemp("tuned") / "tuned", load("tiny-bert", device="cpu")
    for _ in finetune(model, task("plain"), steps=60, every=60, lr=2e-3, limit=8):
        pass
    model.save(place)
    return place


@pytest.fixture(scope="module")
def repaired(tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RepairFound, Path]:
    pair, out = Pair("tiny-bert", [str(tuned)], device="cpu"), tmp_path_factory.mktemp("repaired") / "out"
    old = [task("entities"), task("masked-lm")]
    found = repair(pair, str(tuned), old, task("plain"), within=0.04, few=40, limit=120)
    assert save_repaired(pair, found, out) == out
    return found, out


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_both_ends_are_the_models_bit_for_bit(tuned: Path, alpha: float) -> None:
    pair = Pair("tiny-bert", [str(tuned)], device="cpu")
    own = pair.between(str(tuned), lambda name, before, after: mixed(before, after, alpha)).state_dict()
    end = load("tiny-bert" if alpha == 0 else tuned, device="cpu").state_dict()
    assert end.keys() - own.keys() == set()
    for name, weight in end.items():
        assert torch.equal(own[name], weight), name


def test_what_is_saved_is_the_mixture_and_scores_what_was_told(tuned: Path, repaired: tuple[RepairFound, Path]) -> None:
    found, out = repaired
    chosen = found["chosen"]
    assert chosen is not None
    assert 0 < chosen["alpha"] < 1 or chosen["layers"]
    model, before, after = (load(name, device="cpu") for name in (out, "tiny-bert", tuned))
    start, end = before.state_dict(), after.state_dict()
    for name, weight in model.state_dict().items():
        alpha = chosen["layers"].get(layer_of(name), chosen["alpha"])
        a, b = start.get(name, end[name]).double(), end[name].double()
        assert torch.allclose(weight.double(), a + alpha * (b - a), atol=1e-6), name
    for row, one in zip(found["tasks"], (task("plain"), task("entities"), task("masked-lm")), strict=True):
        few = set(one.sample(40).tolist())
        rest = [place for place, item in enumerate(one.sample(120).tolist()) if item not in few]
        assert (row["chosen_on"], row["scored_on"]) == (40, len(rest))
        for which, when in ((model, "repaired"), (before, "before"), (after, "after")):
            if one.name == "plain" and when == "before":
                continue  # it has no head of its own
            tally = one.tally(which, 120)
            assert tally is not None
            score = float(one.main_score(tally.items[rest].sum(0)))
            assert row[when] == pytest.approx(score, rel=1e-6)  # type: ignore[literal-required]
    words = found["tasks"][2]
    assert words["before"] < words["repaired"] < words["after"]  # type: ignore[operator]
    low, high = words["to_after"][1:]
    assert low < math.log(words["repaired"] / words["after"]) < high < 0  # type: ignore[operator]


def test_transformers_opens_it_too(repaired: tuple[RepairFound, Path]) -> None:
    _, out = repaired
    theirs, ours = AutoModelForMaskedLM.from_pretrained(out).eval(), load(out, device="cpu")
    own = ours.body.state_dict()
    assert own.keys() == theirs.state_dict().keys()
    assert all(torch.equal(own[name], weight) for name, weight in theirs.state_dict().items())


def test_the_card_says_what_it_was_made_from(tuned: Path, repaired: tuple[RepairFound, Path]) -> None:
    found, out = repaired
    about, page = read_json(out / "forgetlab.json"), (out / "README.md").read_text(encoding="utf-8")
    assert about is not None
    assert about["repair"]["chosen"] == found["chosen"]
    assert found["chosen"] is not None
    assert set(about["files"]) == {path.name for path in out.iterdir()}
    pair = Pair("tiny-bert", [str(tuned)], device="cpu")
    sha = hashlib.sha256()
    for name, weight in pair.weights(str(tuned)):
        sha.update(name.encode() + weight.numpy().tobytes())
    assert about["models"]["after"]["weights"] == sha.hexdigest()
    assert sha.hexdigest() in page
    assert in_words(found["chosen"]) in page
    for row in found["tasks"]:
        assert row["facts"]["name"] in page
    assert len(about["repair"]["data"]["plain"]["test examples"]) == 64


def test_a_folder_with_anything_else_is_refused(
    tuned: Path, repaired: tuple[RepairFound, Path], tmp_path: Path
) -> None:
    found, out = repaired
    pair = Pair("tiny-bert", [str(tuned)], device="cpu")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ForgetlabError, match="is no empty folder and holds no model saved"):
        save_repaired(pair, found, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    with pytest.raises(ForgetlabError):
        save_repaired(pair, found, tuned)
    nothing: RepairFound = {**found, "chosen": None, "reason": "no α keeps it"}
    with pytest.raises(ForgetlabError, match="nothing to save in .*: no α keeps it"):
        save_repaired(pair, nothing, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    first = (out / "model.safetensors").read_bytes()
    save_repaired(pair, found, out)  # over what was saved like this
    assert (out / "model.safetensors").read_bytes() == first
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_a_classifier_of_transformers_stays_one(tmp_path: Path) -> None:
    one = task("plain")
    made = AutoModelForSequenceClassification.from_pretrained(
        model_folder("tiny-bert"), num_labels=2, id2label=dict(enumerate(reversed(one.labels)))
    )
    moved(made).save_pretrained(tmp_path / "a")
    load("tiny-bert", device="cpu").tokenizer.save_pretrained(tmp_path / "a")
    place = str(tmp_path / "a")
    pair = Pair("tiny-bert", [place], device="cpu")
    head = pair.classifier(place)
    assert head is not None
    fitted = head.of_task(one.labels, one.level)
    assert fitted is not None
    pair.give(place, one.name, fitted)
    chosen: Look = {"alpha": 0.25, "layers": {}, "new": 0.0, "old": 0.0, "scores": {}}
    found = _found(after=place, chosen=chosen)
    out = save_repaired(pair, found, tmp_path / "out")
    theirs = AutoModelForSequenceClassification.from_pretrained(out).eval()
    assert theirs.config.id2label == dict(enumerate(reversed(one.labels)))
    batch = dict(pair.model.tokenizer(["anna liked the film .", "a dull book"], padding=True, return_tensors="pt"))
    with torch.no_grad():
        ours = pair.model.logits(batch, one.name)[:, [1, 0]]  # the task's classes are in the other order
        assert torch.allclose(theirs(**batch).logits, ours, atol=1e-5)
        twin = Pair("tiny-bert", [str(out)], device="cpu")
        assert twin.classifier(str(out)) is not None
    before = load("tiny-bert", device="cpu").backbone.state_dict()
    for name, weight in theirs.bert.state_dict().items():
        if "pooler" not in name:
            mix = before[name] + 0.25 * (made.bert.state_dict()[name] - before[name])
            assert torch.allclose(weight, mix, atol=1e-6), name


def test_a_grown_vocabulary_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folder("tiny-gpt"))
    model.resize_token_embeddings(model.config.vocab_size + 8, mean_resizing=False)
    model.save_pretrained(tmp_path / "grown")
    load("tiny-gpt", device="cpu").tokenizer.save_pretrained(tmp_path / "grown")
    pair = Pair("tiny-gpt", [str(tmp_path / "grown")], device="cpu")
    with pytest.raises(ForgetlabError, match="no model between them has all of these"):
        check_repair_folder(pair, tmp_path / "out")


def test_an_adapter_is_repaired_as_the_model_that_it_makes(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = AutoModelForCausalLM.from_pretrained(model_folder("tiny-gpt"))
    adapted = moved(peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["c_attn"])))
    adapted.save_pretrained(tmp_path / "lora")
    place = str(tmp_path / "lora")
    pair = Pair("tiny-gpt", [place], device="cpu")
    end = dict(pair.weights(place))
    chosen: Look = {"alpha": 0.5, "layers": {}, "new": 0.0, "old": 0.0, "scores": {}}
    found = _found(after=place, chosen=chosen)
    own = load(save_repaired(pair, found, tmp_path / "out"), device="cpu").state_dict()
    start = load("tiny-gpt", device="cpu").state_dict()
    changed = 0
    for name, weight in end.items():
        assert torch.allclose(own[name], (start[name] + weight) / 2, atol=1e-6), name
        changed += not torch.equal(start[name], weight)
    assert changed > 0


@pytest.mark.slow
def test_the_command_writes_the_repair_and_the_diff_of_it(
    tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pair = ["diff", "tiny-bert", str(tuned), "--watch", "entities", "--new", "plain", "--limit", "60"]
    assert main([*pair, "--repair", "mended", "--within", "0.05", "--out", "told"]) == 0
    plain, mended = json.loads((tmp_path / "told" / "diff.json").read_text(encoding="utf-8"))["afters"]
    assert plain["repair"]["chosen"] is not None
    assert mended["name"] == "mended"
    entities = next(one for one in mended["tasks"] if one["facts"]["name"] == "entities")
    score = task("entities").score(load(tmp_path / "mended", device="cpu"), 60)["f1"]
    assert entities["change"]["after"] == pytest.approx(score, abs=1e-6)
    assert "<h2>Repair</h2>" in (tmp_path / "told" / "report.html").read_text(encoding="utf-8")
    assert "repair of" in capsys.readouterr().out
    assert main([*pair, "--repair", "another", "--within", "1.02x", "--out", "more"]) == 2
    assert "the score of plain is accuracy; expected points" in capsys.readouterr().err
    assert not (tmp_path / "another").exists()
