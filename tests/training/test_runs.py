"""A model has one run at a time, from its own draws; whatever breaks it off, restore() brings the model back."""

from __future__ import annotations

import copy
import gc
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import nn

from forgetlab import finetune, load, task
from forgetlab.errors import ForgetlabError
from forgetlab.experiments.recipes import Recipe, describe, prepare
from forgetlab.experiments.sequences import run_joint, run_sequence
from forgetlab.experiments.stacked import Variant, finetune_stacked
from forgetlab.importance import fisher_diagonal, mas_importance
from forgetlab.interference import GradientCosine
from forgetlab.models.model import Model
from forgetlab.models.seeds import derived
from forgetlab.remedies.architectures import Adapters, Frozen, LoRA, ProgressiveColumns
from forgetlab.remedies.by_name import make_methods
from forgetlab.remedies.regularizers import EWC, L2SP, MAS, SI
from forgetlab.remedies.regularizers.outputs import OutputPenalty
from forgetlab.remedies.replay import ExperienceReplay
from forgetlab.training.method import Method, Run
from tests.conftest import small_model

NEW = task("sentiment", size=32)
OLD = task("masked-lm", size=32)


def run_of(model: Model, **options: Any) -> Iterator[Any]:
    return finetune(model, NEW, **{"steps": 2, "every": 1, "limit": 8, "batch_size": 8, **options})


def plain(records: Iterator[Any]) -> list[dict[str, Any]]:
    """Records without their times."""
    return [{k: v for k, v in asdict(r).items() if "seconds" not in k and k != "peak_memory"} for r in records]


def state_of(model: Model) -> dict[str, Any]:
    """All that a run may change of a model, weights by their bits."""
    return {
        "weights": {name: p.detach().numpy().tobytes() for name, p in model.state_dict().items()},
        "trained": {name: p.requires_grad for name, p in model.named_parameters()},
        "gradients": [name for name, p in model.named_parameters() if p.grad is not None],
        "modules": [
            (name, type(m), m.training, len(m._forward_hooks), len(m._forward_pre_hooks), m._compiled_call_impl)
            for name, m in model.named_modules()
        ],
    }


def places(weights: Any) -> set[int]:
    return {p.data_ptr() for p in weights}


@pytest.mark.parametrize(
    "methods", ["none", "l2sp:lam=1", "l2sp:lam=1,proximal=1", "si:walk=2", "lwf", "kl-anchor", "wise", "lora+lwf"]
)
def test_weights_are_kept_once_and_what_is_kept_is_never_trained(methods: str) -> None:
    """The run's anchor and the frozen copy are the remembered weights themselves where the run begins from them."""
    model = small_model()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    made, runs = make_methods(methods, [OLD]), []

    class Spy(Method):
        def setup(self, run: Run) -> None:
            runs.append(run)

    for again in (False, True):  # the second one from where the first has led
        records = run_of(model, methods=[Spy(), *made], lr=0.1)
        next(records)
        run = runs.pop()
        anchor, live = run.anchor, {p.data_ptr() for p in model.parameters()}
        before = {name: p.detach().clone() for name, p in run.weights.items()}
        assert all(torch.equal(anchor[name], p) for name, p in before.items())
        shared = places(anchor.values()) & places(model._pretrained.values())
        moved = {name for name, p in before.items() if not torch.equal(p, start[name])}
        assert (shared == places(anchor.values())) != again
        assert bool(moved) == again
        copies = [m._before for m in made if isinstance(m, OutputPenalty)]
        for twin in copies:
            assert places(anchor.values()) <= places(twin.parameters())
            assert not live & places(twin.parameters())
        kept = {name: p.clone() for name, p in anchor.items()}
        for _ in records:
            assert not places(model.parameters()) & (places(anchor.values()) | places(model._pretrained.values()))
        assert any(not torch.equal(p, kept[name]) for name, p in run.weights.items()) or "lora" in methods
        assert all(torch.equal(anchor[name], value) for name, value in kept.items())
        del run, records
        if "lora" in methods:
            break  # its weights hold
    model.restore()
    assert {name: p.tolist() for name, p in model.named_parameters()} == {n: p.tolist() for n, p in start.items()}


def test_what_an_open_run_froze_is_no_part_of_the_next(bert: Model) -> None:
    expected = plain(run_of(small_model()))
    first = run_of(bert, methods=[Frozen()])
    next(first)
    bert.restore()
    assert plain(run_of(bert)) == expected
    assert expected[-1]["drift"] > 0.01
    assert list(first) == []


