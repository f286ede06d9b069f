"""L2-SP, replay and the frozen backbone, each against what its formula promises."""

import pytest
import torch

from forgetlab import ForgetlabError, finetune, task
from forgetlab.architectures import Frozen
from forgetlab.methods import Method, Run
from forgetlab.models import Model
from forgetlab.regularizers import L2SP
from forgetlab.replay import ExperienceReplay, Multitask
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
    assert float(L2SP(lam=3.0).penalty(run)) == pytest.approx(1.5 * distance, rel=1e-5)
    assert float(L2SP(lam=0.0, beta=4.0).penalty(run)) == pytest.approx(2.0 * head, rel=1e-5)


def test_l2sp_fast_path_is_autograds(bert: Model) -> None:
    run = perturbed_run(bert)
    method = L2SP(lam=0.7, beta=0.3)
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


def test_replay_takes_its_share_of_each_batch(bert: Model) -> None:
    counts: list[dict[str, int]] = []

    class Spy(Method):
        def augment(self, parts, run):
            counts.append({part.task.name: part.count for part in parts})
            assert all(len(part.pool) == 20 for part in parts[1:])
            return parts

    old = [task("masked-lm"), task("entities")]
    replay = ExperienceReplay(old, ratio=0.25, memory=20)
    list(finetune(bert, task("sentiment", size=64), steps=4, batch_size=16, methods=[replay, Spy()]))
    assert counts == [{"sentiment": 12, name: 4} for name in ("masked-lm", "entities", "masked-lm", "entities")]


def test_replay_draws_from_its_memory_only(bert: Model) -> None:
    seen: set[int] = set()
    old = task("masked-lm")
    original = old.batch
    old.batch = lambda model, index, generator: (seen.update(index.tolist()), original(model, index, generator))[1]
    replay = ExperienceReplay([old], ratio=0.5, memory=10)
    list(finetune(bert, task("sentiment", size=64), steps=8, batch_size=16, methods=[replay]))
    assert len(seen) == 10


def test_replay_keeps_what_naive_training_loses() -> None:
    """The point of it, on a small causal model that learned one register and then takes another."""
    scores = {}
    for name in ("none", "replay"):
        model = small_model(causal=True)
        old, new = task("causal-lm:howto", size=500), task("causal-lm:notices", size=500)
        list(finetune(model, old, steps=80, lr=5e-3, every=80))
        methods = [ExperienceReplay([old], ratio=0.3)] if name == "replay" else []
        scores[name] = last(finetune(model, new, steps=60, lr=5e-3, every=60, methods=methods, watch=[old])).scores
    assert scores["none"][old.name]["perplexity"] > 2 * scores["replay"][old.name]["perplexity"]


def test_multitask_adds_a_batch_of_every_task(bert: Model) -> None:
    counts = []

    class Spy(Method):
        def augment(self, parts, run):
            counts.append([(part.task.name, part.count) for part in parts])
            return parts

    list(
        finetune(
            bert,
            task("sentiment", size=64),
            steps=1,
            batch_size=16,
            methods=[Multitask([task("masked-lm"), task("register")]), Spy()],
        )
    )
    assert counts == [[("sentiment", 16), ("masked-lm", 16), ("register", 16)]]


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "strong", None, True])
def test_bad_strength(value: object) -> None:
    with pytest.raises(ForgetlabError, match="lam must be a number of 0 or more"):
        L2SP(lam=value)  # type: ignore[arg-type]


def test_bad_replay(bert: Model) -> None:
    old = [task("masked-lm")]
    for ratio in (0, 1, -0.5, 1.5, "half"):
        with pytest.raises(ForgetlabError, match="ratio must be between 0 and 1"):
            ExperienceReplay(old, ratio=ratio)  # type: ignore[arg-type]
    with pytest.raises(ForgetlabError, match="memory must be a whole number above 0, got 0"):
        ExperienceReplay(old, memory=0)
    with pytest.raises(ForgetlabError, match="nothing to replay: minimal-pairs given"):
        ExperienceReplay([task("minimal-pairs")])
    with pytest.raises(ForgetlabError, match="use a ratio between"):
        list(finetune(bert, task("sentiment"), methods=[ExperienceReplay(old, ratio=0.01)], batch_size=8))
