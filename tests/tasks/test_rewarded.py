"""A task with a reward: its gradient by finite differences, its answers by their probabilities, bad rewards."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from forgetlab import finetune, task
from forgetlab.errors import ForgetlabError
from forgetlab.models.model import Model
from forgetlab.remedies import (
    AGEM,
    EWC,
    L2SP,
    ExperienceReplay,
    KLAnchor,
    LoRA,
    LwF,
    PCGrad,
    ProgressiveColumns,
)
from forgetlab.tasks import CausalLM, Distilled, Rewarded, filtered
from forgetlab.training.method import Part, Run
from forgetlab.training.step import halves
from tests.conftest import small_model
from tests.tasks.test_end_mark import causal

ROOT = Path(__file__).parents[2]

WORDS = ["[BOS]", "[EOS]", "[PAD]", "a", "b"]


def letters() -> Model:
    """A random model of five tokens, so that every answer of three tokens can be written down."""
    import transformers as hf
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    inner = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[PAD]"))
    inner.pre_tokenizer = Whitespace()
    own = hf.PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="[BOS]", eos_token="[EOS]", pad_token="[PAD]")
    shape = {"n_positions": 16, "n_embd": 8, "n_layer": 1, "n_head": 1, "bos_token_id": 0, "eos_token_id": 1}
    config = hf.GPT2Config(
        vocab_size=5, initializer_range=0.6, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0, **shape
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Model(hf.GPT2LMHeadModel(config).eval(), own, "letters")


def all_answers(longest: int) -> list[tuple[int, ...]]:
    """Every answer: ended by [EOS], or cut at `longest` tokens."""
    found: list[tuple[int, ...]] = []
    for n in range(longest):
        found += [(*some, 1) for some in itertools.product((0, 2, 3, 4), repeat=n)]
    return found + list(itertools.product((0, 2, 3, 4), repeat=longest))


def probabilities(body: Any, prompt: list[int], answers: Sequence[tuple[int, ...]], temperature: float = 1.0) -> Tensor:
    """π(answer | prompt) of each answer by transformers' own forward pass; what stands after it does not matter."""
    longest = max(map(len, answers))
    ids = torch.tensor([[*prompt, *answer, *[0] * (longest - len(answer))] for answer in answers])
    logs = (body(input_ids=ids).logits.double() / temperature).log_softmax(-1)
    steps = logs[:, len(prompt) - 1 : -1].gather(2, ids[:, len(prompt) :].unsqueeze(2)).squeeze(2)
    written = torch.arange(longest) < torch.tensor([len(answer) for answer in answers]).unsqueeze(1)
    return (steps * written).sum(1).exp()


def count_a(texts: list[str]) -> list[float]:
    return [text.split()[1:].count("a") + 0.5 * text.endswith("b") for text in texts]


def one_of_letters(**more: Any) -> Rewarded:
    options: dict[str, Any] = {"test": ["a", "b a"], "max_tokens": 3} | more
    return Rewarded("letters", ["a", "b a", "b"], count_a, **options)


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_the_gradient_is_that_of_the_expected_reward_by_finite_differences(temperature: float) -> None:
    model, one = letters(), one_of_letters(temperature=temperature)
    prompt, answers = [0, 4, 3], all_answers(3)
    decode = model.tokenizer.decode
    rewards = torch.tensor(count_a([decode([*prompt, *answer], skip_special_tokens=True) for answer in answers]))

    def expected() -> float:
        with torch.no_grad():
            return float(probabilities(model.body, prompt, answers, temperature) @ rewards.double())

    policy = probabilities(model.body, prompt, answers, temperature).detach()
    assert float(policy.sum()) == pytest.approx(1)  # every answer is there
    assert 0.2 < expected() < 1.5
    # the mean over all tokens of all answers, each weighed by its probability, is E[r ∇ log π]
    rows = torch.nn.utils.rnn.pad_sequence([torch.tensor([*prompt, *answer]) for answer in answers], True, 2)
    lengths = torch.tensor([len(prompt) + len(answer) for answer in answers]).unsqueeze(1)
    place = torch.arange(rows.shape[1])
    asked = (place >= len(prompt) - 1) & (place < lengths - 1)
    places = asked.flatten().nonzero().squeeze(1)
    batch = {
        "input_ids": rows,
        "attention_mask": (place < lengths).long(),
        "places": places,
        "targets": rows.flatten()[places + 1],
        "advantages": (policy * rewards * len(places)).float()[places // rows.shape[1]],
    }
    one.loss(model, batch).backward()
    body, step = model.body.double(), 1e-5
    for name, p in body.named_parameters():
        assert p.grad is not None
        direction = torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name)), dtype=torch.float64)
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                p += sign * step * direction
                ends.append(expected())
                p -= sign * step * direction
        slope = (ends[0] - ends[1]) / (2 * step)
        assert -float((p.grad * direction).sum()) == pytest.approx(slope, rel=2e-3, abs=2e-5), name


