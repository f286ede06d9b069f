"""LwF and the KL anchor against loops over places and classes, closed-form gradients, and what they promise."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from forgetlab import ForgetlabError, finetune, load, task
from forgetlab.models.model import Model
from forgetlab.remedies.regularizers.outputs import KLAnchor, LwF, OutputPenalty, frozen_copy
from forgetlab.remedies.replay import ExperienceReplay
from forgetlab.tasks import Task
from forgetlab.training.method import Method, Run
from tests.conftest import small_model

OLD = ("register", "entities", "masked-lm")


def tasks(*names: str) -> list[Task]:
    return [task(name, size=64) for name in names]


def learned(*names: str, causal: bool = False) -> Model:
    """A model whose heads for these tasks count as known; their outputs are far from uniform."""
    model = small_model(causal)
    generator = torch.Generator().manual_seed(5)
    for one in tasks(*names):
        one.prepare(model)
    with torch.no_grad():
        for head in model.heads.values():
            head.linear.weight.normal_(generator=generator)
    model.remember()
    return model


def started(model: Model, method: OutputPenalty, noise: float = 0.1) -> tuple[Run, dict[str, Tensor]]:
    """A run whose weights have moved since the setup, and a batch of its new task with padding in it."""
    new = task("sentiment", size=64)
    new.prepare(model)
    generator = torch.Generator().manual_seed(0)
    weights = {n: p for n, p in model.named_parameters() if n in model.known_names}
    anchor = {n: p.detach().clone() for n, p in weights.items()}
    run = Run(model, new, 10, 4, 1e-3, anchor, weights, generator)
    method.setup(run)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(noise * torch.randn(p.shape, generator=generator))
    lengths = new.encoded(model, "train").lengths
    rows = torch.stack([lengths.argmin(), lengths.argmax(), torch.tensor(0), torch.tensor(1)])
    batch = new.batch(model, rows, generator)
    assert batch["attention_mask"].min() == 0
    return run, batch


def rows_of_logits(model: Model, batch: dict[str, Tensor], head: str | None) -> list[list[float]]:
    """Logits of each place, one text at a time and cut to its length: there is no padding to get wrong."""
    found: list[list[float]] = []
    with torch.no_grad():
        for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
            text = {k: v[row : row + 1, :length] for k, v in batch.items() if v.dim() == 2}
            logits = model.lm_logits(model.hidden(text)) if head is None else model.logits(text, head)
            found += logits.reshape(-1, logits.shape[-1]).tolist()
    return found


def slow_softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(z / temperature) for z in row]
    total = sum(powers)
    return [power / total for power in powers]


def slow_kl(p: list[float], q: list[float]) -> float:
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))


def before_and_now(
    before: Model, now: Model, batch: dict[str, Tensor], head: str | None, temperature: float = 1.0
) -> list[tuple[list[float], list[float]]]:
    """(softmax before, softmax now) of each place."""
    pairs = zip(rows_of_logits(before, batch, head), rows_of_logits(now, batch, head), strict=True)
    return [(slow_softmax(b, temperature), slow_softmax(n, temperature)) for b, n in pairs]


# -- the formulas ----------------------------------------------------------------------------------------


def test_lwf_is_the_mean_over_heads_and_places_of_the_kl_from_before_times_t_squared() -> None:
    model = learned("register", "entities")
    before = learned("register", "entities")
    method = LwF(tasks(*OLD), lam=0.7, temperature=3.0)
    run, batch = started(model, method)
    expected = []
    for head in ("register", "entities", None):
        kls = [slow_kl(old, new) for old, new in before_and_now(before, model, batch, head, 3.0)]
        assert len(kls) == (4 if head == "register" else batch["attention_mask"].sum())
        expected.append(sum(kls) / len(kls))
    value = method.batch_penalty(run.task, batch, run)
    assert value.item() == pytest.approx(0.7 * 9 * sum(expected) / 3, rel=1e-4)
    assert min(expected) > 1e-3


@pytest.mark.parametrize("causal", [False, True])
def test_kl_anchor_is_the_kl_to_before_at_every_token_of_the_language_model(causal: bool) -> None:
    model, before = learned("register", causal=causal), learned("register", causal=causal)
    method = KLAnchor(beta=0.3)
    run, batch = started(model, method, noise=0.3)
    pairs = before_and_now(before, model, batch, None)
    forward, reverse = (sum(slow_kl(*pair[::way]) for pair in pairs) / len(pairs) for way in (1, -1))
    assert abs(forward / reverse - 1) > 0.01  # the direction shows
    assert method.batch_penalty(run.task, batch, run).item() == pytest.approx(0.3 * reverse, rel=1e-4)


def test_kl_anchor_without_a_language_model_holds_the_heads_from_before() -> None:
    def headless() -> Model:
        model = learned("register", "entities")
        bare = Model(model.backbone, model.tokenizer, "headless")
        bare.heads.update(model.heads)
        bare.remember()
        return bare.eval()

    model, before = headless(), headless()
    method = KLAnchor(beta=2.0)
    run, batch = started(model, method)
    means = []
    for head in ("register", "entities"):
        kls = [slow_kl(new, old) for old, new in before_and_now(before, model, batch, head)]
        means.append(sum(kls) / len(kls))
    assert method.batch_penalty(run.task, batch, run).item() == pytest.approx(2.0 * sum(means) / 2, rel=1e-4)


def test_gradients_are_those_on_paper() -> None:
    """At a head's bias: λT² · mean (q − q₀)/T for LwF, β · mean p (log p − log p₀ − KL) for the anchor."""
    for head, name in ((None, "masked-lm"), ("register", "register"), ("entities", "entities")):
        model, before = learned("register", "entities"), learned("register", "entities")
        method = LwF(tasks(name), lam=0.5, temperature=2.0)
        run, batch = started(model, method)
        bias = model.body.cls.predictions.bias if head is None else model.heads[head].linear.bias
        found = torch.autograd.grad(method.batch_penalty(run.task, batch, run), bias)[0]
        pairs = before_and_now(before, model, batch, head, 2.0)
        paper = [0.5 * 4 * sum(q - o for o, q in column) / 2 / len(pairs) for column in columns(pairs)]
        torch.testing.assert_close(found, torch.tensor(paper), rtol=1e-3, atol=1e-6)

    model, before = learned(), learned()
    anchor = KLAnchor(beta=0.3)
    run, batch = started(model, anchor)
    bias = model.body.cls.predictions.bias
    found = torch.autograd.grad(anchor.batch_penalty(run.task, batch, run), bias)[0]
    pairs = before_and_now(before, model, batch, None)
    kls = [slow_kl(p, old) for old, p in pairs]
    paper = [
        0.3 * sum(p * (math.log(p / o) - kl) for (o, p), kl in zip(column, kls, strict=True)) / len(pairs)
        for column in columns(pairs)
    ]
    torch.testing.assert_close(found, torch.tensor(paper), rtol=1e-3, atol=1e-6)


