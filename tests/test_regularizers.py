"""L2-SP and the frozen backbone, each against what its formula promises."""

import pytest
import torch

from forgetlab import ForgetlabError, finetune, task
from forgetlab.architectures import Frozen
from forgetlab.methods import Run
from forgetlab.models import Model
from forgetlab.regularizers import L2SP
from tests.conftest import small_model


def last(records):
    return list(records)[-1]


def perturbed_run(model: Model) -> Run:
    """A run whose weights have moved a little, with a new head."""
    task("sentiment", size=64).prepare(model)
    anchor = {n: p.detach().clone() for n, p in model.named_parameters() if not n.startswith("heads.")}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    weights = {n: p for n, p in model.named_parameters() if n in anchor}
    groups = [{"params": list(model.parameters()), "lr": 1e-3}]
    return Run(model, task("sentiment", size=64), 10, 8, 1e-3, anchor, weights, generator, groups=groups)


def test_l2sp_penalty_is_half_lambda_times_the_squared_distance(bert: Model) -> None:
    run = perturbed_run(bert)
    named = dict(bert.named_parameters())
    distance = sum(float(((named[n] - a) ** 2).sum()) for n, a in run.anchor.items())
    head = sum(float((p**2).sum()) for n, p in named.items() if n.startswith("heads."))
    pull, shrink = L2SP(lam=3.0), L2SP(lam=0.0, beta=4.0)
    pull.setup(run)
    shrink.setup(run)
    assert float(pull.penalty(run)) == pytest.approx(1.5 * distance, rel=1e-5)
    assert float(shrink.penalty(run)) == pytest.approx(2.0 * head, rel=1e-5)


def test_l2sp_fast_path_is_autograds(bert: Model) -> None:
    run = perturbed_run(bert)
    method = L2SP(lam=0.7, beta=0.3)
    method.setup(run)
    slow = torch.autograd.grad(method.penalty(run), list(bert.parameters()))
    method.add_penalty_gradient(run)
    for (name, p), expected in zip(bert.named_parameters(), slow, strict=True):
        torch.testing.assert_close(p.grad, expected, msg=lambda m, n=name: f"{n}: {m}")
    method.add_penalty_gradient(run)  # it adds to what is there
    torch.testing.assert_close(bert.body.bert.embeddings.LayerNorm.bias.grad, 2 * slow[4], rtol=1e-5, atol=1e-6)


def test_lambda_zero_is_the_naive_run() -> None:
    naive, zero = small_model(), small_model()
    list(finetune(naive, task("sentiment", size=64), steps=5))
    list(finetune(zero, task("sentiment", size=64), steps=5, methods=[L2SP(lam=0.0)]))
    assert all(torch.equal(a, b) for a, b in zip(naive.parameters(), zero.parameters(), strict=True))


def test_a_stronger_pull_drifts_less() -> None:
    drifts = [
        last(finetune(small_model(), task("sentiment", size=64), steps=30, methods=[L2SP(lam=lam)])).drift
        for lam in (0.0, 0.3, 10.0)
    ]
    assert drifts[0] > 1.2 * drifts[1] > 1.2 * drifts[2]


def test_the_penalty_is_counted_once_whatever_the_accumulation() -> None:
    runs = []
    for accumulation in (1, 4):
        model = small_model()
        list(finetune(model, task("sentiment", size=64), steps=8, methods=[L2SP(lam=5.0)], accumulation=accumulation))
        runs.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    model = small_model()
    list(finetune(model, task("sentiment", size=64), steps=8, methods=[L2SP(lam=20.0)]))  # counted four times
    fourfold = torch.cat([p.detach().flatten() for p in model.parameters()])
    # weights whose gradient is exactly 0 (attention's key biases) move by rounding noise under Adam, hence the norm
    assert (runs[0] - runs[1]).norm() < 0.1 * (runs[0] - fourfold).norm()


def test_frozen_leaves_every_old_weight_bit_identical(bert: Model) -> None:
    task("entities").prepare(bert)
    bert.remember()
    before = {n: p.detach().clone() for n, p in bert.named_parameters()}
    records = list(finetune(bert, task("sentiment", size=64), steps=20, methods=[Frozen()], watch=[task("entities")]))
    assert all(torch.equal(p, before[n]) for n, p in bert.named_parameters() if n in before)
    assert records[0].scores["entities"] == records[-1].scores["entities"]
    assert records[-1].drift == 0
    assert not torch.equal(
        bert.heads["sentiment"].linear.weight, small_model().add_head("sentiment", ["a", "b"]).linear.weight
    )
    assert all(p.requires_grad for p in bert.parameters())  # given back afterwards


def test_frozen_with_nothing_new_is_refused(gpt: Model) -> None:
    with pytest.raises(ForgetlabError, match="nothing to train"):
        list(finetune(gpt, task("causal-lm:notices", size=64), steps=2, methods=[Frozen()]))


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "strong", None, True])
def test_bad_strength(value: object) -> None:
    with pytest.raises(ForgetlabError, match="lam must be a number of 0 or more"):
        L2SP(lam=value)  # type: ignore[arg-type]
