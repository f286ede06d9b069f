"""Distributions and perplexity; the language model is a table of p(next | last), so that all is rational."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Any

from benchmarks.golden.exact import dec, kl, mean, softmax
from benchmarks.golden.values import Formula, Value

LOGITS = {
    "before": [[1.0, 0.5, -0.5, 2.0], [0.0, 0.25, 1.5, -1.0], [2.0, 2.0, -1.0, 0.0]],
    "after": [[0.5, 1.5, -1.0, 1.0], [0.5, 0.25, -0.5, 0.0], [0.0, 1.0, 2.5, -0.5]],
}
TABLE = {
    "table": [[0.125, 0.5, 0.125, 0.25], [0.3, 0.2, 0.4, 0.1], [0.6, 0.1, 0.2, 0.1], [0.4, 0.25, 0.3, 0.05]],
    "texts": [[0, 1, 2, 1], [2, 0], [1, 1, 0, 2, 2, 0, 1]],
    "end": 3,
}
UNSHIFTED = "unshifted targets: each place is scored on the token just read"


def both_ways(before: Any, after: Any) -> list[tuple[Decimal, Decimal]]:
    places = [(softmax(b), softmax(a)) for b, a in zip(before, after, strict=True)]
    return [(kl(p, q), kl(q, p)) for p, q in places]


def divergence(name: str, side: int, words: str, source: str) -> Value:
    def of(which: int) -> Formula:
        return lambda **k: mean(pair[which] for pair in both_ways(**k))

    exact = of(side)
    return Value(
        name,
        f"mean over places of Σ_v p (ln p − ln q), {words}",
        source,
        "logits (places, vocabulary); nats; the mean over places",
        exact,
        [LOGITS],
        conventions={
            "the other direction": of(1 - side),
            "in bits": lambda **k: exact(**k) / Decimal(2).ln(),
            "a sum over the places": lambda **k: exact(**k) * len(k["before"]),
            "the mean of both directions": lambda **k: (of(0)(**k) + of(1)(**k)) / 2,
        },
        mistakes={
            "the mean over places and vocabulary (torch's reduction='mean')": lambda **k: (
                exact(**k) / len(k["before"][0])
            ),
        },
    )


def nll(table: Any, texts: Any, end: int, *, start: bool = False, stop: bool = False) -> list[list[Decimal]]:
    """−ln of each token after the one before it. start, stop: an end token stands before, after each text."""
    whole = [[end] * start + text + [end] * stop for text in texts]
    return [[-dec(table[a][b]).ln() for a, b in pairwise(text)] for text in whole]


def unshifted(table: Any, texts: Any, **_: Any) -> list[list[Decimal]]:
    return [[-dec(table[token][token]).ln() for token in text] for text in texts]


def padded(table: Any, texts: Any, end: int) -> dict[str, Any]:
    most = max(map(len, texts))
    return {"table": table, "texts": [text + [end] * (most - len(text)) for text in texts], "end": end}


def corpus(losses: list[list[Decimal]], tokens: int | None = None) -> Decimal:
    flat = [loss for text in losses for loss in text]
    return (sum(flat, Decimal(0)) / (tokens or len(flat))).exp()  # exp(Σ NLL / Σ tokens)


def by_text(losses: list[list[Decimal]]) -> Decimal:
    return mean(mean(text).exp() for text in losses)


def weighted_by_length(**k: Any) -> Decimal:
    tokens = [len(text) for text in k["texts"]]
    return (sum(mean(t) * n for t, n in zip(nll(**k), tokens, strict=True)) / sum(tokens)).exp()


VALUES = (
    divergence("kl_before_after", 0, "p: before, q: after", "Kullback & Leibler 1951"),
    divergence("kl_after_before", 1, "p: after, q: before", "Kullback & Leibler 1951; as RLHF's penalty, Ziegler 2019"),
    Value(
        "perplexity",
        "exp(Σ NLL / Σ tokens)",
        "Jelinek et al. 1977",
        "table[a][b] = p(b | a) is the model; each text's own tokens but the first, which nothing predicts; "
        "no padding, no end token; every token weighs the same",
        lambda **k: corpus(nll(**k)),
        [TABLE],
        conventions={
            "an end token after each text is scored too": lambda **k: corpus(nll(**k, stop=True)),
            "the first token is scored too, after an end token (rolling log-likelihood)": lambda **k: corpus(
                nll(**k, start=True)
            ),
            "first token and end token are scored too": lambda **k: corpus(nll(**k, start=True, stop=True)),
            "exp of the mean over texts of their mean losses": lambda **k: mean(map(mean, nll(**k))).exp(),
            "the mean over texts of their perplexities": lambda **k: by_text(nll(**k)),
            "the mean over texts of their perplexities, the first token scored after an end token": lambda **k: by_text(
                nll(**k, start=True)
            ),
            "the mean loss in nats, no exp": lambda **k: corpus(nll(**k)).ln(),
            "the mean loss in bits": lambda **k: corpus(nll(**k)).ln() / Decimal(2).ln(),
            "the mean over texts of the geometric mean probability of a token": lambda **k: mean(
                1 / mean(text).exp() for text in nll(**k)
            ),
            "one over it: the geometric mean probability of a token": lambda **k: 1 / corpus(nll(**k)),
        },
        mistakes={
            UNSHIFTED: lambda **k: corpus(unshifted(**k)),
            f"{UNSHIFTED}; so is the padding": lambda **k: corpus(unshifted(**padded(**k))),
            "padding is scored": lambda **k: corpus(nll(**padded(**k))),
            "each text's mean loss weighs by all its tokens, the unscored first one too": weighted_by_length,
            "the sum is divided by all tokens, the unscored first ones too": lambda **k: corpus(
                nll(**k), sum(map(len, k["texts"]))
            ),
        },
    ),
    Value(
        "perplexity_ratio",
        "PPL_after / PPL_before = exp(ΔCE)",
        "by definition",
        "1 = unchanged, above 1 = worse",
        lambda before, after: after / before,
        [{"before": 15.0, "after": 45.0}, {"before": 8.0, "after": 6.0}],
        conventions={
            "the difference of the losses, ln of the ratio": lambda before, after: dec(after / before).ln(),
            "the relative change, the ratio less 1": lambda before, after: after / before - 1,
        },
        mistakes={
            "a difference of perplexities instead of their ratio": lambda before, after: after - before,
            "before / after": lambda before, after: before / after,
        },
    ),
)
