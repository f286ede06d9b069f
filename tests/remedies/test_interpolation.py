"""Weights mixed after the fact: exact at the ends, the formula between them, nothing else touched."""

import math

import pytest
import torch

from forgetlab import ForgetlabError, finetune, task
from forgetlab.models.model import Model
from forgetlab.remedies.interpolation import WeightInterpolation, interpolate
from tests.conftest import small_model


def last(records):
    return list(records)[-1]


def tuned(model: Model, steps: int = 5) -> tuple[dict, dict]:
    """Snapshots before (without the new head) and after a short fine-tune."""
    before = model.snapshot()
    list(finetune(model, task("sentiment", size=64), steps=steps))
    return before, model.snapshot()


def same_bits(a: dict, b: dict) -> bool:
    """Equal in every bit, the sign of zero included."""
    return a.keys() == b.keys() and all(
        torch.equal(a[n].view(torch.int32), b[n].view(torch.int32)) if a[n].dtype == torch.float32 else a[n].equal(b[n])
        for n in a
    )


def test_the_ends_are_exact_and_the_middle_is_the_formula(bert: Model) -> None:
    before, after = tuned(bert)
    for alpha in (0.3, 0.5, 0.9, 1.7, -0.5):
        interpolate(bert, before, after, alpha)
        for name, weight in bert.state_dict().items():
            start = before.get(name, after[name]).double()
            expected = (1 - alpha) * start + alpha * after[name].double()
            torch.testing.assert_close(
                weight.double(), expected, atol=1e-6, rtol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
            )
    interpolate(bert, before, after, 1)
    assert same_bits(bert.snapshot(), after)
    interpolate(bert, before, after, 0.0)
    now = bert.snapshot()
    assert same_bits({n: now[n] for n in before}, before)
    assert same_bits({n: now[n] for n in now if n not in before}, {n: after[n] for n in now if n not in before})


@pytest.mark.parametrize("which", ["before", "after"])
def test_the_models_own_weights_can_be_an_end(bert: Model, which: str) -> None:
    before, after = tuned(bert)
    interpolate(bert, before, after, 0.5)
    expected = bert.snapshot()
    if which == "after":
        interpolate(bert, after, after, 1)
        interpolate(bert, before, bert.state_dict(), 0.5)
    else:
        interpolate(bert, before, after, 0)
        own = bert.state_dict()
        interpolate(bert, {n: own[n] for n in before}, after, 0.5)
    assert same_bits(bert.snapshot(), expected)


def test_a_diverged_end_does_not_reach_the_other(bert: Model) -> None:
    before, after = tuned(bert)
    interpolate(bert, before, {n: torch.full_like(w, math.nan) for n, w in after.items()}, 0)
    now = bert.snapshot()
    assert all(torch.equal(now[n], before[n]) for n in before)


def test_it_works_in_place_and_gradients_still_flow(bert: Model) -> None:
    before, after = tuned(bert)
    parameters = list(bert.parameters())
    interpolate(bert, before, after, 0.5)
    assert all(a is b and a.requires_grad for a, b in zip(parameters, bert.parameters(), strict=True))
    assert last(finetune(bert, task("sentiment", size=64), steps=2)).status == "done"


def test_tied_weights_move_once(gpt: Model) -> None:
    own = gpt.state_dict()
    assert own["body.lm_head.weight"].data_ptr() == own["body.transformer.wte.weight"].data_ptr()
    before = gpt.snapshot()
    after = {n: w + 1 for n, w in before.items()}
    interpolate(gpt, before, after, 0.25)
    weight = gpt.state_dict()["body.transformer.wte.weight"]
    torch.testing.assert_close(weight, before["body.transformer.wte.weight"] + 0.25)
    assert gpt.state_dict()["body.lm_head.weight"].data_ptr() == weight.data_ptr()


