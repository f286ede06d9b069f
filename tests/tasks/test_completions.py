"""Completions: a prompt, and what is to be written after it; only the answer is predicted."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import pytest
import torch

from forgetlab import finetune, task
from forgetlab.errors import ForgetlabError
from forgetlab.importance import fisher_diagonal
from forgetlab.models.model import Model
from forgetlab.remedies import EWC, ExperienceReplay, KLAnchor
from forgetlab.sources import Examples, split
from forgetlab.tasks import CausalLM, MaskedLM
from forgetlab.tasks.encoding import encode
from forgetlab.tasks.from_data import of_examples
from forgetlab.tasks.likelihood import option_log_probabilities
from forgetlab.training.method import Run
from tests.tasks.test_end_mark import causal

PROMPTS = ("the film", "the plot of this novel", "anna loved", "boris", "the cast", "although the music was")
ANSWERS = ("was good .", "was bad .", "the plays .", "hated the song .", "was dull and the plot was slow .", "a .")


def completions(prompts: Sequence[str] = PROMPTS, answers: Sequence[str] = ANSWERS) -> Examples:
    return Examples("completions", tuple(prompts), tuple(answers))


def by_hand(model: Model, prompt: str, answer: str, ends: bool | None = None) -> list[float]:
    """log p of each token of the answer and of the end, from transformers' own forward pass, one at a time."""
    own = model.tokenizer
    begin = [] if own.bos_token_id is None else [own.bos_token_id]
    seen = begin + own(prompt, add_special_tokens=False)["input_ids"]
    end = [own.eos_token_id] if (model.end_mark if ends is None else ends) else []
    found = []
    for token in own(answer, add_special_tokens=False)["input_ids"] + end:
        with torch.no_grad():
            logits = model.body(input_ids=torch.tensor([seen])).logits[0, -1]
        found.append(float(logits.double().log_softmax(-1)[token]))
        seen = [*seen, token]
    return found


