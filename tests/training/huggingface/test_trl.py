"""trl's trainers with remedies: the plain trainer where nothing is asked for, else its step plus what the formula says.

One tiny Llama, made here; two steps of plain gradient descent each, so that the second is known in closed form:
θ₂ = θ₁ − η (g(θ₁) + ∇ penalty(θ₁)), where the plain trainer gives θ₁ and g(θ₁).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, LlamaModel, TrainerCallback

from forgetlab import load, task
from forgetlab.errors import ForgetlabError
from forgetlab.importance import fisher_diagonal
from forgetlab.remedies import EWC, ExperienceReplay, KLAnchor, LwF
from forgetlab.sources.json_files import write_json
from forgetlab.training import Method
from forgetlab.training.huggingface import ForgettingMixin, ForgettingTrainer, checkpoints
from forgetlab.training.pretraining import world_tokenizer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("trl") is None, reason="needs trl, which is not installed"),
]

OLD, LR, BATCH = "causal-lm:news", 0.5, 4
KINDS = ("SFT", "DPO", "GRPO")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")  # else trl tells its makers of each run


def random_llama() -> Any:
    tokenizer = world_tokenizer(causal=True)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("llama"))
    random_llama().save_pretrained(folder)
    world_tokenizer(causal=True).save_pretrained(folder)
    return folder


def rows(kind: str) -> Any:
    from datasets import Dataset

    train = task("causal-lm:notices").train
    assert train is not None
    words = [text.split() for text in train.texts[: 2 * BATCH]]
    prompts = [" ".join(some[:3]) for some in words]
    good, bad = ([" ".join(some[3:]) for some in texts] for texts in (words, words[1:] + words[:1]))
    columns = {"SFT": {"completion": good}, "DPO": {"chosen": good, "rejected": bad}, "GRPO": {}}[kind]
    return Dataset.from_dict({"prompt": prompts, **columns})


def letters(completions: list[str], **_: Any) -> list[float]:
    return [float(len(text)) for text in completions]


class Steps(TrainerCallback):
    """The weights after each step."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.weights.append({n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad})


