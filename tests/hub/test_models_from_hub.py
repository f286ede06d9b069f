"""Models from the hub, served by a mirror on loopback: what arrives, what is refused, and what stays in the cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from forgetlab import ForgetlabError, load
from forgetlab.experiments.recipes import Recipe, prepare
from forgetlab.sources import Examples
from forgetlab.tasks import CausalLM, MaskedLM
from tests.hub.mirror import TOKEN, Mirror

TEXTS = ("anna is older than boris .", "the plays were dull but moving .", "they walked home in the rain .")
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
# What each family's configuration is called on the hub: architecture, tokenizer, and what differs in its sizes.
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertForMaskedLM", "wordpiece", SMALL),
    "bert-pretraining": ("BertForPreTraining", "wordpiece", SMALL),
    "distilbert": (
        "DistilBertForMaskedLM",
        "wordpiece",
        {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 64},
    ),
    "roberta": ("RobertaForMaskedLM", "bytes", SMALL),
    "electra-generator": ("ElectraForMaskedLM", "wordpiece", SMALL | {"embedding_size": 16}),
    "gpt2": ("GPT2LMHeadModel", "bytes", {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}),
    "pythia": ("GPTNeoXForCausalLM", "bytes", SMALL),
    "smollm": ("LlamaForCausalLM", "bytes", SMALL | {"num_key_value_heads": 1}),
    "qwen2": ("Qwen2ForCausalLM", "bytes", SMALL | {"num_key_value_heads": 1}),
    "qwen3": ("Qwen3ForCausalLM", "bytes", SMALL | {"num_key_value_heads": 1, "head_dim": 16}),
}


def wordpiece() -> Any:
    """A BERT tokenizer, trained on the texts."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special))
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names)