def test_buffers_that_are_not_floating_point(bert: Model) -> None:
    bert.register_buffer("count", torch.tensor([3, 4]))
    before = bert.snapshot()
    after = {n: w + 1 for n, w in before.items()}
    for alpha, expected in ((0.0, [3, 4]), (0.1, [4, 5]), (1.0, [4, 5])):
        interpolate(bert, before, after, alpha)
        assert bert.count.tolist() == expected


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_the_method_mixes_after_the_last_step(alpha: float) -> None:
    plain, mixed = small_model(), small_model()
    old = {n: p.detach().clone() for n, p in plain.named_parameters()}
    options = {"steps": 6, "every": 2, "watch": [task("masked-lm")], "limit": 32}
    a = list(finetune(plain, task("sentiment", size=64), **options))
    b = list(finetune(mixed, task("sentiment", size=64), methods=[WeightInterpolation(alpha)], **options))
    assert [r.scores for r in a[:-1]] == [r.scores for r in b[:-1]]
    assert [r.loss for r in a] == [r.loss for r in b]
    assert b[-1].drift == pytest.approx(alpha * a[-1].drift, rel=1e-4)
    theirs = dict(plain.named_parameters())
    for name, p in mixed.named_parameters():
        if name not in old:
            assert torch.equal(p, theirs[name])  # the new head
        elif alpha in (0, 1):
            assert torch.equal(p, (old if alpha == 0 else theirs)[name])
        else:
            torch.testing.assert_close(p, 0.6 * old[name] + 0.4 * theirs[name], atol=1e-6, rtol=1e-5)


def test_the_method_is_interpolate(bert: Model) -> None:
    other = small_model()
    before, after = tuned(bert)
    list(finetune(other, task("sentiment", size=64), steps=5, methods=[WeightInterpolation(0.3)]))
    interpolate(bert, before, after, 0.3)
    for a, b in zip(bert.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-6)


def test_a_run_closed_early_keeps_the_plain_weights() -> None:
    plain, mixed = small_model(), small_model()
    for model, methods in ((plain, []), (mixed, [WeightInterpolation(0.0)])):
        run = finetune(model, task("sentiment", size=64), steps=10, every=3, methods=methods)
        next(run)
        next(run)
        run.close()
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), mixed.parameters(), strict=True))


@pytest.mark.parametrize("alpha", ["half", None, True, math.nan, math.inf])
def test_bad_alpha(bert: Model, alpha: object) -> None:
    before = bert.snapshot()
    with pytest.raises(ForgetlabError, match=r"alpha must be a finite number, from 0 \(before\) to 1 \(after\), got"):
        interpolate(bert, before, before, alpha)
    with pytest.raises(ForgetlabError, match="alpha must be between 0 and 1, got"):
        WeightInterpolation(alpha)


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_the_method_does_not_extrapolate(alpha: float) -> None:
    with pytest.raises(ForgetlabError, match=f"alpha must be between 0 and 1, got {alpha}"):
        WeightInterpolation(alpha)


def test_snapshots_of_another_model(bert: Model, gpt: Model) -> None:
    before, after = tuned(bert)
    present = bert.snapshot()
    name = "body.bert.embeddings.LayerNorm.bias"
    fewer = {n: w for n, w in after.items() if n != name}
    cases = [
        (before, before, "'heads.sentiment.linear.bias' is in the model but not in `after`"),
        (before, fewer, f"'{name}' is in the model but not in `after`"),
        (
            {**before, "heads.old.linear.bias": torch.ones(2)},
            after,
            "'heads.old.linear.bias' is in `before` but not in",
        ),
        ({**before, name: torch.ones(3)}, after, rf"'{name}' has the shape \[3\] in `before`; the model's is \[32\]"),
        (before, {**after, name: torch.ones(3)}, rf"'{name}' has the shape \[3\] in `after`; the model's is \[32\]"),
    ]
    for a, b, message in cases:
        with pytest.raises(ForgetlabError, match=message):
            interpolate(bert, a, b, 0.5)
    with pytest.raises(ForgetlabError, match="is in `after` but not in the model"):
        interpolate(gpt, gpt.snapshot(), {**gpt.snapshot(), "heads.x.linear.bias": torch.ones(2)}, 0.5)
    assert same_bits(bert.snapshot(), present)
