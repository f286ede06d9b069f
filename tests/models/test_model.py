"""Loading, heads, saving, restoring, and what is said of damaged or foreign checkpoints."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import BertForSequenceClassification

from forgetlab import ForgetlabError, finetune, load, task
from forgetlab.models.loading import shipped_models
from forgetlab.models.model import Model
from forgetlab.remedies.architectures import Adapters
from forgetlab.sources.shipped import data_folder
from tests.conftest import small_model

TEXTS = ["anna is older than boris .", "the plays were dull but moving ."]


def tiny_folder(tmp_path: Path, architecture: str) -> Path:
    """A random transformers checkpoint of another family, with the embedded language's tokenizer."""
    import transformers

    from forgetlab.training.pretraining import world_tokenizer

    causal = "CausalLM" in architecture
    tokenizer = world_tokenizer(causal)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 64}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2}
    if "DistilBert" in architecture:
        sizes, layers = {"vocab_size": len(tokenizer), "dim": 32, "hidden_dim": 64}, {"n_layers": 2, "n_heads": 2}
    if causal and "NeoX" not in architecture:
        layers["num_key_value_heads"] = 2
    if "Electra" in architecture or "Albert" in architecture:
        sizes["embedding_size"] = 16
    marks = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": 2, "eos_token_id": 3}
    odd = {"Gemma2": {"head_dim": 16, "final_logit_softcapping": 0.05}, "Granite": {"logits_scaling": 8.0}}
    more = next((settings for family, settings in odd.items() if family in architecture), {})
    if "DebertaV2" in architecture:
        more = {"legacy": False}
    if "ModernBert" in architecture:
        more = {"cls_token_id": 2, "sep_token_id": 3}
    if "T5" in architecture:
        sizes, layers = {"vocab_size": len(tokenizer), "d_model": 32, "d_kv": 16, "d_ff": 64}, {"num_layers": 1}
    model_class = getattr(transformers, architecture)
    torch.manual_seed(0)
    model = model_class(model_class.config_class(**sizes, **layers, **marks, **more))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "architecture",
    [
        "DistilBertForMaskedLM",
        "RobertaForMaskedLM",
        "ElectraForMaskedLM",
        "LlamaForCausalLM",
        "GPTNeoXForCausalLM",
        "Qwen2ForCausalLM",
        "AlbertForMaskedLM",
        "DebertaV2ForMaskedLM",
        "ModernBertForMaskedLM",
        "Gemma2ForCausalLM",
        "CohereForCausalLM",
        "GraniteForCausalLM",
    ],
)
def test_the_lm_head_is_found_in_every_family(tmp_path: Path, architecture: str) -> None:
    model = load(tiny_folder(tmp_path, architecture), device="cpu")
    assert model.lm_kind == ("causal" if "Causal" in architecture else "masked")
    batch = model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    inputs = {k: v for k, v in batch.items() if k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        ours = model.lm_logits(model.hidden(inputs))
        theirs = model.body(**inputs).logits
    torch.testing.assert_close(ours, theirs)
    name = "causal-lm" if model.lm_kind == "causal" else "masked-lm"
    one = task(name)
    one.prepare(model)
    assert one.score(model, 32)["perplexity"] > 100


def test_a_head_that_computes_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a family which bends its logits in a way nobody has met: its perplexities would be wrong."""
    from transformers import LlamaForCausalLM

    forward = LlamaForCausalLM.forward

    def bent(self: LlamaForCausalLM, *args: object, **more: object) -> object:
        output = forward(self, *args, **more)
        output.logits = 2 * output.logits
        return output

    folder = tiny_folder(tmp_path, "LlamaForCausalLM")
    monkeypatch.setattr(LlamaForCausalLM, "forward", bent)
    with pytest.raises(ForgetlabError, match="LlamaForCausalLM: its language-model head is of a kind .* does not know"):
        load(folder, device="cpu")


def test_an_encoder_with_a_decoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ForgetlabError, match=r"encoder with a decoder \(t5\): expected an encoder such as BERT"):
        load(tiny_folder(tmp_path, "T5ForConditionalGeneration"), device="cpu")


def test_an_encoder_without_lm_head(tmp_path: Path) -> None:
    model = load(tiny_folder(tmp_path, "BertModel"), device="cpu")
    assert model.lm_kind is None
    with pytest.raises(ForgetlabError, match="needs a masked language model; .* has no language-model head"):
        task("masked-lm").prepare(model)
    task("sentiment").prepare(model)
    assert 0.3 < task("sentiment").score(model, 64)["accuracy"] < 0.7


def test_heads_depend_on_their_name_and_seed_only(bert: Model) -> None:
    torch.rand(5)
    first = bert.add_head("a", ["x", "y"], seed=1).linear.weight
    other = small_model()
    other.add_head("b", ["x", "y"], seed=1)
    assert torch.equal(first, other.add_head("a", ["x", "y"], seed=1).linear.weight)
    assert not torch.equal(first, other.heads["b"].linear.weight)
    assert bert.add_head("a", ["x", "y"], seed=9).linear.weight is first  # there already
    with pytest.raises(ForgetlabError, match="give the task another name"):
        bert.add_head("a", ["x", "z"])


def test_sequence_heads_ignore_padding(bert: Model, gpt: Model) -> None:
    for model in (bert, gpt):
        head = model.add_head("a", ["x", "y"])
        short = model.tokenizer(TEXTS[:1], return_tensors="pt")
        padded = model.tokenizer(TEXTS[:1], padding="max_length", max_length=20, return_tensors="pt")
        alone, beside = (model.logits({k: b[k] for k in ("input_ids", "attention_mask")}, "a") for b in (short, padded))
        torch.testing.assert_close(alone, beside, atol=1e-5, rtol=1e-4)
        hidden = model.hidden(dict(short))[0]
        pooled = hidden[-1] if model.causal else hidden.mean(0)
        torch.testing.assert_close(alone[0], head.linear(pooled), atol=1e-5, rtol=1e-4)


def test_save_and_load_give_the_same_model(tmp_path: Path, bert: Model) -> None:
    task("entities").prepare(bert)
    task("sentiment").prepare(bert)
    bert.save(tmp_path / "saved")
    again = load(tmp_path / "saved", device="cpu")
    assert list(again.heads) == ["entities", "sentiment"]
    assert again.state_dict().keys() == bert.state_dict().keys()
    assert all(torch.equal(v, bert.state_dict()[k]) for k, v in again.state_dict().items())
    assert not list((tmp_path / "saved").glob("*.bin"))  # no pickle


def test_a_folder_is_named_as_it_is_called(tmp_path: Path, bert: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    bert.save(tmp_path / "mine" / "inner")
    monkeypatch.chdir(tmp_path / "mine" / "inner")
    assert load(".", device="cpu").name == "inner"
    bert.save(tmp_path / "mine")
    assert load("..", device="cpu").name == "mine"
    (tmp_path / "latest").symlink_to(tmp_path / "mine")
    assert load(tmp_path / "latest", device="cpu").name == "latest"


def test_heads_that_are_gone_do_not_come_back_from_the_folder_they_were_saved_in(tmp_path: Path, bert: Model) -> None:
    task("sentiment").prepare(bert)
    bert.save(tmp_path / "saved")
    bert.restore()
    bert.save(tmp_path / "saved")
    assert list(load(tmp_path / "saved", device="cpu").heads) == []
    assert not list((tmp_path / "saved").glob("heads.*"))


def test_heads_are_announced_when_their_weights_are_there(
    tmp_path: Path, bert: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError("no space left on device")

    task("sentiment").prepare(bert)
    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    with pytest.raises(OSError, match="no space left"):
        bert.save(tmp_path / "saved")
    assert list(load(tmp_path / "saved", device="cpu").heads) == []


def test_restore_drops_new_heads_and_brings_every_weight_back(bert: Model) -> None:
    before = bert.snapshot()
    task("sentiment").prepare(bert)
    with torch.no_grad():
        for p in bert.parameters():
            p.add_(1)
    bert.restore()
    assert list(bert.heads) == []
    assert all(torch.equal(v, before[k]) for k, v in bert.state_dict().items())


def test_restore_refuses_another_models_snapshot_before_it_changes_anything(bert: Model) -> None:
    task("sentiment").prepare(bert)
    list(finetune(bert, task("entities", size=32), methods=[Adapters()], steps=1, batch_size=8, limit=8))
    before = bert.snapshot()
    wider = {k: torch.cat([p, p], -1) if k.endswith("word_embeddings.weight") else p for k, p in before.items()}
    wider = {k: p for k, p in wider.items() if k in bert.known_names}
    for other, said in ((small_model(causal=True).snapshot(), "in one of the two only"), (wider, "has the shape")):
        with pytest.raises(ForgetlabError, match=f"the snapshot is of another model: .* {said}"):
            bert.restore(other)
        now = bert.snapshot()
        assert now.keys() == before.keys()
        assert all(torch.equal(p, before[k]) for k, p in now.items())


@pytest.mark.parametrize("name", shipped_models())
def test_shipped_models(name: str) -> None:
    model = load(name, device="cpu")
    assert sum(p.numel() for p in model.parameters()) <= 1_000_000
    if name == "tiny-bert":
        one = task("entities")
        one.prepare(model)
        assert one.score(model)["f1"] >= 0.95
    else:
        for task_name, metric, least in (("causal-lm", "perplexity", None), ("writing", "fluency", 0.8)):
            one = task(task_name)
            one.prepare(model)
            score = one.score(model)[metric]
            if least is not None:
                assert score >= least
            else:
                assert one.floor < score <= 1.15 * one.floor


def test_there_are_two_shipped_models() -> None:
    assert shipped_models() == ["tiny-bert", "tiny-gpt"]


@pytest.mark.slow
def test_shipped_models_open_without_forgetlab(tmp_path: Path) -> None:
    """AutoModel alone, in an interpreter that cannot import forgetlab."""
    code = (
        "import sys; sys.modules['forgetlab'] = None\n"
        "from transformers import AutoModel, AutoTokenizer\n"
        "for name in ('tiny-bert', 'tiny-gpt'):\n"
        f"    folder = {str(data_folder() / 'models')!r} + '/' + name\n"
        "    model = AutoModel.from_pretrained(folder)\n"
        "    out = model(**AutoTokenizer.from_pretrained(folder)('anna is older than boris .', return_tensors='pt'))\n"
        "    print(tuple(out.last_hidden_state.shape)[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


def test_a_tampered_shipped_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from forgetlab.sources import model_names, shipped

    root = tmp_path / "data"
    for part in ("world", "models/tiny-gpt"):
        shutil.copytree(data_folder() / part, root / part)
    shutil.copy(data_folder() / "manifest.json", root)
    monkeypatch.setattr(shipped, "data_folder", lambda: root)
    monkeypatch.setattr(model_names, "data_folder", lambda: root)
    weights = root / "models/tiny-gpt/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ForgetlabError, match=r"model\.safetensors is not the shipped file"):
        load("tiny-gpt")
    weights.unlink()
    with pytest.raises(ForgetlabError, match=r"model\.safetensors is missing"):
        load("tiny-gpt")


def test_checkpoints_that_cannot_be_opened(tmp_path: Path, bert: Model) -> None:
    bert.save(tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text(json.dumps({"model_type": "no-such-model"}))
    task("entities").prepare(bert)
    bert.save(tmp_path / "heads")
    (tmp_path / "heads" / "heads.json").write_text("{")
    for name, message in [
        ("cut", "safetensors file is damaged or cut short"),
        ("empty", "is not a transformers checkpoint: it has no config.json"),
        ("odd", "cannot be opened as a transformers checkpoint"),
        ("heads", "its heads.json holds no JSON"),
        ("absent/one", "there is no folder"),
    ]:
        with pytest.raises(ForgetlabError, match=message) as caught:
            load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_unknown_names_and_hub_ids_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ForgetlabError, match="unknown model 'tiny-brt'; did you mean 'tiny-bert'"):
        load("tiny-brt")
    with pytest.raises(ForgetlabError, match="could not be fetched .* give its folder"):
        load("someone/no-such-model")


def test_bad_devices() -> None:
    with pytest.raises(ForgetlabError, match="device 'gpu' is not at hand here"):
        load("tiny-gpt", device="gpu")


def test_a_classifier_that_is_left_out_is_said_to_be(tmp_path: Path) -> None:
    body = BertForSequenceClassification(load("tiny-bert", device="cpu").config)
    body.save_pretrained(tmp_path)
    load("tiny-bert").tokenizer.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="the classifier of its BertForSequenceClassification is left out"):
        load(tmp_path)
