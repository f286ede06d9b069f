"""Right and wrong answers before and after: flips, what is kept, calibration."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction as F
from typing import Any

from benchmarks.golden.exact import mean
from benchmarks.golden.values import Formula, Value

ITEMS = {
    "before": [1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 1, 1, 0, 1],
    "after": [1, 0, 1, 0, 0, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0],
}
SCORES = [(0.9, 0.6, 0.5), (0.8, 0.9, 0.25), (0.7, 0.2, 0.25), (0.85, 0.7, 0.25)]
PREDICTED = {
    "probabilities": [
        *([0.5, 0.3, 0.2], [0.75, 0.2, 0.05], [0.22, 0.68, 0.1], [0.1, 0.05, 0.85]),
        *([0.35, 0.45, 0.2], [0.9, 0.06, 0.04], [0.27, 0.33, 0.4], [0.05, 0.31, 0.64]),
    ],
    "labels": [0, 1, 1, 2, 0, 0, 2, 2],
    "bins": 4,
}
HARMON = "Harmon et al. 2025 (arXiv 2510.17776)"


def counts(before: list[int], after: list[int], **_: Any) -> tuple[int, int]:
    """Items 1→0 and 0→1."""
    both = list(zip(before, after, strict=True))
    return both.count((1, 0)), both.count((0, 1))


def pair(lost: Any, gained: Any) -> dict[str, Any]:
    return {"lost": lost, "gained": gained}


def above(before: Any, after: Any, chance: F, clip: bool = True) -> dict[str, Any]:
    found = [F(count, len(before)) - chance for count in counts(before, after)]
    return pair(*(max(x, F(0)) if clip else x for x in found))


def by_guessing(before: Any, after: Any, options: int) -> F:
    """Lucky before, (1 − a)/(k − 1) of the answers, and wrong after; the other way round it is the same."""
    return (1 - F(sum(before), len(before))) * (1 - F(sum(after), len(after))) / (options - 1)


def corrected(before: Any, after: Any, options: int) -> dict[str, Any]:
    change = F(sum(after) - sum(before), len(before)) * F(options, options - 1)
    return pair(max(-change, F(0)), max(change, F(0)))


def known(before: Any, after: Any, options: int) -> dict[str, F]:
    """Known (right) or guessed right with g = 1/k: P(1→0) = L (1 − g) + U g (1 − g), P(0→0) = U (1 − g)²; L of both."""
    g, neither = F(1, options), F(list(zip(before, after, strict=True)).count((0, 0)), len(before))
    found = [F(n, len(before)) / (1 - g) - neither * g / (1 - g) ** 2 for n in counts(before, after)]
    return pair(*(min(max(share, F(0)), F(1)) for share in found))


def harmon(**k: Any) -> dict[str, Any]:
    return above(k["before"], k["after"], by_guessing(**k))


def upper_closed(confidence: list[F], bins: int) -> list[int]:
    return [-((-c * bins) // 1) - 1 for c in confidence]  # (lower, upper]: ⌈c · bins⌉ − 1


def lower_closed(confidence: list[F], bins: int) -> list[int]:
    return [min(c * bins // 1, bins - 1) for c in confidence]  # [lower, upper)


def equal_counts(confidence: list[F], bins: int) -> list[int]:
    order = sorted(range(len(confidence)), key=lambda i: confidence[i])
    return [order.index(i) * bins // len(order) for i in range(len(order))]


def gaps(confidence: list[F], right: list[int], bin_of: list[int]) -> dict[int, tuple[F, int]]:
    """{bin: (|Σ (right − confidence)|, its items)}."""
    rows = {b: [i for i, one in enumerate(bin_of) if one == b] for b in bin_of}
    return {b: (abs(sum((right[i] - confidence[i] for i in where), F(0))), len(where)) for b, where in rows.items()}


def top(probabilities: Any, labels: Any) -> tuple[list[F], list[int]]:
    best = [max(row) for row in probabilities]
    return best, [int(row.index(b) == y) for row, b, y in zip(probabilities, best, labels, strict=True)]


def ece(how: Callable[[list[F], int], list[int]], bins: int | None = None) -> Formula:
    def of(**k: Any) -> F:
        confidence, right = top(k["probabilities"], k["labels"])
        found = gaps(confidence, right, how(confidence, bins or k["bins"]))
        return sum((gap for gap, _ in found.values()), F(0)) / len(right)

    return of


def largest(probabilities: Any, labels: Any, bins: int) -> F:
    confidence, right = top(probabilities, labels)
    return max(gap / n for gap, n in gaps(confidence, right, upper_closed(confidence, bins)).values())


def by_class(probabilities: Any, labels: Any, bins: int) -> F:
    found = []
    for c in range(len(probabilities[0])):
        p, there = [row[c] for row in probabilities], [int(y == c) for y in labels]
        found.append(sum((gap for gap, _ in gaps(p, there, upper_closed(p, bins)).values()), F(0)) / len(labels))
    return mean(found)


VALUES = (
    Value(
        "flips",
        "items 1→0 and 0→1",
        HARMON,
        "counts: lost and gained",
        lambda **k: pair(*counts(**k)),
        [ITEMS],
        conventions={"shares instead of counts": lambda **k: above(**k, chance=F(0))},
        mistakes={"lost and gained are exchanged": lambda **k: pair(*counts(**k)[::-1])},
    ),
    Value(
        "flips_above_guessing",
        "max(0, lost/n − g), max(0, gained/n − g), g = (1 − a_before)(1 − a_after) / (k − 1)",
        f"{HARMON}, chance-adjusted forgetting and backward transfer",
        "options: k of each question; who does not know guesses evenly; items wrong before and after are independent",
        harmon,
        [{**ITEMS, "options": k} for k in (4, 3, 2)],
        conventions={
            "not clipped at 0": lambda **k: above(k["before"], k["after"], by_guessing(**k), clip=False),
            "the shares of items known before and not after, and the reverse (knowledge_flips)": known,
            "the change of the accuracy corrected for guessing, not item by item": corrected,
        },
        mistakes={
            "guessing is not subtracted": lambda **k: above(k["before"], k["after"], F(0)),
            "subtracts what would flip if all answers were guesses, (1/k)(1 − 1/k)": lambda **k: above(
                k["before"], k["after"], F(1, k["options"]) * (1 - F(1, k["options"]))
            ),
        },
    ),
    Value(
        "knowledge_flips",
        "L = P(1→0)/(1 − g) − P(0→0) g/(1 − g)², g = 1/k, in [0, 1]; gained: the same with P(0→1)",
        "from P(1→0) = L (1 − g) + U g (1 − g), P(0→0) = U (1 − g)², solved for L: known (right) or guessed, Lord 1975",
        "shares of all items that were known and are not (lost), and the reverse (gained); U: never known",
        known,
        [{**ITEMS, "options": k} for k in (4, 3, 2)],
        conventions={
            "chance-adjusted flips (flips_above_guessing)": harmon,
            "the change of the accuracy corrected for guessing, not item by item": corrected,
        },
        mistakes={
            "guessing is not subtracted": lambda **k: above(k["before"], k["after"], F(0)),
            "flips that guessing explains are subtracted, the rest is not scaled up by 1/(1 − g)": lambda **k: {
                name: share * (1 - F(1, k["options"])) for name, share in known(**k).items()
            },
        },
    ),
    Value(
        "kept_share",
        "(after − guess) / (before − guess), in [0, 1]",
        "kappa's (observed − chance) / (1 − chance), Cohen 1960, with `before` for 1",
        "guess: the score of one who knows only the frequencies",
        lambda before, after, guess: min(max((after - guess) / (before - guess), F(0)), F(1)),
        [dict(zip(("before", "after", "guess"), one, strict=True)) for one in SCORES],
        conventions={
            "a ratio of the scores, guessing not subtracted": lambda before, after, guess: after / before,
            "a difference of the scores": lambda before, after, guess: after - before,
            "1 less the loss in points": lambda before, after, guess: 1 - max(before - after, F(0)),
            "1 less the loss in points above 0.02": lambda before, after, guess: (
                1 - max(before - after - F(2, 100), F(0))
            ),
            "the change in percent": lambda before, after, guess: (after - before) / before * 100,
            "not clipped to [0, 1]": lambda before, after, guess: (after - guess) / (before - guess),
        },
    ),
    Value(
        "expected_calibration_error",
        "ECE = Σ_m |B_m|/n · |acc(B_m) − conf(B_m)|",
        "Guo et al. 2017, eq. 3; Naeini et al. 2015",
        "confidence: the top probability; bins of equal width, (lower, upper]",
        ece(upper_closed),
        [PREDICTED],
        conventions={
            "bins are [lower, upper)": ece(lower_closed),
            "bins of equal counts (adaptive)": ece(equal_counts),
            "the mean over the classes of all probabilities' (class-wise)": by_class,
            "the largest gap of a bin (MCE)": largest,
            "10 bins, [lower, upper)": ece(lower_closed, 10),
            "15 bins, (lower, upper]": ece(upper_closed, 15),
        },
    ),
)