def columns(pairs: list[tuple[list[float], list[float]]]) -> list[list[tuple[float, float]]]:
    """For each class, its (before, now) at every place."""
    return [[(old[c], new[c]) for old, new in pairs] for c in range(len(pairs[0][0]))]


@pytest.mark.parametrize("make", [lambda: LwF(tasks(*OLD)), KLAnchor], ids=["lwf", "kl"])
def test_the_gradient_reaches_the_whole_backbone(make: Callable[[], OutputPenalty]) -> None:
    """Against finite differences along the gradient itself."""
    model, method = learned("register", "entities"), make()
    run, batch = started(model, method)
    weights = [p for n, p in model.named_parameters() if not n.startswith("heads.")]
    found = torch.autograd.grad(method.batch_penalty(run.task, batch, run), weights, allow_unused=True)
    grads = [torch.zeros_like(p) if g is None else g for p, g in zip(weights, found, strict=True)]
    norm = torch.cat([g.flatten() for g in grads]).norm()
    values = []
    with torch.no_grad():
        for step in (1e-2, -2e-2):
            for p, g in zip(weights, grads, strict=True):
                p.add_(g / norm, alpha=step)
            values.append(float(method.batch_penalty(run.task, batch, run)))
    assert (values[0] - values[1]) / 2e-2 == pytest.approx(float(norm), rel=0.02)


