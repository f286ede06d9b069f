"""Checks of lesson 06: the pulls of L2-SP and EWC, and the proximal step that is stable at any strength."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from forgetlab.teaching.exercises.checking import Verdict, diagnose

Values = Mapping[str, Tensor]
NEW_HEAD = "heads.sentiment"
TO_ZERO = (
    "The anchor is missing: this pulls the weights to 0, which is weight decay. Pull them to where they were: remember "
    "θ₀, and take it off before you square."
)


def check_l2sp(function: Callable[..., Any]) -> Verdict:
    """Judge `function(weights, lam)`, which remembers the weights and returns the pull: a function of nothing.

    weights: name → parameter, changed in place by the training that follows. Names with "heads.sentiment" are new and
    are left out. The pull returns (λ/2) Σ (θ − θ₀)², whose gradient is λ (θ − θ₀).
    """

    def right(start: Values, moves: Values, lam: float) -> dict[str, Any]:
        old = {name: move for name, move in moves.items() if NEW_HEAD not in name}
        value = lam / 2 * sum(float((move**2).sum()) for move in old.values())
        return {"penalty": value, "gradient": {n: lam * m if n in old else 0 * m for n, m in moves.items()}}

    def mistaken(value: Callable[[Values, float], float], slope: Callable[[str, Tensor], Tensor]) -> Any:
        """What a wrong pull of this value shows; slope: its gradient for λ = 1, by a weight's name and move."""

        def shown(start: Values, moves: Values, lam: float) -> dict[str, Any]:
            return {"penalty": value(moves, lam), "gradient": {n: lam * slope(n, m) for n, m in moves.items()}}

        return shown

    def kept(name: str, move: Tensor) -> Tensor:
        return 0 * move if NEW_HEAD in name else move

    def decay(everything: bool) -> Any:
        def shown(start: Values, moves: Values, lam: float) -> dict[str, Any]:
            now = {n: start[n] + m if everything or NEW_HEAD not in n else 0 * m for n, m in moves.items()}
            value = lam / 2 * sum(float((p**2).sum()) for p in now.values())
            return {"penalty": value, "gradient": {n: lam * p for n, p in now.items()}}

        return shown

    def half(moves: Values, lam: float) -> float:
        return lam / 2 * sum(float((kept(n, m) ** 2).sum()) for n, m in moves.items())

    count = sum(m.numel() for n, m in _l2sp_cases()[0][1].items() if NEW_HEAD not in n)
    probe = _pull_probe(function) if callable(function) else function
    return diagnose(
        probe,
        _l2sp_cases(),
        right,
        {
            "The penalty stays 0 after the weights have moved: what you compare with moves along. Either the weights "
            "themselves are remembered, not a copy, or the copy is taken inside `pull`, anew at each call. Clone each "
            "of them once, before `pull`.": mistaken(lambda moves, lam: 0.0, lambda n, m: 0 * m),
            "The value is right but its gradient is 0: it flows into the anchor too, and the two cancel. Detach what "
            "you remember.": mistaken(half, lambda n, m: 0 * m),
            "The new head is pulled too, towards its random start: that only holds back the new task. Leave out the "
            "names that hold heads.sentiment.": mistaken(
                lambda moves, lam: lam / 2 * sum(float((m**2).sum()) for m in moves.values()), lambda n, m: m
            ),
            "The factor ½ is missing: your λ pulls twice as hard as the formula's.": mistaken(
                lambda moves, lam: 2 * half(moves, lam), lambda n, m: 2 * kept(n, m)
            ),
            "The square is missing: plain differences cancel each other, and moving down would even be rewarded. "
            "Square each difference.": mistaken(
                lambda moves, lam: lam / 2 * sum(float(kept(n, m).sum()) for n, m in moves.items()),
                lambda n, m: kept(n, torch.ones_like(m) / 2),
            ),
            "The square is missing: absolute values pull equally hard at any distance. Square each difference.": (
                mistaken(
                    lambda moves, lam: lam / 2 * sum(float(kept(n, m).abs().sum()) for n, m in moves.items()),
                    lambda n, m: kept(n, m.sign() / 2),
                )
            ),
            "You took the mean over the weights: λ then means something else for every size of model. The formula has "
            "the sum.": mistaken(lambda moves, lam: half(moves, lam) / count, lambda n, m: kept(n, m) / count),
            "λ is missing: the strength cannot be set.": lambda start, moves, lam: right(start, moves, 1.0),
            TO_ZERO: decay(everything=False),
            f"{TO_ZERO} And the new head is pulled along: leave out the names that hold {NEW_HEAD}.": decay(True),
        },
        "The value is (λ/2) Σ (θ − θ₀)², its gradient λ (θ − θ₀), and the new head is free.",
    )


def check_proximal(function: Callable[..., Any]) -> Verdict:
    """Judge `function(theta, anchor, s)`: the proximal step towards the anchor, with s = ηλF for each weight.

    theta, anchor, s: (P,). The answer is the z that minimises (z − θ)² + s (z − θ*)², (P,).
    """

    def by_newton(theta: Tensor, anchor: Tensor, s: Tensor) -> Tensor:
        slope = 2 * s * (theta - anchor)  # at z = θ; the objective is a parabola, so that one step is exact
        return theta - slope / (2 + 2 * s)

    return diagnose(
        function,
        _proximal_cases(),
        by_newton,
        {
            "That is the plain gradient step: with s > 2 it jumps past the anchor and lands farther away than it "
            "was. Divide by 1 + s.": lambda theta, anchor, s: theta - s * (theta - anchor),
            "The roles are exchanged: at s = 0 nothing pulls, and the weight must stay where it is.": (
                lambda theta, anchor, s: (s * theta + anchor) / (1 + s)
            ),
            "The division by 1 + s is missing: the two shares must add up to 1.": lambda theta, anchor, s: (
                theta + s * anchor
            ),
            "The pull counts twice. Set the derivative 2 (z − θ) + 2 s (z − θ*) to 0: the 2 is in both terms and "
            "falls out.": lambda theta, anchor, s: (theta + 2 * s * anchor) / (1 + 2 * s),
            "It jumps onto the anchor: only an infinite strength does that.": lambda theta, anchor, s: anchor,
            "The weight does not move: the anchor must pull it.": lambda theta, anchor, s: theta,
            "The anchor is missing: this shrinks weights towards 0, which is weight decay.": lambda theta, anchor, s: (
                theta / (1 + s)
            ),
            "The distance to the anchor is divided, but the step starts from the wrong side: begin at θ.": (
                lambda theta, anchor, s: anchor - (theta - anchor) / (1 + s)
            ),
        },
        "The weight lands between where it was and the anchor, at any strength.",
    )


