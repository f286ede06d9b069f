"""Language: perplexity, minimal pairs, entities, calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from forgetlab.errors import ForgetlabError
from forgetlab.metrics.arrays import Numbers, as_array


def perplexity(nll_sum: Numbers, tokens: Numbers) -> float:
    """Perplexity of a corpus from summed losses and token counts.

    nll_sum: Σ −log p over tokens, in nats; a number or one per batch. tokens: their counts, in the same
    shape. Returns a float >= 1. Raises ForgetlabError for shapes that differ, negative numbers or no tokens.
    The common variant, a mean of per-batch perplexities, changes with the batching.

    >>> round(perplexity([2.0, 8.0], [10, 10]), 3)  # exp(10 / 20)
    1.649
    """
    losses, counts = as_array(nll_sum, "nll_sum"), as_array(tokens, "tokens")
    if losses.shape != counts.shape:
        raise ForgetlabError(f"nll_sum has shape {losses.shape} and tokens {counts.shape}; expected the same")
    if not (np.isfinite(counts).all() and (counts >= 0).all() and counts.sum() > 0):
        raise ForgetlabError(f"tokens sum to {counts.sum():g}; expected finite counts >= 0, not all 0")
    if (losses < 0).any():
        raise ForgetlabError(f"nll_sum holds {losses.min():g}; expected sums of −log p, which are >= 0")
    with np.errstate(over="ignore"):
        return float(np.exp(losses.sum() / counts.sum()))  # exp(Σ NLL / Σ tokens)


def perplexity_ratio(before: float, after: float) -> float:
    """How many times larger the perplexity became: 1 = unchanged, above 1 = worse.

    before, after: perplexities. Returns exp(ΔCE), which compares across corpora; their difference does not.
    Raises ForgetlabError unless `before` is finite and both are above 0.

    >>> perplexity_ratio(15.0, 45.0)
    3.0
    """
    if not (0 < before < math.inf) or after <= 0:
        raise ForgetlabError(f"perplexities {before} and {after}; expected numbers above 0, `before` finite")
    return float(after / before)  # PPL_after / PPL_before = exp(ΔCE)


def minimal_pair_accuracy(good: Numbers, bad: Numbers) -> float:
    """Share of minimal pairs in which the good sentence is the more probable one, 0 to 1; chance is 0.5.

    good, bad: (n,) log-probabilities of the sentences. A tie counts as wrong: the model sees no difference.
    Returns a float. Raises ForgetlabError for other shapes or no pairs.
    Source: Warstadt et al. 2020 (BLiMP): log-probabilities summed over a sentence, not divided by its length.

    >>> minimal_pair_accuracy([-10.0, -12.0], [-11.0, -12.0])
    0.5
    """
    g, b = as_array(good, "good", 1), as_array(bad, "bad", 1)
    if len(g) != len(b) or not len(g):
        raise ForgetlabError(f"{len(g)} good, {len(b)} bad scores; expected as many, at least one")
    return math.nan if np.isnan([g, b]).any() else float((g > b).mean())


def entity_f1(predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> dict[str, float]:
    """Entity-level precision, recall and F1: an entity counts when its extent and its type are exact.

    predicted, gold: one list of tags per sentence ("O", "B-PER", "I-PER"; BIO or IO).
    Returns `precision`, `recall`, `f1`, 0 to 1, over all the entities (micro); 0 where undefined.
    Raises ForgetlabError for numbers of sentences or tags that differ, or another form of tag.
    Source: Tjong Kim Sang & De Meulder 2003 (`conlleval`). Not token accuracy, which is high for all-O.

    >>> entity_f1([["I-PER", "O"], ["B-LOC"]], [["B-PER", "O"], ["O"]])
    {'precision': 0.5, 'recall': 1.0, 'f1': 0.6666666666666666}
    """
    if len(predicted) != len(gold):
        raise ForgetlabError(f"{len(predicted)} predicted, {len(gold)} gold sentences; expected as many")
    counts = [entity_counts(p, g, sentence) for sentence, (p, g) in enumerate(zip(predicted, gold, strict=True))]
    hits, found, there = np.sum([(0, 0, 0), *counts], axis=0).tolist()
    precision, recall = hits / max(found, 1), hits / max(there, 1)
    f1 = 2 * hits / max(found + there, 1)  # 2PR / (P + R) = 2·hits / (found + there)
    return {"precision": precision, "recall": recall, "f1": f1}


def entity_counts(predicted: Sequence[str], gold: Sequence[str], sentence: int = 0) -> tuple[int, int, int]:
    """(exact hits, entities predicted, entities there) of one sentence's tags. sentence: its number in errors."""
    if len(predicted) != len(gold):
        raise ForgetlabError(f"sentence {sentence}: {len(predicted)} tags, {len(gold)} gold; expected as many")
    guesses, truth = entities(predicted, sentence), entities(gold, sentence)
    return len(guesses & truth), len(guesses), len(truth)


