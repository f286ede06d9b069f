"""Fisher and MAS importances against slow implementations from the definitions, closed forms and statistics.

The slow ones take one text at a time, without padding, in double precision, through the whole transformers model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from forgetlab import ForgetlabError, finetune, task
from forgetlab.importance import (
    Importance,
    check_importance,
    fisher_diagonal,
    load_importance,
    mas_importance,
    per_example,
    save_importance,
)
from forgetlab.importance.cache import once
from forgetlab.models.model import Model
from forgetlab.remedies.architectures import Adapters
from forgetlab.sources import Examples
from forgetlab.tasks import CausalLM, Classification, MaskedLM, Tagging, Task
from tests.conftest import small_model

WORDS = [f"w{i}" for i in range(40)]
# lengths differ, so that batches are padded; words come again within a text, so that their gradients must be summed
TEXTS = ("w1 w2 w1", "w3 w4 w5 w6 w3", "w7 w8", "w9 w9 w9 w10 w11 w12 w13", "w2 w14 w15 w2", "w20 w21 w22 w23 w24 w20")
TAGS = ("O", "B-PER", "I-PER")
SHAPE: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16}


def test_a_kept_importance_is_that_of_the_additions_that_are_on() -> None:
    model, old, added = small_model(), task("masked-lm", size=32), Adapters(shared=True)
    list(finetune(model, task("sentiment", size=32), methods=[added], steps=3, lr=0.1, batch_size=8, limit=8))
    measured: list[None] = []

    def importance() -> Importance:
        return once(model, old, "how", lambda: measured.append(None) or fisher_diagonal(model, old, examples=8))

    name = next(name for name in importance() if name.endswith("layer.0.output.dense.weight"))
    on = importance()[name]
    assert len(measured) == 1
    with added.off():
        assert not torch.equal(importance()[name], on)
    assert torch.equal(importance()[name], on)


# -- models -------------------------------------------------------------------------------------------


def tokenizer(causal: bool) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[BOS]", "[EOS]"]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*marks, *WORDS])}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if causal:
        names = {"bos_token": "[BOS]", "eos_token": "[EOS]"}
    else:
        names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
        inner.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", **names)


def body(kind: str, vocabulary: int = 47) -> nn.Module:
    """A tiny transformers model; dropout is on in training mode, as in the usual configurations."""
    import transformers as hf

    marks = {"vocab_size": vocabulary, "pad_token_id": 0, "bos_token_id": 5, "eos_token_id": 6}
    wide = {**SHAPE, "intermediate_size": 24, "max_position_embeddings": 20, **marks}
    if kind == "bert":
        return hf.BertForMaskedLM(hf.BertConfig(**wide))
    if kind == "roberta":
        return hf.RobertaForMaskedLM(hf.RobertaConfig(**wide))
    if kind == "albert":
        return hf.AlbertForMaskedLM(hf.AlbertConfig(**wide, embedding_size=8))
    if kind == "distilbert":
        config = hf.DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=20, **marks)
        return hf.DistilBertForMaskedLM(config)
    if kind == "gpt2":
        marks |= {"end_mark": True}  # as if pre-trained with end tokens; the others were not
        return hf.GPT2LMHeadModel(hf.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=20, **marks))
    if kind == "neox":
        return hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**wide, hidden_dropout=0.1, attention_dropout=0.1))
    tied = kind == "llama-tied"
    return hf.LlamaForCausalLM(hf.LlamaConfig(**wide, num_key_value_heads=1, tie_word_embeddings=tied))


def rough(module: nn.Module, seed: int = 1) -> nn.Module:
    """Weights large enough for attention, gates and predictions to differ from text to text."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(0.3 * noise if p.dim() > 1 else 0.2 * noise + (0 if "bias" in name else 1))
    return module.eval()


def model_of(kind: str) -> Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = body(kind)
    return Model(rough(made), tokenizer(kind not in ("bert", "roberta", "distilbert")), kind)


# -- tasks --------------------------------------------------------------------------------------------

PLAIN = Examples(kind="text", texts=TEXTS)