@pytest.mark.parametrize("end", ["to its end", "close", "forget", "restore"])
def test_a_second_run_is_refused_until_the_first_one_is_over(bert: Model, end: str) -> None:
    made, first = run_of(bert), run_of(bert, methods=[Frozen()])
    next(first)
    for again in (lambda: run_of(bert), lambda: next(made), lambda: finetune_stacked(bert, NEW, [Variant()])):
        with pytest.raises(
            ForgetlabError, match=r"small-bert is in a run that is still open: take its generator to the"
        ):
            again()
    with pytest.raises(ForgetlabError, match="still open"):
        bert.remember()
    if end == "to its end":
        list(first)
    elif end == "close":
        first.close()
    elif end == "forget":
        del first
        gc.collect()
    else:
        bert.restore()
    assert next(run_of(bert)).status == "running"


def test_runs_that_were_made_side_by_side_are_those_made_one_by_one() -> None:
    bench = prepare(Recipe(watch=("entities",), limit=8, steps=2, every=1))
    recipes = [Recipe(watch=("entities",), limit=8, steps=2, every=1, seed=seed) for seed in (0, 1)]
    alone = [plain(bench.run(recipe)) for recipe in recipes]
    assert [plain(run) for run in [bench.run(recipe) for recipe in recipes]] == alone


def test_a_run_begins_from_the_weights_of_its_first_record(bert: Model) -> None:
    late = run_of(bert)
    list(run_of(bert, seed=1))
    assert next(late).drift == 0


class Breaking(Method):
    """Raises in one of its hooks."""

    name = "breaking"

    def __init__(self, hook: str, error: type[BaseException]) -> None:
        def broken(*_: object) -> None:
            raise error("broken off")

        setattr(self, hook, broken)


HOOKS = ["setup", "parameter_groups", "check", "before_step", "augment", "observe_gradients", "penalty",
         "adjust_gradients", "after_step", "should_stop"]  # fmt: skip


@pytest.mark.parametrize("added", [None, Frozen, Adapters, ProgressiveColumns, LoRA])
def test_restore_undoes_a_run_that_was_broken_off_anywhere(bert: Model, added: Callable[[], Method] | None) -> None:
    before = state_of(bert)
    for hook in HOOKS:
        for error in (KeyboardInterrupt, RuntimeError):
            with pytest.raises(error, match="broken off"):
                list(run_of(bert, methods=[*([added()] if added else []), Breaking(hook, error)]))
            bert.restore()
            assert state_of(bert) == before, hook
    running = run_of(bert, methods=[added()] if added else [])
    next(running)
    with pytest.raises(KeyboardInterrupt):
        running.throw(KeyboardInterrupt)
    bert.restore()
    assert state_of(bert) == before


