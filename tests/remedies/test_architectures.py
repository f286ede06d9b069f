"""Frozen models with something added: the start, what stays bit-identical, the counts, and the way back."""

import copy
import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from forgetlab import ForgetlabError, finetune, load, task
from forgetlab.models.model import Model
from forgetlab.remedies.architectures import Adapters, Frozen, LoRA, ProgressiveColumns
from forgetlab.remedies.by_name import make_methods
from forgetlab.remedies.replay import ExperienceReplay
from forgetlab.tasks import Task
from forgetlab.training.method import Method
from forgetlab.training.pretraining import world_tokenizer
from forgetlab.training.record import Record
from tests.conftest import small_model

TEXTS = ["anna is older than boris .", "the plays were dull but moving , and nobody laughed ."]
CAUSAL = ("gpt2", "gpt_neox", "llama")
FAMILIES = ("bert", "distilbert", "roberta", *CAUSAL)
MAKERS: dict[str, Callable[[], Method]] = {
    "adapters": lambda: Adapters(width=5),
    "adapters-shared": lambda: Adapters(width=5, shared=True),
    "lora": lambda: LoRA(r=3),
    "lora-private": lambda: LoRA(r=3, shared=False),
    "columns": lambda: ProgressiveColumns(width=12),
}
PRIVATE = ("adapters", "lora-private", "columns")


tokenizer_for = cache(world_tokenizer)  # texts are encoded once for a tokenizer


@cache
def a_task(name: str) -> Task:
    return task(name, size=400 if "-lm" in name else 32)


@pytest.fixture
def bert() -> Model:
    return family("bert")


def family(name: str) -> Model:
    """A random two-layer model of width 32 of a family."""
    import transformers as t

    tokenizer = tokenizer_for(name in CAUSAL)
    common = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    own = {
        "bert": lambda: t.BertForMaskedLM(t.BertConfig(**common, **sizes)),
        "distilbert": lambda: t.DistilBertForMaskedLM(
            t.DistilBertConfig(**common, dim=32, hidden_dim=64, n_layers=2, n_heads=4)
        ),
        "roberta": lambda: t.RobertaForMaskedLM(t.RobertaConfig(**common, **sizes)),
        "gpt2": lambda: t.GPT2LMHeadModel(t.GPT2Config(**common, n_embd=32, n_layer=2, n_head=4)),
        "gpt_neox": lambda: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**common, **sizes)),
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**common, **sizes, num_key_value_heads=2)),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = own[name]()
    return Model(body, tokenizer, name).eval()


def inputs(model: Model, texts: list[str] = TEXTS) -> dict[str, Tensor]:
    batch = model.tokenizer(texts, padding=True, return_tensors="pt")
    return {k: batch[k] for k in ("input_ids", "attention_mask")}


@torch.no_grad()
def hidden(model: Model, texts: list[str] = TEXTS) -> Tensor:
    return model.hidden(inputs(model, texts))


def train(model: Model, *methods: Method, name: str = "sentiment", steps: int = 4, **given) -> list[Record]:
    settings: dict[str, Any] = {"batch_size": 8, "every": steps, "lr": 1e-2, "limit": 16} | given
    return list(finetune(model, a_task(name), methods=methods, steps=steps, **settings))