class Spy:
    """The batches as the loss is asked of them."""

    def compute_loss(self, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        self.seen = [*getattr(self, "seen", []), dict(inputs)]
        return super().compute_loss(model, inputs, *rest, **more)  # type: ignore[misc]


def settings(kind: str, out: Path, **more: Any) -> Any:
    import trl

    own: dict[str, Any] = {"num_generations": BATCH, "max_completion_length": 6} if kind == "GRPO" else {}
    usual = {
        "output_dir": str(out),
        "per_device_train_batch_size": BATCH,
        "max_steps": 2,
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
    }
    return getattr(trl, f"{kind}Config")(**{**usual, **own, **more})


def trained(
    kind: str, model: Any, out: Path, methods: list[Method] | None, resume: bool | str = False, **more: Any
) -> tuple[Any, list[dict[str, Tensor]]]:
    """A trainer after its run, and its weights after each step. methods: None for trl's own trainer, without us."""
    import trl

    plain = getattr(trl, f"{kind}Trainer")
    bases = (Spy, plain) if methods is None else (Spy, ForgettingMixin, plain)
    steps = Steps()
    given = {"reward_funcs": letters} if kind == "GRPO" else {}
    given |= {"methods": methods, "watch": [task(OLD)], "limit": 4} if methods is not None else {}
    given |= {name: more.pop(name) for name in ("peft_config", "quantization_config", "callbacks") if name in more}
    callbacks = [steps, *given.pop("callbacks", [])]
    args = settings(kind, out, **more)
    trainer = type(f"My{kind}", bases, {})(model, args=args, callbacks=callbacks, train_dataset=rows(kind), **given)
    trainer.train(resume_from_checkpoint=resume)
    return trainer, steps.weights


@pytest.fixture(scope="module")
def plain(llama: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """trl's own trainer of a kind, run once."""
    found: dict[str, Any] = {}

    def run(kind: str) -> Any:
        if kind not in found:
            found[kind] = trained(kind, llama, tmp_path_factory.mktemp(kind), None)
        return found[kind]

    return run


def lines(trainer: Any) -> list[dict[str, float]]:
    """What the Trainer logs of its own, but for times."""
    timed = ("runtime", "per_second", "time")
    own = [logs for logs in trainer.state.log_history if "drift" not in logs]
    return [{k: v for k, v in logs.items() if not any(word in k for word in timed)} for logs in own]


def same(ours: list[dict[str, Tensor]], theirs: list[dict[str, Tensor]]) -> None:
    assert len(ours) == len(theirs) == 2
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in other)


NOTHING: dict[str, Callable[[], list[Method]]] = {
    "none": list,
    "at λ = 0": lambda: [
        EWC(omega(), lam=0.0),
        KLAnchor(beta=0.0),
        LwF([task(OLD)], lam=0.0),
        ExperienceReplay([task(OLD)], ratio=0.0),
    ],
}


def omega() -> dict[str, Tensor]:
    """Some importance for each weight of the Llama, between 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    return {f"body.{n}": torch.rand(p.shape, generator=generator) for n, p in random_llama().named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NOTHING)
def test_nothing_asked_for_is_trls_own_trainer(kind: str, name: str, llama: str, plain: Any, tmp_path: Path) -> None:
    theirs, there = plain(kind)
    ours, here = trained(kind, llama, tmp_path, NOTHING[name]())
    same(here, there)
    assert lines(ours) == lines(theirs)
    assert [record.step for record in ours.records] == [0, 1, 2]
    assert ours.records[-1].drift > 0


# -- the penalties, written out slowly --------------------------------------------------------------


def logits_of(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """(places, words) where a batch is asked: at each token, of GRPO's where a token of the answer comes next."""
    if "prompt_ids" not in batch:
        out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return out[batch["attention_mask"].bool()]
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    out = model(input_ids=ids, attention_mask=mask).logits
    start = batch["prompt_ids"].shape[1]
    return torch.cat(
        [
            out[i, start - 1 + t][None]
            for i in range(len(ids))
            for t in range(ids.shape[1] - start)
            if batch["completion_mask"][i, t]
        ]
    )


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p.softmax(-1) * (p.log_softmax(-1) - q.log_softmax(-1))).sum(-1).mean()


PENALTIES: dict[str, tuple[Callable[[], Method], Callable[[Any, Any, Any], Tensor]]] = {
    "ewc": (
        lambda: EWC(omega(), lam=0.3),
        lambda now, before, batch: sum(
            (0.3 / 2 * omega()[f"body.{n}"] * (p - q.detach()) ** 2).sum()
            for (n, p), q in zip(now.named_parameters(), before.parameters(), strict=True)
        ),
    ),
    "kl": (
        lambda: KLAnchor(beta=2.0),
        lambda now, before, batch: 2.0 * kl(logits_of(now, batch), logits_of(before, batch).detach()),
    ),
    "lwf": (
        lambda: LwF([task(OLD)], lam=2.0, temperature=2.0),
        lambda now, before, batch: 2.0 * 4 * kl(logits_of(before, batch).detach() / 2, logits_of(now, batch) / 2),
    ),
}


def with_weights(folder: str, weights: dict[str, Tensor] | None = None) -> nn.Module:
    model: nn.Module = AutoModelForCausalLM.from_pretrained(folder)
    if weights:
        model.load_state_dict({**model.state_dict(), **weights})
        model.tie_weights()  # type: ignore[operator]
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PENALTIES)
def test_a_penalty_adds_its_gradient(kind: str, name: str, llama: str, plain: Any, tmp_path: Path) -> None:
    make, formula = PENALTIES[name]
    ours, (one, two) = trained(kind, llama, tmp_path, [make()])
    theirs, (first, second) = plain(kind)
    now, before = with_weights(llama, first), with_weights(llama)
    for key in first:  # at the start the penalty is 0, and so is its gradient
        assert torch.allclose(one[key], first[key], atol=1e-6)
    formula(now, before, theirs.seen[1]).backward()
    pulls = {n: LR * p.grad for n, p in now.named_parameters() if p.grad is not None}
    assert max(float(pull.abs().max()) for pull in pulls.values()) > 1e-3
    for key, pull in pulls.items():
        assert torch.allclose(two[key], second[key] - pull, rtol=1e-4, atol=1e-5), key
    assert ours.records[-1].penalty[ours.methods[0].name] > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("passes", [1, 2])