class EveryOther(MaskedLM):
    """Hides every other word, the first one included, instead of drawing them."""

    def _collate(self, model: Model, split: str, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        batch = self.encoded(model, split).take(index)
        ids = batch["input_ids"]
        inner = ids > 6
        hidden = inner & (inner.cumsum(1) % 2 == 1)
        places = {"places": hidden.flatten().nonzero().squeeze(1), "targets": ids[hidden]}
        return batch | places | {"input_ids": ids.masked_fill(hidden, model.tokenizer.mask_token_id)}


class Left:
    """The same batches with the padding in front."""

    def _collate(self, *args: Any) -> dict[str, Tensor]:
        batch: dict[str, Tensor] = super()._collate(*args)  # type: ignore[misc]
        length = batch["input_ids"].shape[1]
        shift = length - batch["attention_mask"].sum(1)
        for name in batch.keys() & {"input_ids", "attention_mask", "token_type_ids"}:
            batch[name] = torch.stack([row.roll(int(s)) for row, s in zip(batch[name], shift, strict=True)])
        if "places" in batch:
            batch["places"] = batch["places"] + shift[batch["places"] // length]
        return batch


class LeftEveryOther(Left, EveryOther): ...


class LeftCausalLM(Left, CausalLM): ...


class LeftClassification(Left, Classification): ...


def language_task(model: Model, left: bool = False) -> Task:
    if model.causal:
        return (LeftCausalLM if left else CausalLM)("lm", PLAIN, PLAIN)
    return (LeftEveryOther if left else EveryOther)("lm", PLAIN, PLAIN)


def labelled(kind: type[Classification] = Classification) -> Classification:
    data = Examples(kind="labels", texts=TEXTS, labels=("a", "b", "c", "a", "b", "c"))
    return kind("topic", data, data)


def tagged(texts: tuple[str, ...]) -> Tagging:
    words = tuple(tuple(text.split()) for text in texts)
    flat = iter([TAGS[i % 3] for i in range(100)])
    data = Examples(kind="tags", texts=(), words=words, tags=tuple(tuple(next(flat) for _ in row) for row in words))
    return Tagging("names", data, data)


# -- the slow implementation --------------------------------------------------------------------------


def predictions(model: Model, task: Task) -> Iterator[tuple[Tensor, list[int]]]:
    """(logits of the places of one text, targets), text after text, from the words themselves."""
    pad, longest = 0, max(len(t.split()) for t in TEXTS) + 2 - (model.causal and not model.end_mark)
    for i, text in enumerate(TEXTS if task.train.words is None else [" ".join(row) for row in task.train.words]):
        ids = [WORDS.index(w) + 7 for w in text.split()]
        end = [6] if model.end_mark else []
        whole = [5, *ids, *end] if isinstance(task, CausalLM) else ids if model.causal else [2, *ids, 3]
        shown = list(whole)
        if isinstance(task, MaskedLM):
            shown[1:-1:2] = [4] * len(shown[1:-1:2])
        skip = 0
        if isinstance(task, Left):
            skip = longest - len(shown) - (2 if isinstance(task, Classification) and model.causal else 0)
        inputs = {"input_ids": torch.tensor([[pad] * skip + shown])}
        inputs["attention_mask"] = torch.tensor([[0] * skip + [1] * len(shown)])
        if isinstance(task, MaskedLM | CausalLM):
            logits = model.body(**inputs).logits[0, skip:]
            if isinstance(task, MaskedLM):
                yield logits[1:-1:2], ids[::2]
            else:
                yield logits[:-1], whole[1:]
            continue
        hidden = model.backbone(**inputs).last_hidden_state[0, skip:]
        if isinstance(task, Tagging):
            hidden, targets = hidden[1:-1], [task.labels.index(tag) for tag in task.train.tags[i]]
        else:
            hidden = hidden[-1:] if model.causal else hidden.mean(0, keepdim=True)
            targets = [task.labels.index(task.train.labels[i])]
        linear = model.heads[task.head].linear
        yield hidden @ linear.weight.T + linear.bias, targets


def slow(model: Model, task: Task, kind: str) -> Importance:
    """By the definitions; the exact sum goes over all y = (y_1 … y_K) of a text together."""
    task.prepare(model)
    twin = copy.deepcopy(model).double().eval()
    sums = {name: torch.zeros_like(p) for name, p in twin.named_parameters()}

    def add(scalar: Tensor, weight: float = 1.0) -> None:
        grads = torch.autograd.grad(scalar, list(twin.parameters()), retain_graph=True, allow_unused=True)
        for name, g in zip(sums, grads, strict=True):
            if g is not None:
                sums[name] += weight * (g.abs() if kind == "mas" else g**2)

    count = 0
    for logits, targets in predictions(twin, task):
        count += 1
        log_p = logits.log_softmax(-1)
        if kind == "mas":
            add((logits**2).sum())
        elif kind == "empirical":
            add(sum(row[y] for row, y in zip(log_p, targets, strict=True)))
        else:
            for ys in product(range(logits.shape[1]), repeat=len(logits)):
                joint = sum(row[y] for row, y in zip(log_p, ys, strict=True))
                add(joint, float(joint.detach().exp()))
    return {name: value / count for name, value in sums.items()}


def slow_plain(module: nn.Module, batches: list[Any], logits: Callable[..., Tensor] | None = None) -> Importance:
    """The empirical Fisher of a plain module, one row at a time."""
    twin = copy.deepcopy(module).double().eval()
    sums = {name: torch.zeros_like(p) for name, p in twin.named_parameters()}
    count = 0
    for batch in batches:
        for i in range(len(batch[-1])):
            row = tuple(t[i : i + 1].double() if t.is_floating_point() else t[i : i + 1] for t in batch)
            log_p = (logits(twin, row) if logits else twin(*row[:-1])).log_softmax(-1)[0, row[-1][0]]
            grads = torch.autograd.grad(log_p, list(twin.parameters()), allow_unused=True)
            for name, g in zip(sums, grads, strict=True):
                if g is not None:
                    sums[name] += g**2
            count += 1
    return {name: value / count for name, value in sums.items()}


def zero_by_theory(name: str) -> bool:
    """Key biases shift all scores of a query alike, which softmax does not see."""
    return name.endswith(("key.bias", "k_lin.bias"))


def agree(got: Importance, expected: Importance, tolerance: float = 1e-5, noise: float = 1e-12) -> None:
    """Largest error of each parameter ≤ tolerance · its largest importance.

    noise: what may be left of a 0 after rounding, relative to the largest importance of all.
    """
    assert got.keys() == expected.keys()
    largest = max(float(value.max()) for value in expected.values())
    for name, value in expected.items():
        error = float((got[name].double() - value).abs().max())
        if zero_by_theory(name):
            assert float(got[name].max()) <= noise * largest, name
        else:
            assert error <= tolerance * float(value.max()), f"{name}: {error / float(value.max()):.1e}"
        assert got[name].dtype == torch.float32
        assert not got[name].requires_grad


# -- hooks on transformers ----------------------------------------------------------------------------


@pytest.mark.parametrize("left", [False, True], ids=["right-padded", "left-padded"])
@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "gpt2", "llama", "llama-tied", "neox"])
def test_hooks_are_the_loop(kind: str, left: bool) -> None:
    model = model_of(kind)
    task = language_task(model, left)
    options: dict[str, Any] = {"estimator": "empirical", "batch_size": 6 if left else 4}
    hooks = fisher_diagonal(model, task, method="hooks", **options)  # raises where a parameter needs another way
    agree(hooks, slow(model, task, "empirical"))
    agree(hooks, fisher_diagonal(model, task, method="loop", **options))
    assert all(torch.equal(hooks[n], v) for n, v in fisher_diagonal(model, task, **options).items())


