"""Many runs at once give what they give one by one."""

from __future__ import annotations

import gc
import math
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch

from forgetlab import ForgetlabError, finetune, task
from forgetlab.experiments.recipes import Recipe, prepare, sweep
from forgetlab.experiments.stacked import Variant, _Stacked, finetune_stacked, stackable
from forgetlab.importance import fisher_diagonal
from forgetlab.models.model import Model
from forgetlab.remedies.regularizers import EWC, L2SP, KLAnchor
from forgetlab.remedies.replay import ExperienceReplay
from tests.conftest import small_model

OLD = ("masked-lm", "entities", "minimal-pairs")


def variants(model: Model) -> list[Variant]:
    fisher = fisher_diagonal(model, task("masked-lm"), examples=16)
    return [
        Variant(1e-3),
        Variant(3e-3),
        Variant(1e-3, L2SP(0.5)),
        Variant(3e-3, L2SP(20.0, proximal=True)),
        Variant(1e-3, EWC(fisher, 1e3)),
        Variant(1e-3, EWC(fisher, 1e5, proximal=True)),
        Variant(1e-3, L2SP({"*layer.0*": 1.0})),
    ]


def test_the_stacks_are_given_back_at_once_when_the_runs_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    held, set_up = list[weakref.ref[object]](), _Stacked._set_up

    def seen(self: _Stacked) -> None:
        set_up(self)
        held.extend([weakref.ref(self), weakref.ref(next(iter(self.trained.values())))])

    monkeypatch.setattr(_Stacked, "_set_up", seen)
    gc.collect()
    gc.disable()
    try:
        runs = finetune_stacked(small_model(), task("sentiment", size=32), [Variant(1e-3)], steps=2, batch_size=8)
        next(runs)
        assert None not in [ref() for ref in held]
        assert len(list(runs)) == 1
        assert [ref() for ref in held] == [None, None]
    finally:
        gc.enable()


@pytest.mark.slow
@pytest.mark.parametrize("causal", [False, True])
def test_the_numbers_are_those_of_finetune(causal: bool) -> None:
    model = small_model(causal)
    new, old = (
        (task("causal-lm:notices"), [task("causal-lm")])
        if causal
        else (task("sentiment"), [task(name) for name in OLD])
    )
    common = {"watch": old, "steps": 8, "batch_size": 16, "every": 4, "limit": 40, "seed": 1}
    many = variants(model) if not causal else [Variant(1e-3), Variant(1e-3, L2SP(0.5))]
    start = model.snapshot()
    stacked = list(finetune_stacked(model, new, many, **common))
    assert all(torch.equal(value, start[name]) for name, value in model.snapshot().items() if name in start)
    for i, variant in enumerate(many):
        model.restore()
        alone = list(finetune(model, new, methods=[variant.pull] if variant.pull else [], lr=variant.lr, **common))
        for record, expected in zip((row[i] for row in stacked), alone, strict=True):
            assert record is not None
            assert (record.step, record.status, record.lr) == (expected.step, expected.status, expected.lr)
            assert record.loss == (None if expected.loss is None else pytest.approx(expected.loss, rel=1e-3))
            assert record.drift == pytest.approx(expected.drift, rel=1e-3, abs=1e-6)
            assert record.penalty == pytest.approx(expected.penalty, rel=5e-3, abs=1e-9)
            for name, scores in expected.scores.items():
                assert record.scores[name] == pytest.approx(scores, rel=5e-3, abs=1e-3), (i, name)
    drifts = [row.drift for row in stacked[-1] if row]
    assert len({round(d, 6) for d in drifts}) == len(many)  # the variants do differ


def test_one_that_diverges_leaves_the_others_alone(bert: Model) -> None:
    common = {"steps": 6, "batch_size": 8, "every": 2, "limit": 8}
    alone = list(finetune_stacked(bert, task("sentiment"), [Variant(1e-3)], **common))
    together = list(finetune_stacked(bert, task("sentiment"), [Variant(1e-3), Variant(1e30)], **common))
    assert [row[0].loss for row in together if row[0]] == pytest.approx([row[0].loss for row in alone if row[0]])
    ends = [row[1].status for row in together if row[1]]
    assert ends[-1] == "diverged"
    assert len(ends) < len(together)
    assert all(math.isfinite(row[0].drift) for row in together if row[0])