def test_replay_takes_its_share_of_a_step(kind: str, passes: int, llama: str, plain: Any, tmp_path: Path) -> None:
    """θ₁ = θ₀ − η ((1 − s) g + s g_old), with the old texts that were drawn; in passes their mean."""
    old, drawn = task(OLD), []
    loss = old.loss
    old.loss = lambda model, batch: (drawn.append(batch), loss(model, batch))[1]  # type: ignore[method-assign]
    steps = {"gradient_accumulation_steps": passes, "max_steps": 1}
    ours, (one,) = trained(kind, llama, tmp_path, [ExperienceReplay([old], ratio=0.5)], **steps)
    first = (plain(kind) if passes == 1 else trained(kind, llama, tmp_path, None, **steps))[1][0]
    count = 2 * BATCH if kind == "DPO" else BATCH  # both answers of a preference are texts
    assert (ours.methods[0]._seen, ours.methods[0]._replayed) == (passes * count, passes * count // 2)
    model = load(llama, device="cpu")
    assert [len(batch["input_ids"]) for batch in drawn[:passes]] == [count // 2] * passes
    sum(loss(model, batch) / passes for batch in drawn[:passes]).backward()
    for name, p in model.body.named_parameters():
        assert p.grad is not None
        step = p.detach() - first[name]  # η g
        assert torch.allclose(one[name], p.detach() - step / 2 - LR * p.grad / 2, rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("kind", ["SFT", "DPO"])
def test_a_term_on_the_outputs_takes_no_second_pass_of_the_model(
    kind: str, llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Trainer's own pass is overheard: one with gradients in each step."""
    made: list[bool] = []
    forward = LlamaModel.forward

    def counted(self: Any, *given: Any, **named: Any) -> Any:
        made.append(torch.is_grad_enabled() and self.training)
        return forward(self, *given, **named)

    monkeypatch.setattr(LlamaModel, "forward", counted)
    trained(kind, llama, tmp_path, [KLAnchor(beta=2.0), LwF([task(OLD)], lam=1.0)])
    assert sum(made) == 2


# -- SFT's other ways -------------------------------------------------------------------------------


def test_packed_texts_are_asked_each_by_itself(llama: str, tmp_path: Path) -> None:
    packing = {"packing": True, "max_length": 32, "per_device_train_batch_size": 2}
    theirs, there = trained("SFT", llama, tmp_path, None, **packing)
    ours, here = trained("SFT", llama, tmp_path, [], **packing)
    same(here, there)
    assert lines(ours) == lines(theirs)
    packed = theirs.seen[1]
    starts = (packed["position_ids"][0] == 0).nonzero().flatten().tolist()
    assert len(packed["input_ids"]) == 1 < len(starts)
    texts = [packed["input_ids"][0, i:j] for i, j in zip(starts, [*starts[1:], None], strict=True)]
    now, before = with_weights(llama, there[0]), with_weights(llama)
    logits = [torch.cat([model(text[None]).logits[0] for text in texts]) for model in (now, before)]
    (2 * kl(logits[0], logits[1].detach())).backward()
    _, (_, two) = trained("SFT", llama, tmp_path, [KLAnchor(beta=2.0)], **packing)
    for name, p in now.named_parameters():
        assert p.grad is not None
        assert torch.allclose(two[name], there[1][name] - LR * p.grad, rtol=1e-4, atol=1e-5), name
    replayed, _ = trained("SFT", llama, tmp_path, [ExperienceReplay([task(OLD)], ratio=0.5)], **packing)
    count = sum(int((batch["position_ids"] == 0).sum()) for batch in replayed.seen)
    assert replayed.methods[0]._seen == count > 4


class Killed(TrainerCallback):
    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        raise KeyboardInterrupt


def lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=2, target_modules="all-linear")


def drawing() -> list[Method]:
    return [KLAnchor(beta=1.0), ExperienceReplay([task(OLD)], ratio=0.5)]


SAVING = {"save_strategy": "steps", "save_steps": 1, "optim": "adamw_torch", "learning_rate": 0.01}


@pytest.mark.parametrize("kind", KINDS)
def test_killed_and_resumed_is_uninterrupted(kind: str, llama: str, tmp_path: Path) -> None:
    """With a peft_config, and a remedy that draws."""

    def run(out: Path, resume: bool = False, **more: Any) -> Any:
        return trained(kind, llama, out, drawing(), resume, peft_config=lora(), **SAVING, **more)

    whole, there = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", callbacks=[Killed()])
    again, here = run(tmp_path / "cut", resume=True)
    assert again.state.global_step == 2
    assert len(here) == 1
    assert all(torch.equal(here[0][name], there[1][name]) for name in there[1])
    assert again.records[-1].scores == whole.records[-1].scores
    assert again.records[-1].drift == whole.records[-1].drift > 0


# -- what a LoRA costs ------------------------------------------------------------------------------


def test_below_a_lora_nothing_is_copied(llama: str, tmp_path: Path) -> None:
    """The base is its own anchor: it is shared, not kept, not written, and has no importance."""
    methods = [EWC([task(OLD)], lam=1.0, examples=8), *drawing()]
    ours, _ = trained("SFT", llama, tmp_path / "ours", methods, peft_config=lora(), **SAVING)
    own = dict(ours.together.named_parameters())
    adapter = {name for name, p in own.items() if p.requires_grad}
    assert adapter == {name for name in own if "lora_" in name} == ours._run.anchor.keys() == ours._run.weights.keys()
    before = ours.methods[1]._before
    for name, p in before.named_parameters():
        assert (p is own[name]) == (name not in adapter)
    assert {p for p, _, _ in ours.methods[0]._terms} == {own[name] for name in adapter}
    ids = torch.tensor([[5, 6, 7, 8]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad(), ours.model.eval().disable_adapter():  # peft's own way to what was there before
        assert torch.equal(before.lm_logits(before.hidden(batch)), ours.model(**batch).logits)

    trained("SFT", llama, tmp_path / "bare", [], peft_config=lora(), **SAVING)
    trained("SFT", llama, tmp_path / "theirs", None, peft_config=lora(), **SAVING)
    sizes = {
        out: {file.name: file.stat().st_size for file in (tmp_path / out / "checkpoint-2").iterdir()}
        for out in ("bare", "theirs")
    }
    assert sizes["bare"].keys() - sizes["theirs"].keys() == {
        "forgetlab.json",
        "forgetlab.safetensors",
        "forgetlab-files.json",
    }
    anchor = sum(4 * own[name].numel() for name in adapter)
    assert sizes["bare"]["forgetlab.safetensors"] < anchor + 20_000  # names, and 5 kB of the generator


def test_the_importance_below_a_lora_is_that_of_its_own_weights(llama: str, tmp_path: Path) -> None:
    """What is left out changes nothing of the rest."""
    ours, _ = trained("SFT", llama, tmp_path, [], peft_config=lora(), max_steps=1)
    model, old = ours.together, task(OLD)
    few = fisher_diagonal(model, old, examples=6, estimator="empirical")
    still, model.still = model.still, frozenset()
    everything = fisher_diagonal(model, old, examples=6, estimator="empirical", method="loop")
    assert few.keys() == {name for name in everything if "lora_" in name}
    assert len(still) + len(few) == len(everything)
    for name, value in few.items():
        assert torch.allclose(value, everything[name], rtol=1e-3, atol=1e-8), name
    assert any(value.max() > 0 for value in few.values())
    assert not any(p.requires_grad for p in still)


def test_a_resume_on_other_frozen_weights_is_refused_and_an_older_checkpoint_is_taken(
    llama: str, tmp_path: Path
) -> None:
    whole, there = trained("SFT", llama, tmp_path / "whole", drawing(), peft_config=lora(), **SAVING)
    first = tmp_path / "whole" / "checkpoint-1"
    other = str(tmp_path / "other")
    model = with_weights(llama)
    with torch.no_grad():
        model.get_parameter("model.layers.1.mlp.up_proj.weight").add_(1e-3)
    model.save_pretrained(other)  # type: ignore[operator]
    world_tokenizer(causal=True).save_pretrained(other)
    with pytest.raises(ForgetlabError, match=r"of another model: '.*layers.1.mlp.up_proj.*', which is frozen"):
        trained("SFT", other, tmp_path / "no", drawing(), str(first), peft_config=lora(), **SAVING)
    # as it was written until 0.3.0: with the whole anchor, and no word of what is frozen
    tensors = load_file(first / "forgetlab.safetensors")
    frozen = {n: p.detach() for n, p in whole.together.named_parameters() if f"anchor/{n}" not in tensors}
    save_file({**tensors, **{f"anchor/{n}": p.clone() for n, p in frozen.items()}}, first / "forgetlab.safetensors")
    plain = json.loads((first / "forgetlab.json").read_text())
    plain["more"]["dict"] = [entry for entry in plain["more"]["dict"] if entry[0] != "still"]
    write_json(first / "forgetlab.json", {key: plain[key] for key in ("step", "state", "more")})
    checkpoints.seal(first)
    _, here = trained("SFT", other, tmp_path / "yes", drawing(), str(first), peft_config=lora(), **SAVING)
    assert all(torch.equal(here[0][name], there[1][name]) for name in there[1])


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is there")
def test_without_bitsandbytes_four_bits_are_refused_in_words(llama: str, tmp_path: Path) -> None:
    from transformers import BitsAndBytesConfig

    four = BitsAndBytesConfig(load_in_4bit=True)
    with pytest.raises(ForgetlabError, match="needs the package bitsandbytes, .* take the model in bfloat16"):
        trained("SFT", llama, tmp_path, [], quantization_config=four, peft_config=lora())


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes, which is not installed")
def test_in_four_bits_nothing_is_copied_either(llama: str, tmp_path: Path) -> None:
    from transformers import BitsAndBytesConfig

    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    methods = [EWC([task(OLD)], lam=1.0, examples=8), *drawing()]
    ours, _ = trained("SFT", llama, tmp_path, methods, quantization_config=four, peft_config=lora())
    own = dict(ours.together.named_parameters())
    assert torch.uint8 in {p.dtype for p in own.values()}
    assert all((p is own[n]) == ("lora_" not in n) for n, p in ours.methods[1]._before.named_parameters())
    assert ours.records[-1].penalty["kl-anchor"] > 0 < ours.records[-1].drift


def test_the_class_names_the_mixin_first() -> None:
    from trl import SFTTrainer

    with pytest.raises(ForgetlabError, match=r"Wrong: .*class X\(ForgettingMixin, SFTTrainer\)"):
        type("Wrong", (SFTTrainer, ForgettingMixin), {})
    assert ForgettingTrainer.__mro__[1] is ForgettingMixin


def test_the_recipe_of_the_documentation_runs(
    llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    docs = (Path(__file__).parents[3] / "docs" / "real-models.md").read_text(encoding="utf-8")
    (recipe,) = [block for block in re.findall(r"```python\n(.*?)```", docs, re.DOTALL) if "MySFT" in block]
    assert len([line for line in recipe.splitlines() if line.strip()]) <= 25
    monkeypatch.chdir(tmp_path)
    train = task(OLD).train
    assert train is not None
    Path("general.txt").write_text("\n".join(train.texts[:60]))
    rows("SFT").to_json("rows.jsonl")
    short = recipe.replace("Qwen/Qwen2.5-1.5B-Instruct", llama).replace("max_steps=300", "max_steps=2, use_cpu=True")
    exec(short, {})
    assert re.search(r"^\[\(0, \d+\.\d+\), \(2, \d+\.\d+\)\]$", capsys.readouterr().out, re.MULTILINE)