@pytest.mark.parametrize("left", [False, True], ids=["right-padded", "left-padded"])
@pytest.mark.parametrize("kind", ["albert", "gpt2", "llama"])
def test_plain_transformers_with_batches_of_their_own(kind: str, left: bool) -> None:
    """ALBERT uses every layer's weights twice."""
    module = rough(body(kind))
    ids = torch.randint(7, 47, (7, 6), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([2, 6, 3, 5, 6, 4, 2])
    places = torch.arange(6)
    mask = (places >= 6 - lengths[:, None] if left else places < lengths[:, None]).long()
    last = torch.full_like(lengths, 5) if left else lengths - 1
    batch = (ids * mask, mask, last, ids[:, 0])
    batches = [tuple(t[:6] for t in batch), tuple(t[6:] for t in batch)]  # six texts of six tokens, then one

    def logits(module: Any, batch: tuple[Tensor, ...]) -> Tensor:
        whole = module(input_ids=batch[0], attention_mask=batch[1]).logits
        return whole[torch.arange(len(whole)), batch[2]]

    got = fisher_diagonal(module, batches, estimator="empirical", method="hooks", logits=logits)
    agree(got, slow_plain(module, batches, logits))


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize("make", [Classification, LeftClassification], ids=["right-padded", "left-padded"])
def test_a_class_for_each_text(kind: str, make: type[Classification]) -> None:
    model, task = model_of(kind), labelled(make)
    exact = fisher_diagonal(model, task, batch_size=6)
    agree(exact, slow(model, task, "exact"))
    agree(fisher_diagonal(model, task, estimator="exact", method="loop", batch_size=6), exact)
    agree(mas_importance(model, task, batch_size=6), slow(model, task, "mas"), noise=1e-6)
    assert exact["heads.topic.linear.weight"].min() > 0
    for name, value in exact.items():
        if name.startswith(("body.cls.", "body.lm_head.")):  # the language-model head takes no part
            assert not value.any(), name


def test_tags_and_their_exact_sum_over_joint_labels() -> None:
    model, task = model_of("bert"), tagged(("w1", "w2 w3", "w4 w4", "w6 w7"))
    exact = slow(model, task, "exact")
    agree(fisher_diagonal(model, task, estimator="exact", batch_size=3), exact)
    agree(fisher_diagonal(model, task, estimator="empirical"), slow(model, task, "empirical"))
    agree(mas_importance(model, task), slow(model, task, "mas"), noise=1e-6)
    assert distance(fisher_diagonal(model, task, estimator="sample", draws=60), exact) < 0.15


def test_mas_of_language_models() -> None:
    for kind in ("bert", "gpt2"):
        model = model_of(kind)
        task = language_task(model)
        agree(mas_importance(model, task, batch_size=4), slow(model, task, "mas"), noise=1e-6)


def test_batches_do_not_matter_to_what_is_taken_by_example() -> None:
    model, task = model_of("bert"), labelled()
    for estimator in ("exact", "empirical"):
        sizes = [fisher_diagonal(model, task, estimator=estimator, batch_size=size) for size in (1, 2, 32)]  # type: ignore[arg-type]
        agree(sizes[0], sizes[1])
        agree(sizes[2], sizes[1])


def test_the_model_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model, task = model_of("bert"), labelled()
    task.prepare(model)
    expected = fisher_diagonal(model, task)
    model.train()
    model.backbone.encoder.layer[0].eval()
    frozen = model.backbone.embeddings.requires_grad_(False)
    model.heads["topic"].linear.bias.grad = torch.ones(3)
    training, weights = [m.training for m in model.modules()], model.snapshot()
    random = torch.get_rng_state()
    with torch.no_grad():
        got = fisher_diagonal(model, task)
    assert all(torch.equal(got[name], value) for name, value in expected.items())  # no dropout; frozen weights too
    assert got["body.bert.embeddings.LayerNorm.weight"].max() > 0
    assert all(torch.equal(value, weights[name]) for name, value in model.snapshot().items())
    assert model.heads["topic"].linear.bias.grad.tolist() == [1, 1, 1]
    assert all(p.grad is None for p in model.body.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    monkeypatch.setattr(task, "logits", lambda *_: 1 / 0)
    for method in ("hooks", "loop"):
        with pytest.raises(ZeroDivisionError):
            mas_importance(model, task, method=method)  # type: ignore[arg-type]
    assert [m.training for m in model.modules()] == training
    assert [p for p in model.parameters() if not p.requires_grad] == list(frozen.parameters())
    assert not any(hooks for m in model.modules() for hooks in (m._forward_hooks, m._forward_pre_hooks))


def test_examples_are_drawn_by_the_seed() -> None:
    model, task, name = model_of("bert"), labelled(), "heads.topic.linear.bias"
    whole = fisher_diagonal(model, task, estimator="empirical")
    with torch.no_grad():
        each = [(F.one_hot(torch.tensor(y), 3) - f.softmax(-1)) ** 2 for f, y in predictions(model, task)]
    torch.testing.assert_close(whole[name], torch.stack(each).mean((0, 1)))
    drawn = [fisher_diagonal(model, task, estimator="empirical", examples=1, seed=s)[name] for s in (*range(8), 0)]
    found = {min(range(6), key=lambda i: float((each[i] - one).abs().max())) for one in drawn}
    assert all(min(float((e - one).abs().max()) for e in each) < 1e-6 for one in drawn)
    assert 2 < len(found) < 7
    assert torch.equal(drawn[0], drawn[-1])


# -- any module ---------------------------------------------------------------------------------------


class Words(nn.Module):
    """Embedded words through a layer; the parts below change what happens between."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.inner, self.out = nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, 11)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.mixed(self.words(ids)))

    def mixed(self, hidden: Tensor) -> Tensor:
        return torch.tanh(self.inner(hidden)).mean(1)


class Positions(Words):
    """One-dimensional position ids; a batch has as many texts as a text has tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Embedding(8, 8)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.mixed(self.words(ids) + self.places(torch.arange(ids.shape[1]))))


class FlatIds(Words):
    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.mixed(self.words(ids.flatten()).view(*ids.shape, 8)))


