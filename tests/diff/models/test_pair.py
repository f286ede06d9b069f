"""One model in memory: what is poured into it is what lies in the folder, in every form that a fine-tune leaves."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    LlamaConfig,
    LlamaForCausalLM,
)

from forgetlab import load, task
from forgetlab.diff.models.pair import Pair
from forgetlab.errors import ForgetlabError
from forgetlab.sources.model_names import model_folder
from tests.diff.conftest import moved

TEXTS = ["the film was not bad .", "anna saw paris", "a"]


def saved_by_transformers(kind: Any, name: str, place: Path, **options: Any) -> Path:
    shipped = model_folder(name)
    made = moved(kind.from_pretrained(shipped, **options)).eval()
    made.save_pretrained(place)
    load(name, device="cpu").tokenizer.save_pretrained(place)
    return place


def batch_of(model: Any) -> dict[str, torch.Tensor]:
    return dict(model.tokenizer(TEXTS, padding=True, return_tensors="pt"))


def test_a_saved_fine_tune_is_poured_in_and_back_bit_for_bit(tuned: Path) -> None:
    pair = Pair("tiny-bert", [str(tuned)], device="cpu")
    assert pair.names == ("before", str(tuned))
    model, batch = pair.model, batch_of(pair.model)
    body = model.body
    for which, name in (("before", "tiny-bert"), (str(tuned), str(tuned)), ("before", "tiny-bert")):
        alone = load(name, device="cpu")
        assert pair.become(which) is model
        assert model.body is body
        assert not model.training
        assert {*model.heads} == {*alone.heads}
        own = alone.state_dict()
        assert all(torch.equal(weight, own[key]) for key, weight in model.state_dict().items())
        with torch.no_grad():
            assert torch.equal(model.logits(batch, "entities"), alone.logits(batch, "entities"))
            assert torch.equal(model.lm_logits(model.hidden(batch)), alone.lm_logits(alone.hidden(batch)))
    assert pair.lent == {str(tuned): ()}


def test_what_is_trained_in_memory_leaves_the_models_as_they_were(tuned: Path) -> None:
    pair = Pair("tiny-bert", [str(tuned)], device="cpu")
    for which in pair.names:
        start = pair.become(which).snapshot()
        moved(pair.model)
        assert not any(torch.equal(weight, start[name]) for name, weight in pair.model.named_parameters())
        pair.model.requires_grad_(False)
        again = pair.become(which)
        assert all(torch.equal(weight, start[name]) for name, weight in again.state_dict().items())
        assert all(weight.requires_grad for weight in again.parameters())


def test_weights_come_one_by_one_each_once_whichever_model_is_in(tuned: Path) -> None:
    pair = Pair("tiny-bert", [str(tuned)], device="cpu")
    pair.become(str(tuned))
    for which, name in (("before", "tiny-bert"), (str(tuned), str(tuned))):
        found = dict(pair.weights(which))
        own = load(name, device="cpu").state_dict()
        assert found.keys() <= own.keys()
        assert all(torch.equal(weight, own[key]) for key, weight in found.items())
        decoder = [key for key in own if key.endswith(("word_embeddings.weight", "decoder.weight"))]
        assert len(decoder) == 2
        assert len(found.keys() & {*decoder}) == 1  # they are tied
        assert {w.data_ptr() for w in own.values()} == {own[key].data_ptr() for key in found}


def test_between_mixes_each_weight_and_leaves_a_new_head_alone(tuned: Path) -> None:
    pair = Pair("tiny-bert", [str(tuned)], device="cpu")
    old, new = load("tiny-bert", device="cpu").state_dict(), load(str(tuned), device="cpu").state_dict()
    asked = []

    def half(name: str, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        asked.append(name)
        return (before + after) / 2

    mixed = pair.between(str(tuned), half).state_dict()
    assert len(asked) == len({*asked})
    for name, weight in mixed.items():
        expected = new[name] if name.startswith("heads.sentiment") else (old[name] + new[name]) / 2
        assert torch.equal(weight, expected), name
    again = pair.become("before").state_dict()
    assert all(torch.equal(again[name], old[name]) for name in again)


@pytest.mark.parametrize("kind", [AutoModelForSequenceClassification, AutoModelForTokenClassification])
def test_a_classifier_of_transformers_becomes_a_head_with_its_own_logits(kind: Any, tmp_path: Path) -> None:
    one = task("sentiment" if kind is AutoModelForSequenceClassification else "entities")
    labels = list(reversed(one.labels))  # in another order than the task's
    options = {"num_labels": len(labels), "id2label": dict(enumerate(labels))}
    place = str(saved_by_transformers(kind, "tiny-bert", tmp_path / "theirs", **options))
    pair = Pair("tiny-bert", [place], device="cpu")
    assert "language model" in pair.lent[place]
    theirs = kind.from_pretrained(place).eval()
    head = pair.classifier(place)
    assert head is not None
    assert pair.classifier("before") is None
    assert head.of_task(("yes", "no"), head.level) is None
    fitted = head.of_task(one.labels, head.level)
    assert fitted is not None
    pair.give(place, one.name, fitted)
    model = pair.become(place)
    batch = batch_of(model)
    with torch.no_grad():
        ours, other = model.logits(batch, one.name), theirs(**batch).logits
        mask = batch["attention_mask"].bool()
        assert torch.allclose(
            ours.flip(-1)[mask] if head.level == "token" else ours.flip(-1),
            other[mask] if head.level == "token" else other,
            atol=1e-5,
        )
    one.prepare(model)
    assert 0 <= one.score(model, 16)[one.metric] <= 1
    # the language model's head is BEFORE's, above AFTER's backbone
    lent = load("tiny-bert", device="cpu")
    lent.backbone.load_state_dict(theirs.bert.state_dict(), strict=False)
    with torch.no_grad():
        assert torch.allclose(model.lm_logits(model.hidden(batch)), lent.lm_logits(lent.hidden(batch)), atol=1e-5)


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification"])
def test_a_head_that_chooses_no_class_is_not_used_and_that_is_said(problem: str, tmp_path: Path) -> None:
    options = {"id2label": {0: "bad", 1: "good"}, "problem_type": problem}
    kind = AutoModelForSequenceClassification
    place = str(saved_by_transformers(kind, "tiny-bert", tmp_path / "a", num_labels=2, **options))
    pair = Pair("tiny-bert", [place], device="cpu")
    assert pair.classifier(place) is None
    assert pair.notes == [f"{place}: its head is for {problem}: it is not used"]


def test_the_way_out_of_a_pickle_keeps_the_head(tmp_path: Path) -> None:
    place = saved_by_transformers(AutoModelForSequenceClassification, "tiny-bert", tmp_path / "a", num_labels=2)
    (place / "model.safetensors").rename(place / "pytorch_model.bin")
    with pytest.raises(ForgetlabError, match=r"transformers' BertForSequenceClassification\.from_pretrained"):
        Pair("tiny-bert", [str(place)], device="cpu")


def test_numbers_as_classes_fit_a_model_that_was_given_no_names(tmp_path: Path) -> None:
    place = str(saved_by_transformers(AutoModelForSequenceClassification, "tiny-gpt", tmp_path / "a", num_labels=3))
    head = Pair("tiny-gpt", [place], device="cpu").classifier(place)
    assert head is not None
    fitted = head.of_task(("2", "0", "1"), "sequence")
    assert fitted is not None
    theirs = AutoModelForSequenceClassification.from_pretrained(place).eval()
    tokenizer = load("tiny-gpt", device="cpu").tokenizer
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = theirs.transformer(**batch).last_hidden_state
        theirs.config.pad_token_id = tokenizer.pad_token_id
        alone = [theirs(**tokenizer([text], return_tensors="pt")).logits[0, [2, 0, 1]] for text in TEXTS]
        assert torch.allclose(fitted(hidden, batch["attention_mask"]), torch.stack(alone), atol=1e-4)


@pytest.mark.parametrize(("kind", "name"), [(AutoModelForMaskedLM, "tiny-bert"), (AutoModelForCausalLM, "tiny-gpt")])
def test_a_language_model_that_transformers_saved(kind: Any, name: str, tmp_path: Path) -> None:
    place = str(saved_by_transformers(kind, name, tmp_path / "a"))
    pair = Pair(name, [place], device="cpu")
    assert "language model" not in pair.lent[place]
    theirs = kind.from_pretrained(place).eval()
    batch = batch_of(pair.become(place))
    with torch.no_grad():
        ours = pair.model.lm_logits(pair.model.hidden(batch))
        assert torch.allclose(ours, theirs(**batch).logits, atol=1e-4)


def test_an_adapter_is_merged_by_peft_over_before(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = AutoModelForCausalLM.from_pretrained(model_folder("tiny-gpt"))
    base.config.name_or_path = base.name_or_path = "no-such-place"
    adapted = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["c_attn"]))
    moved(adapted).eval()
    adapted.save_pretrained(tmp_path / "lora")
    place = str(tmp_path / "lora")
    settings = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "gone"}))
    pair = Pair("tiny-gpt", [place], device="cpu")
    assert any("gone is not at hand" in note for note in pair.notes)
    model = pair.become(place)
    merged = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_folder("tiny-gpt")), place)
    batch = batch_of(model)
    with torch.no_grad():
        ours = model.lm_logits(model.hidden(batch))
        assert torch.allclose(ours, merged.eval()(**batch).logits, atol=1e-4)
        before = pair.become("before")
        assert not torch.allclose(ours, before.lm_logits(before.hidden(batch)), atol=1e-2)


def test_a_grown_vocabulary_is_compared_where_both_have_words(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folder("tiny-gpt"))
    rows = model.config.vocab_size
    model.resize_token_embeddings(rows + 8, mean_resizing=False)
    moved(model).save_pretrained(tmp_path / "grown")
    place = str(tmp_path / "grown")
    pair = Pair("tiny-gpt", [place], device="cpu")
    assert any("grown by 8 rows" in note for note in pair.notes)
    assert any("no tokenizer" in note for note in pair.notes)
    weight = pair.become(place).backbone.get_input_embeddings().weight
    assert torch.equal(weight, model.get_input_embeddings().weight[:rows])


def test_it_says_what_is_no_pair(tuned: Path, tmp_path: Path) -> None:
    def refused(before: str, *afters: Any) -> str:
        with pytest.raises(ForgetlabError) as said:
            Pair(before, [str(after) for after in afters], device="cpu")
        return str(said.value)

    assert "another architecture: its model_type is 'gpt2'" in refused("tiny-bert", "tiny-gpt")
    assert "the same folder twice" in refused("tiny-bert", "tiny-bert")
    assert "the same folder twice" in refused("tiny-bert", tuned, f"{tuned}/")
    assert "there is no folder" in refused("tiny-bert", tmp_path / "nowhere")

    def changed(name: str) -> Path:
        return Path(shutil.copytree(tuned, tmp_path / name))

    words = changed("words")
    text = (words / "tokenizer.json").read_text()
    table = json.loads(text)["model"]["vocab"]
    one, other = [word for word in table if word.isalpha()][:2]
    text = text.replace(f'"{one}":', '"§":').replace(f'"{other}":', f'"{one}":').replace('"§":', f'"{other}":')
    (words / "tokenizer.json").write_text(text)
    assert "another vocabulary" in refused("tiny-bert", words)

    layers = changed("layers")
    config = json.loads((layers / "config.json").read_text())
    (layers / "config.json").write_text(json.dumps(config | {"num_attention_heads": 1}))
    assert "its num_attention_heads is 1" in refused("tiny-bert", layers)

    weights = load_file(tuned / "model.safetensors")
    name = next(key for key in weights if "query.weight" in key)
    nan = changed("nan")
    save_file(weights | {name: weights[name] * torch.nan}, nan / "model.safetensors")
    assert f"{name} holds values that are not finite" in refused("tiny-bert", nan)

    lacking = changed("lacking")
    save_file({key: w for key, w in weights.items() if key != name}, lacking / "model.safetensors")
    assert "its file lacks 1 of BEFORE's weights" in refused("tiny-bert", lacking)

    short = changed("short")
    data = (short / "model.safetensors").read_bytes()
    (short / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert "damaged or cut short" in refused("tiny-bert", short)


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = AutoModelForCausalLM.from_pretrained(model_folder("tiny-gpt"))
    peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["c_attn"])).save_pretrained(tmp_path / "lora")
    with pytest.raises(ForgetlabError, match=r"is not BEFORE|another architecture|does not fit its base"):
        Pair("tiny-bert", [str(tmp_path / "lora")], device="cpu")


MEMORY = """
import resource, sys, torch
from forgetlab.diff.models.pair import Pair
import transformers.models.llama.modeling_llama
def peak(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) / 1024
bare = peak()
pair = Pair(sys.argv[1], [sys.argv[2]], device="cpu")
pair.become(sys.argv[2])
size = sum(w.nbytes for w in {w.data_ptr(): w for w in pair.model.state_dict().values()}.values()) / 2**20
for _ in zip(pair.weights("before"), pair.weights(sys.argv[2])): pass
pair.between(sys.argv[2], lambda name, a, b: a.lerp(b, 0.5))
print(size, peak() - bare)
"""


@pytest.mark.slow
def test_only_one_model_is_in_memory(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=4000, hidden_size=512, intermediate_size=1536, num_hidden_layers=8, num_attention_heads=8,
        max_position_embeddings=128,
    )  # fmt: skip
    tokenizer = load("tiny-gpt", device="cpu").tokenizer
    for seed, name in enumerate("ab"):
        with torch.device("meta"):
            model = LlamaForCausalLM(config)
        model.to_empty(device="cpu")
        with torch.no_grad():
            for weight in model.parameters():
                weight.fill_(0.01 * (1 + seed))
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    given = [sys.executable, "-c", MEMORY, str(tmp_path / "a"), str(tmp_path / "b")]
    size, used = map(float, subprocess.run(given, capture_output=True, text=True, check=True).stdout.split())
    assert size > 100
    assert used < 1.5 * size + 40  # MB of torch's own, and what the allocator keeps; two models would be 2
