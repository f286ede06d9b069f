"""Gradient cosine, PCGrad and A-GEM, each against its formula written out slowly."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from forgetlab import ForgetlabError, finetune, task
from forgetlab.interference import GradientCosine, cosine_by_chance, gradient_cosine, task_gradient
from forgetlab.models.model import Model
from forgetlab.remedies.architectures import Frozen
from forgetlab.remedies.projection import AGEM, PCGrad, agem, pcgrad
from forgetlab.remedies.regularizers import L2SP
from forgetlab.tasks import Classification
from forgetlab.training.method import Method
from tests.conftest import small_model


def last(records):
    return list(records)[-1]


def opposite(new: Classification) -> Classification:
    """The same texts with the two labels exchanged, on the same head: near p = ½ its gradient is minus the task's."""
    negative, positive = new.labels
    flip = {negative: positive, positive: negative}

    def turned(examples):
        return replace(examples, labels=tuple(flip[label] for label in examples.labels))

    return Classification("opposite", turned(new.train), turned(new.test), head=new.head)


def gradients_in_place(model: Model) -> torch.Tensor:
    return torch.cat(
        [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in model.parameters()]
    )


def slow_pcgrad(gradients: list[list[float]], orders: list[list[int]]) -> list[float]:
    """Algorithm 1 of Yu et al. 2020, number by number."""
    summed = [0.0] * len(gradients[0])
    for i, order in enumerate(orders):
        g = list(gradients[i])
        for j in order:
            if j == i:
                continue
            dot = math.fsum(a * b for a, b in zip(g, gradients[j], strict=True))
            if dot < 0:
                square = math.fsum(b * b for b in gradients[j])
                g = [a - dot / square * b for a, b in zip(g, gradients[j], strict=True)]
        summed = [s + a for s, a in zip(summed, g, strict=True)]
    return summed


class Recorded(Method):
    """Stand before and after a method in the list, and note the gradients in place and those that it asks for."""

    name = "recorded"

    def __init__(self) -> None:
        self.before, self.after, self.old, self.states = [], [], [], []

    @property
    def end(self) -> Method:
        outer = self

        class End(Method):
            def adjust_gradients(self, run):
                outer.after.append(gradients_in_place(run.model).clone())
                del run.gradient  # the class's own again

        return End()

    def adjust_gradients(self, run):
        self.before.append(gradients_in_place(run.model).clone())
        self.old.append([])
        names = {p: n for n, p in run.model.named_parameters()}
        assert [names[p] for p in run.trained()] == list(names.values())
        original = run.gradient

        def gradient(part):
            found = original(part)
            self.old[-1].append(torch.cat([g.flatten() for g in found]))
            self.states.append(run.generator.get_state())
            return found

        run.gradient = gradient


# -- cosine ------------------------------------------------------------------------------------------


def test_cosine_is_torchs_in_all_and_per_layer() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "bert.embeddings.word_embeddings.weight": (7, 4),
        "bert.encoder.layer.0.output.dense.weight": (4, 4),
        "bert.encoder.layer.0.output.dense.bias": (4,),
        "bert.encoder.layer.1.output.dense.weight": (4, 4),
    }
    a = {n: torch.randn(s, generator=generator, dtype=torch.float64) for n, s in shapes.items()}
    b = {n: torch.randn(s, generator=generator, dtype=torch.float64) for n, s in shapes.items()}
    found = gradient_cosine(a, b)
    layers = {"embeddings": [0], "layer 0": [1, 2], "layer 1": [3]}

    def expected(places):
        x, y = (torch.cat([list(g.values())[i].flatten() for i in places]) for g in (a, b))
        return float(F.cosine_similarity(x, y, dim=0))

    assert found.total == pytest.approx(expected(range(4)), abs=1e-12)
    assert found.per_layer == pytest.approx({name: expected(places) for name, places in layers.items()}, abs=1e-12)


def test_cosine_in_the_plane() -> None:
    def cosine(x, y):
        return gradient_cosine({"wte.weight": torch.tensor(x)}, {"wte.weight": torch.tensor(y)})

    assert cosine([1.0, 0.0], [-3.0, 4.0]).total == pytest.approx(-0.6)
    assert cosine([1.0, 0.0], [-3.0, 4.0]).conflict
    assert cosine([1.0, 0.0], [0.0, 2.0]).total == 0
    assert not cosine([1.0, 0.0], [0.0, 2.0]).conflict
    assert cosine([1e-15, 0.0], [-3e-15, 4e-15]).total == pytest.approx(-0.6)  # no underflow on the way
    zero = cosine([1.0, 0.0], [0.0, 0.0])
    assert math.isnan(zero.total)
    assert math.isnan(zero.per_layer["embeddings"])
    assert not zero.conflict