class OneWord(Words):
    def forward(self, ids: Tensor) -> Tensor:
        return self.out(torch.tanh(self.inner(self.words(ids[:, 0]))))


class ByKeyword(Words):
    def forward(self, ids: Tensor) -> Tensor:
        return self.out(input=self.mixed(self.words(input=ids)))


class TiedByHand(Words):
    """The embedding's weights are the output layer's, which no module shows."""

    def __init__(self) -> None:
        super().__init__()
        del self.out

    def forward(self, ids: Tensor) -> Tensor:
        return F.linear(self.mixed(self.words(ids)), self.words.weight)


class FaintlyTied(Words):
    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.mixed(self.words(ids))
        return self.out(hidden.detach()) + 1e-5 * F.linear(hidden, self.words.weight)


class Padding(Words):
    """One word has no gradient as an input; as an output it has."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8, padding_idx=1)
        self.out.weight = self.words.weight


class Tied(Words):
    def __init__(self) -> None:
        super().__init__()
        self.out.weight = self.words.weight


class Attention(Words):
    """Attention and a convolution, neither of which hooks know, and BatchNorm by its running figures."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.convolution, self.norm = nn.Conv1d(8, 8, 3, padding=1), nn.BatchNorm1d(8)
        self.norm.running_mean.copy_(torch.linspace(-1, 1, 8))
        self.norm.running_var.copy_(torch.linspace(0.5, 2, 8))

    def mixed(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self.attention(hidden, hidden, hidden, need_weights=False)[0]
        return super().mixed(self.norm(self.convolution(hidden.transpose(1, 2))).transpose(1, 2))


class ScaledRMSNorm(nn.Module):
    """By its name an RMSNorm, but not with a weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


class Normed(Words):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.plane, self.rms = ScaledRMSNorm(8), nn.LayerNorm((6, 8)), nn.RMSNorm(8)

    def mixed(self, hidden: Tensor) -> Tensor:
        return super().mixed(self.norm(hidden) + self.plane(hidden) + self.rms(hidden))


class WeightNormed(Words):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))


class InPlace(Words):
    """What a hook saw is changed afterwards."""

    def mixed(self, hidden: Tensor) -> Tensor:
        return F.relu(self.inner(hidden.mean(1)), inplace=True)


class InPlaceOnSequences(Words):
    def mixed(self, hidden: Tensor) -> Tensor:
        return F.relu(self.inner(hidden), inplace=True).mean(1)


class Query(Words):
    """A layer on a vector of its own, with no row for each example."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.ones(8))

    def mixed(self, hidden: Tensor) -> Tensor:
        return super().mixed(hidden) + torch.tanh(self.inner(self.query)) * hidden.mean(1)


class Gated(Words):
    """Raw weights that only some texts use, not the first ones."""

    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Parameter(torch.ones(8, 11))

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) + (ids[:, :1] > 5) * (self.words(ids).mean(1) @ self.more)