def test_t_squared_keeps_the_gradient_while_the_temperature_changes() -> None:
    """Hinton's limit of high temperatures, with the factor: (z − z₀, each less its mean) / classes."""

    def bias_gradient(temperature: float, t_squared: bool = True) -> Tensor:
        method = LwF(tasks("register"), temperature=temperature, t_squared=t_squared)
        run, batch = started(learned("register"), method)
        return torch.autograd.grad(method.batch_penalty(run.task, batch, run), run.model.heads["register"].linear.bias)[
            0
        ]

    model = learned("register")
    _, batch = started(model, LwF(tasks("register")))
    shift = torch.tensor(rows_of_logits(model, batch, "register")) - torch.tensor(
        rows_of_logits(learned("register"), batch, "register")
    )
    limit = (shift - shift.mean(1, keepdim=True)).mean(0) / shift.shape[1]
    torch.testing.assert_close(bias_gradient(200.0), limit, rtol=0.03, atol=1e-3)
    torch.testing.assert_close(bias_gradient(200.0, t_squared=False) * 200**2, bias_gradient(200.0))
    assert bias_gradient(40.0).norm() == pytest.approx(float(bias_gradient(80.0).norm()), rel=0.05)


def test_padding_has_no_say() -> None:
    for method in (LwF(tasks(*OLD)), KLAnchor()):
        run, batch = started(learned("register", "entities"), method)
        longer = {k: torch.cat([v, v[:, :1].repeat(1, 6)], 1) if v.dim() == 2 else v for k, v in batch.items()}
        longer["attention_mask"][:, -6:] = 0
        first, second = (method.batch_penalty(run.task, b, run) for b in (batch, longer))
        torch.testing.assert_close(first, second)


# -- what counts -----------------------------------------------------------------------------------------


def test_the_new_head_and_other_tasks_batches_are_left_out() -> None:
    model, old = learned("register"), tasks("register")
    method = LwF(old)
    run, batch = started(model, method)
    head = model.heads["sentiment"].linear.weight
    value = method.batch_penalty(run.task, batch, run)
    assert torch.autograd.grad(value, head, allow_unused=True) == (None,)
    replayed = old[0].batch(model, torch.arange(4), run.generator)
    assert method.batch_penalty(old[0], replayed, run) is None
    both = LwF([*old, run.task])
    both.setup(run)
    assert both._heads == ["register"]


def test_a_head_shared_by_two_old_tasks_counts_once() -> None:
    model = learned("register", causal=True)
    one, two = LwF(tasks("causal-lm:howto", "register")), LwF(tasks("causal-lm:howto", "causal-lm:news", "register"))
    started(model, one, noise=0.0)
    run, batch = started(model, two)
    assert torch.equal(one.batch_penalty(run.task, batch, run), two.batch_penalty(run.task, batch, run))
    assert one._heads == two._heads == [None, "register"]


def test_replayed_examples_bring_no_term() -> None:
    seen = []

    class Spy(LwF):
        def batch_penalty(self, task, batch, run):
            value = super().batch_penalty(task, batch, run)
            seen.append((task.name, len(batch["input_ids"]), value is None))
            return value

    model, old = learned("register"), tasks("register")
    methods = [ExperienceReplay(old, ratio=0.25), Spy(old)]
    list(finetune(model, task("sentiment", size=64), steps=2, batch_size=16, methods=methods))
    assert seen == 2 * [("sentiment", 12, False), ("register", 4, True)]


@pytest.mark.parametrize("make", [lambda: LwF(tasks(*OLD), lam=50.0), lambda: KLAnchor(beta=50.0)], ids=["lwf", "kl"])
def test_zero_at_the_start_and_the_mean_since_the_last_record(make: Callable[[], OutputPenalty]) -> None:
    method, values = make(), []
    original = method.batch_penalty

    def spy(one: Task, batch: dict[str, Tensor], run: Run) -> Tensor | None:
        values.append(original(one, batch, run))
        return values[-1]

    method.batch_penalty = spy
    model = learned("register", "entities")
    records = list(finetune(model, task("sentiment", size=64), steps=6, every=3, methods=[method]))
    shown = [record.penalty[method.name] for record in records]
    assert shown[0] == 0
    assert values[0].item() == 0  # the same weights, the same outputs, bit for bit
    assert shown[1:] == pytest.approx([sum(values[i : i + 3]).item() / 3 for i in (0, 3)])
    assert shown[1] > 0