def check_ewc(function: Callable[..., Any]) -> Verdict:
    """Judge `function(weights, anchor, fisher, lam)`: (λ/2) Σ F (θ − θ*)², the arguments by name, a scalar."""

    def total(term: Callable[[Tensor, Tensor], Tensor], mean: bool = False) -> Callable[..., float]:
        def value(weights: Values, anchor: Values, fisher: Values, lam: float) -> float:
            terms = torch.cat([term(fisher[n], p - anchor[n]).flatten() for n, p in weights.items()]).double()
            return lam / 2 * float(terms.mean() if mean else terms.sum())

        return value

    def of_means(weights: Values, anchor: Values, fisher: Values, lam: float) -> float:
        return lam / 2 * sum(float((fisher[n] * (p - anchor[n]) ** 2).mean()) for n, p in weights.items())

    return diagnose(
        function,
        _ewc_cases(),
        total(lambda f, d: f * d**2),
        {
            "The Fisher information is not used: every weight is pulled alike, which is L2-SP.": total(
                lambda f, d: d**2
            ),
            "The Fisher information is squared, perhaps as it stands inside the square: important weights then count "
            "far too much. It belongs outside, F (θ − θ*)².": total(lambda f, d: (f * d) ** 2),
            "You took the mean over all weights: λ then depends on the size of the model. The formula has the "
            "sum.": total(lambda f, d: f * d**2, mean=True),
            "You took the mean within each tensor: one number of a bias then counts as much as a whole matrix. The "
            "formula sums over all weights.": of_means,
            "The factor ½ is missing: the penalty is twice the formula's.": total(lambda f, d: 2 * f * d**2),
            "The square is missing: moves up and down cancel.": total(lambda f, d: f * d),
            "The square is missing: the absolute value pulls equally hard at any distance.": total(
                lambda f, d: f * d.abs()
            ),
            "λ is missing: the strength cannot be set.": lambda weights, anchor, fisher, lam: total(
                lambda f, d: f * d**2
            )(weights, anchor, fisher, 1.0),
        },
        "Each weight is pulled as strongly as its Fisher information says.",
    )


def _pull_probe(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a case that trains with the learner's pull: what it says, and what it does to each weight."""

    def probe(start: Values, moves: Values, lam: float) -> dict[str, Any] | None:
        weights = {name: torch.nn.Parameter(value.clone()) for name, value in start.items()}
        pull = function(weights, lam)
        if pull is None or pull is Ellipsis:
            return None
        if not callable(pull):
            raise TypeError(f"expected a function that gives the penalty later, got {type(pull).__name__}")
        with torch.no_grad():  # as an optimizer does
            for name, move in moves.items():
                weights[name].add_(move)
        value = pull()
        if value is None or value is Ellipsis:
            return None
        if not isinstance(value, Tensor):
            raise TypeError(f"the pull must give a tensor that can be differentiated, got {type(value).__name__}")
        if not value.requires_grad:
            raise TypeError("the penalty has no gradient; compute it from the weights, and detach the anchor only")
        value.sum().backward()
        gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in weights.items()}
        return {"penalty": value, "gradient": gradients}

    return probe


def _l2sp_cases() -> list[tuple[dict[str, Tensor], dict[str, Tensor], float]]:
    """(weights at the start, how each moves, λ)."""
    generator = torch.Generator().manual_seed(7)
    shapes = {"layer.0.weight": (3, 4), "layer.0.bias": (4,), f"{NEW_HEAD}.weight": (2, 4)}

    def drawn(scale: float) -> dict[str, Tensor]:
        return {name: scale * torch.randn(shape, generator=generator) for name, shape in shapes.items()}

    return [(drawn(1.0), drawn(0.5), 0.3), (drawn(1.0), drawn(0.1), 4.0)]


def _proximal_cases() -> list[tuple[Tensor, Tensor, Tensor]]:
    """(θ, θ*, ηλF): free, soft and stiff weights."""
    generator = torch.Generator().manual_seed(8)
    strengths = (torch.tensor([0.0, 0.1, 1.0, 5.0, 1e3]), torch.full((5,), 0.3))
    return [(torch.randn(5, generator=generator), torch.randn(5, generator=generator), s) for s in strengths]


def _ewc_cases() -> list[tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor], float]]:
    """(weights, anchor, Fisher, λ); the Fisher information spans four powers of ten, as a real one does."""
    generator = torch.Generator().manual_seed(9)
    shapes = {"layer.0.weight": (3, 4), "layer.0.bias": (4,)}

    def drawn() -> dict[str, Tensor]:
        return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}

    cases = []
    for lam in (0.5, 20.0):
        fisher = {name: 10 ** (4 * torch.rand(shape, generator=generator) - 3) for name, shape in shapes.items()}
        cases.append((drawn(), drawn(), fisher, lam))
    return cases