class GatedQuery(Query):
    """A known layer with a second use that shows on some texts only."""

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.words(ids)
        return self.out(Words.mixed(self, hidden) + (ids[:, :1] > 5) * self.inner(self.query))


class Experts(Words):
    """Each token goes to one of two layers, so that their rows are no examples."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])

    def mixed(self, hidden: Tensor) -> Tensor:
        chosen = hidden.detach()[..., 0] > 0
        mixed = torch.zeros_like(hidden)
        for own, expert in zip((chosen, ~chosen), self.experts, strict=True):
            mixed[own] = expert(hidden[own])
        return super().mixed(mixed)


def word_batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(4)
    batches = [(torch.randint(11, (n, 6), generator=generator), torch.arange(n)) for n in (1, 6, 6, 3)]
    batches[1][0][:2, 0] = 1
    return batches


UNKNOWN: list[type[Words]] = [Positions, FlatIds, OneWord, ByKeyword, TiedByHand, FaintlyTied, Attention, Normed]
UNKNOWN += [WeightNormed, Query, Gated, GatedQuery, Experts]


@pytest.mark.parametrize("kind", [Words, Tied, Padding, InPlace, InPlaceOnSequences, *UNKNOWN])
def test_any_module_gets_the_numbers_of_the_loop(kind: type[Words]) -> None:
    module = rough(kind(), seed=3)
    expected = slow_plain(module, word_batches())
    for method in ("auto", "loop", "hooks"):
        options: dict[str, Any] = {"estimator": "empirical", "method": method}
        if method == "hooks" and kind in UNKNOWN:
            with pytest.raises(ForgetlabError, match="hooks cannot see how the model uses .*; use method='auto'"):
                fisher_diagonal(module, word_batches(), **options)
        elif (method, kind) != ("hooks", InPlaceOnSequences):  # a view
            agree(fisher_diagonal(module, word_batches(), **options), expected)


def test_a_head_of_zeros_that_is_used_twice() -> None:
    """Its logits are 0, and so is the gradient of their square: no ground to trust hooks on."""

    class ZeroHead(Words):
        def forward(self, ids: Tensor) -> Tensor:
            hidden = self.mixed(self.words(ids))
            return self.out(hidden) + hidden @ self.out.weight.T

    module = rough(ZeroHead())
    nn.init.zeros_(module.out.weight)
    nn.init.zeros_(module.out.bias)
    got = fisher_diagonal(module, word_batches(), estimator="exact")
    torch.testing.assert_close(got["out.bias"], torch.full((11,), 10 / 121))  # p (1 − p) at p = 1/11
    hidden = torch.cat([module.mixed(module.words(ids)) for ids, _ in word_batches()]).detach()
    torch.testing.assert_close(got["out.weight"], (10 / 121 * (2 * hidden) ** 2).mean(0).expand(11, 8))
    assert not got["words.weight"].any()


def test_hooks_are_checked_on_more_than_one_example() -> None:
    """With positions before examples, a layer on one word of one text looks right, and so does one on six of six."""

    class PositionsFirst(Words):
        def mixed(self, hidden: Tensor) -> Tensor:
            return torch.tanh(self.inner(hidden.transpose(0, 1))).mean(0)

    module = rough(PositionsFirst())
    batches = [(torch.ones(1, 1).long(), torch.zeros(1).long()), word_batches()[1]]
    agree(fisher_diagonal(module, batches, estimator="empirical"), slow_plain(module, batches))


def test_a_module_without_any_layer_that_hooks_know() -> None:
    class Raw(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.unused = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight

    module, batches = (
        rough(Raw()),
        [(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.ones(5).long())],
    )
    got = fisher_diagonal(module, batches, estimator="empirical")
    agree({"weight": got["weight"]}, {"weight": slow_plain(module, batches)["weight"]})
    assert got["unused"].tolist() == [0, 0, 0, 0]


# -- closed forms and statistics ----------------------------------------------------------------------


def points(count: int, width: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def test_logistic_regression() -> None:
    module, x = rough(nn.Linear(5, 1)), points(40)
    p = torch.sigmoid(module(x)).detach()

    def logits(module: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        z = module(batch[0])
        return torch.cat([torch.zeros_like(z), z], 1)

    exact = fisher_diagonal(module, [(x, torch.zeros(40).long())], estimator="exact", logits=logits)
    torch.testing.assert_close(exact["weight"], (p * (1 - p) * x**2).mean(0, keepdim=True))
    torch.testing.assert_close(exact["bias"], (p * (1 - p)).mean(0))


def test_a_softmax_layer() -> None:
    module, x = rough(nn.Linear(5, 4)), points(40)
    f = module(x).detach()
    p = f.softmax(-1)
    batches = [(part, torch.zeros(len(part)).long()) for part in x.split(16)]
    for method in ("auto", "hooks", "loop"):
        exact = fisher_diagonal(module, batches, method=method)  # type: ignore[arg-type]
        torch.testing.assert_close(exact["weight"], (p * (1 - p)).T @ x**2 / 40)
        torch.testing.assert_close(exact["bias"], (p * (1 - p)).mean(0))
        mas = mas_importance(module, batches, method=method)  # type: ignore[arg-type]
        torch.testing.assert_close(mas["weight"], (2 * f).abs().T @ x.abs() / 40)  # |∂‖f‖²/∂W| = |2 f xᵀ|
        torch.testing.assert_close(mas["bias"], (2 * f).abs().mean(0))


def network(seed: int = 1) -> nn.Module:
    return rough(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4)), seed)


def distance(got: Importance, expected: Importance) -> float:
    return sum(float((got[n] - v).abs().sum()) for n, v in expected.items()) / total(expected)


def total(importance: Importance) -> float:
    return sum(float(value.sum()) for value in importance.values())


@pytest.mark.parametrize(("estimator", "closest"), [("sample", 0.03), ("gnb", 0.1)])
def test_drawn_labels_converge_to_exact(estimator: str, closest: float) -> None:
    module = network()
    batches = [(part, torch.zeros(len(part)).long()) for part in points(32).split(16)]
    exact = fisher_diagonal(module, batches, estimator="exact")
    errors = []
    for draws in (4, 32, 256):
        runs = [
            fisher_diagonal(module, batches, estimator=estimator, draws=draws, seed=seed)  # type: ignore[arg-type]
            for seed in range(2)
        ]
        errors.append(sum(distance(run, exact) for run in runs) / 2)
    assert errors[2] < closest
    for more, less in zip(errors[1:], errors[:-1], strict=True):
        assert 1.5 < less / more < 5  # √8 = 2.8


def test_sample_and_gnb_repeat_with_the_seed_only() -> None:
    module, batches = network(), [(points(16), torch.zeros(16).long())]
    for estimator in ("sample", "gnb"):
        runs = [fisher_diagonal(module, batches, estimator=estimator, seed=s)["0.weight"] for s in (0, 0, 1)]  # type: ignore[arg-type]
        assert torch.equal(runs[0], runs[1])
        assert not torch.allclose(runs[0], runs[2], rtol=0.01)


def own_labels(module: nn.Module, count: int) -> tuple[Tensor, Tensor]:
    x = points(count)
    p, generator = module(x).detach().softmax(-1), torch.Generator().manual_seed(2)
    return x, torch.multinomial(p, 1, generator=generator).squeeze(1)


def split(data: tuple[Tensor, Tensor], size: int) -> list[tuple[Tensor, ...]]:
    return list(zip(*(t.split(size) for t in data), strict=True))


def test_batched_is_wrong_and_depends_on_the_batch() -> None:
    module = network()
    data = own_labels(module, 256)
    empirical = total(fisher_diagonal(module, split(data, 32), estimator="empirical"))
    exact = total(fisher_diagonal(module, split(data, 32), estimator="exact"))
    assert empirical == pytest.approx(exact, rel=0.1)  # the labels are the model's own
    assert total(fisher_diagonal(module, split(data, 8), estimator="empirical")) == pytest.approx(empirical, rel=1e-5)
    for size in (8, 32):
        share = total(fisher_diagonal(module, split(data, size), estimator="batched")) / empirical
        assert 0.4 / size < share < 2.5 / size
        gnb = total(fisher_diagonal(module, split(data, size), estimator="gnb", draws=16))
        assert gnb == pytest.approx(exact, rel=0.2)  # its repair, at any size


def test_batched_is_what_it_says() -> None:
    module = network()
    batches = split(own_labels(module, 20), 8)  # 8, 8, 4
    expected = [torch.zeros_like(p) for p in module.parameters()]
    for x, y in batches:
        grads = torch.autograd.grad(F.cross_entropy(module(x), y), list(module.parameters()))
        expected = [e + g**2 / 3 for e, g in zip(expected, grads, strict=True)]
    got = fisher_diagonal(module, batches, estimator="batched")
    agree(got, dict(zip(got, expected, strict=True)))


def test_empirical_vanishes_when_the_labels_fit() -> None:
    module = network()
    data = (points(24), torch.arange(24) % 4)
    ratio = [total(fisher_diagonal(module, [data], estimator="empirical"))]
    ratio[0] /= total(fisher_diagonal(module, [data], estimator="exact"))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        F.cross_entropy(module(data[0]), data[1]).backward()
        optimizer.step()
    ratio.append(total(fisher_diagonal(module, [data], estimator="empirical")))
    ratio[1] /= total(fisher_diagonal(module, [data], estimator="exact"))
    assert ratio[0] > 0.5
    assert ratio[1] < 0.1


# -- what is chosen, and what is refused --------------------------------------------------------------


def test_auto_is_exact_for_few_classes_else_sample() -> None:
    model = model_of("bert")

    def same(task: Task, estimator: str) -> bool:
        chosen = fisher_diagonal(model, task, batch_size=2, draws=2)
        named = fisher_diagonal(model, task, batch_size=2, draws=2, estimator=estimator)  # type: ignore[arg-type]
        return all(torch.equal(named[name], value) for name, value in chosen.items())

    assert same(labelled(), "exact")
    assert same(tagged(("w1", "w2", "w3 w4", "w5 w6 w7")), "sample")  # also where a batch has one word in each text
    assert same(language_task(model), "sample")


def test_exact_on_a_large_vocabulary_names_its_cost() -> None:
    model = Model(body("gpt2", vocabulary=30_000), tokenizer(True), "wide")
    with pytest.raises(ForgetlabError, match="30,000 classes and up to 8 .* 240,000 backward passes .*'sample'.*'gnb'"):
        fisher_diagonal(model, language_task(model), estimator="exact")
    ids = torch.full((2, 3), 7)
    with pytest.raises(ForgetlabError, match="30,000 backward passes"):
        fisher_diagonal(model.body, [(ids, ids[:, 0])], estimator="exact", logits=lambda m, b: m(b[0]).logits[:, -1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "exakt"}, "unknown estimator 'exakt'; did you mean 'exact'"),
        ({"method": "hook"}, "unknown method 'hook'; did you mean 'hooks'"),
        ({"examples": 0}, "examples must be a whole number above 0, got 0"),
        ({"draws": 1.5}, "draws must be a whole number above 0, got 1.5"),
        ({"batch_size": True}, "batch_size must be a whole number above 0, got True"),
        ({"method": "vmap"}, "unknown method 'vmap'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ForgetlabError, match=message):
        fisher_diagonal(model_of("bert"), labelled(), **options)


def test_bad_data() -> None:
    model = model_of("bert")
    with pytest.raises(ForgetlabError, match="the task lm has no training data to measure importance on"):
        fisher_diagonal(model, MaskedLM("lm", None, PLAIN))
    with pytest.raises(ForgetlabError, match="needs a causal language model"):
        mas_importance(model, CausalLM("lm", PLAIN, PLAIN))
    with pytest.raises(ForgetlabError, match="a task needs a model of forgetlab.load"):
        fisher_diagonal(model.body, labelled())
    for batches in ([], [(points(3),)], [(points(3), [0, 1, 2])], "topic"):
        with pytest.raises(ForgetlabError, match=r"expected batches of \(inputs, targets\)"):
            fisher_diagonal(network(), batches)  # type: ignore[arg-type]
    with pytest.raises(ForgetlabError, match=r"""expected "labels" with the number of a class .* keys \['x', 'y'\]"""):
        fisher_diagonal(network(), [{"x": points(3), "y": points(3)}])
    labels = torch.zeros(3).long()
    for wrong in (lambda m, b: m(b[0])[:, 0], lambda m, b: m(b[0]).mean(0, keepdim=True)):
        with pytest.raises(ForgetlabError, match=r"expected logits of the shape \(rows, classes\) for"):
            fisher_diagonal(network(), [(points(3), labels)], logits=wrong)


# -- files --------------------------------------------------------------------------------------------


def test_files_round_trip(tmp_path: Any) -> None:
    importance = fisher_diagonal(network(), [(points(3), torch.zeros(3).long())])
    importance["turned"] = points(3).T  # not contiguous
    save_importance(importance, tmp_path / "fisher.safetensors", task="topic")
    loaded = load_importance(tmp_path / "fisher.safetensors")
    assert loaded.keys() == importance.keys()
    assert all(torch.equal(value, importance[name]) for name, value in loaded.items())
    with safe_open(tmp_path / "fisher.safetensors", framework="pt") as file:
        assert file.metadata()["task"] == "topic"


def test_bad_files(tmp_path: Any) -> None:
    path = tmp_path / "fisher.safetensors"
    with pytest.raises(ForgetlabError, match="there is no file .*fisher.safetensors"):
        load_importance(path)
    save_importance({"weight": points(3)}, path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ForgetlabError, match="fisher.safetensors cannot be read as safetensors"):
        load_importance(path)
    path.write_text("not at all")
    with pytest.raises(ForgetlabError, match="cannot be read as safetensors"):
        load_importance(path)
    with pytest.raises(ForgetlabError, match="cannot be read as safetensors"):
        load_importance(tmp_path)
    save_importance({"good": torch.ones(2), "bad": torch.tensor([1.0, float("nan")])}, path)
    with pytest.raises(ForgetlabError, match="bad holds numbers that are not finite"):
        load_importance(path)
    with pytest.raises(ForgetlabError, match="nowhere.* cannot be written"):
        save_importance({"weight": points(3)}, tmp_path / "nowhere" / "fisher.safetensors")


def test_the_importance_of_another_model_names_the_parameter() -> None:
    own = dict(network().named_parameters())
    fisher = {name: torch.ones_like(p) for name, p in own.items()}
    check_importance(fisher, own, needed=own)
    check_importance({"0.bias": fisher["0.bias"]}, own)
    with pytest.raises(ForgetlabError, match="another model: this one has no parameter 7.weight"):
        check_importance(fisher | {"7.weight": torch.ones(2)}, own)
    with pytest.raises(ForgetlabError, match=r"2.weight has the shape \(6, 4\), here it is \(4, 6\)"):
        check_importance(fisher | {"2.weight": torch.ones(6, 4)}, own)
    with pytest.raises(ForgetlabError, match="it has nothing for the parameter 0.bias"):
        check_importance({n: v for n, v in fisher.items() if n != "0.bias"}, own, needed=own)


# -- large weights ----------------------------------------------------------------------------------------


def check_totals(
    layer: nn.Linear, texts: torch.Tensor, measure: Callable[[torch.Tensor], torch.Tensor], power: int
) -> None:
    """Sums by hooks against one text at a time, added to what the sum held."""
    expected = torch.full_like(layer.weight, 2.0)
    for one in texts:
        (gradient,) = torch.autograd.grad(measure(one), [layer.weight])
        expected += gradient.abs() ** power
    with per_example.recording(layer, len(texts)) as calls:
        objective = measure(texts)
    found, count = torch.full_like(layer.weight, 2.0), len(texts)
    seen, unclear = per_example.add_totals(
        calls,
        objective,
        torch.arange(count),
        count,
        set(),
        power,  # type: ignore[arg-type]
        keep=False,
        sums={layer.weight: found},
    )
    assert (seen, unclear) == ({layer.weight}, set())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("out", "width"), [(300, 500), (200, 170), (3, 140_000)])  # rows left over, whole, one by one
def test_a_large_weight_is_taken_in_blocks(out: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, texts = (
        nn.Linear(width, out, bias=False),
        torch.randn(5, 3, width, generator=torch.Generator().manual_seed(0)),
    )
    monkeypatch.setattr(per_example, "add_up", lambda *_: pytest.fail("taken as a whole"))
    for measure, power in (
        (lambda x: layer(x).tanh().sum(), 2),
        (lambda x: layer(x).square().sum(), 1),
        (lambda x: layer(x)[..., 1:, :].tanh().sum(), 2),  # nothing is read off the first place
        (lambda x: 0 * layer(x).sum(), 2),
    ):
        check_totals(layer, texts, measure, power)


@pytest.mark.parametrize("power", [1, 2])
def test_a_gradient_at_one_place_takes_no_gradient_of_an_example(power: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, texts = nn.Linear(300, 200, bias=False), torch.randn(5, 3, 300, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(torch, "bmm", lambda *_, **__: pytest.fail("a product for each example"))
    check_totals(layer, texts, lambda x: layer(x)[..., 1, :].tanh().sum(), power)
