"""Weights and features: diagonal Fisher information in closed form, linear CKA, drift."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction as F
from typing import Any

from benchmarks.golden.exact import centred, cka, dec, fisher, hsic_1, inner, mean, probabilities, residual, times
from benchmarks.golden.values import Value

# p(y|x) = softmax(W x), no bias
SOFTMAX = {
    "weights": [[0.5, -0.25], [0.0, 0.75], [-1.0, 0.25]],
    "inputs": [[1.0, 0.5], [-0.5, 2.0], [2.0, -1.0], [0.25, 1.5], [1.5, 1.0]],
}
LABELS = [0, 2, 0, 1, 1]
FEATURES = {
    "X": [[1.0, 0.5, 2.0], [0.0, 1.5, -1.0], [2.0, -0.5, 0.5], [1.5, 1.0, 0.0], [-1.0, 0.5, 1.0], [0.5, 2.5, 1.5]],
    "Y": [[1.5, -1.0], [1.0, 2.5], [2.0, -0.5], [2.0, 1.0], [-1.0, 0.5], [3.5, 1.5]],
}
MOVED = {
    "before": {"a": [[3.0, 4.0], [0.0, 0.0]], "b": [1.0, 2.0, 2.0]},
    "after": {"a": [[3.0, 1.0], [4.0, 0.0]], "b": [1.0, 2.0, 14.0]},
}
SUM = "a sum over the examples instead of their mean"
HALF = "half of it (the ½ of EWC's penalty folded in)"


def exact(weights: Any, inputs: Any, **_: Any) -> Any:
    return fisher(weights, inputs, lambda n, c, p: p * (1 - p))


def empirical(weights: Any, inputs: Any, labels: Any) -> Any:
    return fisher(weights, inputs, lambda n, c, p: residual(labels[n], c, p) ** 2)


def likeliest(weights: Any, inputs: Any, **_: Any) -> Any:
    return empirical(weights, inputs, [row.index(max(row)) for row in probabilities(weights, inputs)])


def squared_mean(weights: Any, inputs: Any, labels: Any) -> Any:
    p, n, classes = probabilities(weights, inputs), range(len(inputs)), range(len(weights))
    gradient = [
        [mean(residual(labels[i], c, p[i][c]) * dec(inputs[i][d]) for i in n) for d in range(len(weights[0]))]
        for c in classes
    ]
    return [[g**2 for g in row] for row in gradient]


def five_sigma(weights: Any, inputs: Any, draws: int, **_: Any) -> Any:
    """g² is (1 − p)² x² with probability p, else p² x²: the standard error of its mean over draws and examples."""
    p, n = probabilities(weights, inputs), range(len(inputs))
    spread = [[q * (1 - q) * ((1 - q) ** 2 - q**2) ** 2 for q in row] for row in p]
    errors = [
        [
            (sum(spread[i][c] * dec(inputs[i][d]) ** 4 for i in n) / draws).sqrt() / len(n)
            for d in range(len(weights[0]))
        ]
        for c in range(len(weights))
    ]
    return times(5, errors)


def unscaled(**k: Any) -> Any:
    return times(len(k["inputs"]), exact(**k))


def fisher_of_the_model(name: str, convention: str, case: dict[str, Any], tolerance: Any = None) -> Value:
    return Value(
        name,
        "F_cd = mean_x Σ_y p(y|x) (∂ log p(y|x)/∂W_cd)² = mean_x p_c (1 − p_c) x_d², p = softmax(W x)",
        "Kirkpatrick et al. 2017, eq. 3; Martens 2020, section 5; van de Ven 2025",
        convention,
        exact,
        [case],
        conventions={SUM: unscaled, HALF: lambda **k: times(F(1, 2), exact(**k))},
        mistakes={
            "of the most probable label alone": likeliest,
            "the mean over the classes, not weighted by p": lambda **k: times(F(1, len(k["weights"])), exact(**k)),
        },
        tolerance=tolerance,
    )


def biased(X: Any, Y: Any) -> Decimal:
    return cka(X, Y, inner, centred)


def unbiased(X: Any, Y: Any) -> Decimal:
    return cka(X, Y, hsic_1)


def not_centred(X: Any, Y: Any) -> Decimal:
    return cka(X, Y, inner)


def bare(K: Any) -> Any:
    return centred([[x * (i != j) for j, x in enumerate(row)] for i, row in enumerate(K)])


def flat(value: Any) -> list[Any]:
    return [x for one in value for x in flat(one)] if isinstance(value, list) else [value]


def drift(before: Any, after: Any, of: Callable[[list[Decimal]], Decimal] | None = None) -> dict[str, Decimal]:
    """of: the sums of squares of the tensors → their size."""
    tensors = [list(zip(flat(before[name]), flat(after[name]), strict=True)) for name in before]
    size = of or (lambda sums: sum(sums, Decimal(0)).sqrt())
    moved = size([sum(dec(a - b) ** 2 for b, a in pairs) for pairs in tensors])
    return {"total": moved, "relative": moved / size([sum(dec(b) ** 2 for b, _ in pairs) for pairs in tensors])}


VALUES = (
    fisher_of_the_model("fisher_exact", "over all labels, by the model's own probabilities; no bias; in nats", SOFTMAX),
    fisher_of_the_model(
        "fisher_sampled",
        "labels drawn from the model, `draws` for each example; within five standard errors of the exact one",
        {**SOFTMAX, "draws": 4000, "seed": 0},
        five_sigma,
    ),
    Value(
        "fisher_empirical",
        "F_cd = mean_x (∂ log p(y_x|x)/∂W_cd)² = mean_x (1[y_x = c] − p_c)² x_d², p = softmax(W x)",
        "Martens 2020, section 11; Kunstner et al. 2019; van de Ven 2025",
        "y_x: the labels of the data; the gradient of each example is squared, then the mean is taken",
        empirical,
        [{**SOFTMAX, "labels": LABELS}],
        conventions={
            SUM: lambda **k: times(len(k["inputs"]), empirical(**k)),
            "over the model's own labels (the exact Fisher)": exact,
            HALF: lambda **k: times(F(1, 2), empirical(**k)),
        },
        mistakes={
            "the mean gradient of the batch is squared": squared_mean,
            "the summed gradient of the batch is squared": lambda **k: times(len(k["inputs"]) ** 2, squared_mean(**k)),
        },
    ),
    Value(
        "linear_cka_biased",
        "‖YᵀX‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F)",
        "Kornblith et al. 2019, section 3",
        "columns centred; for unrelated features far above 0 unless rows far outnumber columns",
        biased,
        [FEATURES],
        conventions={"unbiased CKA (HSIC_1)": unbiased},
        mistakes={"the features are not centred": not_centred, "its square root": lambda **k: biased(**k).sqrt()},
    ),
    Value(
        "linear_cka_unbiased",
        "HSIC_1(K, L) / √(HSIC_1(K, K) HSIC_1(L, L)), K = XXᵀ, L = YYᵀ",
        "Song et al. 2012, eq. 5; Nguyen et al. 2021, eq. 3",
        "for unrelated features 0 on average; may be below 0",
        unbiased,
        [FEATURES],
        conventions={"biased CKA": biased},
        mistakes={
            "the features are not centred": not_centred,
            "the biased HSIC of kernels without their diagonal": lambda X, Y: cka(X, Y, inner, bare),
        },
    ),
    Value(
        "parameter_drift",
        "‖θ − θ₀‖₂, and ‖θ − θ₀‖₂ / ‖θ₀‖₂",
        "Li et al. 2018 (L2-SP)",
        "one norm over all tensors: total and relative",
        drift,
        [MOVED],
        conventions={
            "root mean squares over the weights": lambda **k: {
                "total": drift(**k)["total"] / Decimal(len(flat(list(k["before"].values())))).sqrt(),
                "relative": drift(**k)["relative"],
            },
        },
        mistakes={
            "the sum of the tensors' norms": lambda **k: drift(
                **k, of=lambda sums: sum((x.sqrt() for x in sums), Decimal(0))
            ),
            "squared norms": lambda **k: drift(**k, of=lambda sums: sum(sums, Decimal(0))),
        },
    ),
)