def hooks(model: Model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("method", MAKERS)
def test_from_the_pretrained_function_and_back(method: str, name: str) -> None:
    model, made = family(name), MAKERS[method]()
    a_task("entities").prepare(model)
    model.remember()
    weights, before, parts = model.snapshot(), hidden(model), hooks(model)
    old = a_task("causal-lm" if model.causal else "masked-lm")
    records = finetune(
        model, a_task("sentiment"), methods=[made], watch=[old], steps=4, every=4, batch_size=8, lr=1e-2, limit=8
    )
    first = next(records)
    assert torch.equal(hidden(model), before)
    last = list(records)[-1]
    assert not torch.equal(hidden(model), before)
    with made.off():
        assert torch.equal(hidden(model), before)
    assert (last.scores[old.name] == first.scores[old.name]) == (method in PRIVATE)
    assert last.drift == 0
    assert all(torch.equal(p, weights[n.replace(".base_layer", "")]) for n, p in old_weights(model))
    assert all(p.requires_grad for p in model.parameters())
    model.restore()
    assert list(model.state_dict()) == list(weights)
    assert all(torch.equal(p, weights[n]) for n, p in model.state_dict().items())
    assert torch.equal(hidden(model), before)
    assert hooks(model) == parts


def old_weights(model: Model) -> Iterator[tuple[str, Tensor]]:
    added = ("adapters:", "columns:", ".lora_", "heads.sentiment")
    return ((n, p) for n, p in model.named_parameters() if not any(a in n for a in added))


@pytest.mark.parametrize(("name", "fused"), [(n, n in ("gpt2", "gpt_neox")) for n in FAMILIES])
def test_added_parameters_are_the_closed_form(name: str, fused: bool) -> None:
    model = family(name)
    own = sum(p.numel() for p in model.parameters())
    value = 16 if name == "llama" else 32  # two key-value heads of four
    added = {
        Adapters(width=5): 2 * (2 * 32 * 5 + 5 + 32),
        LoRA(r=3): 2 * (3 * (32 + 96) if fused else 3 * (32 + 32) + 3 * (32 + value)),
        ProgressiveColumns(width=12): 2 * (12 * 12**2 + 13 * 12 + 33 * 12) + 2 * 12 + 13 * 32,
        ProgressiveColumns(width=None): 2 * (12 * 32**2 + 13 * 32 + 33 * 32) + 2 * 32 + 33 * 32,
    }
    head = 2 * 32 + 2
    for method, count in added.items():
        records = finetune(model, a_task("sentiment"), methods=[method], steps=1, limit=4)
        costs = next(records).costs
        assert costs == {"added_parameters": count, "bytes": 4 * count, "trained_parameters": count + head}
        assert sum(p.numel() for p in model.parameters()) == own + count + head
        records.close()
        model.restore()


def test_an_adapter_is_the_block_and_its_bottleneck(bert: Model) -> None:
    method = Adapters(width=5)
    train(bert, method)
    weights = {n.removeprefix("adapters:sentiment.layers."): p for n, p in bert.named_parameters() if "adapters" in n}
    one = inputs(bert, TEXTS[:1])
    after = bert.hidden(one)
    with method.off(), torch.no_grad():
        h = bert.backbone.embeddings(one["input_ids"])
        for i, layer in enumerate(bert.backbone.encoder.layer):
            h = layer(h)
            z = F.gelu(h @ weights[f"{i}.down.weight"].T + weights[f"{i}.down.bias"])
            h = h + z @ weights[f"{i}.up.weight"].T + weights[f"{i}.up.bias"]
    torch.testing.assert_close(after, h)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_lora_is_the_manual_product(name: str) -> None:
    model, by_hand = family(name), family(name)
    method = LoRA(r=3, alpha=7)
    train(model, method)
    trained = dict(model.named_parameters())
    named = dict(by_hand.named_parameters())
    changed = [n for n in trained if ".lora_A." in n]
    assert len(changed) == (2 if name == "gpt2" else 4)
    with torch.no_grad():
        for n in changed:
            delta = 7 / 3 * trained[n.replace("lora_A", "lora_B")] @ trained[n]
            named[n.replace("lora_A.lora:*.", "")] += delta.T if name == "gpt2" else delta
    torch.testing.assert_close(hidden(model), hidden(by_hand), rtol=1e-4, atol=1e-5)
    method.merge()
    assert list(model.body.state_dict()) == list(by_hand.body.state_dict())
    torch.testing.assert_close(hidden(model), hidden(by_hand), rtol=1e-4, atol=1e-5)
    model.restore()
    assert torch.equal(hidden(model), hidden(family(name)))


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_a_column_is_its_formula(name: str) -> None:
    """One text, one head at a time, with an explicit softmax."""
    model, method = family(name), ProgressiveColumns(width=12)  # four heads of width 3
    train(model, method)
    column = model.get_submodule("columns:sentiment")
    one = inputs(model, TEXTS[:1])
    with method.off(), torch.no_grad():
        old = model.backbone(**one, output_hidden_states=True)
    length, g = one["input_ids"].shape[1], torch.zeros(())
    with torch.no_grad():
        for layer, h in zip(column.layers, old.hidden_states[:2], strict=True):
            x = g + layer.lateral(h[0])
            heads = layer.attend(layer.norm_1(x)).view(length, 3, 4, 3)
            mixed = []
            for k in range(4):
                q, key, value = heads[:, 0, k], heads[:, 1, k], heads[:, 2, k]
                scores = q @ key.T / 3**0.5
                if name == "gpt2":
                    scores = scores + torch.full((length, length), float("-inf")).triu(1)
                mixed.append(scores.softmax(-1) @ value)
            x = x + layer.mix(torch.cat(mixed, dim=-1))
            g = x + layer.down(F.gelu(layer.up(layer.norm_2(x))))
        expected = old.last_hidden_state[0] + column.out(column.norm(g))
    torch.testing.assert_close(model.hidden(one)[0], expected)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_a_column_sees_no_padding_and_no_future(name: str) -> None:
    model = family(name)
    train(model, ProgressiveColumns(width=12))
    short = inputs(model, TEXTS[:1])
    length = short["input_ids"].shape[1]
    assert hidden(model).shape[1] > length
    torch.testing.assert_close(hidden(model)[0, :length], hidden(model, TEXTS[:1])[0])
    left = {k: F.pad(v, (3, 0)) for k, v in short.items()}  # a causal row of padding has nothing to look at
    assert model.hidden(left).isfinite().all()
    other = {**short, "input_ids": short["input_ids"].clone()}
    other["input_ids"][0, -1] += 5
    moved = (model.hidden(other) - model.hidden(short)).abs().amax(-1)[0]
    assert moved[-1] > 1e-3
    assert bool((moved[:-1] < 1e-6).all()) == model.causal


def test_a_column_refuses_a_cache() -> None:
    gpt, method = family("gpt2"), ProgressiveColumns(width=None)
    train(gpt, method)
    one = inputs(gpt, TEXTS[:1])["input_ids"]
    kept = gpt.backbone(one, use_cache=True).past_key_values
    with pytest.raises(ForgetlabError, match="keeps no key-value cache: give use_cache=False"):
        gpt.backbone(one, past_key_values=kept)
    with method.off():
        gpt.backbone(one, past_key_values=kept)


def test_the_new_task_is_learned_and_the_old_one_kept() -> None:
    model, old, new = load("tiny-bert", device="cpu"), "masked-lm", "masked-lm:notices"
    after = {}
    for name in ("adapters", "columns", "lora", "lora-private", "lora-replay"):
        methods = [MAKERS[name.removesuffix("-replay")]()]
        if "replay" in name:
            methods.append(ExperienceReplay([a_task(old)]))
        first, last = train(model, *methods, name=new, steps=15, watch=[a_task(old)], batch_size=16)
        assert last.scores[new]["perplexity"] < first.scores[new]["perplexity"] / 5, name
        after[name] = last.scores[old]["perplexity"]
        assert (after[name] == first.scores[old]["perplexity"]) == (name in PRIVATE), name
        model.restore()
    assert after["lora"] > 5 * after["lora-replay"] > 5 * after["lora-private"]


@pytest.mark.parametrize("method", MAKERS)
def test_same_seed_same_bits(method: str) -> None:
    def run(seed: int, noise: int) -> tuple[list[Tensor], list[float | None]]:
        model = family("bert")
        torch.manual_seed(noise)
        state = torch.get_rng_state()
        records = train(model, MAKERS[method](), seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        return list(model.state_dict().values()), [r.loss for r in records]

    one, again, other = run(0, 1), run(0, 2), run(3, 1)
    assert all(torch.equal(a, b) for a, b in zip(one[0], again[0], strict=True))
    assert one[1] == again[1] != other[1]


@pytest.mark.parametrize("method", PRIVATE)
def test_a_stream_keeps_each_tasks_own(method: str, bert: Model) -> None:
    before = hidden(bert)
    costs = [train(bert, MAKERS[method](), name="sentiment")[0].costs]
    first = hidden(bert)
    last = MAKERS[method]()  # a fresh object finds what the model has
    costs.append(train(bert, last, name="register")[0].costs)
    second = hidden(bert)
    assert not torch.equal(second, first)
    with last.on("sentiment"):
        assert torch.equal(hidden(bert), first)
        with last.on("register"):
            assert torch.equal(hidden(bert), second)
        with last.off():
            assert torch.equal(hidden(bert), before)
    assert torch.equal(hidden(bert), second)
    assert costs[1]["added_parameters"] == 2 * costs[0]["added_parameters"]
    head = 5 * 33 + 2 * 33  # the heads of both tasks are new since the model was loaded
    assert costs[1]["trained_parameters"] == costs[0]["added_parameters"] + head
    bert.restore()
    assert torch.equal(hidden(bert), before)
    assert hooks(bert) == 0


@pytest.mark.parametrize("method", ["adapters-shared", "lora"])
def test_a_shared_addition_goes_on_learning(method: str, bert: Model) -> None:
    train(bert, MAKERS[method](), name="sentiment")
    bert.remember()
    first = hidden(bert)
    record = train(bert, MAKERS[method](), name="register")[0]
    assert record.costs["trained_parameters"] == record.costs["added_parameters"] + 5 * 33
    assert not torch.equal(hidden(bert), first)


def test_private_beside_shared_lora(bert: Model) -> None:
    shared, private = LoRA(r=3), LoRA(r=2, shared=False, targets=["key"])
    train(bert, shared, name="sentiment")
    first = hidden(bert)
    train(bert, private, name="register")
    assert not torch.equal(hidden(bert), first)
    with private.on("sentiment"):
        assert torch.equal(hidden(bert), first)
    bert.restore()
    assert torch.equal(hidden(bert), hidden(family("bert")))


@pytest.mark.parametrize("method", MAKERS)
def test_a_copy_of_the_model_stands_on_its_own(method: str, bert: Model) -> None:
    made = MAKERS[method]()
    train(bert, made)
    twin = copy.deepcopy(bert)
    then = hidden(twin)
    assert torch.equal(then, hidden(bert))
    train(bert, MAKERS[method](), steps=2)
    with made.off():
        assert torch.equal(hidden(twin), then)
    twin.restore()
    assert torch.equal(hidden(twin), hidden(family("bert")))
    assert not torch.equal(hidden(bert), hidden(twin))


def test_switching_lora_leaves_what_is_trained(bert: Model) -> None:
    method = LoRA(r=3)
    train(bert, method)
    for p in list(bert.parameters())[::2]:
        p.requires_grad_(False)
    flags = [p.requires_grad for p in bert.parameters()]
    with method.off():
        assert [p.requires_grad for p in bert.parameters()] == flags
    assert [p.requires_grad for p in bert.parameters()] == flags


def test_lora_targets(bert: Model) -> None:
    train(bert, LoRA(r=2, targets=["0.attention.self.key", "intermediate.dense"]))
    changed = {n.partition(".lora_A")[0] for n, _ in bert.named_parameters() if ".lora_A." in n}
    layer = "body.bert.encoder.layer."
    assert changed == {f"{layer}0.attention.self.key"} | {f"{layer}{i}.intermediate.dense" for i in (0, 1)}
    bert.restore()
    with pytest.raises(
        ForgetlabError, match="no linear layers 'q_lin' for LoRA; give targets among dense, key, query, v"
    ):
        train(bert, LoRA(targets=["query", "q_lin"]))
    with pytest.raises(ForgetlabError, match="no linear layers 'output' for LoRA"):  # a module, but no linear layer
        train(bert, LoRA(targets="output"))
    bert.backbone.encoder.layer[0].attention.self.value = torch.nn.Identity()
    bert.backbone.encoder.layer[1].attention.self.value = torch.nn.Identity()
    with pytest.raises(ForgetlabError, match="no linear layers query and value projections for LoRA"):
        train(bert, LoRA())


def test_lora_says_its_layers_and_rank_as_text(bert: Model) -> None:
    (method,) = make_methods("lora:alpha=8,targets=query/dense", [])
    assert (method.alpha, method.targets) == (8, ["query", "dense"])
    (method,) = make_methods("lora:targets=all", [])
    train(bert, method)
    weights = dict(bert.named_parameters())
    changed = {n.partition(".lora_A")[0] for n in weights if ".lora_A." in n}
    assert changed == {f"body.bert.{n}" for n, m in bert.backbone.named_modules() if hasattr(m, "base_layer")}
    assert len(changed) == 2 * 6  # query, key, value, and the three of each block's dense layers
    assert {min(p.shape) for n, p in weights.items() if ".lora_" in n} == {32 // 16}


def test_lora_without_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ForgetlabError, match="pip install peft"):
        LoRA()


@pytest.mark.parametrize("width", [0, -1, 2.0, "wide", True])
def test_bad_width(width: object) -> None:
    for method in (Adapters, ProgressiveColumns):
        with pytest.raises(ForgetlabError, match="width must be a whole number above 0, got"):
            method(width=width)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"r": 0}, "r must be a whole number above 0, got 0"),
        ({"alpha": 0}, "alpha must be a number above 0, got 0"),
        ({"alpha": float("nan")}, "alpha must be a number above 0, got nan"),
        ({"dropout": 1}, "dropout must be between 0 and 1, 1 excluded, got 1"),
        ({"targets": []}, "targets must be names of linear layers, or None"),
        ({"targets": ""}, "targets must be names of linear layers, or None"),
        ({"targets": 3}, "targets must be names of linear layers, or None, got 3"),
        ({"shared": "no"}, "shared must be true or false .*, got 'no'"),
    ],
)
def test_bad_lora(given: dict[str, object], said: str) -> None:
    with pytest.raises(ForgetlabError, match=said):
        LoRA(**given)  # type: ignore[arg-type]


