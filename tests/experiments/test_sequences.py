"""Sequences of tasks: R against a loop written out, the anchor of each stage, and a model that is left as it was."""

import pytest
import torch
from torch import nn

from forgetlab import ForgetlabError, metrics, task
from forgetlab.experiments.sequences import consolidated, from_seen, run_joint, run_sequence
from forgetlab.importance import fisher_diagonal
from forgetlab.models.model import Model
from forgetlab.remedies.regularizers import L2SP
from forgetlab.tasks import Task
from forgetlab.training.method import Method
from tests.conftest import small_model

OPTIONS = {"steps": 4, "every": 2, "lr": 3e-3, "batch_size": 16, "limit": 32, "seed": 5}


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    return [task("register", size=64), task("entities", size=64), task("acceptability", size=64)]


def written_out(model: Model, tasks: list[Task]) -> list[list[float]]:
    """R of plain fine-tuning, every step by hand."""
    for one in tasks:
        one.prepare(model, OPTIONS["seed"] + 1)
    rows = []
    for one in tasks:
        torch.manual_seed(OPTIONS["seed"])  # dropout
        generator = torch.Generator().manual_seed(OPTIONS["seed"])
        weights = list(model.parameters())
        optimizer = torch.optim.AdamW(weights, lr=OPTIONS["lr"], weight_decay=0.0)
        order: list[int] = []
        model.train()
        for _ in range(OPTIONS["steps"]):
            if not order:
                order = torch.randperm(64, generator=generator).tolist()
            index, order = torch.tensor(order[:16]), order[16:]
            optimizer.zero_grad()
            one.loss(model, one.batch(model, index, generator)).backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
        rows.append([each.score(model, OPTIONS["limit"])[each.metric] for each in tasks])
    return rows


def test_r_is_that_of_a_loop_written_out(tasks: list[Task]) -> None:
    records = list(run_sequence(small_model(), tasks, **OPTIONS))
    with torch.random.fork_rng(devices=[]):
        expected = written_out(small_model(), tasks)
    for row, wanted in zip(records[-1].R, expected, strict=True):
        assert row == pytest.approx(wanted, abs=1e-6)
    assert metrics.average_accuracy(records[-1].R) == pytest.approx(sum(expected[-1]) / 3)
    fresh = small_model()
    for one in tasks:
        one.prepare(fresh, 6)
    assert records[-1].baseline == [one.score(fresh, 32)[one.metric] for one in tasks]
    assert [(r.stage, r.step, len(r.R)) for r in records] == [
        (0, 0, 0),
        (0, 2, 0),
        (0, 4, 1),
        (1, 6, 1),
        (1, 8, 2),
        (2, 10, 2),
        (2, 12, 3),
    ]
    assert all(r.scores == r.R[-1] for r in records if r.record.status == "done")


def test_the_same_twice_and_the_model_is_left_as_it_was(tasks: list[Task]) -> None:
    model = small_model()
    task("register", size=64).prepare(model)
    model.remember()
    before, names, head = model.snapshot(), model.known_names, model.heads["register"]
    rows = [[r.R for r in run_sequence(model, tasks, **OPTIONS)][-1] for _ in range(2)]
    assert rows[0] == rows[1]

    def left_as_it_was() -> bool:
        now = model.snapshot()
        same = now.keys() == before.keys() and all(torch.equal(now[n], before[n]) for n in before)
        return same and model.known_names == names and model.heads["register"] is head and not model.training

    assert left_as_it_was()
    records = run_sequence(model, tasks, **OPTIONS)
    assert [next(records).stage for _ in range(4)][-1] == 1
    records.close()
    assert left_as_it_was()
    assert list(run_sequence(model, tasks, **{**OPTIONS, "lr": 1e30}))[-1].record.status == "diverged"
    assert left_as_it_was()
    for added in ("adapters", "lora"):
        with pytest.raises(ForgetlabError, match="cannot carry added weights"):
            list(run_sequence(model, tasks, from_seen(added), **OPTIONS))
        assert left_as_it_was()
    with pytest.raises(ForgetlabError, match="nothing to protect"):
        list(run_sequence(model, tasks, from_seen("frozen+l2sp"), **OPTIONS))
    assert left_as_it_was()
    list(run_joint(model, tasks, **OPTIONS))
    assert left_as_it_was()


def test_a_diverged_task_ends_the_sequence(tasks: list[Task]) -> None:
    records = list(run_sequence(small_model(), tasks, **{**OPTIONS, "lr": 1e30}))
    assert [(r.stage, r.record.status, r.R) for r in records[-1:]] == [(0, "diverged", [])]


