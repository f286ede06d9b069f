"""The library on a pretended card (`card.py`): nothing mixes devices, no step waits, and the numbers are the CPU's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from forgetlab import finetune, task
from forgetlab.experiments.stacked import Variant, finetune_stacked
from forgetlab.interference import GradientCosine
from forgetlab.metrics.landscape import Plane, weights_of
from forgetlab.models.asking import answer
from forgetlab.models.model import Model
from forgetlab.remedies.by_name import METHODS, make_methods, settings
from forgetlab.remedies.regularizers import L2SP
from forgetlab.training.method import Method, Run
from forgetlab.training.record import Record
from tests.card import Card, pretended
from tests.conftest import small_model

pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
QUICK = {"examples": 4, "draws": 1, "size": 4, "cut": 0.5}  # settings of any remedy that has them
RUN = {"steps": 2, "every": 2, "batch_size": 4, "limit": 6}


class Watch(Method):
    """Notes at each step how often forgetlab has had the CPU wait for the card."""

    name = "watch"

    def __init__(self, card: Card | None) -> None:
        self.card, self.waits = card, list[int]()

    def before_step(self, run: Run) -> None:
        self.waits.append(self.card.waits["forgetlab"] if self.card else 0)


def records(name: str, device: str, card: Card | None = None) -> Iterator[Record]:
    causal = name == "generative"
    old = task("causal-lm:notices" if causal else "entities", size=40)
    new = task("causal-lm" if causal else "sentiment", size=40)
    watch = Watch(card)
    quick = ",".join(f"{key}={value}" for key, value in QUICK.items() if key in settings(name))
    methods = [watch, *make_methods(f"{name}:{quick}", [old])]
    yield from finetune(small_model(causal), new, methods=methods, watch=[old], device=device, **RUN)
    assert len(watch.waits) == 2
    assert watch.waits[0] == watch.waits[1]  # transformers waits once a pass, to see whether a mask hides anything


def alike(found: list[Record], expected: list[Record]) -> None:
    assert [r.loss for r in found[1:]] == pytest.approx([r.loss for r in expected[1:]], rel=1e-4)
    assert found[-1].drift == pytest.approx(expected[-1].drift, rel=1e-3)
    for name, scores in expected[-1].scores.items():
        assert found[-1].scores[name] == pytest.approx(scores, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_remedy(name: str) -> None:
    with pretended() as card:
        found = list(records(name, "cuda", card))
    assert card.waits["forgetlab"] > 2  # scores and losses are read
    assert found[0].peak_memory == 1.0
    alike(found, list(records(name, "cpu")))


@pytest.mark.parametrize("causal", [False, True])
def test_every_task_is_scored(causal: bool) -> None:
    names = ["causal-lm", "cloze", "minimal-pairs", "writing"] if causal else ["masked-lm", "acceptability", "k-shot"]
    tasks = [task(name) for name in names]

    def scores(model: Model) -> dict[str, dict[str, float]]:
        for one in tasks:
            one.prepare(model)
        return {one.name: one.score(model, 8) for one in tasks}

    expected = scores(small_model(causal))
    with pretended():
        found = scores(small_model(causal).to("cuda"))
        said = answer(small_model(causal).to("cuda"), "a film" if causal else "a [MASK] film")
    assert said.keys() == answer(small_model(causal), "a film" if causal else "a [MASK] film").keys()
    for name in names:
        assert found[name] == pytest.approx(expected[name], rel=1e-4)


def test_stacked_runs() -> None:
    def last(model: Model) -> list[Record | None]:
        variants = [Variant(1e-3), Variant(1e-3, L2SP(1.0))]
        return list(finetune_stacked(model, task("sentiment", size=40), variants, watch=[task("entities")], **RUN))[-1]

    expected = last(small_model())
    with pretended():
        found = last(small_model().to("cuda"))
    for a, b in zip(found, expected, strict=True):
        assert a is not None
        assert b is not None
        alike([a], [b])


def test_gradients_between_tasks_and_a_plane_of_losses() -> None:
    def numbers(model: Model) -> list[float]:
        old, new = task("entities", size=40), task("sentiment", size=40)
        cosine = GradientCosine([old])
        for one in (old, new):
            one.prepare(model)
        start = weights_of(model)
        list(finetune(model, new, methods=[cosine], **RUN))
        one = weights_of(model)
        list(finetune(model, old, **RUN))
        (batch,) = old.test_batches(model, 4)
        plane = Plane(start, one, weights_of(model))
        rows = plane.evaluate(model, [0.0, 1.0], [0.0], {"old": lambda: old.loss(model, batch)}, at_once=2)
        return [cosine.measurements[-1].cosine.total, *(value for row in rows for value in row["old"])]

    expected = numbers(small_model())
    with pretended():
        found = numbers(small_model().to("cuda"))
    assert len(found) == 3
    assert found == pytest.approx(expected, rel=1e-3)


def test_the_card_is_strict() -> None:
    """What a real one refuses is refused, and what makes the CPU wait is counted."""
    with pretended() as card:
        there, here = torch.arange(3.0, device="cuda"), torch.arange(3.0)
        assert str(there.device) == "cuda:0"
        for wrong in (
            lambda: there + here,
            lambda: here.add_(there),
            lambda: torch.stack([there, here]),
            lambda: here[there.long()],
            lambda: there.numpy(),
            lambda: torch.rand(3, device="cuda", generator=torch.Generator()),
        ):
            with pytest.raises(RuntimeError, match=r"cuda:0|numpy"):
                wrong()
        assert not card.waits
        doubled = (there + torch.tensor(2.0)) * 2  # a number of the CPU's goes with it
        picked = there[torch.tensor([0, 2])]  # and so do the CPU's indices
        there.copy_(here)
        assert not card.waits
        assert doubled.tolist() == [4.0, 6.0, 8.0]
        assert picked.cpu().tolist() == [0.0, 2.0]
        assert float(there.sum()) == 3.0
        assert bool((there > 1).any())
        assert card.waits == {"tests": 4}
    with pytest.raises(RuntimeError, match="not at hand"):
        there + 1