def test_only_weights_that_both_reach_count() -> None:
    shared = torch.tensor([1.0, 2.0])
    a = {"wte.weight": shared, "heads.a.linear.weight": torch.ones(3), "heads.c.linear.weight": None}
    b = {"heads.b.linear.weight": torch.ones(5), "wte.weight": 2 * shared, "heads.c.linear.weight": torch.ones(2)}
    assert gradient_cosine(a, b).total == pytest.approx(1)
    assert list(gradient_cosine(a, b).per_layer) == ["embeddings"]


def test_cosine_of_many_weights_keeps_its_digits() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4_000_000, generator=generator) ** 3
    y = x + torch.randn(4_000_000, generator=generator)
    expected = float((x.double() @ y.double()) / (x.double().norm() * y.double().norm()))
    assert gradient_cosine({"wte.weight": x}, {"wte.weight": y}).total == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["sentiment", "causal-lm:notices"])
def test_task_gradient_is_that_of_one_large_batch(name: str) -> None:
    """Texts differ in length: a mean over passes of equal weight would not be the mean over tokens."""
    model, one = small_model(causal=name != "sentiment"), task(name, size=80)
    found = task_gradient(model, one, examples=1000)
    batch = one.batch(model, torch.arange(80), torch.Generator())
    names = [n for n, _ in model.named_parameters()]
    slow = torch.autograd.grad(one.loss(model, batch), list(model.parameters()), allow_unused=True)
    reached = {n: g for n, g in zip(names, slow, strict=True) if g is not None}
    assert found.keys() == reached.keys()
    for n, g in reached.items():
        torch.testing.assert_close(found[n], g, atol=1e-6, rtol=1e-4, msg=lambda m, n=n: f"{n}: {m}")


def test_task_gradient_against_finite_differences(gpt: Model) -> None:
    one = task("causal-lm:notices", size=40)
    gradient = task_gradient(gpt, one, examples=40)
    batch = one.batch(gpt, torch.arange(40), torch.Generator())
    weights = dict(gpt.named_parameters())
    generator = torch.Generator().manual_seed(1)
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradient.values()))
    # along the gradient, with some noise: in a random direction the slope would drown in rounding
    direction = {n: g / norm + 1e-3 * torch.randn(g.shape, generator=generator) for n, g in gradient.items()}
    slope = sum(float((gradient[n] * d).sum()) for n, d in direction.items())

    def loss(distance: float) -> float:
        with torch.no_grad():
            for n, d in direction.items():
                weights[n].add_(d, alpha=distance)
            value = float(one.loss(gpt, batch))
            for n, d in direction.items():
                weights[n].sub_(d, alpha=distance)
        return value

    assert (loss(5e-3) - loss(-5e-3)) / 1e-2 == pytest.approx(slope, rel=5e-3)


def test_task_gradient_has_no_dropout_and_leaves_the_model_as_it_was(bert: Model) -> None:
    for module in bert.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    bert.train()
    bert.body.bert.encoder.eval()  # frozen by its owner: each part keeps its own mode
    modes = {module: module.training for module in bert.modules()}
    one = task("sentiment", size=64)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    with torch.no_grad():  # as in a notebook's cell
        first, second = task_gradient(bert, one, 16, seed=3), task_gradient(bert, one, 16, seed=3)
    assert all(module.training == mode for module, mode in modes.items())
    assert all(p.grad is None for p in bert.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[n], second[n]) for n in first)
    other = task_gradient(bert, one, 16, seed=4)
    assert not torch.equal(first["heads.sentiment.linear.bias"], other["heads.sentiment.linear.bias"])


def test_cosine_between_tasks(bert: Model) -> None:
    new = task("sentiment", size=64)
    one, other = task_gradient(bert, new), task_gradient(bert, opposite(new))
    same, against = gradient_cosine(one, one), gradient_cosine(one, other)
    assert same.total == pytest.approx(1)
    assert against.total < -0.5
    assert against.conflict
    assert "sentiment head" in against.per_layer  # both use it
    old = gradient_cosine(one, task_gradient(bert, task("masked-lm"), examples=32, seed=2))
    assert set(old.per_layer) == {"embeddings", "layer 0", "layer 1"}


# -- along a run -------------------------------------------------------------------------------------


