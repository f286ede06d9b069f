"""Metrics against hand numbers, slow loops written out here, and what theory says about them."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from forgetlab import metrics
from forgetlab.errors import ForgetlabError
from forgetlab.metrics import (
    average_accuracy,
    backward_transfer,
    entity_f1,
    expected_calibration_error,
    forgetting_measure,
    forward_transfer,
    kshot_hits,
    kshot_probe,
    layer_of,
    linear_cka,
    minimal_pair_accuracy,
    output_shift,
    parameter_drift,
    perplexity,
    perplexity_ratio,
)

GOLDEN = [[0.9, 0.1, 0.1], [0.95, 0.8, 0.1], [0.7, 0.75, 0.85]]
NAN = math.nan


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- transfer ---


def test_golden_matrix():
    assert average_accuracy(GOLDEN) == pytest.approx((0.7 + 0.75 + 0.85) / 3)
    assert backward_transfer(GOLDEN) == pytest.approx(-0.125)
    assert forgetting_measure(GOLDEN) == pytest.approx(0.15)
    assert forgetting_measure(GOLDEN, per_task=True) == pytest.approx([0.25, 0.05])
    assert forward_transfer(GOLDEN, [0.5, 0.05, 0.2]) == pytest.approx(((0.1 - 0.05) + (0.1 - 0.2)) / 2)


def test_transfer_against_loops():
    T = 6
    R = np.random.default_rng(0).random((T, T))
    baseline = np.random.default_rng(1).random(T)
    bwt = fwt = forgetting = 0.0
    for j in range(T - 1):
        bwt += (R[T - 1, j] - R[j, j]) / (T - 1)
        fwt += (R[j, j + 1] - baseline[j + 1]) / (T - 1)
        forgetting += (max(R[l, j] for l in range(T - 1)) - R[T - 1, j]) / (T - 1)
    assert backward_transfer(torch.tensor(R)) == pytest.approx(bwt)
    assert forward_transfer(R, torch.tensor(baseline)) == pytest.approx(fwt)
    assert forgetting_measure(R.tolist()) == pytest.approx(forgetting)


def test_forgetting_is_negative_where_the_last_task_helped():
    improved = [[0.5, 0.0], [0.8, 0.9]]
    assert forgetting_measure(improved) == pytest.approx(-0.3)  # a maximum with the last row would give 0


def test_scores_of_tasks_not_yet_seen_may_be_missing():
    lower = [[0.9, NAN, None], [0.95, 0.8, NAN], [0.7, 0.75, NAN]]
    assert backward_transfer(lower) == pytest.approx(-0.125)
    assert forgetting_measure(lower) == pytest.approx(0.15)
    above = [[NAN, 0.6], [NAN, NAN]]
    assert forward_transfer(above, [NAN, 0.5]) == pytest.approx(0.1)


@pytest.mark.parametrize("metric", [backward_transfer, forgetting_measure, lambda R: forward_transfer(R, [0, 0])])
def test_transfer_refuses_other_shapes(metric):
    for bad, shape in (([[1.0]], "(1, 1)"), ([[1.0, 2.0]], "(1, 2)"), ([1.0, 2.0], "(2,)")):
        with pytest.raises(ForgetlabError, match="T >= 2") as error:
            metric(bad)
        assert f"R has shape {shape}" in str(error.value)


def test_transfer_names_the_missing_score():
    hole = np.array(GOLDEN)
    hole[1, 0] = NAN
    assert backward_transfer(hole) == pytest.approx(-0.125)  # not read by BWT
    with pytest.raises(ForgetlabError, match=r"R\[1, 0\] is nan"):
        forgetting_measure(hole)
    hole[2, 1] = math.inf
    with pytest.raises(ForgetlabError, match=r"R\[2, 1\] is inf"):
        backward_transfer(hole)
    with pytest.raises(ForgetlabError, match=r"R\[2, 1\] is inf"):
        average_accuracy(hole)
    with pytest.raises(ForgetlabError, match=r"R\[0, 1\] is nan"):
        forward_transfer([[1, NAN], [1, 1]], [0, 0])
    with pytest.raises(ForgetlabError, match=r"baseline\[1\] is nan"):
        forward_transfer([[1, 1], [1, 1]], [0, NAN])
    with pytest.raises(ForgetlabError, match="baseline has 2 scores; expected 3"):
        forward_transfer(GOLDEN, [0, 0])
    with pytest.raises(ForgetlabError, match="R: expected a rectangular array of numbers"):
        average_accuracy([[1.0, 2.0], [3.0]])


# --- language ---


def test_perplexity_weighs_tokens_not_batches():
    sums, counts = [10.0, 90.0], [100, 30]
    mean_of_perplexities = (math.exp(10 / 100) + math.exp(90 / 30)) / 2
    exp_of_mean_of_means = math.exp((10 / 100 + 90 / 30) / 2)
    assert perplexity(sums, counts) == pytest.approx(math.exp(100 / 130))
    assert abs(perplexity(sums, counts) - mean_of_perplexities) > 5
    assert abs(perplexity(sums, counts) - exp_of_mean_of_means) > 2


def test_perplexity_takes_numbers_tensors_and_lists_of_tensors():
    assert perplexity(100.0, 130) == pytest.approx(math.exp(100 / 130))
    losses = [torch.tensor(10.0, requires_grad=True), torch.tensor(90.0)]
    assert perplexity(losses, [torch.tensor(100), torch.tensor(30)]) == pytest.approx(math.exp(100 / 130))
    uniform_over_50 = torch.full((7,), math.log(50))
    assert perplexity(uniform_over_50.sum(), 7) == pytest.approx(50)


def test_perplexity_of_a_diverged_model_does_not_raise():
    assert math.isnan(perplexity([NAN, 1.0], [1, 1]))
    assert perplexity(1e6, 1) == math.inf


@pytest.mark.parametrize(
    ("sums", "counts", "message"),
    [
        ([1.0, 2.0], [1], r"shape \(2,\) and tokens \(1,\)"),
        ([0.0], [0], "tokens sum to 0"),
        ([], [], "tokens sum to 0"),
        ([1.0, 1.0], [3, -1], "counts >= 0"),
        ([-1.0, 5.0], [1, 1], "nll_sum holds -1; expected sums of −log p"),
    ],
)
def test_perplexity_refuses(sums, counts, message):
    with pytest.raises(ForgetlabError, match=message):
        perplexity(sums, counts)


def test_perplexity_ratio():
    assert perplexity_ratio(15, 45) == 3
    cross_entropies = 1.3, 2.1
    assert perplexity_ratio(*map(math.exp, cross_entropies)) == pytest.approx(math.exp(2.1 - 1.3))
    with pytest.raises(ForgetlabError, match="perplexities 0 and 2; expected numbers above 0"):
        perplexity_ratio(0, 2)


# --- drift ---


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("bert.embeddings.word_embeddings.weight", "embeddings"),
        ("bert.encoder.layer.3.attention.self.key.bias", "layer 3"),
        ("encoder.layer.11.output.dense.weight", "layer 11"),
        ("backbone.encoder.layer.0.output.LayerNorm.weight", "layer 0"),
        ("cls.predictions.decoder.weight", "lm head"),
        ("bert.pooler.dense.weight", "other"),
        ("distilbert.transformer.layer.3.ffn.lin1.weight", "layer 3"),
        ("vocab_transform.weight", "lm head"),
        ("roberta.encoder.layer.10.output.dense.bias", "layer 10"),
        ("lm_head.dense.weight", "lm head"),
        ("electra.embeddings_project.weight", "embeddings"),
        ("generator_lm_head.weight", "lm head"),
        ("transformer.wte.weight", "embeddings"),
        ("wpe.weight", "embeddings"),
        ("transformer.h.3.mlp.c_fc.weight", "layer 3"),
        ("transformer.ln_f.weight", "other"),
        ("model.embed_tokens.weight", "embeddings"),
        ("model.layers.3.self_attn.q_proj.weight", "layer 3"),
        ("model.norm.weight", "other"),
        ("gpt_neox.embed_in.weight", "embeddings"),
        ("gpt_neox.layers.3.attention.dense.weight", "layer 3"),
        ("gpt_neox.final_layer_norm.weight", "other"),
        ("embed_out.weight", "lm head"),
        ("base_model.model.model.layers.3.mlp.up_proj.lora_A.default.weight", "layer 3"),
        ("heads.sentiment.weight", "sentiment head"),
        ("heads.entities.layers.0.weight", "entities head"),
        ("heads.lm.bias", "lm head"),
    ],
)
def test_layer_of(name, layer):
    assert layer_of(name) == layer


def weights(seed, large=7):
    return {
        "wte.weight": normal(seed, 5, large).float(),
        "h.0.w": normal(seed + 1, 4, 4).float(),
        "h.0.b": normal(seed + 2, 4).float(),
        "h.1.w": normal(seed + 3, 3).float(),
        "ln_f.weight": normal(seed + 4, 3).float(),
    }


def flat_distance(before, after, names):
    return math.sqrt(sum((after[n].double() - before[n].double()).square().sum().item() for n in names))


def test_drift_against_loops():
    before, after = weights(0), weights(10)
    drift = parameter_drift(before, after.items())
    zeros = {name: torch.zeros_like(value) for name, value in before.items()}
    groups = {
        "embeddings": ["wte.weight"],
        "layer 0": ["h.0.w", "h.0.b"],
        "layer 1": ["h.1.w"],
        "other": ["ln_f.weight"],
    }
    assert list(drift.per_layer) == list(groups)
    for layer, names in groups.items():
        distance = flat_distance(before, after, names)
        assert drift.per_layer[layer] == pytest.approx(distance, rel=1e-6)
        assert drift.relative_per_layer[layer] == pytest.approx(
            distance / flat_distance(zeros, before, names), rel=1e-6
        )
    total = flat_distance(before, after, before)
    assert drift.total == pytest.approx(total, rel=1e-6)
    assert drift.relative == pytest.approx(total / flat_distance(zeros, before, before), rel=1e-6)


def test_drift_stays_exact_for_millions_of_weights():
    before = {"wte.weight": torch.zeros(6_000_000)}
    after = {"wte.weight": torch.full((6_000_000,), 1e-3)}
    assert parameter_drift(before, after).total == pytest.approx(1e-3 * math.sqrt(6_000_000), rel=1e-4)


def test_drift_of_weights_that_were_zero():
    zero, one = {"h.0.w": torch.zeros(4)}, {"h.0.w": torch.ones(4)}
    assert parameter_drift(zero, zero).relative == 0
    assert parameter_drift(zero, one).relative == math.inf
    assert parameter_drift(zero, one).total == 2


def test_drift_of_half_precision_does_not_overflow():
    large = {"h.0.w": torch.full((9,), 30_000.0).half()}  # its norm is beyond 65,504
    assert parameter_drift(large, {"h.0.w": torch.zeros(9).half()}).total == pytest.approx(90_000)
    assert parameter_drift(large, {"h.0.w": torch.zeros(9)}).relative == pytest.approx(1)


def test_drift_of_a_module_leaves_out_new_heads_counters_and_tied_copies():
    model = torch.nn.ModuleDict({"wte": torch.nn.Embedding(5, 3), "lm_head": torch.nn.Linear(3, 5, bias=False)})
    model["lm_head"].weight = model["wte"].weight
    model.register_buffer("steps", torch.tensor(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model["wte"].weight += 2
    model["heads"] = torch.nn.ModuleDict({"sentiment": torch.nn.Linear(3, 2)})
    model.steps += 5
    drift = parameter_drift(before, model.state_dict())
    assert drift.total == pytest.approx(2 * math.sqrt(15), rel=1e-6)
    assert list(drift.per_layer) == ["embeddings"]


def test_drift_names_the_parameter_that_does_not_fit():
    before = weights(0)
    with pytest.raises(ForgetlabError, match=r"parameter 'h\.1\.w' is missing after"):
        parameter_drift(before, {name: value for name, value in before.items() if name != "h.1.w"})
    with pytest.raises(ForgetlabError, match=r"parameter 'h\.0\.b' has shape \[1\] after; expected \[4\]"):
        parameter_drift(before, before | {"h.0.b": torch.zeros(1)})
    with pytest.raises(ForgetlabError, match="no floating-point tensor"):
        parameter_drift({}, before)


def test_drift_reads_no_single_number_from_the_device():
    class Reads(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.count += function is torch.ops.aten._local_scalar_dense.default
            return function(*args, **kwargs or {})

    with Reads() as reads:
        torch.ones(1).item()
        assert reads.count == 1  # the probe works
        parameter_drift(weights(0), weights(10))
    assert reads.count == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_drift_waits_once_for_the_gpu():
    before, after = ({n: w.cuda() for n, w in weights(seed, large=100_000).items()} for seed in (0, 10))
    expected = flat_distance(before, after, before)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            drift = parameter_drift(before, after)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len([w for w in caught if "synchroniz" in str(w.message)]) == 1
    assert drift.total == pytest.approx(expected, rel=1e-5)


# --- representations ---


def hsic_1(K, L):
    """Song et al. 2012, term by term, with (n, n) matrices whose diagonals are set to zero."""
    n = len(K)
    K, L, one = K.copy(), L.copy(), np.ones(n)
    np.fill_diagonal(K, 0)
    np.fill_diagonal(L, 0)
    trace = np.trace(K @ L)
    sums = (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2))
    mixed = 2 / (n - 2) * (one @ K @ L @ one)
    return (trace + sums - mixed) / (n * (n - 3))


@pytest.mark.parametrize(("n", "d1", "d2"), [(4, 3, 2), (12, 5, 40), (40, 3, 4), (10, 30, 30)])
def test_cka_against_its_matrix_formulas(n, d1, d2):
    X = normal(n, n, d1).numpy() + 3  # not centred
    Y = np.tanh(X @ normal(1, d1, d2).numpy()) + 0.5 * normal(2, n, d2).numpy()
    K, L = X @ X.T, Y @ Y.T
    unbiased = hsic_1(K, L) / math.sqrt(hsic_1(K, K) * hsic_1(L, L))
    assert linear_cka(X, Y) == pytest.approx(unbiased, rel=1e-9)
    H = np.eye(n) - 1 / n
    hsic = [np.trace(A @ H @ B @ H) for A, B in ((K, L), (K, K), (L, L))]
    assert linear_cka(X, Y, unbiased=False) == pytest.approx(hsic[0] / math.sqrt(hsic[1] * hsic[2]), rel=1e-9)


def test_biased_cka_of_independent_samples_is_far_from_zero():
    pairs = [(normal(2 * seed, 64, 128), normal(2 * seed + 1, 64, 128)) for seed in range(20)]
    assert np.mean([linear_cka(x, y, unbiased=False) for x, y in pairs]) == pytest.approx(0.67, abs=0.01)
    assert np.mean([linear_cka(x, y) for x, y in pairs]) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("unbiased", [True, False])
def test_cka_invariances(unbiased):
    x = normal(0, 50, 8)
    y = x @ normal(1, 8, 6) + normal(2, 50, 6)
    rotation = torch.linalg.qr(normal(3, 8, 8)).Q
    stretched = torch.tensor([10.0] + 7 * [1.0], dtype=torch.float64)
    expected = linear_cka(x, y, unbiased=unbiased)
    assert linear_cka(x, x, unbiased=unbiased) == pytest.approx(1)
    assert linear_cka(y, x, unbiased=unbiased) == pytest.approx(expected)
    assert linear_cka(x @ rotation, y, unbiased=unbiased) == pytest.approx(expected)
    assert linear_cka(-0.01 * x, 1e3 * y, unbiased=unbiased) == pytest.approx(expected)
    assert linear_cka(x + 100, y - 7, unbiased=unbiased) == pytest.approx(expected)
    assert abs(linear_cka(x * stretched, y, unbiased=unbiased) - expected) > 0.05  # not to any linear map


def test_cka_without_an_answer_is_nan():
    x, constant = normal(0, 7, 3), torch.full((7, 3), 0.1, dtype=torch.float64)
    assert (constant - constant.mean(dim=0)).any()  # centring leaves rounding
    assert math.isnan(linear_cka(x, constant))
    assert math.isnan(linear_cka(constant, x, unbiased=False))
    assert math.isnan(linear_cka(x * NAN, x))


def test_cka_refuses():
    x = normal(0, 10, 3)
    with pytest.raises(ForgetlabError, match="X has 10 rows, Y 9"):
        linear_cka(x, x[:9])
    with pytest.raises(ForgetlabError, match="at least 4"):
        linear_cka(x[:3], x[:3])
    with pytest.raises(ForgetlabError, match=r"Y has shape \[10, 3, 1\]; expected \(n, d\)"):
        linear_cka(x, x[:, :, None])


# --- outputs ---


def softmax(logits):
    exponentials = [math.exp(value) for value in logits]
    return [e / sum(exponentials) for e in exponentials]


def slow_shift(before, after, rare):
    totals = dict.fromkeys(["kl", "entropy_before", "entropy_after", "rare_mass_before", "rare_mass_after"], 0.0)
    for b, a in zip(before.tolist(), after.tolist(), strict=True):
        p, q = softmax(b), softmax(a)
        totals["kl"] += sum(x * math.log(x / y) for x, y in zip(p, q, strict=True)) / len(before)
        totals["entropy_before"] += -sum(x * math.log(x) for x in p) / len(before)
        totals["entropy_after"] += -sum(x * math.log(x) for x in q) / len(before)
        totals["rare_mass_before"] += sum(p[i] for i in rare) / len(before)
        totals["rare_mass_after"] += sum(q[i] for i in rare) / len(before)
    return totals


@pytest.mark.parametrize("rows", [1, 2, 4, 6])
def test_output_shift_against_loops_in_chunks_of_any_size(rows, monkeypatch):
    monkeypatch.setattr(metrics.representation, "_CHUNK", rows * 11)
    before, after = normal(0, 2, 3, 11), 2 * normal(1, 2, 3, 11)
    expected = slow_shift(before.reshape(6, 11), after.reshape(6, 11), [1, 4])
    assert output_shift(before, after, rare=torch.tensor([4, 1, 4])) == pytest.approx(expected, abs=1e-6)
    without_rare = {name: value for name, value in expected.items() if "rare" not in name}
    assert output_shift(before, after) == pytest.approx(without_rare, abs=1e-6)
    mask = torch.tensor([[1, 0, 1], [0, 0, 1]])
    kept = slow_shift(before[mask == 1], after[mask == 1], [1, 4])
    assert output_shift(before, after, rare=[1, 4], mask=mask) == pytest.approx(kept, abs=1e-6)


def test_output_shift_where_a_word_is_impossible():
    half = torch.tensor([0.0, 0.0, -math.inf])
    third = torch.zeros(3)
    shift = output_shift(half, third, rare=[2])
    assert shift["kl"] == pytest.approx(math.log(3 / 2))
    assert shift["entropy_before"] == pytest.approx(math.log(2))
    assert (shift["rare_mass_before"], shift["rare_mass_after"]) == pytest.approx((0, 1 / 3))
    assert output_shift(third, half)["kl"] == math.inf  # the other direction
    assert output_shift(half, half)["kl"] == 0
    assert output_shift(normal(0, 200, 50), normal(0, 200, 50) + 3)["kl"] >= 0  # rounding alone would be below
    assert math.isnan(output_shift(third, third * NAN)["kl"])


def test_output_shift_refuses():
    logits = torch.zeros(2, 3, 5)
    with pytest.raises(ForgetlabError, match=r"logits are \[2, 3, 5\] and \[3, 5\]"):
        output_shift(logits, logits[0])
    with pytest.raises(ForgetlabError, match=r"mask has shape \[3, 2\]; expected \[2, 3\]"):
        output_shift(logits, logits, mask=torch.ones(3, 2))
    with pytest.raises(ForgetlabError, match="mask is false everywhere"):
        output_shift(logits, logits, mask=torch.zeros(2, 3))
    for rare in ([0, 5], [-1, 2], [0.5], torch.tensor([True, False, True, True, True])):
        with pytest.raises(ForgetlabError, match="expected token ids from 0 to 4"):
            output_shift(logits, logits, rare=rare)


# --- calibration, minimal pairs, entities, probe ---


def slow_calibration_error(probabilities, labels, bins):
    error = 0.0
    for m in range(bins):
        inside = [i for i, p in enumerate(probabilities) if m / bins < max(p) <= (m + 1) / bins]
        if inside:
            accuracy = np.mean([np.argmax(probabilities[i]) == labels[i] for i in inside])
            confidence = np.mean([max(probabilities[i]) for i in inside])
            error += len(inside) / len(labels) * abs(accuracy - confidence)
    return error


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_against_loops(bins):
    probabilities = (2 * normal(0, 200, 4)).softmax(dim=1).numpy()
    labels = np.random.default_rng(0).integers(0, 4, 200)
    expected = slow_calibration_error(probabilities, labels, bins)
    assert expected > 0.1
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(expected)


def test_calibration_bins_include_their_upper_edge():
    # 0.55 and 0.6 share the bin (0.5, 0.6] and cancel; a bin [0.6, 0.7) would part them
    probabilities, labels = [[0.55, 0.45], [0.6, 0.4]], [1, 0]
    assert expected_calibration_error(probabilities, labels, bins=10) == pytest.approx(abs(0 - 0.55 + 1 - 0.6) / 2)
    assert expected_calibration_error(torch.eye(3), torch.arange(3)) == 0
    assert expected_calibration_error(torch.eye(3), [1, 2, 0]) == 1


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([[2.0, -1.0]], [0], "expected a softmax of logits"),
        ([[0.9, 0.9]], [0], "expected a softmax of logits"),
        ([[0.5, 0.5]], [2], r"labels hold \[2.0\]; expected classes 0 to 1"),
        ([[0.5, 0.5]], [0, 1], r"\(1, 2\) probabilities, 2 labels"),
        ([0.5, 0.5], [0, 1], r"probabilities has shape \(2,\); expected 2 dimension"),
    ],
)
def test_calibration_refuses(probabilities, labels, message):
    with pytest.raises(ForgetlabError, match=message):
        expected_calibration_error(probabilities, labels)


def test_minimal_pairs_count_ties_as_wrong():
    assert minimal_pair_accuracy(torch.tensor([-1.0, -2.0, -3.0, -4.0]), [-2.0, -2.0, -1.0, -math.inf]) == 0.5
    with pytest.raises(ForgetlabError, match="2 good, 1 bad"):
        minimal_pair_accuracy([1, 2], [1])
    with pytest.raises(ForgetlabError, match="at least one"):
        minimal_pair_accuracy([], [])


def test_a_diverged_model_scores_nan():
    assert math.isnan(expected_calibration_error([[NAN, 1.0]], [0]))
    assert math.isnan(minimal_pair_accuracy([-1.0, NAN], [-2.0, -2.0]))
    assert math.isnan(minimal_pair_accuracy([-1.0, -1.0], [NAN, -2.0]))
    features, labels = [[0.0], [1.0]], [0, 1]
    assert np.isnan(kshot_hits([[0.0], [NAN]], labels, features, labels, k=1, seed=0)).all()
    assert np.isnan(kshot_hits(features, labels, [[0.0], [math.inf]], labels, k=1, seed=0)).all()
    assert math.isnan(kshot_probe([[0.0], [NAN]], labels, features, labels, k=1, seed=0)["mean"])
    assert math.isnan(kshot_probe(features, labels, [[0.0], [math.inf]], labels, k=1, seed=0)["mean"])


@pytest.mark.parametrize(
    ("predicted", "gold", "found", "there", "hits"),
    [
        ("B-PER I-PER O B-LOC", "B-PER I-PER O B-LOC", 2, 2, 2),
        ("B-PER O O B-LOC", "B-PER I-PER O B-LOC", 2, 2, 1),  # extent
        ("B-LOC I-LOC O B-LOC", "B-PER I-PER O B-LOC", 2, 2, 1),  # type
        ("I-PER I-PER O O", "B-PER I-PER O B-LOC", 1, 2, 1),  # I- after O begins an entity
        ("B-PER I-LOC I-LOC O", "B-PER B-LOC I-LOC O", 2, 2, 2),  # I- of another type begins one
        ("B-PER B-PER O O", "I-PER I-PER O O", 2, 1, 0),  # IO cannot part neighbours
        ("O O O O", "O O O I-PER", 0, 1, 0),
        ("O O O B-PER", "O O O O", 1, 0, 0),
        ("O O O O", "O O O O", 0, 0, 0),
    ],
)
def test_entities_by_hand(predicted, gold, found, there, hits):
    scores = entity_f1([predicted.split()], [gold.split()])
    precision, recall = (hits / found if found else 0), (hits / there if there else 0)
    f1 = 2 * precision * recall / (precision + recall) if hits else 0
    assert scores == pytest.approx({"precision": precision, "recall": recall, "f1": f1})


def test_entities_are_pooled_over_sentences_and_do_not_cross_them():
    predicted = [["B-PER"], ["I-PER", "B-LOC"], []]
    gold = [["B-PER"], ["B-PER", "O"], []]
    assert entity_f1(predicted, gold) == pytest.approx({"precision": 2 / 3, "recall": 1, "f1": 0.8})


def test_entities_refuse():
    with pytest.raises(ForgetlabError, match="1 predicted, 2 gold sentences"):
        entity_f1([["O"]], [["O"], ["O"]])
    with pytest.raises(ForgetlabError, match="sentence 1: 1 tags, 2 gold"):
        entity_f1([["O"], ["O"]], [["O"], ["O", "O"]])
    for tag in ("PER", "B", "S-PER", "I-", "O-PER"):
        with pytest.raises(ForgetlabError, match=f"tag '{tag}' in sentence 0; expected O, B-TYPE or I-TYPE"):
            entity_f1([["O", tag]], [["O", "O"]])


def blobs(seed, n=60, classes=3, d=10, gap=1.5):
    labels = torch.arange(n) % classes
    return gap * torch.eye(classes, d, dtype=torch.float64)[labels] + normal(seed, n, d), labels


def slow_probe(x, y, test_x, test_y, ridge):
    """Ridge regression with a free intercept, by the normal equations."""
    mean, scale = x.mean(dim=0), x.std(dim=0, correction=0)
    design = torch.cat([(x - mean) / scale, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
    penalty = ridge * torch.eye(x.shape[1] + 1, dtype=torch.float64)
    penalty[-1, -1] = 0
    targets = torch.eye(3, dtype=torch.float64)[y]
    W = torch.linalg.inv(design.T @ design + penalty) @ design.T @ targets
    answers = (((test_x - mean) / scale) @ W[:-1] + W[-1]).argmax(dim=1)
    return (answers == test_y).double().mean().item()


def test_probe_on_every_example_against_the_normal_equations():
    (x, y), (test_x, test_y) = blobs(0), blobs(1, n=90)
    accuracy = slow_probe(x, y, test_x, test_y, ridge=300.0)
    assert 0.5 < accuracy < 0.95
    scores = kshot_probe(x, y, test_x, test_y, k=20, seed=0, ridge=300.0)
    assert scores == pytest.approx({"mean": accuracy, "std": 0})
    assert scores != kshot_probe(x, y, test_x, test_y, k=20, seed=0, ridge=1.0)


def test_probe_sees_only_the_examples_it_draws():
    (x, y), (test_x, test_y) = blobs(0), blobs(1, n=900)
    x[::2] += 5  # so that mean and scale of the draw differ from those of all
    generator = torch.Generator().manual_seed(7)
    accuracies = []
    for _ in range(5):
        pools = [(y == label).nonzero()[:, 0] for label in range(3)]
        drawn = torch.cat([pool[torch.randperm(20, generator=generator)[:4]] for pool in pools])
        accuracies.append(slow_probe(x[drawn], y[drawn], test_x, test_y, ridge=1.0))
    scores = kshot_probe(x, y, test_x, test_y, k=4, seed=7)
    assert scores == pytest.approx({"mean": np.mean(accuracies), "std": np.std(accuracies, ddof=1)})


def test_probe_learns_more_from_more_examples_and_nothing_from_noise():
    (x, y), (test_x, test_y) = blobs(0, n=600), blobs(1, n=600)
    few, many = (kshot_probe(x, y, test_x, test_y, k=k, seed=0, repeats=10)["mean"] for k in (2, 64))
    assert 0.4 < few < many - 0.05
    noise, test_noise = normal(2, 600, 10), normal(3, 600, 10)
    assert kshot_probe(noise, y, test_noise, test_y, k=64, seed=0)["mean"] == pytest.approx(1 / 3, abs=0.06)


def test_probe_is_defined_by_its_seed():
    (x, y), (test_x, test_y) = blobs(0), blobs(1)
    scores = [kshot_probe(x, y, test_x, test_y, k=3, seed=seed) for seed in (0, 0, 1)]
    assert scores[0] == scores[1]
    assert scores[0] != scores[2]
    first = kshot_probe(x, y, test_x, test_y, k=3, seed=0, repeats=1)
    assert math.isnan(first["std"])
    both = kshot_probe(x, y, test_x, test_y, k=3, seed=0, repeats=2)
    second = 2 * both["mean"] - first["mean"]
    assert first["mean"] != second
    assert both["std"] == pytest.approx(abs(first["mean"] - second) / math.sqrt(2))  # divided by n − 1


def test_probe_ignores_scale_shift_and_constant_features():
    (x, y), (test_x, test_y) = blobs(0), blobs(1)
    expected = kshot_probe(x, y, test_x, test_y, k=5, seed=0)
    factors = torch.logspace(-4, 4, 10)
    assert kshot_probe(x * factors + 3, y, test_x * factors + 3, test_y, k=5, seed=0) == pytest.approx(expected)
    constant = torch.full((60, 1), 0.1, dtype=torch.float64)  # 15 times 0.1 leaves a deviation of 1e-17
    wider = [torch.cat([x, constant], dim=1), torch.cat([test_x, constant + 1e-3 * normal(2, 60, 1)], dim=1)]
    assert kshot_probe(wider[0], y, wider[1], test_y, k=5, seed=0) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 3}, "examples per class: 0: 3, 1: 2; expected 2 classes or more, each with k=3"),
        ({"labels": [0] * 5}, "expected 2 classes or more"),
        ({"k": 0}, "k=0"),
        ({"repeats": 0}, "repeats=0"),
        ({"ridge": 0.0}, "ridge=0.0"),
        ({"test_labels": [7]}, r"test labels hold \[7.0\]; expected those of \[0.0, 1.0\]"),
        ({"labels": [0, 1]}, r"features \(5, 1\) and \(1, 1\) with 2 and 1 labels"),
        ({"test_features": [[1.0, 2.0]]}, r"and \(1, 2\)"),
        ({"features": [1.0] * 5}, r"features has shape \(5,\); expected 2 dimension"),
    ],
)
def test_probe_refuses(change, message):
    features = [[0.0], [1.0], [2.0], [8.0], [9.0]]
    given = {
        "features": features,
        "labels": [0, 0, 0, 1, 1],
        "test_features": [[1.0]],
        "test_labels": [0],
        "k": 2,
        "seed": 0,
    }
    with pytest.raises(ForgetlabError, match=message):
        kshot_hits(**{**given, **change})