def test_the_recorded_loss_contains_the_term() -> None:
    """The loss of a step is the cross-entropy, the same without the method, plus the recorded term."""

    class Move(Method):
        @torch.no_grad()
        def before_step(self, run: Run) -> None:
            for p in run.model.backbone.parameters():
                p.mul_(1.1)

    losses = []
    for methods in ([Move()], [Move(), LwF(tasks("register"))]):
        model = learned("register")
        losses.append(list(finetune(model, task("sentiment", size=64), steps=1, methods=methods))[-1])
    assert losses[1].penalty["lwf"] > 1e-3
    assert losses[1].loss == pytest.approx(losses[0].loss + losses[1].penalty["lwf"], rel=1e-5)


# -- the frozen copy -------------------------------------------------------------------------------------


def test_the_copy_keeps_its_weights_and_the_model_its_own() -> None:
    model = learned("register")
    before = model.snapshot()
    method = LwF(tasks("register", "masked-lm"))
    records = list(finetune(model, task("sentiment", size=64), steps=5, methods=[method]))
    copied = method._before.state_dict()
    assert all(torch.equal(copied[name], value) for name, value in before.items())
    assert records[-1].drift > 0
    ours = {p.data_ptr() for p in model.parameters()}
    assert not any(p.data_ptr() in ours or p.requires_grad for p in method._before.parameters())
    assert method._before.tokenizer is model.tokenizer
    held = {p.data_ptr(): p.nbytes for p in (*method._before.parameters(), *method._before.buffers())}
    assert records[0].costs["bytes"] == sum(held.values())
    model.restore()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_the_copy_is_without_dropout_while_the_model_trains_with_it() -> None:
    model = learned("register")
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    method = LwF(tasks("register"))
    run, batch = started(model, method, noise=0.0)
    plain = learned("register").logits(batch, "register")
    model.train()
    with model.shared_forward():
        value = method.batch_penalty(run.task, batch, run)
        with torch.no_grad():
            assert torch.equal(method._before.logits(batch, "register"), plain)
        assert not torch.allclose(model.logits(batch, "register"), plain)
    assert value > 0
    assert method._before.training is False
    assert model.training


def test_the_copy_holds_what_was_inserted_before_it() -> None:
    class Adapted(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner
            self.extra = nn.Linear(32, 32)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) + self.extra(x)

    model = learned("register")
    layer = model.backbone.encoder.layer[0].attention.output
    inner = layer.dense
    layer.dense = Adapted(inner)
    model.on_restore(lambda _: setattr(layer, "dense", inner))
    twin = frozen_copy(model)
    assert (len(model._undo), len(twin._undo)) == (1, 0)
    batch = task("sentiment", size=64).batch(model, torch.arange(4), torch.Generator())
    first = twin.logits(batch, "register")
    torch.testing.assert_close(first, model.logits(batch, "register"))
    with torch.no_grad():
        layer.dense.extra.weight.add_(1.0)
    assert torch.equal(twin.logits(batch, "register"), first)
    model.restore()
    assert torch.equal(twin.logits(batch, "register"), first)


# -- runs ------------------------------------------------------------------------------------------------


def trained(methods: list[Method], accumulation: int = 1, steps: int = 8, **settings: object) -> Model:
    model = learned("register", "entities")
    list(
        finetune(model, task("sentiment", size=64), steps=steps, methods=methods, accumulation=accumulation, **settings)
    )
    return model


def flat(model: Model) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_strength_zero_is_the_naive_run() -> None:
    naive = flat(trained([], steps=3, weight_decay=0.1))
    assert torch.equal(naive, flat(trained([LwF(tasks(*OLD), lam=0.0)], steps=3, weight_decay=0.1)))
    assert torch.equal(naive, flat(trained([KLAnchor(beta=0.0)], steps=3, weight_decay=0.1)))


def test_the_same_run_twice() -> None:
    first, second = (flat(trained([LwF(tasks(*OLD)), KLAnchor()], steps=3)) for _ in range(2))
    assert torch.equal(first, second)


def test_the_term_is_counted_once_whatever_the_accumulation() -> None:
    once, split = (flat(trained([LwF(tasks("register"), lam=3.0)], accumulation=n)) for n in (1, 4))
    fourfold = flat(trained([LwF(tasks("register"), lam=12.0)]))
    assert (once - split).norm() < 0.1 * (once - fourfold).norm()


