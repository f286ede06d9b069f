"""The written-out layers of a small BERT against transformers' own forward pass and torch's own derivative."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from forgetlab import finetune, load, task
from forgetlab.models import fast_bert
from forgetlab.models.model import Model
from forgetlab.remedies.architectures import Adapters, LoRA, ProgressiveColumns
from forgetlab.training.method import Method


@pytest.fixture
def model() -> Model:
    return load("tiny-bert", device="cpu")


@contextmanager
def as_written(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(fast_bert, "fits", lambda *_: False)
        yield


def batch_of(model: Model, lengths: list[int]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(len(lengths))
    mask = torch.tensor([[int(i < n) for i in range(max(lengths))] for n in lengths])
    ids = torch.randint(5, model.config.vocab_size, mask.shape, generator=generator)
    return {"input_ids": ids * mask, "attention_mask": mask}


def gradients(model: Model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    hidden = model.hidden(batch) * batch["attention_mask"].unsqueeze(-1)
    generator = torch.Generator().manual_seed(0)
    (hidden * torch.randn(hidden.shape, generator=generator)).sum().backward()
    return hidden.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def steps_of(tensor: Tensor) -> set[str]:
    """Names of the steps of autograd that a tensor came from."""
    seen, left = set(), [tensor.grad_fn]
    while left:
        if (node := left.pop()) is not None and node not in seen:
            seen.add(node)
            left += [before for before, _ in node.next_functions]
    return {type(node).__name__ for node in seen}


LENGTHS = [[1], [5, 3], [15, 15, 9], [16, 16], [17, 4, 11], [64, 30, 2]]
FROZEN = ["nothing", "embeddings", "first layer", "a query", "every layer"]
# every length, every frozen part with one segment and with two; not each with each, which would say the same 60 times
KINDS = [(LENGTHS[i % 6], frozen, types) for i, (frozen, types) in enumerate(product(FROZEN, (False, True)))]
KINDS += [(LENGTHS[4], "nothing", True), (LENGTHS[5], "nothing", False)]


@pytest.mark.parametrize(("lengths", "frozen", "types"), KINDS)
def test_hidden_states_and_gradients_are_transformers_own(
    model: Model, lengths: list[int], frozen: str, types: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = model.backbone.encoder.layer
    chosen: dict[str, nn.Module | None] = {"nothing": None, "embeddings": model.backbone.embeddings}
    chosen |= {"first layer": layer[0], "a query": layer[1].attention.self.query, "every layer": layer}
    if (part := chosen[frozen]) is not None:
        part.requires_grad_(False)
    batch = batch_of(model, lengths)
    if types:
        batch["token_type_ids"] = torch.arange(max(lengths)).gt(max(lengths) // 2).long().expand_as(batch["input_ids"])
    assert "LayerBackward" in steps_of(model.hidden(batch))
    hidden, found = gradients(model, batch)
    with as_written(monkeypatch):
        assert "LayerBackward" not in steps_of(model.hidden(batch))
        expected_hidden, expected = gradients(model, batch)
    torch.testing.assert_close(hidden, expected_hidden, rtol=1e-5, atol=1e-5)
    assert found.keys() == expected.keys()
    whole = torch.stack([g.norm() for g in expected.values()]).norm()
    for name, gradient in expected.items():
        # a key's bias moves every score of a row alike: its gradient is nought but for rounding
        scale = torch.maximum(gradient.norm(), 0.01 * whole)
        assert float((found[name] - gradient).norm() / scale) < 1e-5, name


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.float32])
def test_masks_of_any_kind_mean_the_same(model: Model, kind: torch.dtype) -> None:
    batch = batch_of(model, [12, 7])
    left = {name: tensor.flip(1) for name, tensor in batch.items()}
    for one in (batch, left):
        expected = model.backbone(**one).last_hidden_state
        mask = one["attention_mask"]
        found = model.hidden({**one, "attention_mask": mask.to(kind)})
        torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], rtol=1e-5, atol=1e-5)


def test_without_a_mask_the_backbone_runs_itself(model: Model) -> None:
    ids = batch_of(model, [12, 12])["input_ids"]
    torch.testing.assert_close(model.hidden({"input_ids": ids}), model.backbone(input_ids=ids).last_hidden_state)


def test_a_run_is_the_one_that_transformers_layers_give(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def last() -> tuple[float, float]:
        model.restore()
        run = finetune(model, task("sentiment"), watch=[task("masked-lm")], steps=10, lr=1e-3, every=10, limit=64)
        record = list(run)[-1]
        return record.scores["masked-lm"]["loss"], record.drift

    found = last()
    with as_written(monkeypatch):
        # not closer: of a gradient that is rounding only, such as a key's bias, Adam makes whole steps
        assert last() == pytest.approx(found, rel=2e-3)


def test_a_second_derivative_is_refused_and_eager_attention_has_it(model: Model) -> None:
    batch, weight = batch_of(model, [12, 7]), model.backbone.encoder.layer[0].output.dense.weight

    def curvature() -> Tensor:
        (gradient,) = torch.autograd.grad(model.hidden(batch)[:, 0].pow(2).sum(), weight, create_graph=True)
        return torch.autograd.grad(gradient.pow(2).sum(), weight)[0]

    with pytest.raises(RuntimeError, match="no second derivative"):
        curvature()
    model.body.set_attn_implementation("eager")
    assert curvature().norm() > 0


def test_batched_gradients_are_refused_and_eager_attention_has_them(model: Model) -> None:
    batch, weight = batch_of(model, [12, 7]), model.backbone.encoder.layer[0].output.dense.weight

    def gradients() -> Tensor:
        hidden = model.hidden(batch)[:, 0].sum(1)
        return torch.autograd.grad(hidden, weight, torch.eye(2), is_grads_batched=True)[0]

    with pytest.raises(RuntimeError, match="no batched gradients"):
        gradients()
    model.body.set_attn_implementation("eager")
    assert gradients().shape == (2, *weight.shape)


def test_a_forward_pass_replaced_on_a_class_is_used(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(model.backbone.encoder.layer[0].output)
    monkeypatch.setattr(kind, "forward", lambda self, hidden, x: x)
    assert not fast_bert.fits(model.backbone, batch_of(model, [12, 7]))


def test_looking_at_the_states_in_between_changes_no_number_after(model: Model) -> None:
    batch = batch_of(model, [12, 7])
    before = model.hidden(batch)
    model.backbone(**batch, output_hidden_states=True)  # leaves hooks of transformers on every layer
    assert torch.equal(model.hidden(batch), before)
    assert "LayerBackward" in steps_of(model.hidden(batch))


def hooked(model: Model) -> None:
    model.backbone.encoder.layer[1].output.dense.register_forward_hook(lambda *_: None)


def hooked_before(model: Model) -> None:
    model.backbone.register_forward_pre_hook(lambda *_: None)


def eager(model: Model) -> None:
    model.body.set_attn_implementation("eager")


def dropout(model: Model) -> None:
    layer = model.backbone.encoder.layer[2]
    layer.output.dropout.p = 0.1
    layer.train()


def attention_dropout(model: Model) -> None:
    own = model.backbone.encoder.layer[0].attention.self
    own.dropout.p = 0.1
    own.training = True


def another_activation(model: Model) -> None:
    model.backbone.encoder.layer[1].intermediate.intermediate_act_fn = nn.Tanh()


def another_kind(model: Model) -> None:
    class Scaled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model.backbone.encoder.layer[0].attention.self.query = Scaled(64, 64)


def another_forward(model: Model) -> None:
    layer = model.backbone.encoder.layer[0]
    layer.forward = layer.forward


def another_scale(model: Model) -> None:
    model.backbone.encoder.layer[0].attention.self.scaling *= 2


def another_chunk(model: Model) -> None:
    model.backbone.encoder.layer[0].feed_forward_chunk = lambda x: x


def fewer_heads(model: Model) -> None:
    model.backbone.encoder.layer[0].attention.self.num_attention_heads = 1


def no_bias(model: Model) -> None:
    model.backbone.encoder.layer[0].output.dense.bias = None


def parametrized(model: Model) -> None:
    nn.utils.parametrizations.weight_norm(model.backbone.encoder.layer[0].output.dense)


def hooked_backward(model: Model) -> None:
    model.backbone.encoder.layer[0].register_full_backward_hook(lambda *_: None)


def nothing(model: Model) -> None:
    """The model as it is, within another precision."""


def double_precision(model: Model) -> None:
    model.double()


def bfloat16() -> AbstractContextManager[object]:
    return torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("change", "within"),
    [
        (hooked, nullcontext),
        (hooked_before, nullcontext),
        (eager, nullcontext),
        (dropout, nullcontext),
        (attention_dropout, nullcontext),
        (another_activation, nullcontext),
        (another_kind, nullcontext),
        (another_forward, nullcontext),
        (another_scale, nullcontext),
        (another_chunk, nullcontext),
        (fewer_heads, nullcontext),
        (no_bias, nullcontext),
        (parametrized, nullcontext),
        (hooked_backward, nullcontext),
        (double_precision, nullcontext),
        (nothing, bfloat16),
    ],
    ids=lambda value: value.__name__,
)
def test_an_unusual_model_runs_as_transformers_wrote_it(
    model: Model, change: Callable[[Model], None], within: Callable[[], AbstractContextManager[object]]
) -> None:
    batch = batch_of(model, [12, 7])
    assert fast_bert.fits(model.backbone, batch)
    change(model)
    with within():
        assert not fast_bert.fits(model.backbone, batch)


@pytest.mark.parametrize("method", [Adapters(), LoRA(), ProgressiveColumns()], ids=lambda method: method.name)
def test_a_model_with_added_weights_runs_as_transformers_wrote_it(model: Model, method: Method) -> None:
    run = finetune(model, task("sentiment"), methods=[method], steps=10, lr=1e-3, every=10, limit=64)
    next(run)  # from here on the weights are there
    assert not fast_bert.fits(model.backbone, batch_of(model, [12, 7]))
    list(run)


@pytest.mark.parametrize(
    "method", [Adapters(), LoRA(shared=False), ProgressiveColumns()], ids=lambda method: method.name
)
def test_with_added_weights_switched_off_the_bits_are_those_from_before(model: Model, method: Method) -> None:
    batch, old = batch_of(model, [12, 7, 20]), task("entities")
    before, layers = model.hidden(batch), fast_bert.hidden_states(model.backbone, batch)
    assert torch.equal(before, layers)  # as written out
    run = finetune(model, task("sentiment"), methods=[method], watch=[old], steps=10, lr=1e-2, every=10, limit=64)
    first, last = run
    assert first.scores["entities"] == last.scores["entities"] == old.score(load("tiny-bert", device="cpu"), 64)
    with method.off():
        assert torch.equal(model.hidden(batch), before)
    assert not torch.equal(model.hidden(batch), before)


def test_hooks_of_the_whole_process_are_heard(model: Model) -> None:
    heard = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: heard.append(module))
    try:
        model.hidden(batch_of(model, [12, 7]))
    finally:
        handle.remove()
    assert model.backbone.encoder.layer[1].output.dense in heard


def test_vmap_sees_plain_operations(model: Model) -> None:
    batch = batch_of(model, [12, 7])

    def within(x: Tensor) -> Tensor:
        assert not fast_bert.fits(model.backbone, batch)
        return x

    torch.func.vmap(within)(torch.ones(2))


def test_another_backbone_or_a_wide_one_is_left_alone(model: Model) -> None:
    gpt = load("tiny-gpt", device="cpu")
    assert not fast_bert.fits(gpt.backbone, batch_of(gpt, [5]))
    model.config.hidden_size = 768
    assert not fast_bert.fits(model.backbone, batch_of(model, [5]))