@pytest.mark.parametrize("kind", ["gpt2", "llama", "llama without a begin token", "tiny-gpt"])
def test_the_perplexity_and_the_loss_are_those_of_the_answers_tokens(kind: str) -> None:
    model, one = causal(kind), CausalLM("mine", completions(), completions())
    logs = [by_hand(model, prompt, answer) for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
    expected = -sum(map(sum, logs)) / sum(map(len, logs))
    scores, tally = one.scored(model)
    assert scores["loss"] == pytest.approx(expected, rel=1e-5)
    assert scores["perplexity"] == pytest.approx(math.exp(expected), rel=1e-5)
    assert tally is not None
    assert tally.items[:, 1].tolist() == [len(log) for log in logs]
    assert tally.items[:, 0].tolist() == pytest.approx([-sum(log) for log in logs], rel=1e-5)
    batch = one.batch(model, torch.arange(len(PROMPTS)), torch.Generator())
    learned = [log for both in zip(PROMPTS, ANSWERS, strict=True) for log in by_hand(model, *both, ends=True)]
    assert one.loss(model, batch).item() == pytest.approx(-sum(learned) / len(learned), rel=1e-5)
    if not model.end_mark:  # which is learned, and scored by itself
        assert scores["end"] == pytest.approx(
            -sum(by_hand(model, *both, ends=True)[-1] for both in zip(PROMPTS, ANSWERS, strict=True)) / len(PROMPTS),
            rel=1e-5,
        )


@pytest.mark.parametrize("kind", ["llama", "llama without a begin token"])
def test_a_model_learns_where_an_answer_ends(kind: str) -> None:
    """Though its pre-training had no end token; the perplexity of the answers stays that of their own tokens."""
    model, one = causal(kind), CausalLM("mine", completions(), completions())
    note = "mine: answers are trained with the end token behind them, which is no part of the perplexity"
    assert note in one.remarks(model, "train", "test")
    [first, *_, last] = finetune(model, one, steps=50, batch_size=6, lr=1e-2, every=50)
    assert first.scores["mine"]["end"] > 3
    assert last.scores["mine"]["end"] < 0.1
    tally = one.tally(model)
    assert tally is not None
    counts = [len(by_hand(model, prompt, answer)) for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
    assert tally.items[:, 1].tolist() == counts
    own = model.tokenizer
    begin = [] if own.bos_token_id is None else [own.bos_token_id]
    ids = torch.tensor([begin + own("anna loved", add_special_tokens=False)["input_ids"]])
    marks = {"pad_token_id": own.eos_token_id, "eos_token_id": own.eos_token_id}
    written = model.body.generate(ids, max_new_tokens=30, do_sample=False, **marks)[0]
    assert written[-1] == own.eos_token_id
    assert own.decode(written[ids.shape[1] : -1]) == "the plays ."


def test_a_row_is_the_prompt_then_the_answer_then_the_end() -> None:
    model = causal("tiny-gpt")
    own = model.tokenizer
    encoded = encode(completions(), own, 64, begin=True, end=True)
    ids = encoded.columns["input_ids"][0, : encoded.lengths[0]].tolist()
    words = own.convert_tokens_to_ids(["the", "film", "was", "good", "."])
    assert ids == [own.bos_token_id, *words, own.eos_token_id]
    assert encoded.columns["scored"][0].tolist() == [0, 0, 0, 1, 1, 1, 1] + [0] * (
        len(encoded.columns["scored"][0]) - 7
    )
    assert "scored" not in encode(Examples("text", PROMPTS), own, 64, begin=True, end=True).columns


def test_what_is_too_long_loses_the_beginning_of_its_prompt_and_never_the_answer() -> None:
    own = causal("tiny-gpt").tokenizer
    words = ["the", "film", "was", "good", "and", "the", "plot", "was", "bad", "."]
    encoded = encode(completions([" ".join(words[:6])] * 2, [" ".join(words[6:]), " ".join(words)]), own, 8, begin=True)
    shown = [own.convert_ids_to_tokens(row) for row in encoded.columns["input_ids"].tolist()]
    assert shown == [[own.bos_token, *words[3:6], *words[6:]], [own.bos_token, *words[:7]]]
    assert encoded.columns["scored"].tolist() == [[0] * 4 + [1] * 4, [0] + [1] * 7]
    assert encoded.truncated == 2


def test_an_answer_is_never_without_a_token_before_it() -> None:
    model = causal("llama without a begin token", positions=8)
    long = completions(["over"], ["the lazy dog over the quick brown fox over the lazy cat"])
    one = CausalLM("mine", long, long)
    batch = one.batch(model, torch.tensor([0]), torch.Generator())
    assert batch["scored"].tolist() == [[0] + [1] * 7]
    assert len(batch["targets"]) == 7
    assert one.remarks(model, "test")[0] == "mine: 1 of 1 test texts are longer than 8 tokens and were cut"


def test_empty_sides_are_said_where_nothing_could_be_predicted() -> None:
    gpt, llama = causal("tiny-gpt"), causal("llama without a begin token")
    assert encode(completions([""], [""]), gpt.tokenizer, 8, begin=True, end=True).columns["scored"].tolist() == [
        [0, 1]
    ]
    with pytest.raises(ForgetlabError, match="the answer of completion 2 is empty: no token of it can be predicted"):
        encode(completions(["a", "a"], ["fox", ""]), llama.tokenizer, 8, begin=True)
    with pytest.raises(ForgetlabError, match="the prompt of completion 1 is empty"):
        encode(completions([""], ["fox"]), llama.tokenizer, 8, begin=True)


def test_an_encoder_is_told_what_completions_need(bert: Model) -> None:
    with pytest.raises(
        ForgetlabError, match="mine has prompts and answers, which need a causal language model; small-b"
    ):
        of_examples("mine", completions(), completions(), bert)
    with pytest.raises(ForgetlabError, match=r"\(completions\) need a causal language model"):
        MaskedLM("mine", completions(), completions()).score(bert)
    assert type(of_examples("mine", completions(), completions(), causal("tiny-gpt"))) is CausalLM


def test_completions_train_with_replay_ewc_and_an_anchor(gpt: Model) -> None:
    old, new = task("causal-lm", size=64), CausalLM("mine", completions(), completions())
    methods = [EWC([new, old], lam=1, examples=4), ExperienceReplay([new], ratio=0.5), KLAnchor(0.1)]
    [first, last] = finetune(gpt, old, methods=methods, watch=[new], steps=2, batch_size=4, every=2, limit=8)
    assert last.scores["mine"]["perplexity"] != first.scores["mine"]["perplexity"]
    assert last.penalty["kl-anchor"] > 0
    gpt.restore()
    assert max(float(value.max()) for value in fisher_diagonal(gpt, new, examples=6).values()) > 0
    [*_, last] = finetune(gpt, new, steps=30, batch_size=6, lr=1e-2, every=30)
    assert last.scores["mine"]["perplexity"] < 10  # learned by heart


def test_an_anchor_counts_where_the_answer_is_predicted(gpt: Model) -> None:
    new, anchor = CausalLM("mine", completions(), completions()), KLAnchor(1.0)
    run = Run.begin(gpt, new, 1, 6, 1e-3, 0)
    anchor.setup(run)
    before = copy.deepcopy(gpt.body)
    with torch.no_grad():
        for p in gpt.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())), alpha=0.05)
    distances = []
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        own = gpt.tokenizer
        ids = torch.tensor([[own.bos_token_id, *own(f"{prompt} {answer}", add_special_tokens=False)["input_ids"]]])
        for place in range(len(prompt.split()), ids.shape[1]):  # each place before a word of the answer or its end
            log, log0 = (body(input_ids=ids).logits[0, place].double().log_softmax(-1) for body in (gpt.body, before))
            distances.append(float((log.exp() * (log - log0)).sum()))
    batch = new.batch(gpt, torch.arange(len(PROMPTS)), torch.Generator())
    found = anchor.batch_penalty(new, batch, run)
    assert found is not None
    assert float(found) == pytest.approx(sum(distances) / len(distances), rel=1e-4)


def test_completions_are_split_by_their_prompts() -> None:
    train, test = split(completions())
    assert train.kind == test.kind == "completions"
    assert train.pairs is not None
    assert {*zip(train.texts, train.pairs, strict=True)} < {*zip(PROMPTS, ANSWERS, strict=True)}
    assert not {*train.texts} & {*test.texts}


def test_an_answer_is_as_probable_as_an_option_after_its_question() -> None:
    model, one = causal("gpt2"), CausalLM("mine", None, completions(PROMPTS, [f" {answer}" for answer in ANSWERS]))
    sums, counts = option_log_probabilities(model, PROMPTS, ANSWERS)
    tally = one.tally(model)
    assert tally is not None
    assert tally.items[:, 1].tolist() == counts.tolist()
    assert tally.items[:, 0].tolist() == pytest.approx((-sums).tolist(), rel=1e-5)