def test_each_stage_is_anchored_to_its_start_and_new_heads_are_free(tasks: list[Task]) -> None:
    """A pull that nothing overcomes holds all but the head in training, and the later heads wait unchanged."""
    model = small_model()
    starts: list[dict[str, torch.Tensor]] = []

    def hold(model: Model, seen: list[Task]) -> list[Method]:
        starts.append(model.snapshot())
        return [L2SP(lam=1e9, proximal=True)] if seen else []

    for record in run_sequence(model, tasks, hold, **OPTIONS):
        now, start = model.snapshot(), starts[-1]
        moved = {n for n in start if not torch.allclose(now[n], start[n], atol=1e-5)}
        own = {f"heads.{tasks[record.stage].name}.linear.{kind}" for kind in ("weight", "bias")}
        if record.record.step:
            assert moved == own if record.stage else own < moved
    for one in tasks[1:]:
        name = f"heads.{one.name}.linear.weight"
        waiting = starts[: tasks.index(one) + 1]
        assert all(torch.equal(start[name], waiting[0][name]) for start in waiting)
    assert not torch.equal(starts[0]["heads.register.linear.weight"], starts[1]["heads.register.linear.weight"])


def test_a_head_that_tasks_share_goes_on(tasks: list[Task]) -> None:
    pair = [task("sentiment", size=64), task("sentiment", size=64, similarity=0.5)]
    model, heads = small_model(), []
    for record in run_sequence(model, pair, **OPTIONS):
        heads.append(model.heads["sentiment"].linear.weight.detach().clone())
        if record.stage == 1:
            assert "heads.sentiment.linear.weight" in model.known_names
    assert not torch.equal(heads[0], heads[2])
    assert (heads[3] - heads[2]).norm() < (heads[3] - heads[0]).norm()


@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_fisher_is_measured_once_for_each_task_and_fades(gamma: float, tasks: list[Task]) -> None:
    """λ/2 Σ F (θ − θ*)² with F = γ F₁ + F₂, each at the end of its own task."""
    model, remedy = small_model(), consolidated(50.0, gamma, examples=16)
    starts, fishers = [], []

    def watched(model: Model, seen: list[Task]) -> list[Method]:
        if seen:
            starts.append(model.snapshot())
            fishers.append(fisher_diagonal(model, seen[-1], examples=16))
        return list(remedy(model, seen))

    for _ in range(2):  # the second sequence starts from nothing
        starts.clear()
        fishers.clear()
        for last in run_sequence(model, tasks, watched, **OPTIONS):  # noqa: B007
            now = model.snapshot()
        assert len(fishers) == 2
        assert float(fishers[0]["heads.register.linear.weight"].sum()) > 0
        expected = sum(
            float(((gamma * fishers[0][n] + fishers[1][n]) * (now[n] - starts[1][n]) ** 2).sum()) * 25.0
            for n in now
            if n in fishers[0] and n != "heads.acceptability.linear.weight" and n != "heads.acceptability.linear.bias"
        )
        assert expected > 0
        assert last.record.penalty["online-ewc"] == pytest.approx(expected, rel=1e-4)


def test_methods_from_seen_get_the_tasks_before(tasks: list[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    from forgetlab.experiments import sequences

    asked = []

    def spy(spec: str, old: list[Task] | None) -> list[Method]:
        asked.append(None if old is None else [one.name for one in old])
        return []

    monkeypatch.setattr(sequences, "make_methods", spy)
    list(run_sequence(small_model(), tasks, from_seen("replay"), **OPTIONS))
    assert asked == [None, ["register"], ["register", "entities"]]


def test_joint_sees_as_many_examples_of_every_task(tasks: list[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    counts: dict[str, int] = {}
    for one in tasks:

        def counted(model: Model, index: torch.Tensor, *rest: object, own: Task = one) -> dict[str, torch.Tensor]:
            counts[own.name] = counts.get(own.name, 0) + len(index)
            return type(own).batch(own, model, index, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(one, "batch", counted)
    records = list(run_joint(small_model(), tasks, **OPTIONS))
    assert records[-1].step == 12
    assert sum(counts.values()) == 12 * 16
    assert max(counts.values()) - min(counts.values()) <= 3
    assert list(records[-1].scores) == [one.name for one in tasks]


def test_tasks_that_do_not_fit_are_refused_at_once(tasks: list[Task]) -> None:
    for run in (run_sequence, run_joint):
        with pytest.raises(ForgetlabError, match="needs two tasks or more, got 1"):
            run(small_model(), tasks[:1])
        with pytest.raises(ForgetlabError, match="minimal-pairs has no training data"):
            run(small_model(), [tasks[0], task("minimal-pairs")])
        with pytest.raises(ForgetlabError, match="perplexity, of which less is better"):
            run(small_model(), [tasks[0], task("masked-lm", size=32)])
    with pytest.raises(ForgetlabError, match="unknown method 'replai'; did you mean 'replay'"):
        from_seen("replai")