def byte_pairs(masked: bool) -> Any:
    """A byte-level tokenizer: RoBERTa's with a mask, or GPT-2's, whose one special token ends a text."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if masked else ["<|endoftext|>"]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=letters, show_progress=False)
    made.train_from_iterator(TEXTS, trainer)
    if not masked:
        return transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token=special[0], bos_token=special[0])
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = {"bos_token": "<s>", "cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "eos_token": "</s>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", mask_token="<mask>", **names)


def write(folder: Path, architecture: str, kind: str = "wordpiece", sizes: dict[str, Any] = SMALL) -> Any:
    """A random model of a family, in a folder as it stands on the hub; returns the model."""
    tokenizer = wordpiece() if kind == "wordpiece" else byte_pairs(masked="Roberta" in architecture)
    made = getattr(transformers, architecture)
    special = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": 0, "eos_token_id": tokenizer.eos_token_id or 0}
    torch.manual_seed(0)
    model = made(made.config_class(vocab_size=len(tokenizer), **sizes, **special)).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    write(folder, "BertForMaskedLM")
    return folder


def blobs(tmp_path: Path) -> list[Path]:
    """The files in the cache, whole or not."""
    return [path for path in (tmp_path / "cache" / "hub").rglob("blobs/*") if path.is_file()]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_arrives_as_it_left(family: str, mirror: Mirror, tmp_path: Path) -> None:
    architecture, kind, sizes = FAMILIES[family]
    sent = write(tmp_path / "repo", architecture, kind, sizes)
    mirror.add(f"someone/{family}", tmp_path / "repo")
    model = load(f"someone/{family}", device="cpu")
    assert model.name == f"someone/{family}"
    assert model.lm_kind == ("causal" if kind == "bytes" and family != "roberta" else "masked")
    batch = dict(model.tokenizer(list(TEXTS), padding=True, return_tensors="pt"))
    batch = {key: batch[key] for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        output = sent(**batch)
        expected = output.prediction_logits if family == "bert-pretraining" else output.logits
        real = batch["attention_mask"].bool()
        torch.testing.assert_close(model.lm_logits(model.hidden(batch))[real], expected[real])
    texts = Examples("text", TEXTS)
    task = (MaskedLM if model.lm_kind == "masked" else CausalLM)("words", texts, texts)
    assert task.score(model)["perplexity"] > 20
    assert model.tokenizer.pad_token is not None


def test_an_electra_discriminator_is_a_bare_encoder(mirror: Mirror, tmp_path: Path) -> None:
    sent = write(tmp_path / "repo", "ElectraForPreTraining", sizes=SMALL | {"embedding_size": 16})
    mirror.add("someone/discriminator", tmp_path / "repo")
    model = load("someone/discriminator", device="cpu")
    assert model.lm_kind is None
    texts = Examples("text", TEXTS)
    with pytest.raises(ForgetlabError, match="needs a masked language model; .* has no language-model head"):
        MaskedLM("words", texts, texts).prepare(model)
    batch = dict(model.tokenizer(list(TEXTS), padding=True, return_tensors="pt"))
    with torch.no_grad():
        torch.testing.assert_close(model.hidden(batch), sent.electra(**batch).last_hidden_state)


def test_a_head_that_is_not_in_the_file_is_not_made_up(mirror: Mirror, tmp_path: Path) -> None:
    write(tmp_path / "repo", "BertForSequenceClassification")
    config = tmp_path / "repo" / "config.json"
    config.write_text(config.read_text().replace("BertForSequenceClassification", "BertForMaskedLM"))
    mirror.add("someone/headless", tmp_path / "repo")
    assert load("someone/headless", device="cpu").lm_kind is None


def test_a_file_that_lacks_a_layer_is_refused(mirror: Mirror, tmp_path: Path) -> None:
    write(tmp_path / "repo", "BertForMaskedLM", sizes=SMALL | {"num_hidden_layers": 1})
    config = json.loads((tmp_path / "repo" / "config.json").read_text())
    (tmp_path / "repo" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    mirror.add("someone/half", tmp_path / "repo")
    with pytest.raises(ForgetlabError, match="someone/half: its file lacks 16 of .* such as .*encoder.layer.1"):
        load("someone/half")


def test_a_tokenizer_without_mask_is_said_when_the_mask_is_needed(mirror: Mirror, tmp_path: Path) -> None:
    write(tmp_path / "repo", "BertForMaskedLM")
    tokenizer = wordpiece()
    tokenizer.mask_token = None
    tokenizer.save_pretrained(tmp_path / "repo")
    mirror.add("someone/maskless", tmp_path / "repo")
    model = load("someone/maskless", device="cpu")
    texts = Examples("text", TEXTS)
    with pytest.raises(ForgetlabError, match="someone/maskless: its tokenizer has no mask token, which words needs"):
        MaskedLM("words", texts, texts).score(model)


def test_nothing_is_fetched_twice(mirror: Mirror, bert_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mirror.add("someone/bert", bert_folder)
    load("someone/bert")
    assert mirror.count("model.safetensors") == 1
    assert "100%" in capsys.readouterr().err  # the progress of the download
    mirror.requests.clear()
    load("someone/bert")
    assert [path for _, path in mirror.requests if "/resolve/" in path or "/cdn/" in path] == []
    assert capsys.readouterr().err == ""


def test_only_what_a_model_needs_is_fetched(mirror: Mirror, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    write(repo, "BertForMaskedLM")
    for extra in (
        "pytorch_model.bin",
        "model.fp16.safetensors",
        "onnx/model.safetensors",
        "modeling.py",
        "rust_model.ot",
    ):
        (repo / extra).parent.mkdir(exist_ok=True)
        (repo / extra).write_bytes(b"not wanted")
    mirror.add("someone/bert", repo)
    load("someone/bert")
    fetched = {path.rpartition("/")[2] for method, path in mirror.requests if "/resolve/" in path}
    assert fetched == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def test_weights_in_several_files(mirror: Mirror, tmp_path: Path) -> None:
    sent = write(tmp_path / "repo", "GPT2LMHeadModel", *FAMILIES["gpt2"][1:])
    (tmp_path / "repo" / "model.safetensors").unlink()
    sent.save_pretrained(tmp_path / "repo", max_shard_size="40KB")
    assert len(list((tmp_path / "repo").glob("model-*.safetensors"))) > 1
    mirror.add("someone/sharded", tmp_path / "repo")
    model: Any = load("someone/sharded", device="cpu").body
    torch.testing.assert_close(model.transformer.wte.weight, sent.transformer.wte.weight)


def test_revisions(mirror: Mirror, tmp_path: Path) -> None:
    for revision, layers in (("main", 2), ("refs/pr/1", 1)):
        write(tmp_path / revision, "BertForMaskedLM", sizes=SMALL | {"num_hidden_layers": layers})
        commit = mirror.add("someone/bert", tmp_path / revision, revision)
    assert load("someone/bert").config.num_hidden_layers == 2
    for model in (
        load("someone/bert@refs/pr/1"),
        load("someone/bert", revision=commit),
        load(f"someone/bert@{commit}"),
    ):
        assert model.config.num_hidden_layers == 1
    assert load("someone/bert", revision="refs/pr/1").name == "someone/bert@refs/pr/1"
    with pytest.raises(ForgetlabError, match="unknown revision of someone/bert 'mian'; did you mean 'main'"):
        load("someone/bert@mian")
    with pytest.raises(ForgetlabError, match="names the revision 'main', revision='v1' another"):
        load("someone/bert@main", revision="v1")
    with pytest.raises(ForgetlabError, match="tiny-bert is on this machine: only a hub model has a revision"):
        load("tiny-bert", revision="main")


def test_an_old_name_is_followed(mirror: Mirror, bert_folder: Path) -> None:
    mirror.add("google-bert/bert-base-uncased", bert_folder)
    mirror.moved["bert-base-uncased"] = "google-bert/bert-base-uncased"
    assert load("bert-base-uncased").name == "bert-base-uncased"


def test_unknown_gated_and_impossible_names(mirror: Mirror, bert_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror.add("someone/gated", bert_folder, gated=True)
    with pytest.raises(ForgetlabError, match="the hub has no model 'someone/absent', or it is private"):
        load("someone/absent")
    with pytest.raises(ForgetlabError, match="unknown model 'absent'; known: .*; as a hub id: the hub has no model"):
        load("absent")
    with pytest.raises(ForgetlabError, match="'some one/model' is no model id of the hub; expected OWNER/NAME"):
        load("some one/model")
    with pytest.raises(ForgetlabError, match="someone/gated is gated; ask for access, then `hf auth login`: on http"):
        load("someone/gated")
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    with pytest.raises(ForgetlabError, match="someone/gated is gated; your account has no access yet"):
        load("someone/gated")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert load("someone/gated").lm_kind == "masked"


def test_pickled_weights_are_refused_before_a_byte_of_them(mirror: Mirror, tmp_path: Path) -> None:
    sent = write(tmp_path / "repo", "BertForMaskedLM")
    (tmp_path / "repo" / "model.safetensors").unlink()
    torch.save(sent.state_dict(), tmp_path / "repo" / "pytorch_model.bin")
    mirror.add("someone/pickled", tmp_path / "repo")
    with pytest.raises(
        ForgetlabError, match="no model.safetensors, only pytorch_model.bin, .*save_pretrained"
    ) as error:
        load("someone/pickled")
    assert "\n" not in str(error.value)
    assert not any("/resolve/" in path for _, path in mirror.requests)


def test_what_is_no_model_is_named(mirror: Mirror, tmp_path: Path) -> None:
    for name, files in (("adapter", ["adapter_config.json", "adapter_model.safetensors"]), ("notes", ["README.md"])):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("{}")
        mirror.add(f"someone/{name}", tmp_path / name)
    with pytest.raises(ForgetlabError, match="someone/adapter is an adapter, not a model"):
        load("someone/adapter")
    with pytest.raises(ForgetlabError, match="is not a transformers model: expected config.json .* has README.md"):
        load("someone/notes")


@pytest.mark.parametrize("known", [True, False])
def test_code_in_a_repository_never_runs(known: bool, mirror: Mirror, tmp_path: Path) -> None:
    repo, trace = tmp_path / "repo", tmp_path / "trace"
    write(repo, "BertForMaskedLM")
    config = json.loads((repo / "config.json").read_text())
    names = {"AutoConfig": "own.Own", "AutoModel": "own.OwnModel", "AutoModelForMaskedLM": "own.OwnModel"}
    config |= {"auto_map": names, "model_type": "bert" if known else "own"}
    (repo / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((repo / "tokenizer_config.json").read_text())
    tokenizer["auto_map"] = {"AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"]}
    (repo / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (repo / "own.py").write_text(f"open({str(trace)!r}, 'w').write('ran')\nclass Own: model_type = 'own'\n")
    mirror.add("someone/own", repo)
    for name in ("someone/own", repo):  # the copy in the cache has no code at all, the folder has
        if known:
            assert load(name).lm_kind == "masked"
        else:
            with pytest.raises(ForgetlabError, match="needs code from its repository, which is never run"):
                load(name)
    assert not trace.exists()
    assert mirror.count(".py") == 0


@pytest.mark.parametrize("fault", ["cut", "short"])
def test_half_a_download_leaves_nothing_behind(fault: str, mirror: Mirror, bert_folder: Path, tmp_path: Path) -> None:
    mirror.add("someone/bert", bert_folder)
    mirror.faults["model.safetensors"] = fault
    with pytest.raises(ForgetlabError, match="someone/bert: the download broke off .* so try again"):
        load("someone/bert")
    sizes = [path.stat().st_size for path in blobs(tmp_path)]
    assert max(sizes) < (bert_folder / "model.safetensors").stat().st_size // 2
    mirror.faults.clear()
    assert load("someone/bert").lm_kind == "masked"


def test_a_file_that_was_cut_before_the_mirror_got_it(mirror: Mirror, bert_folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "repo", "BertForMaskedLM")
    weights = tmp_path / "repo" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    mirror.add("someone/bert", tmp_path / "repo")
    with pytest.raises(ForgetlabError, match="damaged or cut short .* removed from the cache"):
        load("someone/bert")
    weights.write_bytes(whole)
    assert load("someone/bert").lm_kind == "masked"


def test_a_damaged_file_in_a_folder_of_yours_stays(tmp_path: Path) -> None:
    write(tmp_path / "repo", "BertForMaskedLM")
    weights = tmp_path / "repo" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ForgetlabError, match="damaged or cut short"):
        load(tmp_path / "repo")
    assert weights.stat().st_size == 1000


def test_without_a_network_the_cache_serves(mirror: Mirror, bert_folder: Path, tmp_path: Path) -> None:
    commit = mirror.add("someone/bert", bert_folder)
    before = load("someone/bert", device="cpu").state_dict()
    mirror.broken = True  # a hub in trouble
    load("someone/bert")
    mirror.stop()  # no hub at all
    for name in ("someone/bert", f"someone/bert@{commit}"):
        after = load(name, device="cpu").state_dict()
        torch.testing.assert_close(after, before)
    with pytest.raises(
        ForgetlabError, match="someone/other could not be fetched .* `hf download someone/other --local"
    ):
        load("someone/other")
    (tmp_path / "cache/hub/models--someone--bert/snapshots" / commit / "model.safetensors").unlink()
    with pytest.raises(
        ForgetlabError, match="someone/bert could not be fetched|only a part of it is in the local cache"
    ):
        load("someone/bert")


def test_a_recipe_takes_a_hub_model(mirror: Mirror, tmp_path: Path) -> None:
    write(tmp_path / "repo", "BertForMaskedLM", sizes=SMALL)
    mirror.add("someone/bert", tmp_path / "repo")
    bench = prepare(Recipe(model="someone/bert@main", new="sentiment", watch=("entities",), learn_steps=1))
    assert bench.model.name == "someone/bert@main"


@pytest.mark.slow
def test_the_environment_is_enough(mirror: Mirror, bert_folder: Path, tmp_path: Path) -> None:
    """HF_ENDPOINT and HF_HUB_OFFLINE, read by huggingface_hub itself in processes of their own."""
    mirror.add("someone/bert", bert_folder)
    code = "import sys; from forgetlab import load; print(load(sys.argv[1], device='cpu').lm_kind)"
    unset = ("HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    kept = {key: value for key, value in os.environ.items() if key not in unset}

    def run(name: str, **more: str) -> subprocess.CompletedProcess[str]:
        settings = kept | {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": mirror.url} | more
        call = [sys.executable, "-c", code, name]
        return subprocess.run(call, env=settings, capture_output=True, text=True, check=False, timeout=120)

    first = run("someone/bert")
    assert first.stdout == "masked\n", first.stderr
    mirror.requests.clear()
    second = run("someone/bert", HF_HUB_OFFLINE="1")
    assert second.stdout == "masked\n", second.stderr
    assert mirror.requests == []  # of a model that is not there: tests/test_cli.py
