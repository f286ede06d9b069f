"""L2-SP and the frozen backbone, each against what its formula promises."""

import numpy as np
import pytest
import torch

from forgetlab import ForgetlabError, finetune, task
from forgetlab.importance import cache
from forgetlab.models.model import Model
from forgetlab.remedies.architectures import Frozen
from forgetlab.remedies.regularizers import EWC, L2SP, MAS, SI, OnlineEWC, in_cache
from forgetlab.training.method import Method, Run
from tests.conftest import small_model


def last(records):
    return list(records)[-1]


@pytest.fixture(params=[in_cache.PIECE, 100], ids=["whole", "in pieces"])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights pulled at once, as small ones are, and 100 elements at a time."""
    monkeypatch.setattr(in_cache, "PIECE", request.param)


@pytest.fixture(params=["every row", "few rows"])
def omega(request: pytest.FixtureRequest, bert: Model) -> dict[str, torch.Tensor]:
    """An importance of every element, and one that few rows of a matrix have, as embeddings of rare words."""
    generator = torch.Generator().manual_seed(3)
    found = {name: torch.rand(p.shape, generator=generator) for name, p in bert.named_parameters()}
    if request.param == "few rows":
        for value in found.values():
            value[torch.rand(len(value), generator=generator) < 0.8] = 0.0
    return found


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
    distance = sum(float(((named[n].detach() - a) ** 2).sum()) for n, a in run.anchor.items())
    head = sum(float((p.detach() ** 2).sum()) for n, p in named.items() if n.startswith("heads."))
    pull, shrink = L2SP(lam=3.0), L2SP(lam=0.0, beta=4.0)
    pull.setup(run)
    shrink.setup(run)
    assert float(pull.penalty(run).detach()) == pytest.approx(1.5 * distance, rel=1e-5)
    assert float(shrink.penalty(run).detach()) == pytest.approx(2.0 * head, rel=1e-5)


@pytest.mark.usefixtures("piece")
def test_the_anchor_may_be_other_weights_than_the_start(bert: Model) -> None:
    run = perturbed_run(bert)
    other = {name: torch.zeros_like(p) for name, p in run.anchor.items()}
    pulls = [EWC({name: torch.ones_like(p) for name, p in other.items()}, 3.0, anchor=other), L2SP(3.0, anchor=other)]
    size = sum(float(p.detach().square().sum()) for p in run.weights.values())
    for pull in pulls:
        pull.setup(run)
        assert float(pull.penalty(run).detach()) == pytest.approx(1.5 * size, rel=1e-5)
    del other[next(iter(other))]
    with pytest.raises(ForgetlabError, match="anchor of another model: it has nothing for the parameter"):
        L2SP(3.0, anchor=other).setup(run)


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


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "strong", True])
def test_bad_strength(value: object) -> None:
    with pytest.raises(ForgetlabError, match="lam must be a number of 0 or more"):
        L2SP(lam=value)  # type: ignore[arg-type]


def ones(model: Model) -> dict[str, torch.Tensor]:
    return {name: torch.ones_like(p) for name, p in model.named_parameters()}


def trained(*methods: Method, steps: int = 5, **options) -> tuple[Model, list]:
    model = small_model()
    records = list(finetune(model, task("sentiment", size=64), methods=methods, steps=steps, **options))
    return model, records


def same(a: Model, b: Model) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("proximal", [False, True])
def test_ewc_with_every_fisher_one_is_l2sp(proximal: bool) -> None:
    ewc, _ = trained(EWC(ones(small_model()), 2.0, proximal=proximal))
    l2sp, _ = trained(L2SP(2.0, proximal=proximal))
    naive, _ = trained()
    assert not same(ewc, naive)
    if proximal:  # s/(1+s) is rounded once for all weights, or for each
        for p, q in zip(ewc.parameters(), l2sp.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)
    else:
        assert same(ewc, l2sp)


@pytest.mark.parametrize("make", [EWC, OnlineEWC, MAS, lambda old, lam: SI(old, lam, walk=3)])
@pytest.mark.parametrize("proximal", [False, True])
def test_lambda_zero_of_any_pull_is_the_naive_run(make, proximal: bool) -> None:
    old = [task("masked-lm", size=20)]
    method = make(old, 0.0)
    method.proximal = proximal
    assert same(trained(method)[0], trained()[0])


def test_accumulation_does_not_change_a_pulled_run() -> None:
    fisher = {
        n: torch.rand(p.shape, generator=torch.Generator().manual_seed(1)) for n, p in ones(small_model()).items()
    }
    once, _ = trained(EWC(fisher, 5.0), batch_size=32)
    four, _ = trained(EWC(fisher, 5.0), batch_size=32, accumulation=4)
    for (name, p), q in zip(once.named_parameters(), four.parameters(), strict=True):
        if "key.bias" not in name:  # its gradient is rounding noise, which AdamW blows up
            torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize("make", [EWC, MAS, OnlineEWC])
def test_the_fast_pull_is_autograds(make, bert: Model, omega) -> None:
    run = perturbed_run(bert)
    method = make(omega, 0.7)
    method.setup(run)
    value = method.penalty(run)
    expected = 0.35 * sum(float((omega[n] * (p.detach() - run.anchor[n]) ** 2).sum()) for n, p in run.weights.items())
    assert float(value.detach()) == pytest.approx(expected, rel=1e-5)
    slow = torch.autograd.grad(value, list(run.weights.values()))
    method.add_penalty_gradient(run)
    for p, gradient in zip(run.weights.values(), slow, strict=True):
        torch.testing.assert_close(p.grad, gradient)


def test_a_weight_that_the_loss_does_not_reach_rests_at_its_anchor_and_is_pulled_where_it_is_not(bert: Model) -> None:
    run = perturbed_run(bert)
    first, second = list(run.weights)[:2]
    run.anchor[first] = run.weights[first].detach().clone()
    method = L2SP(2.0)
    method.setup(run)
    method.add_penalty_gradient(run)
    assert run.weights[first].grad is None
    torch.testing.assert_close(run.weights[second].grad, 2.0 * (run.weights[second].detach() - run.anchor[second]))


@pytest.mark.usefixtures("piece")
def test_the_proximal_step_is_the_closed_form_and_stable(bert: Model, omega) -> None:
    run = perturbed_run(bert)
    before = {name: p.detach().clone() for name, p in run.weights.items()}
    method = EWC(omega, 1e6, proximal=True)
    method.setup(run)
    method.add_penalty_gradient(run)
    assert all(p.grad is None for p in run.weights.values())
    method.after_step(run)
    for name, p in run.weights.items():
        s = 1e-3 * 1e6 * omega[name].double()
        expected = (before[name].double() + s * run.anchor[name].double()) / (1 + s)
        torch.testing.assert_close(p.detach().double(), expected, rtol=1e-4, atol=1e-6)
    _, records = trained(L2SP(1e9, proximal=True), steps=20, lr=1e-2)
    assert records[-1].drift < 1e-3  # a stiff pull holds still instead of diverging


def test_lambda_by_pattern() -> None:
    model, _ = trained(L2SP({"*.layer.0.*": 1e9}, proximal=True), steps=3)
    for name, p in model.named_parameters():
        if name in model.known_names:
            moved = float((p.detach() - model._pretrained[name]).abs().max())
            assert (moved < 1e-5) == (".layer.0." in name or "key.bias" in name or moved == 0.0), name


def test_online_ewc_fades() -> None:
    name = "w"
    parts = [{name: torch.tensor([float(v)])} for v in (4, 2, 1)]
    method = OnlineEWC(parts[0], gamma=0.5)
    assert float(method.combine(parts)[name]) == pytest.approx(0.5 * (0.5 * 4 + 2) + 1)
    assert float(OnlineEWC(parts[0], gamma=1.0).combine(parts)[name]) == float(EWC(parts[0]).combine(parts)[name]) == 7
    method.consolidate(parts[1])
    method.consolidate(parts[2])
    assert float(method._given[name]) == pytest.approx(3.0)
    with pytest.raises(ForgetlabError, match="no parameter v"):
        method.consolidate({"v": torch.ones(1)})


class _Loss(Method):
    """Keeps the loss of the whole training set before each step and at the end."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def before_step(self, run: Run) -> None:
        with torch.no_grad():
            everything = run.task.batch(run.model, torch.arange(run.task.size()), run.generator)
            self.values.append(float(run.task.loss(run.model, everything)))


