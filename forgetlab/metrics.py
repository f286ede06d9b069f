"""What is measured: transfer between tasks, language, drift of weights, features and outputs. Pure functions.

Outputs or weights of a diverged model (nan, inf) give nan or inf, not an error: a live run goes on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from forgetlab.errors import ForgetlabError

Numbers = ArrayLike | Tensor | Sequence[Tensor]
Weights = Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]


def _array(values: Numbers, name: str, ndim: int | None = None) -> NDArray[np.float64]:
    try:
        if isinstance(values, (list, tuple)) and values and all(isinstance(v, Tensor) for v in values):
            values = torch.stack(tuple(values))  # one copy from the GPU for a whole list of per-batch sums
        if isinstance(values, Tensor):
            values = values.detach().cpu().double().numpy()
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ForgetlabError(f"{name}: expected a rectangular array of numbers ({error})") from error
    if ndim is not None and array.ndim != ndim:
        raise ForgetlabError(f"{name} has shape {array.shape}; expected {ndim} dimension(s)")
    return array


def _scores(R: Numbers, least: int = 2) -> NDArray[np.float64]:
    scores = _array(R, "R")
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1] or len(scores) < least:
        expected = f"(T, T) with T >= {least}, R[i, j] = score on task j after task i"
        raise ForgetlabError(f"R has shape {scores.shape}; expected {expected}")
    return scores


def _need(scores: NDArray[np.float64], needed: NDArray[np.bool_], name: str = "R") -> None:
    for position in np.argwhere(needed & ~np.isfinite(scores))[:1]:
        where = ", ".join(map(str, position))
        raise ForgetlabError(f"{name}[{where}] is {scores[tuple(position)]}; expected a finite score there")


def average_accuracy(R: Numbers) -> float:
    """Mean score over all tasks after the last one, in the unit of R.

    R: (T, T), T >= 1, R[i, j] = score on task j after task i; only the last row is read.
    Raises ForgetlabError for another shape or a last row that is not finite.
    Source: Lopez-Paz & Ranzato 2017 (GEM), eq. 2. Not "average incremental accuracy", a mean over rows.

    >>> average_accuracy([[0.9, 0.1], [0.7, 0.8]])
    0.75
    """
    scores = _scores(R, least=1)
    _need(scores, np.arange(len(scores))[:, None] == len(scores) - 1)
    return float(scores[-1].mean())  # ACC = (1/T) Σ_j R[T, j]


def backward_transfer(R: Numbers) -> float:
    """Mean change of each earlier task from when it was learned to the end; negative = forgetting.

    R: (T, T), T >= 2; the diagonal and the last row are read, the rest may be nan. Returns the unit of R.
    Raises ForgetlabError for another shape or a needed number that is not finite.
    Source: GEM 2017, eq. 3. Some divide by T, which counts the last task's certain zero.

    >>> round(backward_transfer([[0.9, 0.1], [0.7, 0.8]]), 3)
    -0.2
    """
    scores = _scores(R)
    needed = np.eye(len(scores), dtype=bool)
    needed[-1], needed[:, -1] = True, False
    _need(scores, needed)
    return float((scores[-1] - scores.diagonal())[:-1].mean())  # BWT = 1/(T−1) Σ_{i<T} (R[T, i] − R[i, i])


def forward_transfer(R: Numbers, baseline: Numbers) -> float:
    """Mean head start on each task, before it is trained, from the tasks before it, in the unit of R.

    R: (T, T), T >= 2, read just above the diagonal. baseline: (T,), of the untrained model; [0] is not read.
    Raises ForgetlabError for other shapes or a needed number that is not finite.
    Source: GEM 2017, eq. 4. Without the baseline, as often reported, it is zero-shot accuracy.

    >>> round(forward_transfer([[0.9, 0.6], [0.7, 0.8]], baseline=[0.5, 0.5]), 3)
    0.1
    """
    scores, start = _scores(R), _array(baseline, "baseline", 1)
    if len(start) != len(scores):
        raise ForgetlabError(f"baseline has {len(start)} scores; expected {len(scores)}, one per task of R")
    _need(scores, np.eye(len(scores), k=1, dtype=bool))
    _need(start, np.arange(len(start)) > 0, "baseline")
    return float((scores.diagonal(1) - start[1:]).mean())  # FWT = 1/(T−1) Σ_{i≥2} (R[i−1, i] − b_i)


@overload
def forgetting_measure(R: Numbers, *, per_task: Literal[False] = False) -> float: ...
@overload
def forgetting_measure(R: Numbers, *, per_task: Literal[True]) -> NDArray[np.float64]: ...
def forgetting_measure(R: Numbers, *, per_task: bool = False) -> float | NDArray[np.float64]:
    """Mean loss of each earlier task from its best score before the last task; positive = forgetting.

    R: (T, T), T >= 2, in columns before the last; above the diagonal nan is skipped. Returns the mean or,
    `per_task`, the (T−1,) losses, in the unit of R.
    Raises ForgetlabError for another shape or a needed number that is not finite.
    Source: Chaudhry et al. 2018 (Riemannian Walk). The maximum excludes the last row, so a gain counts as
    negative. Not −BWT: that starts from R[j, j], this from the peak.

    >>> forgetting_measure([[0.5, 0.1, 0.1], [0.75, 0.8, 0.1], [0.25, 0.8, 0.9]], per_task=True).tolist()
    [0.5, 0.0]
    """
    scores = _scores(R)
    needed = np.tri(len(scores), dtype=bool)
    needed[:, -1] = False
    _need(scores, needed)
    best = np.where(np.isfinite(scores), scores, -np.inf)[:-1, :-1].max(axis=0)
    losses = best - scores[-1, :-1]  # F_j = max_{l<T} R[l, j] − R[T, j]
    return losses if per_task else float(losses.mean())


def perplexity(nll_sum: Numbers, tokens: Numbers) -> float:
    """Perplexity of a corpus from summed losses and token counts.

    nll_sum: Σ −log p over tokens, in nats; a number or one per batch. tokens: their counts, in the same
    shape. Returns a float >= 1. Raises ForgetlabError for shapes that differ, negative numbers or no tokens.
    The common variant, a mean of per-batch perplexities, changes with the batching.

    >>> round(perplexity([2.0, 8.0], [10, 10]), 3)  # exp(10 / 20)
    1.649
    """
    losses, counts = _array(nll_sum, "nll_sum"), _array(tokens, "tokens")
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


# The leftmost match decides: a layer inside a named head belongs to the head. embed_out: GPT-NeoX's LM head.
_LAYER = re.compile(
    r"(?:^|\.)(?:heads\.(?P<head>[^.]+)|(?:layers?|h|blocks?)\.(?P<layer>\d+)"
    r"|(?P<lm>(?:generator_)?lm_head|cls\.predictions|vocab_\w+|generator_predictions|embed_out)"
    r"|\w*embeddings?(?:_\w+)?|embed_\w+|wte|wpe)(?:\.|$)"
)


def layer_of(name: str) -> str:
    """The layer that a dotted parameter name of a transformers model belongs to.

    Returns "embeddings", "layer N", "lm head", "NAME head" for `heads.NAME.…`, or "other" (final norm).

    >>> layer_of("bert.encoder.layer.3.output.dense.weight"), layer_of("heads.sentiment.weight")
    ('layer 3', 'sentiment head')
    """
    found = _LAYER.search(name)
    if found is None:
        return "other"
    head, layer, lm = found.groups()
    return f"{head} head" if head else f"layer {layer}" if layer else "lm head" if lm else "embeddings"


@dataclass(frozen=True)
class Drift:
    """L2 distance moved, also relative to the norm before (inf where that was 0), in all and per layer."""

    total: float
    relative: float
    per_layer: dict[str, float]
    relative_per_layer: dict[str, float]


# A float32 norm of millions of weights is up to 0.4% off on the CPU; over pieces of this size, 0.005%.
_PIECE = 2**16
# Logits are taken in chunks of this many numbers, which bounds each float32 copy to 64 MB.
_CHUNK = 2**24


def _norm(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    pieces = [p for t in tensors for p in (t.reshape(-1).split(_PIECE) if t.numel() > _PIECE else (t,))]
    return torch.linalg.vector_norm(torch.stack([norm.to(device) for norm in torch._foreach_norm(pieces)]))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else (math.inf if part else 0.0)


@torch.no_grad()
def parameter_drift(before: Weights, after: Weights) -> Drift:
    """How far the weights have moved, in all and per layer (`layer_of`), in the unit of the weights.

    before, after: name → tensor (`named_parameters()`, a state dict). `before` must be a copy: a state dict
    is a view. Names only in `after` (new heads) and tensors not floating point are left out; weights tied in
    `after` count once. Returns a `Drift`.
    Raises ForgetlabError naming a parameter that is missing or has another shape.
    Source: ‖θ − θ₀‖₂, as penalised by L2-SP (Li et al. 2018); a norm, not a mean over parameters.
    Cost: fused per layer, the extra memory of one layer, one copy from the device.

    >>> parameter_drift({"wte.weight": torch.ones(4)}, {"wte.weight": torch.full((4,), 2.0)}).relative
    1.0
    """
    old, new = dict(before), dict(after)
    layers: dict[str, tuple[list[Tensor], list[Tensor]]] = {}
    seen: set[tuple[Any, ...]] = set()
    for name, b in old.items():
        a = new.get(name)
        if a is None:
            expected = "every name of before (tied weights: named_parameters() lists only the first)"
            raise ForgetlabError(f"parameter {name!r} is missing after; expected {expected}")
        if a.shape != b.shape:
            raise ForgetlabError(f"parameter {name!r} has shape {[*a.shape]} after; expected {[*b.shape]}")
        storage = (a.device, a.data_ptr(), a.shape, a.stride())
        if a.is_floating_point() and storage not in seen:
            seen.add(storage)
            group = layers.setdefault(layer_of(name), ([], []))
            for t, side in zip((a, b), group, strict=True):  # a norm in half precision overflows
                side.append(t.to(a.device, torch.promote_types(t.dtype, torch.float32)))
    if not layers:
        raise ForgetlabError("before holds no floating-point tensor; expected a mapping from name to tensor")
    device = next(iter(layers.values()))[0][0].device
    norms = [_norm(torch._foreach_sub(a, b), device) for a, b in layers.values()]  # ‖θ − θ₀‖₂ of each layer
    norms += [_norm(b, device) for _, b in layers.values()]
    numbers = torch.stack(norms).tolist()  # the only wait for the device
    moved, size = numbers[: len(layers)], numbers[len(layers) :]
    total = math.hypot(*moved)
    relative = dict(zip(layers, map(_ratio, moved, size), strict=True))
    return Drift(total, _ratio(total, math.hypot(*size)), dict(zip(layers, moved, strict=True)), relative)


def _centred(features: ArrayLike | Tensor, name: str) -> Tensor:
    x = torch.as_tensor(features)
    if x.ndim != 2:
        raise ForgetlabError(f"{name} has shape {[*x.shape]}; expected (n, d): flatten the positions")
    x = x.cpu().double() if x.device.type == "mps" else x.double()  # MPS has no float64
    centred = x - x.mean(dim=0)
    # constant features leave only rounding, which would give a CKA of noise
    return torch.where(centred.norm() > 1e-12 * x.norm(), centred, centred * 0)


def _hsic(x: Tensor, y: Tensor, unbiased: bool) -> Tensor:
    """HSIC of centred features with linear kernels K, L, up to a factor that cancels in CKA."""
    n, d1, d2 = len(x), x.shape[1], y.shape[1]
    # ‖YᵀX‖²_F = Σ_ij K_ij L_ij, by the side with fewer multiplications
    cross = (y.T @ x).square().sum() if d1 * d2 <= n * (d1 + d2) else ((x @ x.T) * (y @ y.T)).sum()
    if not unbiased:
        return cross
    # HSIC_1 ∝ tr(K̃L̃) + 1ᵀK̃1·1ᵀL̃1 / ((n−1)(n−2)) − 2·1ᵀK̃L̃1 / (n−2), K̃ = K with a zero
    # diagonal. Centring leaves it as it is and makes K1 = 0, so K̃1 = −diag K: no (n, n) matrix is needed.
    k, l = x.square().sum(dim=1), y.square().sum(dim=1)
    return (cross - k @ l) + k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 * (k @ l) / (n - 2)


@torch.no_grad()
def linear_cka(X: ArrayLike | Tensor, Y: ArrayLike | Tensor, *, unbiased: bool = True) -> float:
    """Similarity of two representations of the same examples: 1 = equal up to rotation and scale.

    X: (n, d1), Y: (n, d2), rows paired; computed in float64. Returns a float, which may fall slightly outside
    0 to 1 when unbiased; nan where a side is constant or not finite.
    Raises ForgetlabError for other shapes, or n below 4 (unbiased) or 2.
    Source: Kornblith et al. 2019, section 3; HSIC_1 of Song et al. 2012. The common, biased variant is far
    above 0 for unrelated features unless n is much larger than d.

    >>> x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    >>> round(linear_cka(x, 3 * x), 6)
    1.0
    """
    x, y = _centred(X, "X"), _centred(Y, "Y")
    if len(x) != len(y) or len(x) < (4 if unbiased else 2):
        least = "4 (unbiased)" if unbiased else "2"
        raise ForgetlabError(f"X has {len(x)} rows, Y {len(y)}; expected the same number, at least {least}")
    y = y.to(x.device)
    xy, xx, yy = torch.stack([_hsic(a, b, unbiased) for a, b in ((x, y), (x, x), (y, y))]).tolist()
    # CKA = HSIC(X, Y) / √(HSIC(X, X) HSIC(Y, Y)); biased: ‖YᵀX‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F)
    return xy / math.sqrt(xx) / math.sqrt(yy) if xx > 0 and yy > 0 else math.nan


@torch.no_grad()
def output_shift(
    before: Tensor, after: Tensor, *, rare: ArrayLike | Tensor | None = None, mask: Tensor | None = None
) -> dict[str, float]:
    """How a model's predictions changed on the same inputs: KL, entropy, mass on rare words.

    before, after: logits (..., V); −inf is a probability of 0. rare: (r,) token ids. mask: (...), true where
    a position counts (not padding). Returns means over positions: `kl` = KL(p_before ‖ p_after),
    `entropy_before`, `entropy_after` in nats; with `rare`, `rare_mass_before`, `rare_mass_after`, 0 to 1.
    Raises ForgetlabError for shapes that differ, no position, or an id outside the vocabulary.
    Source: FORMULAS, output shift. This KL grows where the new model rules out what the old one said; the
    penalty of RLHF, KL(p_after ‖ p_before), does not.

    >>> round(output_shift(torch.zeros(2, 4), torch.zeros(2, 4))["entropy_after"], 4)  # ln 4
    1.3863
    """
    if before.shape != after.shape or not before.numel():
        raise ForgetlabError(f"logits are {[*before.shape]} and {[*after.shape]}; expected the same (..., V)")
    if mask is not None and mask.shape != before.shape[:-1]:
        raise ForgetlabError(f"mask has shape {[*mask.shape]}; expected {[*before.shape[:-1]]}")
    V = before.shape[-1]
    old, new = (x.reshape(-1, V) if mask is None else x[mask.bool().to(x.device)] for x in (before, after))
    if not len(old):
        raise ForgetlabError("mask is false everywhere; expected at least one position that counts")
    ids = torch.as_tensor([] if rare is None else rare).unique()  # a repeated id must not count twice
    whole = not ids.is_floating_point() and ids.dtype != torch.bool
    if ids.numel() and not (whole and 0 <= ids[0] <= ids[-1] < V):
        raise ForgetlabError(f"rare spans {ids[[0, -1]].tolist()}; expected token ids from 0 to {V - 1}")
    ids = ids.long().to(after.device)

    def expect(p: Tensor, value: Tensor) -> Tensor:
        return torch.where(p == 0, 0.0, p * value).sum(dim=-1)  # 0 · ln 0 = 0

    sums = []
    rows = max(1, _CHUNK // V)
    for b, a in zip(old.split(rows), new.split(rows), strict=True):
        log_p, log_q = (x.to(after.device).float().log_softmax(dim=-1) for x in (b, a))
        p, q = log_p.exp(), log_q.exp()
        kl = expect(p, log_p - log_q)  # Σ_v p (ln p − ln q)
        entropies = [-expect(p, log_p), -expect(q, log_q)]  # −Σ_v p ln p
        masses = [p[:, ids].sum(dim=-1), q[:, ids].sum(dim=-1)]
        sums.append(torch.stack([kl, *entropies, *masses]).sum(dim=1))
    means = (torch.stack(sums).sum(dim=0) / len(old)).clamp_min(0).tolist()  # below 0 only by rounding
    names = ("kl", "entropy_before", "entropy_after", "rare_mass_before", "rare_mass_after")
    return dict(zip(names[: 3 if rare is None else 5], means, strict=False))


def expected_calibration_error(probabilities: Numbers, labels: Numbers, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy, 0 to 1; 0 = "80% sure" is right 80% of the time.

    probabilities: (n, C), rows summing to 1. labels: (n,), class numbers. bins: how many. Returns a float.
    Raises ForgetlabError for other shapes, rows that are not probabilities (logits), or other labels.
    Source: Guo et al. 2017, eq. 3, with equal-width bins (lower, upper] of the top probability. Others use
    bins of equal count, or all the classes' probabilities.

    >>> round(expected_calibration_error([[0.8, 0.2], [0.8, 0.2]], [0, 1]), 3)
    0.3
    """
    p, y = _array(probabilities, "probabilities", 2), _array(labels, "labels", 1)
    if len(p) != len(y) or not p.size or bins < 1:
        raise ForgetlabError(f"{p.shape} probabilities, {len(y)} labels, {bins} bins; expected (n, C), n, 1+")
    if not np.isfinite(p).all():
        return math.nan
    if not (p.min() >= 0 and np.allclose(p.sum(axis=1), 1, atol=1e-3)):
        raise ForgetlabError("probabilities are negative or do not sum to 1; expected a softmax of logits")
    if strange := set(y.tolist()) - set(range(p.shape[1])):
        raise ForgetlabError(f"labels hold {sorted(strange)[:5]}; expected classes 0 to {p.shape[1] - 1}")
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == y
    bin_of = np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")
    gaps = np.bincount(bin_of, weights=correct - confidence)  # |B_m| (acc(B_m) − conf(B_m))
    return float(np.abs(gaps).sum() / len(p))  # ECE = Σ_m |B_m|/n |acc(B_m) − conf(B_m)|


