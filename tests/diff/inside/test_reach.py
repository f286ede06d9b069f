"""Gone or only out of reach: readouts against scikit-learn and exact maps, verdicts against damage of known kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from sklearn.linear_model import LogisticRegression

from benchmarks.planted_damage import DAMAGE, Bench, damaged, row, weights_of
from forgetlab import load, task
from forgetlab.diff.heads import ready
from forgetlab.diff.inside.reach import MOST, _share, reach, shuffled, standard
from forgetlab.diff.inside.readout import read_out, stitch
from forgetlab.diff.inside.shown import reach_html, reach_lines
from forgetlab.diff.models.pair import Pair
from forgetlab.models import Model
from forgetlab.sources import Examples
from forgetlab.sources.model_names import model_folder
from forgetlab.tasks import MaskedLM
from tests.conftest import small_model


def test_a_readout_of_labels_is_scikit_learn_s() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(80, 6)) * [1, 10, 0.1, 1, 1, 3], random.integers(3, size=80)
    x[:, 0] += y
    z = (x - x.mean(0)) / x.std(0)
    theirs = LogisticRegression(tol=1e-10, max_iter=1000).fit(z, y)
    ours = read_out(torch.tensor(x), torch.tensor(y), 3)(torch.tensor(x)).softmax(-1)
    assert ours.numpy() == pytest.approx(theirs.predict_proba(z), abs=1e-4)


def test_a_readout_of_words_undoes_any_turn_of_the_features() -> None:
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(500, 8, generator=generator)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    after = 10 * before @ turn + 3
    assert stitch(after[:400], before[:400])(after[400:]).numpy() == pytest.approx(before[400:].numpy(), abs=0.01)


def test_the_control_keeps_every_number_and_singular_value(bert: Model) -> None:
    before, heads = weights_of(bert), bert.heads
    bert.add_head("own", ("a", "b"))
    after = dict(shuffled(bert).named_parameters())
    assert bert.heads is not heads
    for name, old in before.items():
        new = after[name].detach()
        assert torch.equal(new.flatten().sort().values, old.flatten().sort().values)
        if old.ndim == 2:
            assert torch.linalg.svdvals(new).numpy() == pytest.approx(torch.linalg.svdvals(old).numpy(), abs=1e-4)
    moved = [name for name, old in before.items() if not torch.equal(after[name], old)]
    assert "body.bert.encoder.layer.0.intermediate.dense.weight" in moved
    assert not [name for name in moved if "embeddings" in name]


def test_what_comes_back_is_counted_from_what_is_left_or_the_control() -> None:
    """By hand, the first of each being the items themselves: (.9 − .6) / (1 − .6), with .6 AFTER's or the control's."""
    ones = torch.ones(1001, dtype=torch.float64)
    for after, control in ((0.6, 0.2), (0.2, 0.6)):
        good = {"after": after * ones, "refit control": control * ones, "refit before": ones, "refit after": 0.9 * ones}
        part, room, rest = _share(good, "refit")
        assert part == pytest.approx((0.75, 0.75, 0.75))
        assert (float(room[0]), float(rest[0])) == pytest.approx((0.4, 0.3 - MOST * 0.4))
    good["refit before"] = torch.where(torch.arange(1001) == 7, 0.5, ones)  # in one draw nothing could come back
    assert _share(good, "refit")[0] == pytest.approx((0.75, 0.75, 0.75))
    good["refit before"] = 0.6 * ones
    assert _share(good, "refit")[0] is None


@pytest.fixture(scope="module")
def masked() -> Bench:
    return Bench("tiny-bert", "masked-lm")


@pytest.fixture(scope="module")
def acceptability() -> Bench:
    return Bench("tiny-bert", "acceptability")


KINDS = (
    "last basis rotated",
    "last norm flipped, all else moved a little",
    "layer 1 overwritten",
    "all moved a little",
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_planted_damage_is_told(kind: str, masked: Bench, acceptability: Bench) -> None:
    found = row(kind, [masked, acceptability], range(500, 502))
    assert found["right"] == found["seeds"] == 2, found["wrong"]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("kind", DAMAGE)
def test_every_kind_of_planted_damage_is_told(kind: str, masked: Bench, acceptability: Bench) -> None:
    found = row(kind, [masked, acceptability], range(600, 606))
    assert found["right"] >= found["seeds"] - 1, found["wrong"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    model, folder = load("tiny-bert"), tmp_path_factory.mktemp("reach") / "after"
    weights = damaged(weights_of(model), "layer 1 overwritten", 0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(weights[name])
    model.save(folder)
    return Pair("tiny-bert", [str(folder)], device="cpu")


@pytest.mark.slow
def test_the_layer_that_was_overwritten_restores_the_score(pair: Pair) -> None:
    one = task("acceptability")
    against = standard(pair, one, 96)
    found = reach(pair, pair.names[1], one, 96, standards={one.name: against})
    assert found["verdict"] == "overwritten"
    back = {each["layer"]: each for each in found["put_back"]}
    assert [*back] == ["embeddings", "layer 0", "layer 1", "layer 2", "acceptability head"]
    scores = {which: one.score(pair.become(which), 96)["accuracy"] for which in pair.names}
    assert back["layer 1"]["alone"] == back["layer 1"]["up_to"] == scores["before"] == found["before"]
    assert back["layer 0"]["alone"] == back["layer 0"]["up_to"] == scores[pair.names[1]] == found["after"]
    assert back["layer 1"]["restored"] == pytest.approx(1)
    assert (
        reach(pair, pair.names[1], one, 96) == found
    )  # the training in between has left nothing behind, in no head either
    lines = reach_lines(found)
    assert lines[0].startswith("acceptability: overwritten (")
    assert any("layer 1, 100 % of the loss" in line for line in lines)
    assert "<h3>acceptability: overwritten</h3>" in reach_html([found])


def test_the_classifier_of_transformers_is_read_too(tmp_path: Path) -> None:
    one, source = task("acceptability"), model_folder("tiny-bert")
    for place, seed in (("before", 0), ("after", 1)):
        torch.manual_seed(seed)
        names = dict(enumerate(one.labels))
        body = transformers.AutoModelForSequenceClassification.from_pretrained(source, id2label=names)
        body.save_pretrained(tmp_path / place)
        load("tiny-bert").tokenizer.save_pretrained(tmp_path / place)
    both = Pair(str(tmp_path / "before"), [str(tmp_path / "after")], device="cpu")
    ready(both, [one])
    found = reach(both, both.names[1], one, 32, thorough=False)
    assert found["refit"]["before"] == found["refit"]["after"]  # the same backbone, whatever the classifiers
    assert found["before"] != found["after"]


def said(pair: Pair, one: object) -> str:
    found = reach(pair, pair.names[1], one, 16)
    assert found["verdict"] == "cannot be told"
    assert len(reach_lines(found)) == 1
    return found["why"]


def test_what_cannot_be_asked_is_said(pair: Pair) -> None:
    assert said(pair, task("minimal-pairs")) == "it has no readout of its own"
    assert said(pair, MaskedLM("mine", None, Examples("text", ("a cat .",)))) == (
        "it has no training data to fit a readout on"
    )
    assert said(pair, task("acceptability", size=5)).startswith("only 2 training examples of ")
    assert said(pair, task("sentiment")) == "BEFORE has no head for it"


def test_a_causal_model_without_a_head_is_refused_in_words(tmp_path: Path) -> None:
    gpt = small_model(causal=True)
    gpt.backbone.save_pretrained(tmp_path / "before")
    gpt.tokenizer.save_pretrained(tmp_path / "before")
    with torch.no_grad():
        next(iter(gpt.backbone.parameters())).add_(0.01)
    gpt.backbone.save_pretrained(tmp_path / "after")
    gpt.tokenizer.save_pretrained(tmp_path / "after")
    bare = Pair(str(tmp_path / "before"), [str(tmp_path / "after")], device="cpu")
    assert said(bare, task("causal-lm")) == "the model has no language-model head"