def test_what_cannot_be_switched(bert: Model) -> None:
    with pytest.raises(ForgetlabError, match="shared must be true or false .*, got None"):
        Adapters(shared=None)  # type: ignore[arg-type]
    method = Adapters(width=5)
    with pytest.raises(ForgetlabError, match="has not been part of a run yet"):
        method.off()
    train(bert, method)
    with pytest.raises(ForgetlabError, match="unknown task with adapters 'sentimen'; did you mean 'sentiment'"):
        method.on("sentimen")
    with pytest.raises(
        ForgetlabError, match=r"already has Adapters\(width=5, .*\) for sentiment, got Adapters\(width=6"
    ):
        train(bert, Adapters(width=6))


def test_a_model_without_a_list_of_blocks() -> None:
    from transformers import AlbertConfig, AlbertForMaskedLM

    tokenizer = tokenizer_for(False)
    sizes = {"hidden_size": 32, "embedding_size": 16, "intermediate_size": 64, "num_attention_heads": 2}
    body = AlbertForMaskedLM(AlbertConfig(vocab_size=len(tokenizer), num_hidden_layers=2, **sizes))
    model = Model(body, tokenizer, "albert").eval()  # it runs one block twice
    names = list(model.state_dict())
    for method in (Adapters(), ProgressiveColumns()):
        with pytest.raises(ForgetlabError, match="albert: AlbertModel has no list of 2 transformer blocks; LoRA needs"):
            train(model, method)
    before = hidden(model)
    train(model, LoRA())
    assert not torch.equal(hidden(model), before)
    model.restore()
    assert list(model.state_dict()) == names


