"""Inside the change: its numbers against ones taken through hooks, and the lab as a user meets it."""

import copy
import re
from collections import Counter
from html import unescape
from pathlib import Path

import pytest
import torch

from forgetlab import metrics
from forgetlab.experiments.recipes import Bench, prepare
from forgetlab.labs import inside
from forgetlab.labs.kit.base import Lab
from forgetlab.labs.kit.shown import Result

SETTINGS = {"learns": "to judge reviews", "lr": 1e-3, "steps": 20, "seed": 3}


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(inside, "TEXTS", 40)
    monkeypatch.setattr(inside, "SHOTS", 6)


@pytest.fixture(scope="module")
def bench() -> Bench:
    return prepare(inside.recipe(SETTINGS))


def alt(lab: Lab) -> str:
    return unescape(re.search('alt="([^"]*)"', lab.picture.value)[1])


def by_hooks(bench: Bench) -> tuple[list[torch.Tensor], torch.Tensor]:
    """(features of every inner token at each depth, probabilities at the gaps), one text at a time."""
    model, texts = bench.model, bench.watch[0]
    bert, depths = model.body.bert, [[] for _ in inside.DEPTHS]
    hooks = [
        module.register_forward_hook(lambda m, i, o, d=depth: depths[d].append(o if torch.is_tensor(o) else o[0]))
        for depth, module in enumerate([bert.embeddings, *bert.encoder.layer])
    ]
    rows, probabilities = [[] for _ in inside.DEPTHS], []
    with torch.no_grad():
        for batch in texts.test_batches(model, inside.TEXTS):
            for i in range(len(batch["input_ids"])):
                ids = batch["input_ids"][i][batch["attention_mask"][i].bool()]
                logits = model.body(input_ids=ids.unsqueeze(0)).logits[0]
                probabilities.append(logits[(ids == model.tokenizer.mask_token_id)].softmax(-1))
                special = torch.tensor([int(x) in model.tokenizer.all_special_ids for x in ids])
                for depth, seen in zip(rows, depths, strict=True):
                    depth.append(seen.pop()[0][~special])
    for hook in hooks:
        hook.remove()
    return [torch.cat(depth) for depth in rows], torch.cat(probabilities)


def test_the_numbers_are_those_taken_through_hooks(bench: Bench) -> None:
    bench.model.restore()
    before, hooked = inside.look(bench), by_hooks(bench)
    rare = inside.rare_words(bench)
    same = inside.change(before, inside.look(bench), rare)
    assert (same["cka"], same["kl"], same["frozen"]) == ([1.0] * 4, 0.0, same["refit"])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in bench.model.body.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
    now, found = by_hooks(bench), inside.change(before, inside.look(bench), rare)
    bench.model.restore()
    for depth in range(4):
        assert found["cka"][depth] == pytest.approx(metrics.linear_cka(hooked[0][depth], now[0][depth]), abs=1e-4)
    p, q = hooked[1], now[1]
    assert found["kl"] == pytest.approx(float((p * (p / q).log()).sum(1).mean()), rel=1e-3)
    assert found["entropy"] == pytest.approx(float(-(q * q.log()).sum(1).mean()), rel=1e-3)
    assert found["rare"] == pytest.approx(float(q[:, rare].sum(1).mean()), rel=1e-3)
    targets = torch.cat([batch["targets"] for batch in bench.watch[0].test_batches(bench.model, inside.TEXTS)])
    right = torch.tensor([int(t) in set(rare.tolist()) for t in targets])
    assert 0 < right.sum() < len(right)
    assert found["right"] == pytest.approx(float(q[right][:, rare].sum(1).mean()), rel=1e-3)


def test_probes_are_fitted_before_or_anew(bench: Bench) -> None:
    """Features turned round: the probe of before fails, one fitted anew reads them as before."""
    bench.model.restore()
    before = inside.look(bench)
    turned = {**before, **{k: ([-x for x in before[k][0]], before[k][1]) for k in ("fit", "test")}}
    found = inside.change(before, turned, inside.rare_words(bench))
    start = inside.change(before, before, inside.rare_words(bench))
    assert found["refit"] == pytest.approx(start["refit"])
    assert max(found["frozen"]) < 0.3 < 0.7 < min(start["frozen"])
    kinds = {bench.watch[1].labels[i] for i in before["test"][1].tolist()}
    assert kinds == {"B-PER", "B-LOC", "B-ORG"}


def test_rare_words_are_those_that_reviews_have_few_of(bench: Bench) -> None:
    counts = Counter(word for text in bench.new.train.texts for word in text.split())
    tokenizer = bench.model.tokenizer
    words = {tokenizer.convert_ids_to_tokens(i) for i in inside.rare_words(bench).tolist()}
    assert words == {w for w in tokenizer.get_vocab() if counts[w] < 5 and w not in tokenizer.all_special_tokens}


def test_it_opens_trains_and_redraws(bench: Bench) -> None:
    lab = inside.show(driver="inline")
    assert "Press Train" in lab.message.value
    lab.apply(SETTINGS)
    state = lab.state
    plain = [record.as_dict()["scores"] for record in bench.run(inside.recipe(SETTINGS))]
    assert [record["scores"] for record in state["records"]] == plain  # looking inside changes nothing
    first, last = state["inside"][0], state["inside"][-1]
    assert len(state["inside"]) == 11
    assert first["cka"] == [1.0] * 4
    assert first["kl"] == 0 < last["kl"]
    assert f"CKA with before {last['cka'][3]:.2f}" in alt(lab)
    moved = state["records"][-1]["drift_per_layer"]
    assert f"{max(moved, key=moved.get)} moved most" in lab.message.value
    picture = lab.picture.value
    lab.view["layer"].value = "embeddings"
    assert f"Features of embeddings: CKA with before {last['cka'][0]:.2f}" in lab.message.value
    assert lab.state is state
    assert lab.picture.value != picture
    assert f"Features of embeddings: CKA with before {last['cka'][0]:.2f}" in alt(lab)
    other = inside.show(driver="inline")
    other.line.value = lab.line.value
    assert other.settings() == lab.settings()
    assert other.source == "cached"


def test_a_diverged_run_is_drawn(bench: Bench) -> None:
    lab = inside.show(driver="inline")
    records = [record.as_dict() for record in bench.run(inside.recipe(SETTINGS))]
    start = inside.change(*[inside.look(bench)] * 2, inside.rare_words(bench))
    gone = {key: [None] * 4 if isinstance(value, list) else None for key, value in start.items()}
    end = copy.deepcopy(records[-1]) | {"status": "diverged", "message": "the loss is no longer finite"}
    end["drift_per_layer"] = dict.fromkeys(end["drift_per_layer"])
    lab._shown.result = Result(
        {"records": [records[0], end], "inside": [start, gone], "tasks": [], "settings": SETTINGS}, "live"
    )
    lab._redraw()
    assert alt(lab) == "Diverged: the loss is no longer finite."
