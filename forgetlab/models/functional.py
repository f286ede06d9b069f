"""A model called with other weights than its own, one set or a stack of them under vmap."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from torch import Tensor, nn
from torch.func import functional_call

T = TypeVar("T")


def with_weights(model: nn.Module, weights: Mapping[str, Tensor], what: Callable[[], T]) -> T:
    """`what()`, any function that uses the model, with the model's weights replaced by `weights` (name → tensor).

    Weights that are not named stay the model's own. Under vmap the weights may be one set of a stack.
    """
    return cast(T, functional_call(_Holder(model, what), {f"model.{n}": w for n, w in weights.items()}, ()))


class _Holder(nn.Module):
    """A module whose call is any function of the model: `functional_call` replaces the weights of modules only."""

    def __init__(self, model: nn.Module, what: Callable[[], Any]) -> None:
        super().__init__()
        self.model, self.what = model, what

    def forward(self) -> Any:
        return self.what()


@contextmanager
def eager_attention(model: nn.Module) -> Iterator[None]:
    """Attention as plain products: the fused kernels have no rule for vmap and would run one by one."""
    body = getattr(model, "body", None)
    if body is None:  # not one of transformers' models
        yield
        return
    before = body.config._attn_implementation
    body.set_attn_implementation("eager")
    try:
        yield
    finally:
        body.set_attn_implementation(before)
