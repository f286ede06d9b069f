"""The benchmark of known results: its loop against one written out, its tasks, and verdicts that follow the numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks import fidelity
from benchmarks.fidelity import Row

NAMES = ("EWC, EXACT", "EWC, BATCHED(128)", "L2", "naive")


def random_tasks(rows: int = 16) -> list[fidelity.Data]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.rand(rows, 64, generator=generator), torch.randint(0, 10, (rows,), generator=generator))
        for _ in range(3)
    ]


def slow_fisher(net: nn.Module, x: torch.Tensor, y: torch.Tensor, method: str) -> list[torch.Tensor]:
    weights = list(net.parameters())
    if method == "L2":
        return [torch.ones_like(p) for p in weights]
    if method == "EWC, BATCHED(128)":  # these tasks are one batch
        grads = torch.autograd.grad(nn.functional.cross_entropy(net(x), y), weights)
        return [g**2 for g in grads]
    total = [torch.zeros_like(p) for p in weights]
    for one in x:
        logs = net(one).log_softmax(-1)
        for log in logs:
            grads = torch.autograd.grad(log, weights, retain_graph=True)
            total = [t + log.exp().detach() * g**2 for t, g in zip(total, grads, strict=True)]
    return [t / len(x) for t in total]


def slow_sequence(method: str, lam: float, epochs: int) -> list[list[torch.Tensor]]:
    """Every step written out, one weight tensor at a time."""
    torch.manual_seed(7)
    net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    generator = torch.Generator().manual_seed(7)
    weights, fisher, after = list(net.parameters()), None, []
    for x, y in random_tasks():
        anchor = [p.detach().clone() for p in weights]
        for _ in range(epochs):
            for index in torch.randperm(len(y), generator=generator).split(32):
                grads = torch.autograd.grad(nn.functional.cross_entropy(net(x[index]), y[index]), weights)
                with torch.no_grad():
                    for i, (p, g, a) in enumerate(zip(weights, grads, anchor, strict=True)):
                        p.sub_(0.1 * g)
                        if fisher:
                            s = 0.1 * lam * fisher[i]
                            p.copy_((p + s * a) / (1 + s))
        after.append([p.detach().clone() for p in weights])
        if method != "naive":
            new = slow_fisher(net, x, y, method)
            earlier = fisher if fisher and method != "L2" else [torch.zeros_like(f) for f in new]
            fisher = [a + b for a, b in zip(earlier, new, strict=True)]
    return after


@pytest.mark.parametrize("method", NAMES)
def test_the_sequence_is_the_one_written_out(method: str) -> None:
    lam = {"L2": 1.0, "EWC, EXACT": 100.0}.get(method, 1e4)
    nets = fidelity.sequence(random_tasks(), method, lam, seed=7, epochs=5)
    for net, expected in zip(nets, slow_sequence(method, lam, 5), strict=True):
        for p, wanted in zip(net.parameters(), expected, strict=True):
            torch.testing.assert_close(p.detach(), wanted, rtol=1e-4, atol=1e-6)


def test_joint_trains_on_every_task_so_far() -> None:
    tasks = random_tasks()
    *_, net = fidelity.sequence(tasks, "joint", 0.0, seed=0, epochs=60)
    *_, naive = fidelity.sequence(tasks, "naive", 0.0, seed=0, epochs=60)

    @torch.no_grad()
    def losses(which: nn.Module) -> torch.Tensor:
        return torch.stack([nn.functional.cross_entropy(which(x), y) for x, y in tasks[:-1]])

    assert bool((losses(net) < losses(naive) / 2).all())


def test_each_task_is_the_same_digits_with_other_pixels() -> None:
    train, test = fidelity.digits(seed=3)
    (x, y), (other, same) = train[0], train[4]
    assert torch.equal(y, same)
    assert not torch.equal(x, other)
    assert torch.equal(x.sort(1).values, other.sort(1).values)
    moved = x.T.unsqueeze(1).eq(other.T).all(-1)  # which column of the one is which of the other, over all images
    assert bool(moved.any(0).all())
    assert len(x) + len(test[0][0]) == 1797
    seen = {tuple(row) for row in x.tolist()}
    assert sum(tuple(row) in seen for row in test[0][0].tolist()) == 0


def rows(naive: float, l2: float, ewc: float, joint: float, times: float = 100.0) -> list[Row]:
    scores = {"naive": (naive, 0), "L2": (l2, 0.1), "EWC, EXACT": (ewc, 10.0), "joint": (joint, 0)}
    found = [Row(name, lam, {"ACC": [acc - 1, acc + 1], "ΣF": [1.0]}) for name, (acc, lam) in scores.items()]
    return [*found, Row("EWC, BATCHED(128)", 10.0 * times, {"ACC": [ewc], "ΣF": [0.01]})]


@pytest.mark.parametrize(
    ("best", "holds"),
    [
        (rows(55, 64, 80, 97), [True, True, True, True]),
        (rows(55, 59, 80, 97), [False, True, True, True]),
        (rows(55, 80, 64, 97), [True, False, True, True]),
        (rows(55, 64, 80, 84, times=10), [True, True, False, False]),
    ],
)
def test_the_verdicts_on_the_digits_follow_the_numbers(best: list[Row], holds: list[bool]) -> None:
    assert [claim.holds for claim in fidelity.digits_claims(best)] == holds


def lesson(**changed: tuple[float, float, float]) -> list[Row]:
    scores = {
        "none": (0.98, 0.4, 60.0),
        "l2sp": (0.97, 0.9, 2.4),
        "ewc": (0.97, 0.99, 1.3),
        "replay": (0.96, 0.99, 1.3),
        "frozen": (0.5, 1.0, 1.0),
    } | changed
    names = ("sentiment", "entities", "ratio")
    return [Row(m, 0.0, dict(zip(names, ([v] for v in values), strict=True))) for m, values in scores.items()]


def test_the_verdicts_on_the_lesson_follow_the_numbers() -> None:
    def failing(best: list[Row]) -> list[int]:
        return [i for i, claim in enumerate(fidelity.lesson_claims(best)) if not claim.holds]

    assert failing(lesson()) == []
    assert failing(lesson(none=(0.94, 0.4, 60.0))) == [0]
    assert failing(lesson(l2sp=(0.97, 0.9, 61.0))) == [1]
    assert failing(lesson(frozen=(0.7, 1.0, 1.0))) == [2]
    assert failing(lesson(ewc=(0.8, 0.99, 1.3))) == [3]
    assert failing(lesson(replay=(0.96, 0.9, 1.3))) == [4]
    assert failing(lesson(replay=(0.96, 0.99, 1.6))) == [4]