def test_si_gathers_the_fall_of_the_loss() -> None:
    """Σ ω over all weights is the path integral of the gradient: how far the loss fell (small rate, whole batches)."""
    model = small_model()
    new = task("sentiment", size=64)
    new.prepare(model)
    model.remember()  # so that the head is among the weights that ω is kept of
    si, loss = SI(lam=0.0), _Loss()
    list(finetune(model, new, methods=[si, loss], steps=40, batch_size=64, lr=1e-4, clip=0.0))
    loss.before_step(Run(model, new, 1, 1, 1e-4, {}, {}, torch.Generator()))
    total = sum(float(path.sum()) for path in si._path.values())
    assert total == pytest.approx(loss.values[0] - loss.values[-1], rel=0.05)
    assert total > 0


class _Path(Method):
    """Σ −g Δθ over whole steps, a proximal pull among them; to stand behind SI in the list."""

    def setup(self, run: Run) -> None:
        self.path = {name: torch.zeros_like(p) for name, p in run.weights.items()}

    @torch.no_grad()
    def observe_gradients(self, run: Run) -> None:
        self._then = {name: (p.grad, p.detach().clone()) for name, p in run.weights.items() if p.grad is not None}
        self._then = {name: (gradient.clone(), p) for name, (gradient, p) in self._then.items()}

    @torch.no_grad()
    def after_step(self, run: Run) -> None:
        for name, (gradient, before) in self._then.items():
            self.path[name] -= gradient * (run.weights[name] - before)