def minimal_pair_accuracy(good: Numbers, bad: Numbers) -> float:
    """Share of minimal pairs in which the good sentence is the more probable one, 0 to 1; chance is 0.5.

    good, bad: (n,) log-probabilities of the sentences. A tie counts as wrong: the model sees no difference.
    Returns a float. Raises ForgetlabError for other shapes or no pairs.
    Source: Warstadt et al. 2020 (BLiMP): log-probabilities summed over a sentence, not divided by its length.

    >>> minimal_pair_accuracy([-10.0, -12.0], [-11.0, -12.0])
    0.5
    """
    g, b = _array(good, "good", 1), _array(bad, "bad", 1)
    if len(g) != len(b) or not len(g):
        raise ForgetlabError(f"{len(g)} good, {len(b)} bad scores; expected as many, at least one")
    return math.nan if np.isnan([g, b]).any() else float((g > b).mean())


def _entities(tags: Sequence[str], sentence: int) -> set[tuple[int, int, str]]:
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
    hits = found = there = 0
    for sentence, (p, g) in enumerate(zip(predicted, gold, strict=True)):
        if len(p) != len(g):
            raise ForgetlabError(f"sentence {sentence}: {len(p)} tags, {len(g)} gold; expected as many")
        guesses, truth = _entities(p, sentence), _entities(g, sentence)
        hits, found, there = hits + len(guesses & truth), found + len(guesses), there + len(truth)
    precision, recall = hits / max(found, 1), hits / max(there, 1)
    f1 = 2 * hits / max(found + there, 1)  # 2PR / (P + R) = 2·hits / (found + there)
    return {"precision": precision, "recall": recall, "f1": f1}