def test_what_cannot_be_stacked_is_said(bert: Model) -> None:
    assert stackable([])
    assert stackable([L2SP(0.1)])
    assert not stackable([L2SP(0.1, beta=0.1)])
    assert not stackable([KLAnchor(0.1)])
    assert not stackable([L2SP(0.1), ExperienceReplay([task("masked-lm")])])
    with pytest.raises(ForgetlabError, match="no variants given"):
        finetune_stacked(bert, task("sentiment"), [])
    with pytest.raises(ForgetlabError, match="l2sp with beta.* runs one by one: use finetune"):
        finetune_stacked(bert, task("sentiment"), [Variant(1e-3, L2SP(0.1, beta=0.1))])


@pytest.mark.parametrize(
    ("given", "watch"),
    [({name: value}, ()) for name in ("steps", "batch_size", "every") for value in (0, "a", True)]
    + [({"clip": -1}, ()), ({"batch_size": 33}, ()), ({"lr": 0}, ()), ({"lr": math.nan}, ()), ({}, ("sentiment",))],
)
def test_what_finetune_refuses_is_refused_in_the_same_words(
    bert: Model, given: dict[str, Any], watch: tuple[str, ...]
) -> None:
    new, old = task("sentiment", size=32), [task(name) for name in watch]
    with pytest.raises(ForgetlabError) as said:
        finetune(bert, new, watch=old, **{"steps": 2, "batch_size": 8, **given})
    lr = given.pop("lr", 1e-3)
    with pytest.raises(ForgetlabError) as told:
        finetune_stacked(bert, new, [Variant(lr)], watch=old, **{"steps": 2, "batch_size": 8, **given})
    assert str(told.value) == str(said.value)
    assert not bert.heads


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_as_it_was_by_an_interrupt_too(
    bert: Model, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(self: _Stacked) -> None:
        assert self.model.training
        raise KeyboardInterrupt

    bert.backbone.train(training)
    before = {name: module.training for name, module in bert.named_modules()}
    monkeypatch.setattr(_Stacked, "_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        list(finetune_stacked(bert, task("sentiment", size=32), [Variant()], steps=2, batch_size=8))
    assert {name: m.training for name, m in bert.named_modules() if name in before} == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu() -> None:
    model = small_model().to("cuda")
    common = {"watch": [task("entities")], "steps": 8, "batch_size": 16, "every": 4, "limit": 40}
    (*_, last) = finetune_stacked(model, task("sentiment"), [Variant(1e-3), Variant(1e-3, L2SP(1.0))], **common)
    (*_, alone) = finetune(model, task("sentiment"), methods=[L2SP(1.0)], lr=1e-3, **common)
    assert last[1] is not None
    assert last[1].drift == pytest.approx(alone.drift, rel=1e-2)


def test_a_sweep_together_is_the_sweep_one_by_one() -> None:
    base = Recipe(new="sentiment", watch=("masked-lm",), steps=4, every=2, limit=32, batch_size=8)
    recipes = [
        replace(base, methods=methods, lr=lr, seed=seed)
        for seed in (0, 1)
        for methods, lr in (("none", 1e-3), ("l2sp:lam=0.1", 1e-3), ("none", 2e-3), ("replay", 1e-3))
    ]
    bench = prepare(base)
    seen: list[Recipe] = []
    together = sweep(recipes, lambda recipe, _: seen.append(recipe), bench, together=True)
    alone = sweep(recipes, bench=bench, together=False)
    assert {recipe: seen.count(recipe) for recipe in recipes} == dict.fromkeys(recipes, 3)
    for one, other in zip(together, alone, strict=True):
        assert (one["recipe"], one["key"]) == (other["recipe"], other["key"])
        for record, expected in zip(one["records"], other["records"], strict=True):
            assert record["drift"] == pytest.approx(expected["drift"], rel=1e-3, abs=1e-6)
            for name, scores in expected["scores"].items():
                assert record["scores"][name] == pytest.approx(scores, rel=5e-3, abs=1e-3)