def test_answers_are_drawn_with_their_probabilities() -> None:
    """To prompts of two lengths in one batch: a chi-square of each prompt's answers."""
    model, one = letters(), one_of_letters(samples=4000, advantage="none", temperature=1.3)
    one.prepare(model)
    found = one.answers(model, "train", torch.tensor([1, 0]).repeat_interleave(4000), torch.Generator().manual_seed(3))
    for prompt, own in (([0, 4, 3], slice(0, 4000)), ([0, 3], slice(4000, 8000))):
        answers = all_answers(3)
        counts = Counter(
            tuple(row[mark.bool()].tolist()) for row, mark in zip(found.ids[own], found.scored[own], strict=True)
        )
        assert set(counts) <= set(answers)
        with torch.no_grad():
            expected = (4000 * probabilities(model.body, prompt, answers, 1.3)).tolist()
        likely = [(counts[answer], e) for answer, e in zip(answers, expected, strict=True) if e >= 5]
        chi = sum((n - e) ** 2 / e for n, e in likely)
        assert len(likely) > 20
        assert chi < len(likely) + 4 * math.sqrt(2 * len(likely))
    words = [word for word in found.texts[0].split() if word in WORDS]
    assert words[:2] == ["b", "a"]
    assert found.texts[0].endswith(found.answers[0])


def test_a_batch_holds_the_answers_and_their_advantages() -> None:
    model, seen = letters(), list[list[str]]()

    def reward(texts: list[str]) -> list[float]:
        seen.append(texts)
        return count_a(texts)

    one = Rewarded("mine", ["a", "b a"], reward, test=["b"], samples=4, max_tokens=5)
    batch = one.batch(model, torch.tensor([1, 0]), torch.Generator().manual_seed(0))
    assert len(batch["input_ids"]) == len(seen[0]) == 8
    r = torch.tensor(count_a(seen[0])).view(2, 4).double()
    a = (r - r.mean(1, keepdim=True)) / r.std(1, correction=0, keepdim=True).clamp_min(1e-300)
    owners = one.owners(batch)
    assert torch.allclose(batch["advantages"], a.flatten()[owners].float(), atol=1e-6)
    logs = torch.zeros(8)
    for row, (ids, mark, attention) in enumerate(
        zip(batch["input_ids"], batch["scored"], batch["attention_mask"], strict=True)
    ):
        text = ids[attention.bool()].tolist()
        inner = text[1:-1] if text[-1] == 1 else text[1:]
        assert " ".join(WORDS[token] for token in inner) == seen[0][row]  # other marks are shown to the reward
        answer = ids[mark.bool()].tolist()
        assert text[len(text) - len(answer) :] == answer
        assert answer.count(1) == (answer[-1] == 1) == bool(batch["ended"][row])
        with torch.no_grad():
            logs[row] = probabilities(model.body, text[: len(text) - len(answer)], [answer]).log().float()
    found = one.logits(model, batch).log_softmax(-1).gather(1, batch["targets"].unsqueeze(1)).squeeze(1)
    assert torch.allclose(torch.zeros(8).index_add(0, owners, found), logs, atol=1e-5)


def test_the_halves_of_a_batch_have_its_gradient() -> None:
    model, one = letters(), one_of_letters(samples=5)
    batch = one.batch(model, torch.arange(3), torch.Generator().manual_seed(0))
    weights = list(model.parameters())
    whole = torch.autograd.grad(one.loss(model, batch), weights)
    parts = list(halves(one, batch))
    assert len(parts) == 2
    assert sum(share for _, share in parts) == pytest.approx(1)
    summed = [torch.zeros_like(p) for p in weights]
    for half, share in parts:
        for total, g in zip(summed, torch.autograd.grad(one.loss(model, half) * share, weights), strict=True):
            total += g
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(whole, summed, strict=True))