@pytest.mark.parametrize("make", [lambda s: LwF(tasks("masked-lm"), lam=s), KLAnchor], ids=["lwf", "kl"])
def test_a_strong_term_keeps_the_outputs(make: Callable[[float], Method]) -> None:
    before = learned("register", "entities")
    batch = task("sentiment", size=64).batch(before, torch.arange(4), torch.Generator())
    shifts = []
    for strength in (0.0, 100.0):
        pairs = before_and_now(before, trained([make(strength)], steps=20, batch_size=8), batch, None)
        shifts.append(sum(slow_kl(*pair) for pair in pairs) / len(pairs))
    assert shifts[0] > 5 * shifts[1]


def test_half_precision_starts_at_zero_too() -> None:
    model, new, method = learned("register"), task("sentiment", size=64), LwF(tasks("register", "masked-lm"))
    records = list(finetune(model, new, steps=2, every=1, batch_size=8, methods=[method], precision="bfloat16"))
    assert records[1].penalty["lwf"] == 0
    assert 0 < records[2].penalty["lwf"] < 1


@pytest.mark.slow
def test_lwf_keeps_what_naive_training_loses() -> None:
    """The point of it, on the shipped model: a few steps of sentiment at a high rate."""
    model, old = load("tiny-bert", device="cpu"), tasks("masked-lm")
    scores = {}
    for methods in ([], [LwF(old)], [KLAnchor(beta=1.0)]):
        model.restore()
        new = task("sentiment", size=200)
        records = list(finetune(model, new, steps=30, lr=3e-3, batch_size=16, every=30, methods=methods, watch=old))
        scores[methods[0].name if methods else "none"] = records[-1].scores[old[0].name]["perplexity"]
        start = records[0].scores[old[0].name]["perplexity"]
    # over eight seeds: none × 3 to × 10⁵, lwf at most × 1.1, kl-anchor at most × 1.3
    assert scores["none"] > 2 * start
    assert scores["lwf"] < 1.5 * start
    assert scores["kl-anchor"] < 1.5 * start


# -- bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "strong", None, True])
def test_bad_strength(value: object) -> None:
    with pytest.raises(ForgetlabError, match="lam must be a number of 0 or more"):
        LwF(tasks("register"), lam=value)  # type: ignore[arg-type]
    with pytest.raises(ForgetlabError, match="beta must be a number of 0 or more"):
        KLAnchor(beta=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, -2.0, float("nan"), float("inf"), "hot", None, True])
def test_bad_temperature(value: object) -> None:
    with pytest.raises(ForgetlabError, match="temperature must be between 0 and 1000, 0 excluded, got"):
        LwF(tasks("register"), temperature=value)  # type: ignore[arg-type]


def test_bad_t_squared() -> None:
    with pytest.raises(ForgetlabError, match="t_squared must be true or false"):
        LwF(tasks("register"), t_squared="no")  # type: ignore[arg-type]
    assert LwF(tasks("register"), t_squared=0).weight == 1.0  # as the command line gives it
    assert LwF(tasks("register")).weight == 4.0


def test_no_outputs_to_keep() -> None:
    with pytest.raises(ForgetlabError, match="no outputs to keep: no task given, a task with a head expected"):
        LwF([])
    with pytest.raises(ForgetlabError, match="no outputs to keep: minimal-pairs given"):
        LwF([task("minimal-pairs")])
    new = task("sentiment", size=64)
    with pytest.raises(ForgetlabError, match="sentiment is the new task itself; give an old one"):
        list(finetune(small_model(), new, steps=1, methods=[LwF([new])]))
    with pytest.raises(ForgetlabError, match="small-bert has no head 'register' to keep: learn register first"):
        list(finetune(small_model(), new, steps=1, methods=[LwF(tasks("register"))]))
    with pytest.raises(ForgetlabError, match="needs a causal language model; small-bert has a masked"):
        list(finetune(small_model(), new, steps=1, methods=[LwF(tasks("causal-lm:howto"))]))
    body = small_model()
    bare = Model(body.backbone, body.tokenizer, "headless")
    with pytest.raises(ForgetlabError, match="no outputs to hold: headless has no language-model head"):
        list(finetune(bare, new, steps=1, methods=[KLAnchor()]))
