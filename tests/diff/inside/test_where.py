"""Where two models differ: drift against whole state dicts, CKA against hooks, probes on features that only turned."""

from __future__ import annotations

import math
import re

import pytest
import torch
import transformers
from torch import nn

from forgetlab import load, metrics, task
from forgetlab.diff.inside.shown import where_html, where_lines
from forgetlab.diff.inside.where import WhereFound, where
from forgetlab.diff.models.pair import Pair
from forgetlab.metrics.drift import KINDS, kind_of, layer_of

TASKS = ("entities", "acceptability", "masked-lm", "minimal-pairs")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """tiny-bert before, and with one matrix of layer 1 doubled, the last layer's features turned in sign."""
    model = load("tiny-bert")
    weights = dict(model.named_parameters())
    with torch.no_grad():
        weights["body.bert.encoder.layer.1.attention.self.query.weight"].mul_(2)
        weights["body.bert.encoder.layer.2.output.LayerNorm.weight"].mul_(-1)
        weights["body.bert.encoder.layer.2.output.LayerNorm.bias"].mul_(-1)
    folder = tmp_path_factory.mktemp("pair") / "after"
    model.save(folder)
    return Pair("tiny-bert", [str(folder)], device="cpu")


@pytest.fixture(scope="module")
def found(pair: Pair) -> WhereFound:
    return where(pair, pair.names[1], [task(name) for name in TASKS], 64)


def cell(found: WhereFound, key: str, layer: str, kind: str) -> float | None:
    return found[key][found["layers"].index(layer)][found["kinds"].index(kind)]


def test_drift_is_that_of_the_two_state_dicts(pair: Pair, found: WhereFound) -> None:
    old = dict(load("tiny-bert").named_parameters())
    query = [w.detach() for n, w in old.items() if "layer.1.attention.self.query" in n]
    moved = float(query[0].norm())  # doubled: the weight, not its bias
    assert cell(found, "moved", "layer 1", "query") == pytest.approx(moved, rel=1e-5)
    whole = math.sqrt(sum(float(w.square().sum()) for w in query))
    assert cell(found, "relative", "layer 1", "query") == pytest.approx(moved / whole, rel=1e-5)
    after = dict(pair.become(pair.names[1]).named_parameters())
    by_layer = metrics.parameter_drift(old, after).per_layer
    for layer, row in zip(found["layers"], found["moved"], strict=True):
        assert math.hypot(*(value or 0 for value in row)) == pytest.approx(by_layer[layer], abs=1e-5)
    assert found["layers"][:4] == ["embeddings", "layer 0", "layer 1", "layer 2"]
    assert cell(found, "moved", "layer 0", "head") is None


def test_features_turned_in_sign_are_the_same_to_cka_and_to_a_probe_fitted_anew(found: WhereFound) -> None:
    assert found["depths"] == ["embeddings", "layer 0", "layer 1", "layer 2"]
    for name in TASKS:
        assert found["cka"][name][:2] == [1.0, 1.0]
        assert 0.5 < found["cka"][name][2] < 1
    probes = found["probes"]["entities"]
    assert probes["before"][:2] == probes["frozen"][:2] == probes["refitted"][:2]
    assert probes["frozen"][3] < 0.4 < 0.8 < probes["refitted"][3]
    assert set(found["probes"]) == {"entities", "acceptability"}


def test_cka_is_that_of_hooked_hidden_states(pair: Pair, found: WhereFound) -> None:
    one = task("entities")
    rows = []
    for which in pair.names:
        model, seen = pair.become(which), []
        hook = model.body.bert.encoder.layer[1].register_forward_hook(
            lambda m, i, o, seen=seen: seen.append(o if torch.is_tensor(o) else o[0])
        )
        encoded, states = one.encoded(model, "test"), []
        with torch.no_grad():
            for i in range(64):
                ids = encoded.columns["input_ids"][i : i + 1, : encoded.lengths[i]]
                model.body(input_ids=ids)
                states.append(seen.pop()[0, 1:-1])  # without the two marks
        hook.remove()
        rows.append(torch.cat(states)[:400])
    assert found["cka"]["entities"][2] == pytest.approx(metrics.linear_cka(*rows), abs=1e-4)