def test_the_baseline_is_the_running_mean_of_this_run_alone() -> None:
    model, one = letters(), one_of_letters(samples=2, advantage="baseline")
    for _ in range(2):  # a second run begins anew
        generator, rewards = torch.Generator().manual_seed(0), list[float]()
        for _ in range(3):
            before = 0.0
            weights = [0.9 ** (len(rewards) - 1 - i) for i in range(len(rewards))]
            if rewards:
                before = sum(w * r for w, r in zip(weights, rewards, strict=True)) / sum(weights)
            state = generator.get_state()
            batch = one.batch(model, torch.arange(3), generator)
            again = one.answers(
                model, "train", torch.arange(3).repeat_interleave(2), torch.Generator().set_state(state)
            )
            r = torch.tensor(count_a(again.texts)).double()
            assert torch.allclose(batch["advantages"], (r - before)[one.owners(batch)].float(), atol=1e-6)
            rewards.append(float(r.mean()))


def test_it_learns_and_the_same_seed_gives_the_same_run() -> None:
    runs = []
    for seed in (0, 0, 1):
        model, one = letters(), one_of_letters(tries=16)
        runs.append([*finetune(model, one, steps=16, lr=3e-2, batch_size=3, every=8, seed=seed)])
    first, again, other = runs
    assert [r.scores for r in first] == [r.scores for r in again]
    assert [r.loss for r in first] == [r.loss for r in again]
    assert first[1].loss != other[1].loss
    assert first[-1].scores["letters"]["reward"] > 1.5 * first[0].scores["letters"]["reward"]
    assert first[0].tallies["letters"][0][1] == 1
    mean = sum(row[0] for row in first[0].tallies["letters"]) / 32
    assert first[0].scores["letters"]["reward"] == pytest.approx(mean, abs=1e-4)


def test_without_any_variance_nothing_changes_and_it_is_said_once() -> None:
    model = letters()
    one = Rewarded("flat", ["a", "b"], lambda texts: [0.1] * len(texts), test=["a"], max_tokens=3)
    before = model.snapshot()
    records = list(finetune(model, one, steps=3, batch_size=2, every=1, weight_decay=0.0))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    said = [note for record in records for note in record.notes if "no answer was better than another" in note]
    assert len(said) == 1
    assert said[0].startswith("flat: there were steps in which no answer was better than another to its prompt")


REMEDIES: dict[str, Callable[[list[Any]], list[Any]]] = {
    "ewc": lambda old: [EWC(old, lam=1, examples=8)],
    "replay": lambda old: [ExperienceReplay(old, ratio=0.5)],
    "lora": lambda old: [LoRA(r=2)],
    "pcgrad": lambda old: [PCGrad(old, batch_size=4)],
    "agem": lambda old: [AGEM(old, memory=16)],
    "lwf": lambda old: [LwF(old)],
    "kl": lambda old: [KLAnchor(0.1), L2SP(0.1)],
    "forward": lambda old: [KLAnchor(0.1, direction="forward"), ExperienceReplay(old, ratio=0.5)],
}


@pytest.mark.parametrize("name", REMEDIES)
def test_remedies_compose_with_a_reward(name: str, gpt: Model) -> None:
    one = Rewarded(
        "short", ["the film", "the plot of this"], lambda texts: [-len(t) for t in texts], max_tokens=6, test=["a"]
    )
    old = task("causal-lm", size=16)
    [first, last] = finetune(
        gpt, one, methods=REMEDIES[name]([old]), watch=[old], steps=2, every=2, batch_size=4, accumulation=2, limit=4
    )
    assert last.status == "done"
    assert last.loss is not None
    assert math.isfinite(last.loss)
    assert last.scores["causal-lm"] != first.scores["causal-lm"]


def test_columns_say_that_they_cannot_write(gpt: Model) -> None:
    one = Rewarded("short", ["the film"], lambda texts: [-len(t) for t in texts], test=["a"])
    with pytest.raises(ForgetlabError, match="short has the model write at each step, and a progressive column"):
        next(finetune(gpt, one, methods=[ProgressiveColumns()], batch_size=1))


