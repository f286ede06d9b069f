"""Perplexity is of the text's own tokens: against transformers' own forward pass, one token at a time."""

import math
from typing import Any

import pytest
import torch

from forgetlab import finetune, load, task
from forgetlab.models.model import Model
from forgetlab.remedies.replay import GenerativeReplay
from forgetlab.sources import Examples
from forgetlab.tasks import CausalLM
from forgetlab.tasks.likelihood import log_probabilities
from forgetlab.tasks.probes import MinimalPairs
from tests.conftest import small_model

TEXTS = (
    "the quick brown fox jumps over the lazy dog .",
    "a fox .",
    "dogs sleep , and the brown fox looks at the quick cat over there .",
    "over",
    "the lazy cat sleeps over the dog , the dog over the fox .",
)
EXAMPLES = Examples("text", TEXTS)
KINDS = ("gpt2", "llama", "llama without a begin token", "tiny-gpt")


def tokenizer(begin: str | None, end: str) -> Any:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    inner = ByteLevelBPETokenizer()
    marks = [mark for mark in dict.fromkeys((begin, end)) if mark]
    inner.train_from_iterator(TEXTS, vocab_size=300, special_tokens=marks, show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=inner._tokenizer, bos_token=begin, eos_token=end, pad_token=end)


def causal(kind: str, positions: int = 64) -> Model:
    """A random model with GPT-2's one mark for all, or Llama's two, or Qwen's lack of a begin token; or tiny-gpt."""
    import transformers as hf

    if kind == "tiny-gpt":
        return load("tiny-gpt", device="cpu")
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": positions}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "gpt2":
            own = tokenizer("<|endoftext|>", "<|endoftext|>")
            gpt = hf.GPT2Config(vocab_size=len(own), n_positions=positions, n_embd=16, n_layer=2, n_head=2)
            gpt.initializer_range = 0.3
            return Model(hf.GPT2LMHeadModel(gpt).eval(), own, kind)
        own = tokenizer("<s>" if kind == "llama" else None, "</s>")
        llama = hf.LlamaConfig(vocab_size=len(own), intermediate_size=32, initializer_range=0.3, **shape)
        return Model(hf.LlamaForCausalLM(llama).eval(), own, kind)


def token_by_token(model: Model, text: str) -> tuple[float, int, float]:
    """(Σ −log p, how many) of the text's own tokens, and −log p of the end token: a pass for each token."""
    own = model.tokenizer
    before = [own.bos_token_id] if own.bos_token_id is not None else []
    ids = [*before, *own(text, add_special_tokens=False)["input_ids"]]

    def surprise(place: int, token: int) -> float:
        with torch.no_grad():
            logits = model.body(input_ids=torch.tensor([ids[:place]])).logits[0, -1]
        return -float(logits.double().log_softmax(-1)[token])

    nats = [surprise(i, ids[i]) for i in range(1, len(ids))]
    return sum(nats), len(nats), surprise(len(ids), own.eos_token_id)