def entities(tags: Sequence[str], sentence: int = 0) -> set[tuple[int, int, str]]:
    """(first word, word after the last, kind) of each entity of a sentence's tags. sentence: its number in errors."""
    spans, start, current = set(), 0, ""
    for i, tag in enumerate((*tags, "O")):
        mark, _, kind = tag.partition("-")
        if tag != "O" and (mark not in ("B", "I") or not kind):
            raise ForgetlabError(f"tag {tag!r} in sentence {sentence}; expected O, B-TYPE or I-TYPE")
        if current and (mark == "B" or kind != current):
            spans.add((start, i, current))
            current = ""
        if kind and not current:  # I- after O or after another type begins an entity too
            start, current = i, kind
    return spans


def expected_calibration_error(probabilities: Numbers, labels: Numbers, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy, 0 to 1; 0 = "80% sure" is right 80% of the time.

    probabilities: (n, C), rows summing to 1. labels: (n,), class numbers. bins: how many. Returns a float.
    Raises ForgetlabError for other shapes, rows that are not probabilities (logits), or other labels.
    Source: Guo et al. 2017, eq. 3, with equal-width bins (lower, upper] of the top probability. Others use
    bins of equal count, or all the classes' probabilities.

    >>> round(expected_calibration_error([[0.8, 0.2], [0.8, 0.2]], [0, 1]), 3)
    0.3
    """
    p, y = as_array(probabilities, "probabilities", 2), as_array(labels, "labels", 1)
    if len(p) != len(y) or not p.size or bins < 1:
        raise ForgetlabError(f"{p.shape} probabilities, {len(y)} labels, {bins} bins; expected (n, C), n, 1+")
    if not np.isfinite(p).all():
        return math.nan
    if not (p.min() >= 0 and np.allclose(p.sum(axis=1), 1, atol=1e-3)):
        raise ForgetlabError("probabilities are negative or do not sum to 1; expected a softmax of logits")
    if strange := set(y.tolist()) - set(range(p.shape[1])):
        raise ForgetlabError(f"labels hold {sorted(strange)[:5]}; expected classes 0 to {p.shape[1] - 1}")
    return calibration_gap(p.max(axis=1), p.argmax(axis=1) == y, bins)


def calibration_gap(confidence: Numbers, right: Numbers, bins: int = 15) -> float:
    """Guo et al.'s expected calibration error of answers given with a confidence, 0 to 1.

    confidence: (n,) of each answer; right: (n,) 1 where it was right. bins: of equal width, (lower, upper].
    """
    sure, correct = as_array(confidence, "confidence", 1), as_array(right, "right", 1)
    bin_of = np.searchsorted(np.arange(1, bins) / bins, sure, side="left")
    gaps = np.bincount(bin_of, weights=correct - sure)  # |B_m| (acc(B_m) − conf(B_m))
    return float(np.abs(gaps).sum() / len(sure))  # ECE = Σ_m |B_m|/n |acc(B_m) − conf(B_m)|