def test_a_rewarded_task_can_be_the_old_one(gpt: Model) -> None:
    one = Rewarded("short", ["the film", "the plot"], lambda texts: [-len(t) for t in texts], max_tokens=4, test=["a"])
    new = task("causal-lm:notices", size=16)
    methods = [EWC([one], lam=1, examples=2), ExperienceReplay([one], ratio=0.5), PCGrad([one], batch_size=2)]
    [*_, last] = finetune(gpt, new, methods=methods, watch=[one], steps=2, batch_size=4, limit=4)
    assert last.status == "done"
    assert last.penalty["ewc"] > 0


def test_the_model_writes_in_the_state_that_it_is_trained_in(gpt: Model) -> None:
    """With what LoRA has added for the task, although the model is just then without it."""
    one = Rewarded("short", ["the film"], lambda texts: [len(t) for t in texts], max_tokens=6, test=["a"])
    lora = LoRA(r=2)
    list(finetune(gpt, one, methods=[lora], steps=4, lr=0.3, batch_size=1))
    run = Run.begin(gpt, one, 1, 1, 1e-3, 0, methods=[lora])

    def written() -> Tensor:
        run.generator.manual_seed(5)
        torch.randperm(1, generator=run.generator)  # as `Run.batch` draws its rows
        return one.batch(gpt, torch.tensor([0]), run.generator)["input_ids"]

    with lora.off():
        without = written()
        run.generator.manual_seed(5)
        found = run.batch(Part(one, 1))["input_ids"]
    with lora.on("short"):
        expected = written()
    assert torch.equal(found, expected)
    assert not torch.equal(found, without)


def test_an_anchor_keeps_the_answers_near(gpt: Model) -> None:
    distances = {}
    for beta in (1e-6, 10.0):
        gpt.restore()
        one = Rewarded("short", ["the film", "the plot"], lambda t: [-len(x) for x in t], max_tokens=6, test=["a"])
        [*_, last] = finetune(gpt, one, methods=[KLAnchor(beta)], steps=10, batch_size=2, lr=1e-2)
        distances[beta] = last.penalty["kl-anchor"] / beta
    assert 0 < distances[10.0] < 0.3 * distances[1e-6]


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (
            lambda texts: [1 / (len(t) - len(t)) for t in texts],
            r"the reward raised ZeroDivisionError \(division by zero\) on the text '",
        ),
        (lambda texts: [1.0] * (len(texts) - 1), "the reward returned 7 numbers for 8 texts"),
        (lambda texts: [math.nan] * len(texts), r"the reward of '.*' is nan; expected a finite number"),
        (lambda texts: [math.inf] * len(texts), "is inf; expected a finite number"),
        (lambda texts: ["good"] * len(texts), "is 'good'; expected a finite number"),
        (lambda texts: ["1"] * len(texts), "is '1'; expected a finite number"),
        (lambda texts: [None] * len(texts), "is None; expected a finite number"),
        (lambda texts: 1.0, "the reward returned 1.0; expected a list of 8 numbers, one for each text"),
        (lambda texts: None, "the reward returned None; expected a list"),
        (lambda text: 1 if len(text) == 1 else 1 / 0, r"on 8 texts at once, on none of them alone"),
    ],
)
def test_a_bad_reward_is_said_and_nothing_is_lost(reward: Any, said: str, gpt: Model) -> None:
    calls = 0

    def later(texts: list[str]) -> Any:  # the first look and the first step are fine
        nonlocal calls
        calls += 1
        return reward(texts) if calls > 2 else [float(len(t)) for t in texts]

    one = Rewarded("mine", ["the film"], later, test=["the plot"], max_tokens=4)
    run = finetune(gpt, one, steps=4, batch_size=1, every=2)
    next(run)
    with pytest.raises(ForgetlabError, match=f"mine: .*{said}") as caught:
        next(run)
    if "raised" in str(caught.value):
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert not gpt.training
    assert all(p.grad is None for p in gpt.parameters())
    gpt.restore()
    assert [r.step for r in finetune(gpt, task("causal-lm", size=8), steps=1, batch_size=2, limit=2)] == [0, 1]


