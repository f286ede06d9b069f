"""What loading tells the process meanwhile."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, replace
from pathlib import Path
from threading import Thread

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments
from transformers.utils.logging import ERROR, get_verbosity

from forgetlab import finetune, load, task
from forgetlab.errors import ForgetlabError
from forgetlab.experiments.identity import identity
from forgetlab.experiments.recipe import Recipe
from forgetlab.experiments.recipes import prepare
from forgetlab.models.model import Model
from forgetlab.models.quiet import quiet_transformers
from forgetlab.sources import Examples
from forgetlab.tasks import CausalLM
from forgetlab.training.pretraining import world_tokenizer


def test_models_are_loaded_one_at_a_time() -> None:
    """Two labs load in two threads: what transformers is told meanwhile is told to the whole process."""
    inside: list[int] = []

    def enter() -> None:
        with quiet_transformers():
            inside.append(get_verbosity())

    before = get_verbosity()
    with quiet_transformers():
        other = Thread(target=enter)
        other.start()
        other.join(0.2)
        assert not inside
    other.join()
    assert inside == [ERROR]
    assert get_verbosity() == before


def test_half_the_memory_in_bfloat16_and_heads_as_they_are() -> None:
    whole, half = (load("tiny-bert", device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert {p.dtype for p in half.body.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in half.heads.parameters()} == {torch.float32}
    sizes = [sum(p.nbytes for p in model.body.parameters()) for model in (whole, half)]
    assert sizes[0] == 2 * sizes[1]
    for name, value in half.body.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, whole.body.state_dict()[name].bfloat16())
    for name in ("masked-lm", "entities"):
        scores = [task(name).score(model, 32)["loss"] for model in (whole, half)]
        assert scores[0] == pytest.approx(scores[1], rel=0.05, abs=1e-3)
        assert scores[0] != scores[1]
    with pytest.raises(ForgetlabError, match="dtype"):
        load("tiny-bert", dtype="int4")  # type: ignore[arg-type]


def test_without_a_copy_there_is_nothing_to_restore_but_a_snapshot() -> None:
    model = load("tiny-gpt", device="cpu", keep=False)
    assert all(weight.is_meta for weight in model._pretrained.values())
    start = model.snapshot()
    new = task("causal-lm:notices")
    last, other = ([*finetune(one, new, steps=2)][-1] for one in (model, load("tiny-gpt", device="cpu")))
    assert last.drift == other.drift > 0
    with pytest.raises(ForgetlabError, match="keeps no copy to restore: load it with keep=True"):
        model.restore()
    model.restore(start)
    assert all(torch.equal(weight, start[name]) for name, weight in model.state_dict().items())


def test_layers_go_where_a_map_says() -> None:
    spread = load("tiny-gpt", device_map={"": "cpu"})
    assert task("causal-lm").score(spread, 8) == task("causal-lm").score(load("tiny-gpt", device="cpu"), 8)
    with pytest.raises(ForgetlabError, match="cannot be opened"):
        load("tiny-gpt", device_map="everywhere")


MAPS: dict[str, dict[str, str]] = {
    "on a disk": {"": "disk"},
    "half on a disk": {"transformer.wte": "cpu", "transformer.wpe": "cpu", "transformer.ln_f": "cpu", "lm_head": "cpu"},
    "nowhere": {"": "meta"},
}
MAPS["half on a disk"] |= {f"transformer.h.{i}": "disk" for i in range(3)}


@pytest.mark.parametrize("name", MAPS)
def test_weights_that_are_not_in_memory_are_refused(name: str) -> None:
    """A forward pass would bring them; drift, penalties, importances and copies would be of nothing, without a word."""
    with pytest.raises(ForgetlabError, match="expected all of them in memory on one device"):
        load("tiny-gpt", device_map=MAPS[name])


def test_a_model_that_accelerate_has_taken_apart_is_refused_too(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    from forgetlab.training.huggingface import ForgettingTrainer

    whole = load("tiny-gpt", device="cpu")
    for part in (accelerate.cpu_offload, lambda body: accelerate.disk_offload(body, str(tmp_path))):
        body = copy.deepcopy(whole.body)
        part(body)
        with pytest.raises(ForgetlabError, match="its weights are on a disk or another device"):
            Model(body, whole.tokenizer, "apart")
        with pytest.raises(ForgetlabError, match="expected all of them in memory"):
            ForgettingTrainer(body, TrainingArguments(str(tmp_path), use_cpu=True), train_dataset=[{}])
    two = copy.deepcopy(whole.body)
    two.lm_head = two.lm_head.to("meta")  # another device than the rest
    with pytest.raises(ForgetlabError, match=r"its weights are (cpu and meta|meta and cpu)"):
        Model(two, whole.tokenizer, "two")


# --- how long a text may be ---


def long_gpt(folder: Path, positions: int = 1100) -> str:
    """A random GPT that takes longer texts than 512 tokens."""
    tokenizer = world_tokenizer(causal=True)
    torch.manual_seed(0)
    shape = {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": positions, "initializer_range": 0.3}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_texts_are_cut_at_512_tokens_unless_more_is_asked_for(tmp_path: Path) -> None:
    folder = long_gpt(tmp_path / "long")
    words = " ".join(["anna"] * 700)
    one = CausalLM("mine", None, Examples("text", (words, "anna .")))
    usual, longer = load(folder, device="cpu"), load(folder, device="cpu", max_length=1000)
    assert (usual.max_length, longer.max_length) == (512, 1000)
    said = "mine: 1 of 2 test texts are longer than 512 tokens and were cut (long takes 1100 tokens: max_length=1100)"
    assert said in one.remarks(usual, "test")
    assert not any("cut" in note for note in one.remarks(longer, "test"))
    for model, count in ((usual, 511), (longer, 700)):
        ids = torch.tensor([model.tokenizer.bos_token_id, *model.tokenizer(words)["input_ids"][:count]])
        with torch.no_grad():
            logs = model.body(input_ids=ids[None]).logits[0].double().log_softmax(-1)
        tally = one.tally(model)
        assert tally is not None
        assert tally.items[0].tolist() == pytest.approx(
            [-float(logs[torch.arange(count), ids[1:]].sum()), count], rel=1e-5
        )
    with pytest.raises(ForgetlabError, match="max_length 2048: long takes 1100 tokens at most"):
        load(folder, max_length=2048)
    with pytest.raises(ForgetlabError, match="max_length must be a whole number"):
        load(folder, max_length=0)
    assert load("tiny-gpt").max_length == 64 == load("tiny-gpt", max_length=64).max_length


def test_a_recipe_says_how_long_texts_may_be(tmp_path: Path) -> None:
    folder = long_gpt(tmp_path / "long")
    rows = [{"prompt": " ".join(["anna"] * (600 + i)), "completion": "boris ."} for i in range(40)]
    (tmp_path / "mine.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    recipe = Recipe(model=folder, new=str(tmp_path / "mine.jsonl"), watch=(str(tmp_path / "mine.jsonl:name=b"),))
    assert prepare(recipe).model.max_length == 512
    longer = replace(recipe, max_length=700)
    bench = prepare(longer)
    assert bench.new.encoded(bench.model, "train").columns["input_ids"].shape[1] > 600
    assert recipe.key() != longer.key()
    assert recipe.content() == {name: value for name, value in asdict(recipe).items() if name != "max_length"}
    assert identity(recipe)["recipe"].get("max_length") is None
    with pytest.raises(ForgetlabError, match="max_length"):
        prepare(replace(recipe, max_length=-1))
