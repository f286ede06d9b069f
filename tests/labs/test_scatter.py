"""The real importance scatter: one short run that every test reads, and its numbers by another way."""

import json
import re

import numpy as np
import pytest
import torch

from forgetlab import load
from forgetlab.importance import fisher_diagonal
from forgetlab.labs import scatter
from forgetlab.labs.kit.base import Lab
from forgetlab.labs.kit.benches import Benches
from forgetlab.labs.views.scatter import ALL, LAYERS, ORDERS, SHARES, TOPS, View, described
from forgetlab.metrics import layer_of
from forgetlab.tasks import embedded
from forgetlab.training.loop import finetune

SETTINGS = {"old": "entities", "steps": 20, "lr": 0.01, "seed": 1}
VIEW = {"layer": ALL, "top": "10 %", "k": "5 %"}


def alt(lab: Lab) -> str:
    return re.search(r'alt="([^"]*)"', lab.picture.value)[1]


@pytest.fixture(scope="module", autouse=True)
def small(tmp_path_factory):
    """A cache of our own, and little to measure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORGETLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(scatter, "EXAMPLES", 24)
        patch.setattr(scatter, "LIMIT", 32)
        yield


@pytest.fixture(scope="module")
def lab(small) -> Lab:
    made = scatter.show(driver="inline")
    assert "Press Train" in made.message.value
    assert not made.picture.value
    made.apply(SETTINGS)
    return made


@pytest.fixture(scope="module")
def again(small):
    """The same run without the lab: (model after it, weights before, Fisher of the old task, of the new one)."""
    model, old, new = load("tiny-bert"), embedded.task("entities"), embedded.task("sentiment")
    before, old_fisher = model.snapshot(), fisher_diagonal(model, old, examples=24, draws=1, seed=1)
    for _ in finetune(model, new, watch=[old], steps=20, lr=0.01, seed=1, every=20, limit=32):
        pass
    return model, before, old_fisher, fisher_diagonal(model, new, examples=24, seed=1)


def test_the_state_is_plain_and_small(lab) -> None:
    kept = {name: value for name, value in lab.state.items() if name != "settings"}
    assert len(json.dumps(kept, allow_nan=False)) < 200_000
    assert len(kept["dots"]) == scatter.DOTS
    assert {len(curve) for curve in kept["put back"].values()} == {len(SHARES)}
    assert kept["message"] in lab.message.value


@pytest.mark.slow
def test_tables_match_a_count_of_every_weight(lab, again) -> None:
    model, before, old, new = again
    after, names = model.state_dict(), [n for n in old if not layer_of(n).endswith("head")]
    a, b = (np.concatenate([f[n].numpy().ravel() for n in names]) for f in (old, new))
    moved = np.concatenate([(after[n] - before[n]).numpy().ravel().astype(float) for n in names])
    layer = np.concatenate([np.full(before[n].numel(), LAYERS.index(layer_of(n))) for n in names])
    for label in ("1 %", "10 %"):
        table, rank = lab.state["tables"][label], round((1 - TOPS[label]) * len(a))
        cut_a, cut_b = np.sort(a)[rank - 1], np.sort(b)[rank - 1]
        assert table["cuts"] == pytest.approx([cut_a, cut_b], rel=1e-5)
        for i in range(len(LAYERS)):
            for kind, own in enumerate(
                (
                    (a <= cut_a) & (b <= cut_b),
                    (a <= cut_a) & (b > cut_b),
                    (a > cut_a) & (b <= cut_b),
                    (a > cut_a) & (b > cut_b),
                )
            ):
                own &= layer == i
                assert table["count"][i][kind] == own.sum()
                assert table["moved"][i][kind] == pytest.approx((moved[own] ** 2).sum(), rel=1e-4, abs=1e-12)


def test_putting_weights_back_matches_doing_it_by_hand(lab, again) -> None:
    model, before, old, _ = again
    names = [n for n in old if not layer_of(n).endswith("head")]
    after, entities = model.snapshot(), embedded.task("entities")
    curve = lab.state["put back"]["most important"]
    assert curve[0] == lab.state["after"][0] == pytest.approx(entities.score(model, 32)["f1"], abs=1e-6)
    flat = torch.cat([old[n].flatten() for n in names])
    cut = flat.sort(descending=True).values[round(0.2 * len(flat))]
    with torch.no_grad():
        for n, p in model.named_parameters():
            if n in names:
                p[old[n] > cut] = before[n][old[n] > cut]
    assert lab.state["new put back"][0] == lab.state["after"][1]
    assert curve[list(SHARES).index("20 %")] == pytest.approx(entities.score(model, 32)["f1"], abs=1e-6)
    model.restore(after)
    start = {order: lab.state["put back"][order][0] for order in ORDERS}
    assert len(set(start.values())) == 1  # nothing put back: the same for all three


def test_view_controls_redraw_without_training(lab, monkeypatch) -> None:
    monkeypatch.setattr(scatter, "work", None)
    state, picture = lab.state, lab.picture.value
    seen = {picture}
    for name, value in (("layer", "layer 1"), ("top", "1 %"), ("k", "50 %")):
        lab.view[name].value = value
        assert lab.picture.value not in seen
        seen.add(lab.picture.value)
    assert lab.state is state
    assert "Layer 1, the top 1 % critical" in alt(lab)
    assert "With the 50 %" in alt(lab)
    lab.view["k"].value = "0 %"
    assert "put back" not in alt(lab)
    for name in ("layer", "top", "k"):
        for value in (lab.view[name].options[0], lab.view[name].options[-1]):
            lab.view[name].value = value
            assert "error" not in lab.message.value
    for name, value in VIEW.items():
        lab.view[name].value = value


def test_alt_text_holds_the_numbers(lab) -> None:
    count = np.array(lab.state["tables"]["10 %"]["count"]).sum(axis=0)
    assert f"shared {100 * count[3] / count.sum():.1f} %" in alt(lab)
    assert f"entities (f1) from {lab.state['before'][0]:.2f} to {lab.state['after'][0]:.2f}" in alt(lab)
    at = list(SHARES).index("5 %")
    assert f"put back it is {lab.state['put back']['most important'][at]:.2f}" in alt(lab)


def test_the_layers_are_those_of_the_model(again) -> None:
    found = {layer_of(name) for name, _ in again[0].named_parameters()}
    assert {name for name in found if not name.endswith("head")} == set(LAYERS)


def test_kept_result_and_settings_line(lab) -> None:
    other = scatter.show(driver="inline")
    other.line.value = lab.line.value  # seed and rate of the line: found in the cache, not trained
    assert other.source == "cached"
    assert other.state["put back"] == lab.state["put back"]
    assert alt(other) == alt(lab)


def test_every_state_on_the_way_and_a_diverged_run_are_drawn() -> None:
    runs, view, words = Benches(), View(), []
    settings = {"old": "masked-lm", "steps": 20, "lr": 1e30, "seed": 0}
    for state in scatter.work(runs, settings):
        view.draw(state, [], settings | VIEW, "live")
        words.append(described(state, settings | VIEW))
    assert words[0] == "Nothing is measured yet."
    assert words[-1].startswith("Diverged: the loss is no longer finite")
    assert state["message"] == words[-1]
    assert "put back" not in state