@pytest.mark.parametrize("kind", KINDS)
def test_perplexity_is_the_rolling_log_likelihood_token_by_token(kind: str) -> None:
    model = causal(kind)
    found = [token_by_token(model, text) for text in TEXTS]
    nats, count, end = (sum(column) for column in zip(*found, strict=True))
    if kind == "tiny-gpt":  # pre-trained with end tokens: each is one prediction more
        nats, count = nats + end, count + len(TEXTS)
    one = CausalLM("mine", EXAMPLES, EXAMPLES)
    one.prepare(model)
    scores, tally = one.scored(model)
    assert scores["perplexity"] == pytest.approx(math.exp(nats / count), rel=1e-5)
    assert tally is not None
    assert tally.items[:, 1].sum() == count
    if kind == "tiny-gpt":
        assert "end" not in scores
    else:
        assert scores["end"] == pytest.approx(end / len(TEXTS), rel=1e-5)
        assert tally.items[:, 0].tolist() == pytest.approx([nats for nats, _, _ in found], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_probability_of_a_text_is_that_of_its_own_tokens(kind: str) -> None:
    model = causal(kind)
    found = [token_by_token(model, text) for text in TEXTS]
    expected = [-nats - (end if kind == "tiny-gpt" else 0) for nats, _, end in found]
    assert log_probabilities(model, TEXTS).tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_a_fine_tune_does_not_teach_an_end_that_pre_training_lacked() -> None:
    end, one = {}, CausalLM("mine", EXAMPLES, EXAMPLES)
    for marked in (False, True):
        model = causal("llama")
        model.config.end_mark = marked
        index = torch.arange(len(TEXTS))
        targets = one.batch(model, index, torch.Generator())["targets"]
        assert int((targets == model.tokenizer.eos_token_id).sum()) == marked * len(TEXTS)
        before = sum(token_by_token(model, text)[2] for text in TEXTS)
        list(finetune(model, one, steps=20, lr=1e-2, batch_size=5))
        end[marked] = sum(token_by_token(model, text)[2] for text in TEXTS) - before
    assert end[True] < -5  # nats: it is learned
    assert end[False] > 0  # only pushed down


def test_whether_a_text_ends_goes_with_the_model(tmp_path: Any) -> None:
    assert small_model(causal=True).end_mark
    assert not small_model().end_mark
    model = causal("llama")
    assert not model.end_mark
    model.config.end_mark = True
    model.save(tmp_path)
    assert load(str(tmp_path), device="cpu").end_mark


def test_the_end_is_not_scored_after_a_text_that_was_cut() -> None:
    model = causal("llama", positions=8)
    texts = Examples("text", ("a fox .", TEXTS[0]))
    one = CausalLM("mine", texts, texts)
    lengths = [len(model.tokenizer(text)["input_ids"]) for text in texts.texts]
    assert lengths[0] <= 7 < lengths[1]
    assert one.score(model)["end"] == pytest.approx(token_by_token(model, "a fox .")[2], rel=1e-5)
    assert "mine: 1 of 2 test texts are longer than 8 tokens and were cut" in one.remarks(model, "test")


def test_a_text_that_just_fits_is_not_cut() -> None:
    model = small_model(causal=True)
    fitting = Examples("text", (" ".join(["anna"] * 63),))
    one = CausalLM("mine", fitting, fitting)
    assert one.remarks(model, "test") == []
    assert one.batch(model, torch.tensor([0]), torch.Generator())["input_ids"].shape == (1, 64)  # without an end token


def test_remarks_say_what_stands_before_and_after_a_text() -> None:
    one = CausalLM("mine", EXAMPLES, EXAMPLES)
    pairs = MinimalPairs("pairs", TEXTS[:1], TEXTS[1:2])
    second = "llama without a begin token has no begin token, so each text is scored from its second token on"
    for kind in KINDS:
        model = causal(kind)
        without = "without a begin" in kind
        assert [n for n in one.remarks(model, "test") if "begin token" in n] == [f"mine: {second}"] * without
        assert [n for n in pairs.remarks(model, "test") if "begin token" in n] == [f"pairs: {second}"] * without
        trained = [n for n in one.remarks(model, "train") if "trained without an end token" in n]
        assert len(trained) == (kind != "tiny-gpt")


def test_written_texts_are_replayed_with_the_ends_that_pre_training_had() -> None:
    from forgetlab.training.method import Run

    for kind in ("tiny-gpt", "llama"):
        model = causal(kind)
        new, old = CausalLM("new", EXAMPLES, EXAMPLES), CausalLM("old", EXAMPLES, EXAMPLES)
        replay = GenerativeReplay([old], size=16, writer=model, max_tokens=12)
        run = Run(model, new, 1, 2, 1e-3, {}, {}, torch.Generator().manual_seed(0))
        ((relived, rows),) = replay.recall(run)
        targets = relived.batch(model, rows, torch.Generator())["targets"]
        ends = int((targets == model.tokenizer.eos_token_id).sum())
        assert (ends > 0) == (kind == "tiny-gpt")


def test_the_floor_counts_the_end_that_tiny_gpt_was_trained_with() -> None:
    model, one = load("tiny-gpt", device="cpu"), task("causal-lm")
    one.prepare(model)
    tally = one.tally(model, 40)
    assert tally is not None
    words = [len(one.test.texts[i].split()) + 1 for i in one.sample(40).tolist()]
    assert tally.items[:, 1].tolist() == words


def test_a_test_set_in_parts_has_the_ends_of_the_whole() -> None:
    model = causal("llama")
    whole, parts = (CausalLM("mine", None, EXAMPLES) for _ in range(2))
    parts.rows_at_once = 2
    assert len(parts.test_batches(model, None)) == 3
    assert parts.score(model) == pytest.approx(whole.score(model), rel=1e-5)
    assert "end" in parts.score(model)
