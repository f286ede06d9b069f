"""Checks of lesson 05: the cosine between two gradients, and the projections that keep a step from harming."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from forgetlab.interference import gradient_cosine
from forgetlab.remedies.projection import agem, pcgrad
from forgetlab.teaching.exercises.checking import Verdict, diagnose

Named = Mapping[str, Tensor]


def check_cosine(function: Callable[..., Any]) -> Verdict:
    """Judge `function(new, old)`: the cosine between two gradients over every weight that is in both.

    new, old: name → gradient; a head of one task alone is in one of them only. The answer is a number in [−1, 1].
    """
    return diagnose(
        function,
        _named_pairs(),
        lambda new, old: gradient_cosine(new, old).total,
        {
            "Each weight got a cosine of its own and you took their mean: a small bias then counts as much as a large "
            "matrix. Add up all products and all squares first, and divide once.": _mean_of_cosines,
            "That is the dot product: it grows with the gradients' lengths. Divide by both norms.": _dot,
            "You divided by the squared norms: the result still depends on the lengths. Take the root of each sum of "
            "squares.": lambda new, old: _dot(new, old) / (_square(new, old) * _square(old, new)),
            "The norm of the old gradient is missing in the denominator: a cosine has both.": lambda new, old: (
                _dot(new, old) / _square(new, old) ** 0.5
            ),
            "The norm of the new gradient is missing in the denominator: a cosine has both.": lambda new, old: (
                _dot(new, old) / _square(old, new) ** 0.5
            ),
            "The norms count a head that the other task does not have: it only lengthens one gradient. Use the names "
            "that are in both.": lambda new, old: _dot(new, old) / (_dot(new, new) * _dot(old, old)) ** 0.5,
            "The size is right, the sign is not: a conflict must come out below 0.": lambda new, old: (
                -gradient_cosine(new, old).total
            ),
        },
        "Your cosine agrees with the library's, and no head of one task alone counts.",
    )


def check_projection(function: Callable[..., Any]) -> Verdict:
    """Judge `function(g, r)`: A-GEM's gradient, g without its part against r where the two conflict.

    g, r: (P,) gradients of the new task and of the memory. The answer is (P,).
    """
    return diagnose(
        function,
        _pairs(),
        agem,
        {
            "It projects although the two agree (g·r ≥ 0): that takes away a part that helps the old task. Change "
            "the gradient only where g·r < 0.": lambda g, r: g - (g @ r) / (r @ r) * r,
            "The condition is turned round: it changes the gradient where the two agree, and leaves it where they "
            "conflict.": lambda g, r: g - (g @ r) / (r @ r) * r if g @ r > 0 else g,
            "Wrong sign: adding the part along r doubles the conflict. Subtract it.": lambda g, r: (
                g + (g @ r) / (r @ r) * r if g @ r < 0 else g
            ),
            "The division by the squared norm ‖r‖² is missing: without it too much is taken away wherever r is longer "
            "than 1, and too little where it is shorter.": lambda g, r: g - (g @ r) * r if g @ r < 0 else g,
            "You divided by the norm ‖r‖, which is right for a unit vector times r only; the share along r is "
            "g·r / ‖r‖².": lambda g, r: g - (g @ r) / r.norm() * r if g @ r < 0 else g,
            "You divided by ‖g‖²: the share along r is measured in lengths of r, so ‖r‖² belongs there.": lambda g, r: (
                g - (g @ r) / (g @ g) * r if g @ r < 0 else g
            ),
            "What comes back is the part along r. It is what must go: subtract it from g.": lambda g, r: (
                (g @ r) / (r @ r) * r if g @ r < 0 else g
            ),
            "It never projects: where g·r < 0 the step still raises the old loss.": lambda g, r: g,
        },
        "Where the gradients conflict the result is at a right angle to r; elsewhere g is left alone.",
    )


def check_pcgrad(function: Callable[..., Any]) -> Verdict:
    """Judge `function(a, b)`: PCGrad's update for two tasks, the sum of the two gradients after surgery, (P,)."""
    return diagnose(
        function,
        _pairs(),
        lambda a, b: pcgrad(torch.stack([a, b]), torch.Generator().manual_seed(0)),
        {
            "It projects although the two agree (a·b ≥ 0). Surgery is for conflicts only: else add the two up as they "
            "are.": lambda a, b: _off(a, b) + _off(b, a),
            "That is the plain sum, as in multi-task training: nothing was projected.": lambda a, b: a + b,
            "Only the first gradient was changed: nothing conflicts any more once a is projected, so that b stays as "
            "it was. Project each off the other as it was before any surgery.": lambda a, b: (
                _off(a, b) + b if a @ b < 0 else a + b
            ),
            "Only the second gradient was changed; PCGrad treats both tasks alike. Project each off the other as it "
            "was before any surgery.": lambda a, b: a + _off(b, a) if a @ b < 0 else a + b,
            "You took the mean of the two; PCGrad follows their sum.": lambda a, b: (
                (_off(a, b) + _off(b, a)) / 2 if a @ b < 0 else (a + b) / 2
            ),
            "Wrong sign: what opposes the other task must be subtracted, not added.": lambda a, b: (
                2 * (a + b) - _off(a, b) - _off(b, a) if a @ b < 0 else a + b
            ),
            "The division by the squared norm is missing: the part of a along b is (a·b / ‖b‖²) b.": lambda a, b: (
                a - (a @ b) * b + b - (a @ b) * a if a @ b < 0 else a + b
            ),
        },
        "Each gradient lost what opposes the other one, and the sum of the two opposes neither.",
    )


