"""What loading tells the process meanwhile."""

from __future__ import annotations

from threading import Thread

import pytest
import torch
from transformers.utils.logging import ERROR, get_verbosity

from forgetlab import finetune, load, task
from forgetlab.errors import ForgetlabError
from forgetlab.models.model import quiet_transformers


def test_models_are_loaded_one_at_a_time() -> None:
    """Two labs load in two threads: what transformers is told meanwhile is told to the whole process."""
    inside: list[int] = []

    def enter() -> None:
        with quiet_transformers():
            inside.append(get_verbosity())

    before = get_verbosity()
    with quiet_transformers():
        other = Thread(target=enter)
        other.start()
        other.join(0.2)
        assert not inside
    other.join()
    assert inside == [ERROR]
    assert get_verbosity() == before


def test_half_the_memory_in_bfloat16_and_heads_as_they_are() -> None:
    whole, half = (load("tiny-bert", device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert {p.dtype for p in half.body.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in half.heads.parameters()} == {torch.float32}
    sizes = [sum(p.nbytes for p in model.body.parameters()) for model in (whole, half)]
    assert sizes[0] == 2 * sizes[1]
    for name, value in half.body.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, whole.body.state_dict()[name].bfloat16())
    for name in ("masked-lm", "entities"):
        scores = [task(name).score(model, 32)["loss"] for model in (whole, half)]
        assert scores[0] == pytest.approx(scores[1], rel=0.05, abs=1e-3)
        assert scores[0] != scores[1]
    with pytest.raises(ForgetlabError, match="dtype"):
        load("tiny-bert", dtype="int4")  # type: ignore[arg-type]


def test_without_a_copy_there_is_nothing_to_restore_but_a_snapshot() -> None:
    model = load("tiny-gpt", device="cpu", keep=False)
    assert all(weight.is_meta for weight in model._pretrained.values())
    start = model.snapshot()
    new = task("causal-lm:notices")
    last, other = ([*finetune(one, new, steps=2)][-1] for one in (model, load("tiny-gpt", device="cpu")))
    assert last.drift == other.drift > 0
    with pytest.raises(ForgetlabError, match="keeps no copy to restore: load it with keep=True"):
        model.restore()
    model.restore(start)
    assert all(torch.equal(weight, start[name]) for name, weight in model.state_dict().items())


def test_layers_go_where_a_map_says() -> None:
    spread = load("tiny-gpt", device_map={"": "cpu"})
    assert task("causal-lm").score(spread, 8) == task("causal-lm").score(load("tiny-gpt", device="cpu"), 8)
    with pytest.raises(ForgetlabError, match="cannot be opened"):
        load("tiny-gpt", device_map="everywhere")