def test_rewards_may_be_tensors_arrays_and_truths() -> None:
    model = letters()
    kinds: list[Callable[[list[str]], Any]] = [
        lambda texts: torch.tensor(count_a(texts)),
        lambda texts: torch.tensor(count_a(texts)).numpy(),
        lambda texts: (value for value in count_a(texts)),
    ]
    for kind in kinds:
        one = Rewarded("mine", ["a"], kind, test=["b"], max_tokens=3)
        assert one.score(model) == Rewarded("mine", ["a"], count_a, test=["b"], max_tokens=3).score(model)
    truth = Rewarded("mine", ["a"], lambda texts: ["a" in t for t in texts], test=["a"], max_tokens=3)
    assert truth.score(model)["reward"] == 1.0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"samples": 1},
            "advantage 'group' compares the answers to a prompt: samples must be 2 or more, got 1; 'basel",
        ),
        ({"samples": 0}, "samples must be a whole number above 0, got 0"),
        ({"advantage": "grpo"}, "unknown advantage 'grpo'"),
        ({"max_tokens": 0}, "max_tokens must be a whole number above 0"),
        ({"temperature": 0}, "temperature must be between 0 and 1000, 0 excluded, got 0"),
        ({"tries": 0}, "tries must be"),
        ({"test": []}, r"test must be a list of texts, such as \['the film'\], got \[\]"),
        ({"test": "the film"}, "test must be a list of texts"),
        ({"prompts": ["a", " "]}, "prompts hold an empty text; expected words to write on from"),
        ({"prompts": [1]}, "prompts must be a list of texts"),
        ({"prompts": ["a", "b"], "test": None}, "2 different texts: expected at least 4 to split"),
        ({"reward": "length"}, "reward must be a function of a list of texts, got 'length'"),
    ],
)
def test_bad_values_are_said(more: dict[str, Any], said: str) -> None:
    options: dict[str, Any] = {"prompts": ["a", "b"], "reward": count_a, "test": ["a"]} | more
    with pytest.raises(ForgetlabError, match=said):
        Rewarded("mine", **options)
    with pytest.raises(ForgetlabError, match="beta must be a number of 0 or more, got -1"):
        KLAnchor(-1)
    with pytest.raises(ForgetlabError, match="unknown direction 'both'"):
        KLAnchor(1, direction="both")  # type: ignore[arg-type]


def test_models_that_cannot_write_are_told(bert: Model, gpt: Model) -> None:
    one = Rewarded("mine", ["the film"], count_a, test=["the plot"])
    with pytest.raises(ForgetlabError, match="the task mine needs a causal language model; small-bert is none"):
        next(finetune(bert, one, steps=1, batch_size=1))
    long = Rewarded("mine", ["the film", "the " * 63 + "film"], count_a, test=["the plot"])
    with pytest.raises(
        ForgetlabError, match="mine: the prompt 'the the .* has 64 tokens or more, all that small-gpt tak"
    ):
        next(finetune(gpt, long, steps=1, batch_size=1))
    fits = Rewarded("mine", ["the " * 60 + "film"], lambda t: [len(x) for x in t], test=["the plot"], max_tokens=9)
    [first, *_] = finetune(gpt, fits, steps=1, batch_size=1)
    assert "mine: small-gpt has room for 2 tokens after the longest prompt" in first.notes


def test_a_model_that_never_ends_a_text_is_cut_and_said(gpt: Model) -> None:
    one = Rewarded(
        "mine", ["the film", "the plot"], lambda t: [x.count("a") for x in t], test=["the plot"], max_tokens=4
    )
    end = gpt.tokenizer.eos_token_id
    with torch.no_grad():
        gpt.backbone.ln_f.weight.zero_()  # every place has the same logits: the end the least likely
        gpt.backbone.ln_f.bias.copy_(-20 * gpt.backbone.wte.weight[end] / gpt.backbone.wte.weight[end].norm())
    gpt.remember()
    records = list(finetune(gpt, one, steps=2, every=1, batch_size=2, lr=1e-6))
    assert records[-1].scores["mine"]["ended"] == 0
    assert records[-1].scores["mine"]["length"] == 4
    said = [note for record in records for note in record.notes if "no answer came to its end within 4 tokens" in note]
    assert len(said) == 1