@pytest.mark.parametrize(
    ("added", "called"),
    [
        (Adapters, (nn.Module, "register_forward_hook")),
        (ProgressiveColumns, (nn.Module, "register_forward_pre_hook")),
        (LoRA, (nn.init, "kaiming_uniform_")),
        (LoRA, (nn.Dropout, "__init__")),
        (LoRA, (Model, "add_module")),
    ],
)
def test_restore_undoes_a_change_of_structure_that_was_broken_off_half_way(
    bert: Model, added: type[Method], called: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, count, real = state_of(bert), 0, getattr(*called)

    def breaking(*given: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count == 2 or called[0] is Model:
            raise KeyboardInterrupt("half way")
        return real(*given, **named)

    methods = [added(dropout=0.1)] if called[0] is nn.Dropout else [added()]  # type: ignore[call-arg]
    with monkeypatch.context() as patched:
        patched.setattr(*called, breaking)
        with pytest.raises(KeyboardInterrupt, match="half way"):
            list(run_of(bert, methods=methods))
    assert count
    bert.restore()
    assert state_of(bert) == before
    assert plain(run_of(bert)) == plain(run_of(small_model()))


def test_restore_brings_back_what_may_be_trained(bert: Model) -> None:
    bert.body.requires_grad_(False)
    bert.train()
    bert.restore()
    assert all(p.requires_grad for p in bert.parameters())
    assert not any(module.training for module in bert.modules())
    bert.backbone.embeddings.requires_grad_(False)  # type: ignore[union-attr,operator]
    bert.remember()
    bert.requires_grad_(True)
    bert.restore()
    frozen = [name for name, p in bert.named_parameters() if not p.requires_grad]
    assert frozen
    assert all("embeddings" in name for name in frozen)


def test_a_run_at_work_in_another_thread_is_not_disturbed(bert: Model) -> None:
    at_work, go_on = threading.Event(), threading.Event()

    class Waiting(Method):
        def after_step(self, run: Run) -> None:
            at_work.set()
            assert go_on.wait(60)

    found: list[Any] = []
    other = threading.Thread(target=lambda: found.extend(run_of(bert, methods=[Waiting()], steps=1)))
    other.start()
    assert at_work.wait(60)
    with pytest.raises(ForgetlabError, match="small-bert is being trained in another thread: end that run there"):
        bert.restore()
    with pytest.raises(ForgetlabError, match="still open"):
        run_of(bert)
    go_on.set()
    other.join()
    assert [record.status for record in found] == ["running", "done"]
    bert.restore()


def test_a_copy_of_a_model_in_a_run_is_free(bert: Model) -> None:
    running = run_of(bert, steps=4)
    next(running)
    twin = copy.deepcopy(bert)
    twin.restore()
    assert plain(run_of(twin)) == plain(run_of(small_model()))
    assert [record.step for record in running] == [1, 2, 3, 4]


def test_a_method_may_put_weights_back_within_its_run(bert: Model) -> None:
    class Back(Method):
        def after_step(self, run: Run) -> None:
            run.model.restore(before)

    NEW.prepare(bert)
    before = bert.snapshot()
    assert [record.drift for record in run_of(bert, methods=[Back()])] == [0, 0, 0]


def test_restore_ends_a_sequence_and_brings_its_heads_back() -> None:
    model, tasks = load("tiny-bert", device="cpu"), [task(name, size=32) for name in ("register", "acceptability")]
    before, names = state_of(model), model.known_names
    for make in (run_sequence, run_joint):
        sequence = make(model, tasks, steps=2, every=1, limit=8, batch_size=8)
        next(sequence)
        model.restore()
        assert (state_of(model), model.known_names) == (before, names)
        assert list(sequence) == []
        running = run_of(model)
        next(running)
        del sequence
        gc.collect()
        assert [record.status for record in running] == ["running", "done"]
        model.restore()
        assert state_of(model) == before


def test_stacked_runs_end_with_restore_too(bert: Model) -> None:
    runs = finetune_stacked(bert, NEW, [Variant(), Variant(1e-2)], steps=2, every=1, limit=8, batch_size=8)
    next(runs)
    with pytest.raises(ForgetlabError, match="still open"):
        run_of(bert)
    bert.restore()
    assert list(runs) == []


# -- draws --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 5])
def test_importances_are_drawn_by_the_runs_seed(seed: int) -> None:
    model = small_model()
    OLD.prepare(model)
    fishers: list[Any] = [
        fisher_diagonal(model, OLD, estimator="sample", examples=8, draws=2, batch_size=32, seed=seed),
        mas_importance(model, OLD, examples=8, seed=seed),
    ]
    methods = [EWC([OLD], 2.0, estimator="sample", examples=8, draws=2), MAS([OLD], 2.0, examples=8)]
    next(run_of(model, methods=methods, seed=seed))
    for method, expected in zip(methods, fishers, strict=True):
        names = {p: name for name, p in model.named_parameters()}
        found = {names[p]: strength for p, strength, _ in method._terms}  # type: ignore[index]
        assert all(torch.equal(strength, 2 * expected[name]) for name, strength in found.items())
        assert found


def test_remedies_differ_with_the_runs_seed_alone() -> None:
    def importance(method: Any, seed: int) -> torch.Tensor:
        next(run_of(small_model(), methods=[method], seed=seed))
        return torch.cat([s.flatten() for _, s, _ in method._terms])

    for make in (lambda: EWC([OLD], examples=8), lambda: MAS([OLD], examples=8), lambda: SI([OLD], walk=2)):
        one, again, other = (importance(make(), seed) for seed in (1, 1, 2))
        assert torch.equal(one, again)
        assert not torch.equal(one, other)


def test_a_head_that_replay_brings_is_of_the_runs_seed(bert: Model) -> None:
    old = task("register", size=32)
    for method in (ExperienceReplay([old]), GradientCosine([old])):
        starts = []
        for seed in (0, 0, 1):
            bert.restore()
            next(run_of(bert, methods=[method], seed=seed))
            starts.append(bert.heads["register"].linear.weight.detach().clone())
        assert torch.equal(starts[0], starts[1])
        assert not torch.equal(starts[0], starts[2])


def test_no_two_generators_of_a_run_are_seeded_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for those that choose examples: a run's own batches, and which ones of each old task are looked at."""
    seen: list[int] = []

    class Noted(torch.Generator):
        def manual_seed(self, seed: int) -> torch.Generator:
            seen.append(seed)
            return super().manual_seed(seed)

    monkeypatch.setattr(torch, "Generator", Noted)
    methods = [EWC([OLD], estimator="sample", examples=4), SI([OLD], walk=1), GradientCosine([OLD])]
    next(run_of(small_model(), methods=methods, seed=77))
    own = Counter(seed for seed in seen if seed not in (0, 77))  # those of test sets are seeded with 0 in every run
    assert sorted(own.values()) == [1] * 4 + [own[derived("masks", 77)]]  # the same masks in each pass over the texts


def test_two_pulls_of_one_name_are_both_shown(bert: Model) -> None:
    entities = task("entities", size=32)
    entities.prepare(bert)
    bert.remember()
    pulls = [EWC([OLD], 10.0, examples=8), EWC([entities], 1e3, examples=8), L2SP(0.1)]
    *_, final = run_of(bert, methods=pulls, lr=0.01)
    expected = [float(pull.penalty(Run(bert, NEW, 1, 1, 0.1, {}, {}, torch.Generator())).detach()) for pull in pulls]
    assert list(final.penalty) == ["ewc", "ewc 2", "l2sp"]
    assert list(final.penalty.values()) == pytest.approx(expected)
    assert len(set(expected)) == 3


METHODS = ["none", "ewc:examples=8", "si:walk=2", "mas:examples=8", "lwf", "kl-anchor", "replay", "pcgrad", "agem",
           "adapters", "columns", "lora", "generative:size=8"]  # fmt: skip


def test_a_run_does_not_touch_the_global_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*_: object, **__: object) -> None:
        raise AssertionError("a run has touched torch's global generator")

    before = torch.get_rng_state()
    for name in ("manual_seed", "set_rng_state", "seed"):
        monkeypatch.setattr(torch, name, touched)
        monkeypatch.setattr(torch.random, name, touched)
    model, watch = load("tiny-bert", device="cpu"), [task("entities", size=32), OLD]
    for method in METHODS:
        list(run_of(model, methods=make_methods(method, watch), watch=watch))
        model.restore()
        assert torch.equal(torch.get_rng_state(), before), method


def test_dropout_draws_by_the_runs_seed_and_leaves_the_global_generator_alone() -> None:
    def losses(seed: int, spoil: int) -> list[Any]:
        torch.manual_seed(spoil)
        model = small_model()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.5
        before, found = torch.get_rng_state(), []
        for record in run_of(model, seed=seed):
            assert torch.equal(torch.get_rng_state(), before)
            found.append(record.loss)
        return found

    assert losses(1, 2) == losses(1, 3)
    assert losses(1, 2) != losses(4, 2)
    assert losses(1, 2)[1] != [*run_of(small_model(), seed=1)][1].loss


def test_a_run_and_another_threads_draws_are_what_they_are_alone() -> None:
    def draws() -> list[torch.Tensor]:
        torch.manual_seed(5)
        found = []
        while len(found) < 20 or (ready.is_set() and not done.is_set()):
            found.append(torch.rand(3))
        return found

    def train(model: Model) -> None:
        ready.set()
        found.append(plain(run_of(model, methods=[LoRA()], steps=4)))
        done.set()

    found, ready, done = list[Any](), threading.Event(), threading.Event()
    train(small_model())
    ready.clear()
    done.clear()
    other = threading.Thread(target=train, args=(small_model(),))
    other.start()
    assert ready.wait(60)
    drawn = draws()
    other.join()
    assert found[0] == found[1]
    torch.manual_seed(5)
    assert torch.equal(torch.stack(drawn), torch.stack([torch.rand(3) for _ in drawn]))
    assert len(drawn) > 20


def test_the_size_of_a_model_is_that_before_any_run() -> None:
    bench = prepare(Recipe(watch=("entities",), steps=1, limit=8))
    loaded = sum(p.numel() for p in load("tiny-bert").parameters())
    for methods in ("none", "lora", "adapters"):
        assert describe(bench)["model"]["parameters"] == loaded
        list(bench.run(Recipe(watch=("entities",), steps=1, limit=8, methods=methods)))
    assert describe(bench)["model"]["parameters"] == loaded
