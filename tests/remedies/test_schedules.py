"""Rates and unfreezing: each schedule against its formula written out again, each layer against a table by hand."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from torch import nn

from forgetlab import ForgetlabError, finetune, task
from forgetlab.models.model import Model
from forgetlab.remedies.architectures import Frozen
from forgetlab.remedies.regularizers import L2SP
from forgetlab.remedies.schedules import Cosine, GradualUnfreezing, LayerwiseRates, SlantedTriangular, Warmup
from forgetlab.training.method import Method, Run
from forgetlab.training.pretraining import world_tokenizer
from tests.conftest import small_model

SENTIMENT = task("sentiment", size=64)


def run_of(model: Model, steps: int = 10) -> Run:
    named = list(model.named_parameters())
    run = Run(model, SENTIMENT, steps, 8, 1.0, {}, dict(named), torch.Generator())
    run.groups = [{"params": [p for _, p in named], "names": [n for n, _ in named], "lr": 1.0}]
    return run


def rates(method: Method, steps: int) -> list[float]:
    """The factor at every step of a run, driven as the loop does."""
    run = run_of(small_model(), steps)
    method.setup(run)
    found = []
    for step in range(steps):
        run.step, run.groups[0]["lr"] = step, 1.0
        method.before_step(run)
        found.append(run.groups[0]["lr"])
    return found


def lr_by_name(model: Model, *methods: Method) -> dict[str, float]:
    run = run_of(model)
    groups = run.groups
    for method in methods:
        groups = method.parameter_groups(groups, run)
    assert all(len(group["names"]) == len(group["params"]) > 0 for group in groups)
    named = dict(model.named_parameters())
    assert all(named[n] is p for group in groups for n, p in zip(group["names"], group["params"], strict=True))
    names = [n for group in groups for n in group["names"]]
    assert len(names) == len(set(names))  # tied weights too come once
    return {n: group["lr"] for group in groups for n in group["names"]}


# --- rates by layer ---

SHAPE = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
# (architecture, its configuration, where its weights begin: how often η is divided by the factor)
BODIES = {
    "BertForMaskedLM": (
        SHAPE,
        {
            "bert.embeddings.": 4,
            "bert.encoder.layer.0.": 3,
            "bert.encoder.layer.1.": 2,
            "bert.encoder.layer.2.": 1,
            "cls.": 0,
        },
    ),
    "BertModel": (
        SHAPE,
        {"embeddings.": 4, "encoder.layer.0.": 3, "encoder.layer.1.": 2, "encoder.layer.2.": 1, "pooler.": 0},
    ),
    "DistilBertForMaskedLM": (
        {"vocab_size": 50, "dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 24},
        {
            "distilbert.embeddings.": 4,
            "distilbert.transformer.layer.0.": 3,
            "distilbert.transformer.layer.1.": 2,
            "distilbert.transformer.layer.2.": 1,
            "vocab_": 0,
        },
    ),
    "RobertaForMaskedLM": (
        SHAPE,
        {
            "roberta.embeddings.": 4,
            "roberta.encoder.layer.0.": 3,
            "roberta.encoder.layer.1.": 2,
            "roberta.encoder.layer.2.": 1,
            "lm_head.": 0,
        },
    ),
    "ElectraForMaskedLM": (
        {**SHAPE, "embedding_size": 8},
        {
            "electra.embeddings": 4,  # and embeddings_project
            "electra.encoder.layer.0.": 3,
            "electra.encoder.layer.1.": 2,
            "electra.encoder.layer.2.": 1,
            "generator_": 0,
        },
    ),
    "GPT2LMHeadModel": (
        {"vocab_size": 50, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32, "bos_token_id": 1}
        | {"eos_token_id": 2},
        {
            "transformer.wte.": 4,  # tied to the language-model head
            "transformer.wpe.": 4,
            "transformer.h.0.": 3,
            "transformer.h.1.": 2,
            "transformer.h.2.": 1,
            "transformer.ln_f.": 1,
        },
    ),
    "GPTNeoXForCausalLM": (
        SHAPE,
        {
            "gpt_neox.embed_in.": 4,
            "gpt_neox.layers.0.": 3,
            "gpt_neox.layers.1.": 2,
            "gpt_neox.layers.2.": 1,
            "gpt_neox.final_layer_norm.": 1,
            "lm_head.": 0,  # "embed_out" in older transformers
            "embed_out.": 0,
        },
    ),
    "LlamaForCausalLM": (
        {**SHAPE, "num_key_value_heads": 1},
        {
            "model.embed_tokens.": 4,
            "model.layers.0.": 3,
            "model.layers.1.": 2,
            "model.layers.2.": 1,
            "model.norm.": 1,
            "lm_head.": 0,
        },
    ),
    "Qwen2ForCausalLM": (
        {**SHAPE, "num_key_value_heads": 1, "tie_word_embeddings": True},
        {
            "model.embed_tokens.": 4,
            "model.layers.0.": 3,
            "model.layers.1.": 2,
            "model.layers.2.": 1,
            "model.norm.": 1,
        },
    ),
    "AlbertForMaskedLM": (  # one layer, used three times
        {**SHAPE, "embedding_size": 8},
        {
            "albert.embeddings.": 2,
            "albert.encoder.embedding_hidden_mapping_in.": 2,
            "albert.encoder.albert_layer_groups.": 1,
            "predictions.": 0,
        },
    ),
}


@pytest.mark.parametrize("architecture", BODIES)
def test_each_weight_has_the_rate_of_its_layer(architecture: str) -> None:
    import transformers

    settings, table = BODIES[architecture]
    kind = getattr(transformers, architecture)
    model = Model(kind(kind.config_class(**settings)), world_tokenizer(False), architecture)
    model.add_head("sentiment", ["good", "bad"])
    found = lr_by_name(model, LayerwiseRates(factor=2.0))
    expected = {}
    for name in found:
        inner = name.removeprefix("body.")
        matches = [k for start, k in table.items() if inner.startswith(start)]
        assert name.startswith("heads.") or len(matches) == 1, name
        expected[name] = 2.0 ** -(0 if name.startswith("heads.") else matches[0])
    assert found == expected
    assert len(found) == len(set(model.parameters()))


def test_inserted_weights_go_by_their_layer(bert: Model) -> None:
    class LowRank(nn.Module):
        def __init__(self, base: nn.Linear) -> None:
            super().__init__()
            self.base = base
            self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, 2, bias=False)})

    for layer in bert.body.bert.encoder.layer:
        layer.attention.self.query = LowRank(layer.attention.self.query)
    found = lr_by_name(bert, LayerwiseRates(factor=10.0))
    for number, rate in ((0, 0.01), (1, 0.1)):
        start = f"body.bert.encoder.layer.{number}.attention.self.query"
        own = {n: lr for n, lr in found.items() if n.startswith(start)}
        assert set(own) == {f"{start}.base.weight", f"{start}.base.bias", f"{start}.lora_A.default.weight"}
        assert list(own.values()) == pytest.approx([rate] * 3)


def test_peft_names_are_read_too(bert: Model) -> None:
    peft = pytest.importorskip("peft")
    bert.body = peft.get_peft_model(bert.body, peft.LoraConfig(target_modules=["query"], r=2))
    found = lr_by_name(bert, LayerwiseRates(factor=10.0))
    own = {n.split("layer.")[1][0]: lr for n, lr in found.items() if "lora_A" in n}
    assert own == {"0": pytest.approx(0.01), "1": pytest.approx(0.1)}
    assert {lr for n, lr in found.items() if ".cls." in n} == {1.0}


def test_groups_keep_what_else_they_say(bert: Model) -> None:
    run = run_of(bert)
    names, params = run.groups[0]["names"], run.groups[0]["params"]
    half = len(names) // 2
    before = [
        {"params": params[:half], "names": names[:half], "lr": 1.0, "weight_decay": 0.3},
        {"params": params[half:], "names": names[half:], "lr": 8.0},
    ]
    after = LayerwiseRates(factor=2.0).parameter_groups(before, run)
    for group in after:
        first = group["names"][0] in names[:half]
        assert all((n in names[:half]) == first for n in group["names"])
        assert group.get("weight_decay") == (0.3 if first else None)
    lr = {n: group["lr"] for group in after for n in group["names"]}
    assert lr["body.bert.embeddings.word_embeddings.weight"] == 1 / 8
    assert lr["body.cls.predictions.transform.dense.weight"] == 8.0
    assert [group["lr"] for group in before] == [1.0, 8.0]  # what came in is left as it was


def test_frozen_and_rates_compose_in_either_order(bert: Model) -> None:
    SENTIMENT.prepare(bert)
    run = run_of(bert)
    run.weights = {n: p for n, p in run.weights.items() if not n.startswith("heads.")}
    for methods in ([Frozen(), LayerwiseRates()], [LayerwiseRates(), Frozen()]):
        groups = run.groups
        for method in methods:
            groups = method.parameter_groups(groups, run)
        assert [(g["names"], g["lr"]) for g in groups] == [
            (["heads.sentiment.linear.weight", "heads.sentiment.linear.bias"], 1.0)
        ]


def test_a_lower_layer_moves_less(bert: Model) -> None:
    settings = {"steps": 8, "every": 8, "lr": 1e-3, "batch_size": 8, "limit": 4}
    plain = list(finetune(small_model(), SENTIMENT, **settings))[-1].drift_per_layer
    slow = list(finetune(bert, SENTIMENT, methods=[LayerwiseRates(factor=10.0)], **settings))[-1].drift_per_layer
    # Adam's steps are about η each: the drift follows the rate
    assert slow["layer 1"] == pytest.approx(plain["layer 1"] / 10, rel=0.3)
    assert slow["layer 0"] == pytest.approx(plain["layer 0"] / 100, rel=0.3)
    assert slow["embeddings"] == pytest.approx(plain["embeddings"] / 1000, rel=0.3)


# --- rates by step ---


@pytest.mark.parametrize(("share", "steps"), [(0.1, 50), (0.25, 10), (1.0, 7), (0.1, 5)])
def test_warmup(share: float, steps: int) -> None:
    length = share * steps
    expected = [(t + 1) / length if t + 1 < length else 1.0 for t in range(steps)]
    assert rates(Warmup(share), steps) == pytest.approx(expected)


def test_warmup_by_hand() -> None:
    assert rates(Warmup(0.4), 10) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1])


@pytest.mark.parametrize("floor", [0.0, 0.2, 1.0])
def test_cosine(floor: float) -> None:
    found = rates(Cosine(floor), 12)
    # cos²(x / 2) = (1 + cos x) / 2
    assert found == pytest.approx([floor + (1 - floor) * math.cos(math.pi * t / 24) ** 2 for t in range(12)])
    assert found[0] == 1
    assert found[6] == pytest.approx((1 + floor) / 2)


@pytest.mark.parametrize(("cut", "ratio", "steps"), [("0.1", 32, 50), ("0.5", 4, 8), ("0.29", 10, 100), ("0.2", 1, 10)])
def test_slanted_triangular_is_equation_3(cut: str, ratio: int, steps: int) -> None:
    share = Fraction(cut)
    c = math.floor(steps * share)
    expected = []
    for t in range(steps):
        p = Fraction(t, c) if t < c else 1 - (t - c) / (c * (1 / share - 1))  # T · cut is whole
        expected.append(float((1 + p * (ratio - 1)) / ratio))
    assert rates(SlantedTriangular(float(cut), ratio), steps) == pytest.approx(expected)


def test_slanted_triangular_by_hand() -> None:
    assert rates(SlantedTriangular(0.5, 4), 8) == pytest.approx([0.25, 0.4375, 0.625, 0.8125, 1, 0.8125, 0.625, 0.4375])


def test_slanted_triangular_never_turns_negative() -> None:
    found = rates(SlantedTriangular(0.1, 32), 19)  # c = 1: equation 3 ends at (1 − 8/9 · 31) / 32 = −0.83
    assert found[:2] == [1 / 32, 1]
    falls = [a - b for a, b in itertools.pairwise(found[1:])]
    assert falls == pytest.approx([31 / 32 / 18] * 17)  # evenly, and at a 19th step it would be at 1 / 32 again


def test_the_optimizer_gets_the_product_of_all_factors(bert: Model) -> None:
    methods = [Warmup(0.5), LayerwiseRates(factor=2.0), Cosine()]
    records = list(finetune(bert, SENTIMENT, methods=methods, steps=8, lr=1e-3, every=1, limit=4))
    assert records[0].lr == pytest.approx([1e-3, 5e-4, 2.5e-4, 1.25e-4])  # heads, layer 1, layer 0, embeddings
    for record in records[1:]:
        t = record.step - 1
        factor = min(1.0, (t + 1) / 4) * (1 + math.cos(math.pi * t / 8)) / 2
        assert record.lr == pytest.approx([factor * rate for rate in records[0].lr])


def test_a_rate_scaled_to_a_constant_is_that_rate() -> None:
    class Half(Method):
        def before_step(self, run):
            for group in run.groups:
                group["lr"] *= 0.5

    scaled, plain = small_model(), small_model()
    list(finetune(scaled, SENTIMENT, methods=[Cosine(floor=1.0), Half()], steps=5, lr=2e-3))
    list(finetune(plain, SENTIMENT, steps=5, lr=1e-3))
    assert all(torch.equal(a, b) for a, b in zip(scaled.parameters(), plain.parameters(), strict=True))


# --- gradual unfreezing ---


def moved(model: Model, methods: list[Method], new=SENTIMENT, **options) -> dict[int, set[str]]:
    """Step → the parts of the model with a bit that differs from the start."""
    parts = {"embeddings": ("embeddings.", "wte.", "wpe."), "layer 0": ("layer.0.", "h.0."), "layer 1": ("layer.1.",)}
    parts |= {"layer 1": ("layer.1.", "h.1.", "ln_f."), "head": ("heads.sentiment.",)}
    found, before = {}, {}
    for record in finetune(model, new, methods=methods, every=1, limit=4, batch_size=4, **options):
        now = {n: p.detach().clone() for n, p in model.named_parameters()}
        before = before or now
        changed = [n for n in now if not torch.equal(now[n], before[n])]
        found[record.step] = {part for part, marks in parts.items() if any(m in n for n in changed for m in marks)}
    return found


def test_layers_join_one_by_one_and_stay_bit_identical_until_then(bert: Model) -> None:
    methods: list[Method] = [GradualUnfreezing(), L2SP(lam=0.5)]
    found = moved(bert, methods, steps=12, weight_decay=0.1)
    assert found[0] == set()
    assert all(found[t] == {"head", "layer 1"} for t in (1, 2, 3))  # 3 turns over the first 6 steps: 0, 3, 6
    assert all(found[t] == {"head", "layer 1", "layer 0"} for t in (4, 5, 6))
    assert all(found[t] == {"head", "layer 1", "layer 0", "embeddings"} for t in range(7, 13))
    assert all(p.requires_grad for p in bert.parameters())  # given back afterwards


def test_every_says_how_many_steps_a_layer_waits(bert: Model) -> None:
    found = moved(bert, [GradualUnfreezing(every=2)], steps=6)
    assert [len(found[t]) for t in range(7)] == [0, 2, 2, 3, 3, 4, 4]
    found = moved(small_model(), [GradualUnfreezing(every=5)], steps=6)
    assert "embeddings" not in found[6]  # too large for the run


def test_a_causal_model_without_a_named_head_unfreezes_too(gpt: Model) -> None:
    found = moved(gpt, [GradualUnfreezing(every=1)], task("causal-lm:notices", size=64), steps=3)
    assert [found[t] for t in (1, 2)] == [{"layer 1"}, {"layer 1", "layer 0"}]
    assert "embeddings" in found[3]


def test_what_others_froze_stays_frozen_and_takes_no_turn(bert: Model) -> None:
    class NotLayerOne(Method):
        def parameter_groups(self, groups, run):
            [group] = groups
            pairs = [(n, p) for n, p in zip(group["names"], group["params"], strict=True) if "layer.1." not in n]
            return [{**group, "names": [n for n, _ in pairs], "params": [p for _, p in pairs]}]

    found = moved(bert, [GradualUnfreezing(every=1), NotLayerOne()], steps=3)
    assert [found[t] for t in (1, 2, 3)] == [{"head", "layer 0"}, *[{"head", "layer 0", "embeddings"}] * 2]
    assert moved(small_model(), [Frozen(), GradualUnfreezing(every=1)], steps=3)[3] == {"head"}


def test_other_methods_see_only_what_is_on(bert: Model) -> None:
    seen: list[tuple[int, int]] = []

    class Spy(Method):
        def before_step(self, run):
            seen.append((len(run.trained()), sum(p.requires_grad for p in run.weights.values())))

    list(finetune(bert, SENTIMENT, methods=[GradualUnfreezing(every=1), Spy()], steps=3))
    counts = {part: sum(part in n for n, _ in bert.named_parameters()) for part in ("layer.1.", "layer.0.", "cls.")}
    first = counts["layer.1."] + counts["cls."]
    assert seen[0] == (first + 2, first)  # the new head's two are trained and have no anchor
    assert seen[1] == (first + counts["layer.0."] + 2, first + counts["layer.0."])
    assert seen[2][0] == len(list(bert.parameters()))


def test_a_method_serves_a_second_run_like_the_first() -> None:
    methods = [GradualUnfreezing(), SlantedTriangular(0.5), LayerwiseRates()]
    models = [small_model(), small_model()]
    for model in models:
        list(finetune(model, SENTIMENT, methods=methods, steps=6))
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in models), strict=True))


# --- bad input ---


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LayerwiseRates(0.5), "factor must be a number of 1 or more, got 0.5"),
        (lambda: LayerwiseRates("2.6"), "factor must be a number of 1 or more, got '2.6'"),
        (lambda: LayerwiseRates(math.inf), "factor must be a number of 1 or more, got inf"),
        (lambda: LayerwiseRates(True), "factor must be a number of 1 or more, got True"),
        (lambda: Warmup(0), "share must be between 0 and 1, 0 excluded, got 0"),
        (lambda: Warmup(1.5), "share must be between 0 and 1, 0 excluded, got 1.5"),
        (lambda: Cosine(-0.1), "floor must be between 0 and 1, got -0.1"),
        (lambda: Cosine(math.nan), "floor must be between 0 and 1, got nan"),
        (lambda: SlantedTriangular(cut=0.0), "cut must be between 0 and 1, both excluded, got 0.0"),
        (lambda: SlantedTriangular(cut=1), "cut must be between 0 and 1, both excluded, got 1"),
        (lambda: SlantedTriangular(ratio=0.5), "ratio must be a number of 1 or more, got 0.5"),
        (lambda: GradualUnfreezing(0), "every must be a whole number above 0, got 0"),
        (lambda: GradualUnfreezing(2.5), "every must be a whole number above 0, got 2.5"),
        (lambda: GradualUnfreezing(True), "every must be a whole number above 0, got True"),
    ],
)
def test_bad_settings(make, message: str) -> None:
    with pytest.raises(ForgetlabError) as caught:
        make()
    assert message in str(caught.value)


def test_a_run_too_short_for_the_triangle(bert: Model) -> None:
    with pytest.raises(ForgetlabError, match=r"cut 0.1 of 9 steps is less than one; train for 10 or more"):
        list(finetune(bert, SENTIMENT, methods=[SlantedTriangular()], steps=9))
    assert list(finetune(bert, SENTIMENT, methods=[SlantedTriangular()], steps=10))[-1].status == "done"