def test_a_run_that_diverges_ends_as_any_other(gpt: Model) -> None:
    one = Rewarded("mine", ["the film"], lambda t: [len(x) for x in t], test=["the plot"], max_tokens=4)
    [*_, last] = finetune(
        gpt, one, watch=[task("writing")], steps=6, every=2, batch_size=2, lr=1e30, limit=4, accumulation=2
    )
    assert last.status == "diverged"


def test_filtered_answers_are_the_models_own_good_ones() -> None:
    model, one = letters(), one_of_letters()
    own = filtered(one, model, 12, seed=0, over=0.9)
    again, other = (filtered(one, model, 12, seed=seed, over=0.9) for seed in (0, 1))
    assert own == again
    assert own != other
    assert own.kind == "completions"
    assert own.pairs is not None
    texts = [f"{prompt} {answer}" for prompt, answer in zip(own.texts, own.pairs, strict=True)]
    assert min(count_a(texts)) > 0.9
    assert set(own.texts) <= {"a", "b a", "b"}
    assert math.isfinite(CausalLM("own", own, own).score(model)["perplexity"])
    with pytest.raises(
        ForgetlabError, match=r"letters: 0 of 40 answers of letters have a reward above 9, 2 are needed"
    ):
        filtered(one, model, 2, over=9)


def test_several_lengths_of_prompt_share_a_batch_and_padding_changes_nothing() -> None:
    model = small_model(causal=True)
    one = Rewarded(
        "mine", ["the film", "the plot of this film was"], lambda t: [len(x) for x in t], test=["a"], samples=2
    )
    batch = one.batch(model, torch.arange(2), torch.Generator().manual_seed(0))
    alone = [one.part(batch, row, row + 1) for row in range(4)]
    apart = torch.cat([one.logits(model, some) for some in alone])
    assert torch.allclose(one.logits(model, batch), apart, atol=1e-4)


def test_the_reward_of_the_docs_runs_on_a_gpt_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "rewards.md").read_text(encoding="utf-8"), re.DOTALL)
    causal("gpt2").save(tmp_path / "my-gpt")
    (tmp_path / "general.txt").write_text(
        "\n\n".join(f"the fox number {i} sleeps ." for i in range(12)), encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code.replace("batch_size=4", "steps=2, every=1, limit=4, batch_size=4"), names)
    assert re.match(r"0 \{'polite': \{'reward': 0.0, .*'general': ", capsys.readouterr().out)
    assert names["record"].status == "done"
    assert names["polite"](["Thank you .", "no"]) == [True, False]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rewarded", "distilled"])
def test_compiled_it_learns_the_same_and_writes_as_written(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch's own tracing, and a back end that computes what it is given: a compiler takes a minute."""
    graphs: list[int] = []

    def traced(self: Any, **options: Any) -> None:
        def back_end(graph: Any, _: Any) -> Any:
            graphs.append(len(graph.graph.nodes))
            return graph.forward

        self._compiled_call_impl = torch.compile(self._call_impl, backend=back_end, **options)

    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    common: dict[str, Any] = {"test": ["b"], "max_tokens": 5}
    ends: list[Any] = []
    for compiled in (False, True):
        model, teacher = letters(), letters()
        with torch.no_grad():
            teacher.body.lm_head.weight.neg_()
        new = (
            Rewarded("new", ["a", "b a", "a b"], count_a, **common, samples=4)
            if kind == "rewarded"
            else Distilled("new", ["a", "b a", "a b"], teacher, **common)
        )
        ends.append([*finetune(model, new, steps=3, lr=1e-2, batch_size=2, every=1, compile=compiled)])
        assert model.backbone._compiled_call_impl is None
    assert graphs  # of the pass that is trained, and of none of those that write, token after token
    assert len(graphs) <= 2
    for one, other in zip(*ends, strict=True):
        assert not any("no compiler works here" in note for note in other.notes)
        assert (other.loss or 0.0) == pytest.approx(one.loss or 0.0, rel=1e-4)
        assert other.scores["new"] == pytest.approx(one.scores["new"], rel=1e-4)
    assert ends[0][1].loss != ends[0][-1].loss