@pytest.mark.parametrize("proximal", [False, True])
def test_si_integrates_over_the_pull_too(proximal: bool) -> None:
    model, si, path = small_model(), SI(lam=1e3, proximal=proximal), _Path()
    list(finetune(model, task("register", size=64), methods=[si], steps=5))
    model.remember()
    list(finetune(model, task("sentiment", size=64), methods=[si, path], steps=5))
    for name, expected in path.path.items():
        torch.testing.assert_close(si._path[name], expected, rtol=1e-4, atol=1e-9)


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")
def test_si_is_not_spoilt_by_a_step_that_float16_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(
        torch.amp, "GradScaler", lambda *a, **k: scaler(*a, init_scale=2.0**40, backoff_factor=2.0**-30, **k)
    )
    si = SI()
    _, records = trained(si, steps=8, precision="float16")
    assert records[-1].status == "done"
    assert records[-1].drift > 0  # after the skipped steps others were taken
    assert all(path.isfinite().all() for path in si._path.values())


def test_an_interrupt_of_the_walk_puts_the_weights_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model, old = small_model(), task("masked-lm", size=64)
    before, loss, calls = model.snapshot(), old.loss, []

    def interrupted(*given):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(*given)

    monkeypatch.setattr(old, "loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(finetune(model, task("sentiment", size=64), methods=[SI([old], walk=8)], steps=1))
    assert all(torch.equal(value, before[name]) for name, value in model.snapshot().items() if name in before)
    assert all(p.grad is None for p in model.parameters())


def test_si_importance_of_the_next_run() -> None:
    model = small_model()
    si = SI(lam=1.0, xi=0.01)
    list(finetune(model, task("register", size=64), methods=[si], steps=5))
    path = {name: value.clone() for name, value in si._path.items()}
    start = dict(si._start)
    model.remember()
    records = list(finetune(model, task("sentiment", size=64), methods=[si], steps=3))
    for name, value in path.items():
        moved = model._pretrained[name] - start[name]
        torch.testing.assert_close(si._omega[name], torch.relu(value / (moved**2 + 0.01)))
    assert records[0].penalty["si"] == 0.0
    assert records[-1].penalty["si"] > 0.0


def test_a_walk_leaves_the_weights_alone() -> None:
    model = small_model()
    before = model.snapshot()
    run = finetune(model, task("sentiment", size=64), methods=[SI([task("masked-lm", size=20)], walk=3)], steps=1)
    next(run)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def random_omega(factor: float = 1.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {name: factor * torch.rand(p.shape, generator=generator) ** 4 for name, p in ones(small_model()).items()}


@pytest.mark.parametrize("make", [EWC, OnlineEWC, MAS])
def test_the_usual_lambda_makes_the_mean_pull_that_of_l2sp(make) -> None:
    omega = random_omega(37.0)
    mean = np.mean(np.concatenate([value.numpy().ravel() for value in omega.values()]), dtype=np.float64)
    method, stronger = make(omega), make(omega, strength=3.0)
    usual, records = trained(method)
    assert method.lam_used == pytest.approx(0.02 / mean, rel=1e-6)
    assert records[0].notes[-1] == f"{method.name}: λ = {0.02 / mean:.3g}, 1 × the usual strength"
    assert same(usual, trained(make(omega, lam=method.lam_used))[0])
    trained(stronger)
    assert stronger.lam_used == pytest.approx(0.06 / mean, rel=1e-6)
    assert same(trained(make(ones(small_model())))[0], trained(L2SP())[0])
    assert same(trained(L2SP())[0], trained(L2SP(0.02))[0])


def test_an_importance_on_another_scale_is_the_same_usual_pull() -> None:
    """A power of two is exact: the run is the same, bit for bit; with one λ for both it is another."""
    assert same(trained(EWC(random_omega()))[0], trained(EWC(random_omega(4096.0)))[0])
    assert not same(trained(EWC(random_omega(), 0.1))[0], trained(EWC(random_omega(4096.0), 0.1))[0])


def test_the_usual_lambda_of_si_is_that_of_its_own_importance() -> None:
    model, si = small_model(), SI([task("masked-lm", size=20)], walk=3)
    list(finetune(model, task("sentiment", size=64), methods=[si], steps=3))
    known = [si._omega[name] for name in si._omega]
    mean = np.mean(np.concatenate([value.numpy().ravel() for value in known]), dtype=np.float64)
    assert si.lam_used == pytest.approx(0.02 / mean, rel=1e-6)
    empty = SI()
    assert same(trained(empty)[0], trained()[0])
    assert empty.lam_used == 0  # no path yet: nothing is known of any weight


def test_a_lambda_and_a_strength_exclude_each_other() -> None:
    with pytest.raises(ForgetlabError, match=r"ewc: got lam=3.0 and strength=2; give one of them"):
        EWC(ones(small_model()), 3.0, strength=2)
    with pytest.raises(ForgetlabError, match="strength must be a number of 0 or more"):
        L2SP(strength=-1)
    with pytest.raises(ForgetlabError, match="ewc: the importance has values that are not finite"):
        trained(EWC({name: value * float("nan") for name, value in ones(small_model()).items()}))


@pytest.mark.parametrize("lam", [-1.0, float("nan"), float("inf"), "1", True])
@pytest.mark.parametrize("make", [L2SP, lambda lam: EWC({}, lam), lambda lam: SI(lam=lam), lambda lam: MAS({}, lam)])
def test_a_lambda_that_is_none(make, lam: object) -> None:
    with pytest.raises(ForgetlabError, match="lam must be a number of 0 or more"):
        make(lam)


@pytest.mark.parametrize("gamma", [-0.1, 1.1, float("nan"), "a"])
def test_gamma_outside(gamma: object) -> None:
    with pytest.raises(ForgetlabError, match="gamma must be between 0 and 1"):
        OnlineEWC({}, gamma=gamma)


def test_a_fisher_of_another_model() -> None:
    fisher = ones(small_model())
    name = next(iter(fisher))
    for wrong, message in [
        ({**fisher, "body.more": torch.ones(2)}, "no parameter body.more"),
        ({**fisher, name: torch.ones(2, 2)}, f"{name} has the shape \\(2, 2\\)"),
        ({k: v for k, v in fisher.items() if k != name}, f"nothing for the parameter {name}"),
    ]:
        with pytest.raises(ForgetlabError, match=message):
            trained(EWC(wrong))


def test_nothing_to_protect() -> None:
    for method in (EWC(ones(small_model())), L2SP(1.0)):
        with pytest.raises(ForgetlabError, match="nothing to protect"):
            trained(Frozen(), method)
    with pytest.raises(ForgetlabError, match="minimal-pairs given, a task with training data expected"):
        EWC([task("minimal-pairs")])


def test_what_a_pull_holds_in_memory() -> None:
    weights = sum(p.numel() for p in small_model().parameters())
    _, records = trained(EWC(ones(small_model())))
    assert records[0].costs["bytes"] == 8 * weights  # λF and the anchor
    assert trained(L2SP(1.0))[1][0].costs["bytes"] == 4 * weights


@pytest.mark.parametrize("method", [EWC, MAS])
def test_an_importance_is_measured_once_for_every_lambda(method, monkeypatch: pytest.MonkeyPatch) -> None:
    model, old, calls = small_model("bert"), task("entities"), []
    measure = method._of_task
    monkeypatch.setattr(method, "_of_task", lambda *given: calls.append(1) or measure(*given))

    def last(lam: float, anew: bool = False, examples: int = 8, seed: int = 0) -> torch.Tensor:
        model.restore()
        watched = task("entities") if anew else old
        list(
            finetune(model, task("sentiment"), methods=[method([watched], lam, examples=examples)], steps=3, seed=seed)
        )
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    old.prepare(model)
    model.remember()
    first, _ = last(10.0), last(1000.0)
    assert len(calls) == 1
    assert torch.equal(last(10.0), first)
    assert torch.equal(last(10.0, anew=True), first)
    assert len(calls) == 2  # the other task object's own
    last(10.0, examples=4)
    assert len(calls) == 3
    last(10.0)
    with torch.no_grad():
        model.heads["entities"].linear.bias += 0.1
    model.remember()
    last(10.0)
    assert len(calls) == 4  # several are kept of a small model, and another head is another function
    for seed in (1, 0):
        last(10.0, seed=seed)
    assert len(calls) == 5
    monkeypatch.setattr(cache, "ROOM", 0)
    for seed in (2, 1):
        last(10.0, seed=seed)
    assert len(calls) == 7  # of a large one the latest alone