def test_frozen_trains_the_new_head_only(bert: Model) -> None:
    before = hidden(bert)
    record = train(bert, Frozen())[0]
    assert record.costs == {"added_parameters": 0, "bytes": 0, "trained_parameters": 66}
    assert torch.equal(hidden(bert), before)


@pytest.mark.parametrize("method", MAKERS)
def test_a_model_with_additions_gives_its_memory_back_at_once(method: str) -> None:
    """Not only when Python next looks for cycles."""
    train(family("bert"), MAKERS[method](), steps=1)  # what is imported at the first use has cycles of its own
    gc.collect()
    gc.disable()
    try:
        model, made = family("bert"), MAKERS[method]()
        held = [weakref.ref(model), weakref.ref(next(model.parameters()))]
        train(model, made, steps=1)
        del model, made
        assert [ref() for ref in held] == [None, None]
    finally:
        gc.enable()


def test_what_cannot_be_saved_or_replayed_is_said(tmp_path) -> None:
    model = small_model()
    for method in (Adapters(width=4), LoRA(r=2)):
        model.restore()
        list(finetune(model, task("sentiment", size=64), methods=[method], steps=2))
        with pytest.raises(ForgetlabError, match="carries added weights"):
            model.save(tmp_path / "model")
        assert not (tmp_path / "model").exists()
    model.restore()
    model.save(tmp_path / "model")
    old = task("masked-lm", size=64)
    with pytest.raises(ForgetlabError, match="nothing that is trained takes part in the loss of masked-lm"):
        list(finetune(model, task("sentiment", size=64), methods=[Frozen(), ExperienceReplay([old])], steps=2))


@pytest.mark.parametrize("method", MAKERS)
def test_remembered_additions_stay_and_later_ones_go(method: str) -> None:
    model = small_model()
    train(model, MAKERS[method](), steps=2)
    model.remember()
    kept = model.snapshot()
    train(model, MAKERS[method](), name="register", steps=2)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    model.restore()
    now = model.snapshot()
    assert now.keys() == kept.keys()
    assert all(torch.equal(value, kept[name]) for name, value in now.items())