def test_measuring_does_not_change_the_run() -> None:
    runs = []
    for measured in (False, True):
        model = small_model()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.1
        methods = [GradientCosine([task("masked-lm")])] if measured else []
        final = last(finetune(model, task("sentiment", size=64), steps=6, methods=methods, batch_size=16))
        runs.append(([p.detach().clone() for p in model.parameters()], final.loss))
    assert runs[0][1] == runs[1][1]
    assert all(torch.equal(a, b) for a, b in zip(runs[0][0], runs[1][0], strict=True))


def test_measurements_are_the_cosine_of_the_steps_own_gradient() -> None:
    new, old = task("sentiment", size=64), task("masked-lm")
    method = GradientCosine([old], every=3, batch_size=24, seed=9)
    list(finetune(small_model(), new, steps=7, methods=[method, L2SP(lam=5.0)], batch_size=16, seed=5))
    list(finetune(small_model(), new, steps=7, methods=[method], batch_size=16, seed=5))
    assert [(m.step, m.task) for m in method.measurements] == [(step, "masked-lm") for step in (0, 3, 6)]

    model = small_model()
    new.prepare(model, seed=5)
    generator = torch.Generator().manual_seed(5)
    index = torch.randperm(64, generator=generator)[:16]
    new.loss(model, new.batch(model, index, generator)).backward()
    step = {n: p.grad for n, p in model.named_parameters()}
    expected = gradient_cosine(step, task_gradient(model, old, examples=24, seed=9))
    first = method.measurements[0].cosine
    assert first.total == pytest.approx(expected.total, abs=1e-5)
    assert first.per_layer == pytest.approx(expected.per_layer, abs=1e-5)
    assert len({m.cosine.total for m in method.measurements}) == 3


def test_penalties_are_not_part_of_what_is_measured() -> None:
    class Pull(Method):
        def penalty(self, run):
            return 100 * sum((p**2).sum() for p in run.trained())

    runs = []
    for methods in ([], [Pull()]):
        method = GradientCosine([task("masked-lm")], every=9)
        list(finetune(small_model(), task("sentiment", size=64), steps=1, methods=[*methods, method]))
        runs.append(method.measurements)
    assert runs[0] == runs[1]


# -- PCGrad ------------------------------------------------------------------------------------------