def kshot_probe(
    features: Numbers,
    labels: Numbers,
    test_features: Numbers,
    test_labels: Numbers,
    *,
    k: int,
    seed: int,
    repeats: int = 5,
    ridge: float = 1.0,
) -> dict[str, float]:
    """Test accuracy, 0 to 1, of a linear classifier fitted to k examples of each class.

    features: (n, d), labels: (n,) class numbers, to draw from; test_features: (m, d), test_labels: (m,).
    seed: of the draws; repeats: how many; ridge: λ. Returns `mean` and sample `std` over draws (nan for one).
    Raises ForgetlabError for other shapes, a class with fewer than k examples, or a new class in the test.
    Source: ridge regression (Hastie et al., ESL, eq. 3.44) to one-hot targets. The common probe is a logistic
    one on all labels; here mean and scale too come from the k-shot draw alone, so nothing else leaks in.

    >>> kshot_probe([[0.0], [1.0], [9.0], [8.0]], [0, 0, 1, 1], [[2.0], [7.0]], [0, 1], k=2, seed=0)
    {'mean': 1.0, 'std': 0.0}
    """
    x, y = _array(features, "features", 2), _array(labels, "labels", 1)
    test_x, test_y = _array(test_features, "test_features", 2), _array(test_labels, "test_labels", 1)
    if (len(x), len(test_x), x.shape[1]) != (len(y), len(test_y), test_x.shape[1]) or not len(test_x):
        given = f"features {x.shape} and {test_x.shape} with {len(y)} and {len(test_y)} labels"
        raise ForgetlabError(f"{given}; expected (n, d) and (m, d) with n and m > 0")
    if k < 1 or repeats < 1 or not ridge > 0:
        raise ForgetlabError(f"k={k}, repeats={repeats}, ridge={ridge}; expected each above 0")
    classes, counts = np.unique(y, return_counts=True)
    if len(classes) < 2 or counts.min() < k:
        numbers = ", ".join(f"{label:g}: {count}" for label, count in zip(classes, counts, strict=True))
        raise ForgetlabError(f"examples per class: {numbers}; expected 2 classes or more, each with k={k}")
    if strange := set(test_y.tolist()) - set(classes.tolist()):
        raise ForgetlabError(f"test labels hold {sorted(strange)[:5]}; expected those of {classes.tolist()}")
    if not (np.isfinite(x).all() and np.isfinite(test_x).all()):
        return {"mean": math.nan, "std": math.nan}
    generator = torch.Generator().manual_seed(seed)
    pools = [np.flatnonzero(y == label) for label in classes]
    targets = np.repeat(np.eye(len(classes)), k, axis=0)
    accuracies = []
    for _ in range(repeats):
        shots = x[np.concatenate([i[torch.randperm(len(i), generator=generator)[:k].numpy()] for i in pools])]
        mean, scale = shots.mean(axis=0), shots.std(axis=0)
        scale[scale <= 1e-9 * np.abs(shots).max(axis=0)] = 1  # a constant feature leaves only rounding
        a, b = (shots - mean) / scale, (test_x - mean) / scale
        # W = Aᵀ (AAᵀ + λI)⁻¹ Y, the form for few examples; balanced classes share one intercept
        W = a.T @ np.linalg.solve(a @ a.T + ridge * np.eye(len(a)), targets)
        accuracies.append(np.mean(classes[(b @ W).argmax(axis=1)] == test_y))
    std = float(np.std(accuracies, ddof=1)) if repeats > 1 else math.nan
    return {"mean": float(np.mean(accuracies)), "std": std}
