"""Each usual mistake in an adapter, a LoRA layer or a count of their weights gets its own words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forgetlab import load, task
from forgetlab.remedies.architectures import Adapters, LoRA
from forgetlab.teaching.exercises import added
from forgetlab.teaching.exercises.added import check_adapter, check_count, check_lora
from forgetlab.training.loop import finetune


class Right(nn.Module):
    def __init__(self, hidden: int, width: int, bias: bool = True) -> None:
        super().__init__()
        self.down = nn.Linear(hidden, width, bias=bias)
        self.up = nn.Linear(width, hidden, bias=bias)
        self.begin()

    def begin(self) -> None:
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.up(F.gelu(self.down(h)))


class NoResidual(Right):
    def forward(self, h: Tensor) -> Tensor:
        return self.up(F.gelu(self.down(h)))


class RandomStart(Right):
    def begin(self) -> None:
        pass


class BiasLeft(Right):
    def begin(self) -> None:
        nn.init.zeros_(self.up.weight)


class BothZero(Right):
    def begin(self) -> None:
        for p in self.parameters():
            nn.init.zeros_(p)


class DownZero(Right):
    def begin(self) -> None:
        for p in (self.down.weight, self.down.bias, self.up.bias):
            nn.init.zeros_(p)


class Linear(Right):
    def forward(self, h: Tensor) -> Tensor:
        return h + self.up(self.down(h))


class After(Right):
    def forward(self, h: Tensor) -> Tensor:
        return h + F.gelu(self.up(self.down(h)))


class NoBias(Right):
    def __init__(self, hidden: int, width: int) -> None:
        super().__init__(hidden, width, bias=False)

    def begin(self) -> None:
        nn.init.zeros_(self.up.weight)


class NotBackUp(Right):
    def forward(self, h: Tensor) -> Tensor:
        return F.gelu(self.down(h))


class NormAfter(Right):
    def __init__(self, hidden: int, width: int) -> None:
        super().__init__(hidden, width)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, h: Tensor) -> Tensor:
        return self.norm(super().forward(h))


class NormWithoutWeights(Right):
    def forward(self, h: Tensor) -> Tensor:
        return F.layer_norm(super().forward(h), h.shape[-1:])


class NormBefore(NormAfter):
    def forward(self, h: Tensor) -> Tensor:
        return h + self.up(F.gelu(self.down(self.norm(h))))


class ReZero(Right):
    def __init__(self, hidden: int, width: int) -> None:
        super().__init__(hidden, width)
        self.gate = nn.Parameter(torch.zeros(()))

    def begin(self) -> None:
        pass

    def forward(self, h: Tensor) -> Tensor:
        return h + self.gate * self.up(F.gelu(self.down(h)))


class SpareBias(Right):
    def __init__(self, hidden: int, width: int) -> None:
        super().__init__(hidden, width)
        self.spare = nn.Parameter(torch.zeros(hidden))

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h) + self.spare


def plain_function(hidden: int, width: int) -> Any:
    return lambda h: h


MODULES = [
    (NoResidual, "residual"),
    (RandomStart, "start"),
    (BiasLeft, "bias"),
    (BothZero, "dead"),
    (Linear, "linear"),
    (After, "after"),
    (NoBias, "count"),
    (NotBackUp, "shape"),
    (NormAfter, "norm"),
    (NormWithoutWeights, "norm"),
    (NormBefore, "count"),
    (ReZero, "gate"),
    (SpareBias, "count"),
    (plain_function, "module"),
]


@pytest.mark.parametrize("make", [Right, DownZero])
def test_a_right_adapter_passes(make: Any) -> None:
    assert check_adapter(make)


@pytest.mark.parametrize(("make", "name"), MODULES)
def test_each_wrong_adapter_is_named(make: Any, name: str) -> None:
    verdict = check_adapter(make)
    assert not verdict.passed
    assert verdict.words == next(words for words, own in added.ADAPTER_FAULTS.items() if own == name)


def test_every_fault_of_an_adapter_is_met() -> None:
    assert {name for _, name in MODULES} == set(added.ADAPTER_FAULTS.values())


def test_the_librarys_adapter_is_right_too() -> None:
    from forgetlab.remedies.architectures.adapters import _Adapter

    assert check_adapter(lambda hidden, width: _Adapter(hidden, width, torch.Generator().manual_seed(0)))


def lora(x: Any, W: Any, A: Any, B: Any, alpha: Any) -> Any:
    return x @ W.T + (alpha / len(A)) * (x @ A.T) @ B.T


SIDE = "The rank was read off the wrong side: r is the number of"
LAYERS = [
    (lambda x, W, A, B, alpha: (alpha / len(A)) * x @ A.T @ B.T, "The frozen part"),
    (lambda x, W, A, B, alpha: x @ W.T + x @ A.T @ B.T, "The factor α / r is missing"),
    (lambda x, W, A, B, alpha: x @ W.T + alpha * x @ A.T @ B.T, "The change is multiplied by α"),
    (lambda x, W, A, B, alpha: x @ W.T + len(A) / alpha * x @ A.T @ B.T, "The factor is upside down"),
    (lambda x, W, A, B, alpha: x @ W.T + alpha / A.shape[1] * x @ A.T @ B.T, f"{SIDE} *rows*"),
    (lambda x, W, A, B, alpha: x @ W.T + alpha / B.shape[0] * x @ A.T @ B.T, f"{SIDE} *columns*"),
    (lambda x, W, A, B, alpha: (alpha / len(A)) * (x @ W.T + x @ A.T @ B.T), "The factor α / r is on everything"),
    (lambda x, W, A, B, alpha: x @ W.T - (alpha / len(A)) * x @ A.T @ B.T, "The change is taken away"),
]


def test_a_right_layer_passes() -> None:
    assert check_lora(lora)


@pytest.mark.parametrize(("layer", "start"), LAYERS)
def test_each_wrong_layer_is_named(layer: Any, start: str) -> None:
    verdict = check_lora(layer)
    assert not verdict.passed
    assert verdict.words.startswith(start)
    assert len(LAYERS) == len(added.LORA_FAULTS)


def test_matrices_in_the_wrong_order_raise_in_words() -> None:
    words = check_lora(lambda x, W, A, B, alpha: x @ W.T + x @ B @ A).words
    assert "a (3, 6) array, a (4, 6) array, a (2, 6) array, a (4, 2) array, 16.0), it raised RuntimeError" in words


COUNTS = [
    (lambda n, i, o, r: n * i * o, "That is the size of the full change"),
    (lambda n, i, o, r: n * r * i * o, "r × d_in × d_out"),
    (lambda n, i, o, r: r * i + r * o, "Right for one layer"),
    (lambda n, i, o, r: n * r * i, "That is A alone"),
    (lambda n, i, o, r: n * r * o, "That is B alone"),
    (lambda n, i, o, r: n * r * i * 2, "2 r d_in"),
    (lambda n, i, o, r: n * r * o * 2, "2 r d_out"),
    (lambda n, i, o, r: n * (i * o + r * i + r * o), "The frozen W"),
    (lambda n, i, o, r: n * (i * r + r * r + r * o), "There is an r × r"),
    (lambda n, i, o, r: n * (i * r + r + r * o + o), "Biases"),
]


def test_a_right_count_passes() -> None:
    assert check_count(lambda n, i, o, r: n * r * (i + o))


@pytest.mark.parametrize(("count", "start"), COUNTS)
def test_each_wrong_count_is_named(count: Any, start: str) -> None:
    verdict = check_count(count)
    assert not verdict.passed
    assert verdict.words.startswith(start)
    assert len(COUNTS) == len(added.COUNT_FAULTS)


def test_the_counts_are_those_of_real_runs() -> None:
    model, new = load("tiny-bert", device="cpu"), task("sentiment")
    for method, wanted in ((LoRA(r=4), 6 * 4 * (64 + 64)), (Adapters(width=4), 3 * (2 * 64 * 4 + 4 + 64))):
        model.restore()
        first = next(finetune(model, new, methods=[method], steps=1, limit=8))
        assert first.costs["added_parameters"] == wanted
    assert added.lora_weights(6, 64, 64, 4) == 6 * 4 * (64 + 64)


@pytest.mark.parametrize("check", [check_adapter, check_lora, check_count])
def test_what_is_no_answer_is_said(check: Any) -> None:
    def raises(*given: Any) -> Any:
        raise KeyError("up")

    class Gap(Right):
        def forward(self, h: Tensor) -> Any:
            return ...

    assert "returns nothing yet" in check(lambda *given: None).words
    assert "returns nothing yet" in check(lambda *given: ...).words
    assert "returns nothing yet" in check_adapter(Gap).words
    assert check(raises).words.endswith("raised KeyError: 'up'")
    assert check("adapter").words.startswith("Expected a function, got str")
    assert not check(lambda *given: "words")