def test_pcgrad_in_the_plane() -> None:
    generator = torch.Generator().manual_seed(0)
    # (1, 0) + ½ (−1, 1) = (½, ½) and (−1, 1) + 1 (1, 0) = (0, 1)
    found = pcgrad(torch.tensor([[1.0, 0.0], [-1.0, 1.0]]), generator)
    torch.testing.assert_close(found, torch.tensor([0.5, 1.5]))
    agreeing = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    torch.testing.assert_close(pcgrad(agreeing, generator), agreeing.sum(0))
    with_zero = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(pcgrad(with_zero, generator), torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize("seed", range(5))
def test_pcgrad_is_algorithm_1(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    gradients = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    gradients[1] = -gradients[0] + 0.1 * gradients[1]  # a sharp conflict, where the order matters
    draws = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(4, generator=draws).tolist() for _ in range(4)]
    expected = torch.tensor(slow_pcgrad(gradients.tolist(), orders), dtype=torch.float64)
    torch.testing.assert_close(pcgrad(gradients, torch.Generator().manual_seed(seed)), expected)
    others = [pcgrad(gradients, torch.Generator().manual_seed(100 + s)) for s in range(8)]
    assert any(not torch.allclose(other, expected) for other in others)  # the order is drawn


def test_pcgrad_in_a_run(bert: Model) -> None:
    new = task("sentiment", size=64)
    recorded = Recorded()
    methods = [recorded, PCGrad([opposite(new), task("masked-lm")]), recorded.end]
    list(finetune(bert, new, steps=2, batch_size=64, methods=methods, clip=0))  # all of both: a sure conflict
    for step in range(2):
        rows = [recorded.before[step], *recorded.old[step]]
        assert len(rows) == 3
        assert float(rows[0] @ rows[1]) < 0
        draws = torch.Generator()
        draws.set_state(recorded.states[2 * step + 1])  # after the last batch was drawn
        orders = [torch.randperm(3, generator=draws).tolist() for _ in range(3)]
        expected = torch.tensor(slow_pcgrad([row.tolist() for row in rows], orders))
        torch.testing.assert_close(recorded.after[step], expected, atol=1e-6, rtol=1e-3)


def test_pcgrad_takes_as_many_old_examples_as_it_says(bert: Model) -> None:
    counts = []
    old = task("masked-lm", size=20)
    original = old.batch
    old.batch = lambda model, index, generator: (counts.append(len(index)), original(model, index, generator))[1]
    for batch_size in (None, 8, 50):
        list(finetune(bert, task("sentiment", size=64), steps=1, batch_size=16, methods=[PCGrad([old], batch_size)]))
    assert counts == [1, 16, 1, 8, 1, 20]  # one example at the check


# -- A-GEM -------------------------------------------------------------------------------------------


def test_agem_in_the_plane() -> None:
    g, r = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    torch.testing.assert_close(agem(g, r), torch.tensor([0.5, 0.5]))  # (1, 0) + ½ (−1, 1)
    torch.testing.assert_close(agem(g, 10 * r), torch.tensor([0.5, 0.5]))  # the length of r does not matter
    assert torch.equal(agem(g, -r), g)
    assert torch.equal(agem(g, torch.zeros(2)), g)


def test_agem_in_a_run(bert: Model) -> None:
    new = task("sentiment", size=64)
    recorded = Recorded()
    methods = [recorded, AGEM([opposite(new), task("register")], batch_size=128), recorded.end]
    list(finetune(bert, new, steps=4, batch_size=64, methods=methods, clip=0))
    projected = 0
    for g, after, old in zip(recorded.before, recorded.after, recorded.old, strict=True):
        g, r = g.double(), sum(old).double() / len(old)
        dot = float(g @ r)
        expected = g - dot / float(r @ r) * r if dot < 0 else g
        torch.testing.assert_close(after.double(), expected, atol=1e-6, rtol=1e-4)
        assert float(after.double() @ r) >= -1e-5 * float(g.norm() * r.norm())
        projected += dot < 0
    assert projected


def test_agem_changes_nothing_where_nothing_conflicts() -> None:
    """New and old are the same task, and both batches are all of it: g = r but for rounding."""

    class Idle(AGEM):
        def adjust_gradients(self, run):  # the same draws, to no end
            kept = [None if p.grad is None else p.grad.clone() for p in run.trained()]
            super().adjust_gradients(run)
            for p, g in zip(run.trained(), kept, strict=True):
                p.grad = g

    runs = []
    for method in (AGEM, Idle):
        model, new = small_model(), task("sentiment", size=32)
        list(finetune(model, new, steps=5, methods=[method([new])], batch_size=32))
        runs.append([p.detach().clone() for p in model.parameters()])
    naive = small_model()
    list(finetune(naive, task("sentiment", size=32), steps=5, batch_size=32))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    for a, b in zip(runs[0], naive.parameters(), strict=True):  # the rows come in another order
        torch.testing.assert_close(a, b.detach(), atol=1e-4, rtol=1e-3)


def test_agem_draws_from_its_memory_only(bert: Model) -> None:
    seen: list[int] = []
    old = task("masked-lm")
    original = old.batch
    new = task("sentiment", size=64)
    method = AGEM([old], memory=10)
    old.batch = lambda model, index, generator: (seen.append(index.tolist()), original(model, index, generator))[1]
    list(finetune(bert, new, steps=4, batch_size=16, methods=[method]))
    batches = seen[1:]  # the first is the check
    assert [len(rows) for rows in batches] == [10] * 4
    assert all(set(rows) == set(batches[0]) for rows in batches)


def test_agem_and_pcgrad_keep_what_naive_training_loses(gpt: Model) -> None:
    old, new = task("causal-lm:howto", size=300), task("causal-lm:notices", size=300)
    list(finetune(gpt, old, steps=40, lr=5e-3, every=40, batch_size=16))
    gpt.remember()
    scores = []
    for methods in ([], [AGEM([old])], [PCGrad([old])]):
        gpt.restore()
        final = last(
            finetune(gpt, new, steps=25, lr=5e-3, every=25, batch_size=16, methods=methods, watch=[old], limit=100)
        )
        scores.append(final.scores[old.name]["perplexity"])
    assert scores[0] > 2 * scores[1] > 2 * scores[2]


@pytest.mark.parametrize("method", [PCGrad, AGEM])
def test_same_seed_same_bits(method: type[Method]) -> None:
    runs = []
    for _ in range(2):
        model = small_model()
        list(finetune(model, task("sentiment", size=64), steps=3, methods=[method([task("masked-lm")])], seed=4))
        runs.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_costs(bert: Model) -> None:
    old = [task("masked-lm"), task("register", size=60)]
    records = list(finetune(bert, task("sentiment", size=64), steps=1, methods=[PCGrad(old)]))
    numbers = records[0].costs["trained_parameters"]
    assert records[0].costs["bytes"] == 4 * 4 * numbers  # three gradients and one in the making, float32
    records = list(finetune(bert, task("sentiment", size=64), steps=1, methods=[AGEM(old[1:], memory=60)]))
    # a memory of 60 is all of 60 examples: their tokens, int64
    tokens = sum(len(old[1].encoded(bert, "train").columns["input_ids"][i].nonzero()) for i in range(60))
    assert records[0].costs["bytes"] == 3 * 4 * records[0].costs["trained_parameters"] + 8 * tokens


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_no_step_waits_for_the_device() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 1000, generator=generator)
    on_cuda = rows.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = agem(on_cuda[0], on_cuda[1]), pcgrad(on_cuda, torch.Generator().manual_seed(1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found[0].cpu(), agem(rows[0], rows[1]))
    torch.testing.assert_close(found[1].cpu(), pcgrad(rows, torch.Generator().manual_seed(1)))


# -- bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [GradientCosine, PCGrad, AGEM])
def test_bad_old_tasks(method: type[Method]) -> None:
    with pytest.raises(ForgetlabError, match="old must be a list of Tasks"):
        method(task("masked-lm"))
    with pytest.raises(ForgetlabError, match="no task given, a task with training data expected"):
        method([])
    with pytest.raises(ForgetlabError, match="minimal-pairs, k-shot given, a task with training data expected"):
        method([task("minimal-pairs"), task("k-shot")])  # k-shot has examples, but no loss
    with pytest.raises(ForgetlabError, match="batch_size must be a whole number above 0, got 0"):
        method([task("masked-lm")], batch_size=0)
    with pytest.raises(ForgetlabError, match=f"{method.name} has nothing to do: every weight that masked-lm uses"):
        list(finetune(small_model(), task("sentiment", size=64), methods=[Frozen(), method([task("masked-lm")])]))


def test_bad_counts(bert: Model) -> None:
    old = [task("masked-lm")]
    with pytest.raises(ForgetlabError, match="memory must be a whole number above 0, got 2.5"):
        AGEM(old, memory=2.5)
    with pytest.raises(ForgetlabError, match="every must be a whole number above 0, got True"):
        GradientCosine(old, every=True)
    with pytest.raises(ForgetlabError, match="examples must be a whole number above 0, got 0"):
        task_gradient(bert, old[0], examples=0)
    with pytest.raises(ForgetlabError, match="k-shot given, a task with training data expected"):
        task_gradient(bert, task("k-shot"))


def test_bad_gradients(bert: Model) -> None:
    a = {"wte.weight": torch.ones(2)}
    with pytest.raises(ForgetlabError, match=r"the gradients of 'wte.weight' have the shapes \[2\] and \[3\]"):
        gradient_cosine(a, {"wte.weight": torch.ones(3)})
    with pytest.raises(ForgetlabError, match="share no weight"):
        gradient_cosine(a, {"wte.weight": None, "wpe.weight": torch.ones(2)})
    with pytest.raises(ForgetlabError, match=r"such as task_gradient\(model, task\), got Model and Classification$"):
        gradient_cosine(bert, task("sentiment"))  # type: ignore[arg-type]
    with pytest.raises(ForgetlabError, match="two mappings from name to gradient, .* got dict and list$"):
        gradient_cosine(a, [torch.ones(2)])  # type: ignore[arg-type]


# -- what chance gives ------------------------------------------------------------------------------


def test_the_spread_by_chance_is_that_of_tossed_signs() -> None:
    draw = torch.Generator().manual_seed(0)
    size = torch.randn(40, 5, generator=draw) ** 3  # the same few weights are large in both
    a = {"one": size, "two": torch.randn(30, generator=draw), "own": torch.ones(9)}
    b = {"one": size * torch.randn(40, 5, generator=draw), "two": torch.randn(30, generator=draw)}
    x, y = (torch.cat([side["one"].flatten(), side["two"]]) for side in (a, b))
    signs = 2 * torch.randint(2, (20_000, len(x)), generator=draw) - 1
    tossed = (signs * (x * y)).sum(1) / (x.norm() * y.norm())
    assert cosine_by_chance(a, b) == pytest.approx(float(tossed.std()), rel=0.02)
    assert cosine_by_chance(a, b) > 2 / math.sqrt(len(x))


def test_without_a_shared_weight_there_is_no_chance() -> None:
    with pytest.raises(ForgetlabError, match="share no weight"):
        cosine_by_chance({"a": torch.ones(2)}, {"b": torch.ones(2)})
    assert math.isnan(cosine_by_chance({"a": torch.zeros(2)}, {"a": torch.ones(2)}))
