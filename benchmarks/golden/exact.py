"""What the formulas of the kit share, slow and exact: fractions, and decimals of 50 digits for roots, ln and exp.

Written from the papers alone; nothing here knows forgetlab, numpy or torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal, getcontext
from fractions import Fraction
from typing import Any

getcontext().prec = 50
Matrix = Sequence[Sequence[Fraction]]
Table = list[list[Decimal]]


def dec(x: Any) -> Decimal:
    return x if isinstance(x, Decimal) else Decimal(Fraction(x).numerator) / Decimal(Fraction(x).denominator)


def mean(values: Iterable[Any]) -> Any:
    found = list(values)
    return sum(found) / len(found)


def softmax(logits: Iterable[Any]) -> list[Decimal]:
    powers = [dec(z).exp() for z in logits]
    return [power / sum(powers) for power in powers]


def kl(p: Sequence[Decimal], q: Sequence[Decimal]) -> Decimal:
    return sum((a * (a / b).ln() for a, b in zip(p, q, strict=True)), Decimal(0))


def probabilities(W: Matrix, inputs: Matrix) -> Table:
    """softmax(W x) of each input."""
    return [softmax(sum(w * x for w, x in zip(row, one, strict=True)) for row in W) for one in inputs]


def residual(label: int, c: int, p: Decimal) -> Decimal:
    """∂ log p(y|x) / ∂(W x)_c = 1[y = c] − p_c."""
    return (label == c) - p


def fisher(W: Matrix, inputs: Matrix, square: Callable[[int, int, Decimal], Decimal]) -> Table:
    """mean_x square(example, class, p) · x², (classes, inputs)."""
    p = probabilities(W, inputs)
    return [
        [mean(square(n, c, p[n][c]) * dec(x[d]) ** 2 for n, x in enumerate(inputs)) for d in range(len(W[0]))]
        for c in range(len(W))
    ]


def times(factor: Any, table: Table) -> Table:
    return [[dec(factor) * value for value in row] for row in table]


def gram(X: Matrix) -> list[list[Fraction]]:
    return [[sum((a * b for a, b in zip(x, y, strict=True)), Fraction(0)) for y in X] for x in X]


def centred(K: Matrix) -> list[list[Fraction]]:
    """HKH, H = I − 11ᵀ/n."""
    rows, columns, whole = [mean(r) for r in K], [mean(c) for c in zip(*K, strict=True)], mean(x for r in K for x in r)
    return [[x - rows[i] - columns[j] + whole for j, x in enumerate(row)] for i, row in enumerate(K)]


def inner(K: Matrix, L: Matrix) -> Fraction:
    return sum((a * b for k, l in zip(K, L, strict=True) for a, b in zip(k, l, strict=True)), Fraction(0))


def hsic_1(K: Matrix, L: Matrix) -> Fraction:
    """Song et al. 2012, eq. 5, without the factor 1 / (n (n − 3)), which cancels in CKA."""
    n = len(K)
    k, l = ([[x * (i != j) for j, x in enumerate(r)] for i, r in enumerate(M)] for M in (K, L))
    both = sum(map(sum, k)) * sum(map(sum, l)) / Fraction((n - 1) * (n - 2))
    return inner(k, l) + both - Fraction(2, n - 2) * sum(sum(a) * sum(b) for a, b in zip(k, l, strict=True))


def cka(X: Matrix, Y: Matrix, hsic: Callable[[Matrix, Matrix], Fraction], prepare: Any = lambda K: K) -> Decimal:
    """HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)) with linear kernels."""
    K, L = prepare(gram(X)), prepare(gram(Y))
    return dec(hsic(K, L)) / dec(hsic(K, K) * hsic(L, L)).sqrt()