def test_the_outputs_shift_where_there_is_a_head(pair: Pair, found: WhereFound) -> None:
    shift = found["shift"]["masked-lm"]
    assert shift["kl"] > 0.1
    same = where(pair, "before", [task("masked-lm")], 8)
    assert same["shift"]["masked-lm"]["kl"] == pytest.approx(0, abs=1e-6)
    assert same["cka"]["masked-lm"] == pytest.approx([1.0] * 4)
    assert {value for row in same["moved"] for value in row} == {0.0, None}


def test_what_cannot_be_probed_is_said(pair: Pair) -> None:
    few = task("acceptability", size=3)
    found = where(pair, pair.names[1], [few], 16)
    assert not found["probes"]
    assert found["notes"] == ["acceptability: no probes, as a class has fewer than two examples"]
    assert found["cka"]["acceptability"][0] == 1.0


FAMILIES = {
    "BertConfig": {"vocab_size": 50},
    "RobertaConfig": {"vocab_size": 50},
    "DistilBertConfig": {"vocab_size": 50, "dim": 16, "n_heads": 2, "n_layers": 2, "hidden_dim": 32},
    "MPNetConfig": {"vocab_size": 50},
    "ModernBertConfig": {"vocab_size": 50, "pad_token_id": 0},
    "DebertaV2Config": {"vocab_size": 50},
    "ElectraConfig": {"vocab_size": 50, "embedding_size": 16},
    "GPT2Config": {"vocab_size": 50},
    "GPTNeoXConfig": {"vocab_size": 50},
    "GPTJConfig": {"vocab_size": 50, "rotary_dim": 4},
    "OPTConfig": {"vocab_size": 50, "ffn_dim": 32, "word_embed_proj_dim": 16},
    "BloomConfig": {"vocab_size": 50},
    "LlamaConfig": {"vocab_size": 50},
    "Qwen3Config": {"vocab_size": 50, "head_dim": 8},
    "Phi3Config": {"vocab_size": 50, "pad_token_id": 0},
    "Gemma2Config": {"vocab_size": 50, "head_dim": 8},
}


def built(family: str) -> nn.Module:
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32}
    config = getattr(transformers, family)(**sizes | FAMILIES[family])
    with torch.device("meta"):
        return transformers.AutoModel.from_config(config)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_matrices_of_every_family_are_known(family: str) -> None:
    kinds: dict[str, set[str]] = {}
    for name, _ in built(family).named_parameters():
        kinds.setdefault(layer_of(name), set()).add(kind_of(name))
    parts = {"q, k, v"} if kinds["layer 1"] & {"q, k, v"} else {"query", "key", "value"}
    assert kinds["layer 1"] == {"norm", "attention out", "mlp in", "mlp out"} | parts
    assert set.union(*kinds.values()) <= {*KINDS}
    assert "other" not in set.union(*(kinds[layer] for layer in kinds if layer != "other"))  # a pooler, MPNet's biases


def test_lines_and_page_hold_the_numbers(found: WhereFound) -> None:
    lines = where_lines(found)
    (row,) = (line for line in lines if line.startswith("layer 1"))
    assert row.split()[2:4] == ["0.0", "100"]  # norm, query
    (cka,) = (line for line in lines if line.startswith("entities: CKA"))
    assert cka.split()[-4:] == [f"{value:.2f}" for value in found["cka"]["entities"]]
    page = where_html(found)
    assert len(re.findall(r'<img alt="[^"]{40,}"', page)) == 2
    assert f"{found['shift']['masked-lm']['kl']:.3g}" in page
