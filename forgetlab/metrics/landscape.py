"""The loss on the plane through three sets of weights, and where other weights lie beside it.

Only the plane is exact: weights off it have another loss than the point below them, which `locate` says how far off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import vmap

from forgetlab.errors import ForgetlabError, whole
from forgetlab.models.functional import eager_attention, with_weights

Weights = Mapping[str, Tensor]

ON_A_LINE = 1e-3  # of the third point's distance: below it float32 gives the second axis no direction


class Place(NamedTuple):
    """Weights seen from the plane: the coordinates of the nearest point of it, and the distance to that point."""

    x: float
    y: float
    off: float


class Plane:
    """The plane through three sets of weights, with an orthonormal basis.

    origin, second, third: name → tensor, the same names and shapes (`weights_of` each). The x axis goes from the
    origin to the second, the y axis to the third's side: u = θ₂ − θ₁, v = (θ₃ − θ₁) − ((θ₃ − θ₁)·û) û (Gram–Schmidt),
    both at length 1, so that coordinates are distances in the unit of the weights.
    points: the three, as (x, y).
    Raises ForgetlabError for weights that differ in names or shapes, are not finite, or lie on one line.
    Source: Garipov et al. 2018 (Loss surfaces, mode connectivity), appendix A.1; no filter normalisation is done.

    >>> plane = Plane({"w": torch.zeros(2)}, {"w": torch.tensor([2.0, 0.0])}, {"w": torch.tensor([1.0, 1.0])})
    >>> plane.points
    ((0.0, 0.0), (2.0, 0.0), (1.0, 1.0))
    """

    def __init__(self, origin: Weights, second: Weights, third: Weights) -> None:
        self.names = list(origin)
        self._origin = [origin[name].detach().clone() for name in self.names]
        u, w = self._from_origin(second), self._from_origin(third)
        length, reach = _norm(u), _norm(w)
        if not math.isfinite(length + reach):
            raise ForgetlabError("a plane needs three sets of finite weights; one of these has diverged")
        self._u = torch._foreach_div(u, length or 1.0)
        along = _dot(w, self._u)
        v = torch._foreach_sub(w, torch._foreach_mul(self._u, along))
        height = _norm(v)
        if not length or height <= ON_A_LINE * reach:
            raise ForgetlabError("a plane needs three sets of weights that are not on one line; two are the same, say")
        self._v = torch._foreach_div(v, height)
        self.points = ((0.0, 0.0), (length, 0.0), (along, height))

    def at(self, x: float, y: float) -> dict[str, Tensor]:
        """The weights at a point: θ₁ + x û + y v̂."""
        weights = [t.clone() for t in self._origin]
        self._write(weights, x, y)
        return dict(zip(self.names, weights, strict=True))

    def locate(self, weights: Weights) -> Place:
        """The nearest point of the plane and the distance to it. Raises ForgetlabError for other names or shapes."""
        w = self._from_origin(weights)
        x, y = _dot(w, self._u), _dot(w, self._v)
        rest = torch._foreach_sub(w, torch._foreach_mul(self._u, x))
        torch._foreach_sub_(rest, torch._foreach_mul(self._v, y))
        return Place(x, y, _norm(rest))

    def evaluate(
        self,
        model: nn.Module,
        xs: Sequence[float],
        ys: Sequence[float],
        losses: Mapping[str, Callable[[], Tensor]],
        *,
        at_once: int = 1,
    ) -> Iterator[dict[str, list[float]]]:
        """Losses on a grid, row by row: for each y, {name: the loss at each x}.

        model: one whose parameters the plane's weights are of. losses: name → a function of nothing that returns the
        model's loss on a fixed batch, a scalar. at_once: how many points are evaluated together, their weights stacked
        and the losses under vmap, which keeps a GPU busy (on a CPU one at a time is as fast); the same values up to
        rounding. The model's weights are put back at the end, or when this is closed.
        Raises ForgetlabError where the model lacks one of the plane's weights.
        """
        parameters = dict(model.named_parameters())
        if missing := [name for name in self.names if name not in parameters]:
            raise ForgetlabError(f"the model has no parameter {missing[0]!r}, which the plane's weights hold")
        points = [(x, y) for y in ys for x in xs]
        if whole("at_once", at_once) > 1:
            values = self._stacked(model, points, losses, at_once)
        else:
            values = self._one_by_one([parameters[name].data for name in self.names], points, losses)
        with closing(values):
            for _ in ys:
                row = [next(values) for _ in xs]
                yield {name: torch.stack([value[name] for value in row]).tolist() for name in losses}

    def _one_by_one(
        self, own: list[Tensor], points: Sequence[tuple[float, float]], losses: Mapping[str, Callable[[], Tensor]]
    ) -> Generator[dict[str, Tensor], None, None]:
        before = [t.clone() for t in own]
        try:
            for x, y in points:
                self._write(own, x, y)
                with torch.no_grad():
                    value = {name: loss() for name, loss in losses.items()}
                yield value
        finally:
            torch._foreach_copy_(own, before)

    def _stacked(
        self,
        model: nn.Module,
        points: Sequence[tuple[float, float]],
        losses: Mapping[str, Callable[[], Tensor]],
        at_once: int,
    ) -> Generator[dict[str, Tensor], None, None]:
        def loss_of(weights: Weights) -> dict[str, Tensor]:
            return {name: with_weights(model, weights, loss) for name, loss in losses.items()}

        for some in torch.tensor(points, device=self._origin[0].device).split(at_once):
            x, y = (column.to(self._origin[0].dtype) for column in some.T)
            stack = {
                name: t + torch.einsum("k,...->k...", x, u) + torch.einsum("k,...->k...", y, v)
                for name, t, u, v in zip(self.names, self._origin, self._u, self._v, strict=True)
            }
            with torch.no_grad(), eager_attention(model):
                found = vmap(loss_of, randomness="same")(stack)
            yield from ({name: values[i] for name, values in found.items()} for i in range(len(some)))

    def _write(self, weights: list[Tensor], x: float, y: float) -> None:
        torch._foreach_copy_(weights, self._origin)
        torch._foreach_add_(weights, self._u, alpha=x)
        torch._foreach_add_(weights, self._v, alpha=y)

    def _from_origin(self, weights: Weights) -> list[Tensor]:
        if odd := sorted(set(self.names) ^ set(weights)):
            raise ForgetlabError(f"{odd[0]!r} is in one of the sets of weights only; expected weights of one model")
        for name, start in zip(self.names, self._origin, strict=True):
            if weights[name].shape != start.shape:
                raise ForgetlabError(
                    f"{name!r} has the shapes {[*start.shape]} and {[*weights[name].shape]}; expected the same"
                )
        return list(torch._foreach_sub([weights[name].detach() for name in self.names], self._origin))


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of a model's parameters by name, tied ones once."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return float(torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum())


def _norm(a: Sequence[Tensor]) -> float:
    return math.sqrt(_dot(a, a))