def _pairs() -> list[tuple[Tensor, Tensor]]:
    """Conflicting, agreeing, at an angle of 90°, and longer ones at random."""
    generator = torch.Generator().manual_seed(5)
    fixed = [([1.0, 2.0], [-3.0, 0.5]), ([1.0, 2.0], [2.0, 0.5]), ([0.0, 1.5], [2.0, 0.0])]
    pairs = [(torch.tensor(x), torch.tensor(y)) for x, y in fixed]
    a, b = torch.randn(2, 12, generator=generator)
    clash = a if a @ b < 0 else -a
    return [*pairs, (0.7 * clash, 1.6 * b), (-0.7 * clash, 1.6 * b)]


def _named_pairs() -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Gradients of three weights, the last pair with a head of its own on each side."""
    generator = torch.Generator().manual_seed(6)
    shapes = {"embeddings.weight": (5, 3), "layer.0.weight": (3, 3), "layer.0.bias": (3,)}
    pairs = []
    for _ in range(3):
        pair = [{name: torch.randn(shape, generator=generator) for name, shape in shapes.items()} for _ in range(2)]
        pairs.append((pair[0], pair[1]))
    pairs[1][1].update({name: -g + 0.3 * pairs[1][1][name] for name, g in pairs[1][0].items()})  # a strong conflict
    pairs[2][0]["heads.sentiment.weight"] = torch.randn((2, 3), generator=generator)
    pairs[2][1]["heads.entities.weight"] = torch.randn((4, 3), generator=generator)
    return pairs


def _dot(a: Named, b: Named) -> float:
    return float(sum((a[name] * b[name]).sum() for name in a if name in b))


def _mean_of_cosines(new: Named, old: Named) -> float:
    shared = [name for name in new if name in old]
    return sum(gradient_cosine({n: new[n]}, {n: old[n]}).total for n in shared) / len(shared)


def _square(of: Named, other: Named) -> float:
    """‖·‖² of one gradient, over the names that are in both."""
    return float(sum((of[name] ** 2).sum() for name in of if name in other))


def _off(a: Tensor, b: Tensor) -> Tensor:
    """a without its part along b, whatever the angle."""
    return a - (a @ b) / (b @ b) * b
