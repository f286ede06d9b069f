"""Damaged model folders: each ends in a ForgetlabError of one line, or in a model that can be used."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from forgetlab import load, task
from forgetlab.errors import ForgetlabError
from forgetlab.models.model import Model
from forgetlab.tasks import Task
from tests.conftest import often, small_model

FILES = {
    "bert": ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "heads.json",
             "heads.safetensors"),
    "gpt": ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "generation_config.json"),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of two small models, one with heads."""
    root = tmp_path_factory.mktemp("whole")
    for kind, watched in (("bert", ("entities", "sentiment")), ("gpt", ())):
        model = small_model(causal=kind == "gpt")
        for name in watched:
            task(name).prepare(model)
        model.save(root / kind)
    return root


numbers = st.sampled_from([0, 1, -1, 2, 5, 10**6, 10**12, 2**63, 10**400, 0.5, -0.0, 1e300, math.inf, math.nan])
values: st.SearchStrategy[Any] = st.one_of(
    numbers,
    st.none(),
    st.booleans(),
    st.sampled_from(["", "x", "bert", "gpt2", "llama", "t5", "float8", "../..", "\x00", "ü" * 50]),
    st.sampled_from([[], {}, [[]], {"a": {}}, [1, "b"]]),
)


@st.composite
def damages(draw: st.DrawFn) -> tuple[str, str, str, Any]:
    """(model, file, what is done to it, how)."""
    kind = draw(st.sampled_from(sorted(FILES)))
    file = draw(st.sampled_from(FILES[kind]))
    ways = ["flip", "cut", "insert", "delete", "folder", "empty"]
    way = draw(st.sampled_from([*ways, *["change"] * 10] if file.endswith(".json") else [*ways, *["flip"] * 5]))
    how: Any = draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=4))
    if way == "insert":
        how = (how[0], draw(st.binary(min_size=1, max_size=9)))
    if way == "change":
        path = draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=3))
        how = (path, draw(st.booleans()), draw(values))
    return kind, file, way, how


def damage(path: Path, way: str, how: Any) -> None:
    content = bytearray(path.read_bytes())
    if way == "delete":
        path.unlink()
    elif way == "folder":
        path.unlink()
        path.mkdir()
    elif way == "change":
        path.write_text(json.dumps(changed(json.loads(content), *how)), encoding="utf-8")
    else:
        if way == "flip":
            for place in how:  # half of them in the head of the file
                bit = int(place * len(content) * 8 if place < 0.5 else (place - 0.5) * 2 * 8 * min(2000, len(content)))
                content[bit // 8] ^= 1 << bit % 8
        elif way == "cut":
            content = content[: int(how[0] * len(content))]
        elif way == "insert":
            place = int(how[0] * len(content))
            content[place:place] = how[1]
        else:
            content.clear()
        path.write_bytes(content)


def changed(value: Any, path: list[float], drop: bool, new: Any) -> Any:
    """A JSON value with one place in it replaced or dropped; path: which child at each depth, as a share."""
    if not isinstance(value, dict | list) or not value or not path:
        return new
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[int(path[0] * len(keys))]
    if drop and (len(path) == 1 or not isinstance(value[key], dict | list)):
        del value[key]
    else:
        value[key] = changed(value[key], path[1:], drop, new)
    return value


@settings(max_examples=often(30))
@given(damages())
def test_a_damaged_folder_is_refused_in_words_or_gives_a_model_that_works(
    whole: Path, tmp_path: Path, hurt: tuple[str, str, str, Any]
) -> None:
    kind, file, way, how = hurt
    folder = tmp_path / "model"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole / kind, folder)
    damage(folder / file, way, how)
    words = "it works"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a classifier that is left out is said to be
        try:
            score(load(folder, device="cpu"))
        except ForgetlabError as error:  # anything else, and five seconds by night, fails
            words = str(error)
    assert words
    assert "\n" not in words


def score(model: Model) -> None:
    """Score a text, with all that this asks of the tokenizer and the model."""
    one = texts(model.lm_kind)
    if one is not None:
        one.score(model, limit=4)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


@cache
def texts(lm_kind: str | None) -> Task | None:
    return task(f"{lm_kind}-lm") if lm_kind else None


def test_a_folder_without_tokenizer_files_is_refused(whole: Path, tmp_path: Path) -> None:
    for kind in FILES:
        folder = tmp_path / kind
        shutil.copytree(whole / kind, folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).unlink()
        with pytest.raises(ForgetlabError, match=r"has no tokenizer: expected tokenizer.json"):
            load(folder)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("file", ["model.safetensors", "heads.safetensors"])
def test_weights_that_are_no_numbers_are_refused(whole: Path, tmp_path: Path, file: str, value: float) -> None:
    shutil.copytree(whole / "bert", tmp_path / "bert")
    weights = load_file(tmp_path / "bert" / file)
    next(iter(weights.values())).view(-1)[3] = value
    save_file(weights, tmp_path / "bert" / file, metadata={"format": "pt"})
    with pytest.raises(ForgetlabError, match="holds values that are not finite numbers"):
        load(tmp_path / "bert")


def test_heads_that_are_no_file_and_no_heads_are_refused(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    shutil.copytree(whole / "bert", folder)
    heads = folder / "heads.json"
    described = json.loads(heads.read_text())
    for wrong in (
        [],
        {"entities": {"level": "sequence"}},
        described | {"entities": {"level": "tokens", "labels": ["a"]}},
        described | {"entities": {"level": "token", "labels": "ab"}},
        described | {"entities": {"level": "token", "labels": ["a", "a"]}},
    ):
        heads.write_text(json.dumps(wrong))
        with pytest.raises(ForgetlabError, match="expected heads.json to hold"):
            load(folder)
    heads.unlink()
    heads.mkdir()
    with pytest.raises(ForgetlabError, match=r"heads.json cannot be read"):
        load(folder)


def test_a_config_with_other_sizes_than_the_file_is_refused_at_once(whole: Path, tmp_path: Path) -> None:
    config = json.loads((whole / "bert" / "config.json").read_text())
    shutil.copytree(whole / "bert", tmp_path / "bert")
    for name, value, message in (
        ("num_hidden_layers", 10**7, "says num_hidden_layers = 10000000, its file has"),
        ("num_hidden_layers", 1, "says 1 layers, its file has 2"),
        ("vocab_size", 10**12, "says vocab_size = 1000000000000, its file has"),
    ):
        (tmp_path / "bert" / "config.json").write_text(json.dumps(config | {name: value}))
        with pytest.raises(ForgetlabError, match=message):
            load(tmp_path / "bert")


def test_a_tokenizer_of_another_model_is_refused(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "bert", tmp_path / "bert")
    file = tmp_path / "bert" / "tokenizer.json"
    tokens = json.loads(file.read_text())
    tokens["model"]["vocab"] = {word: i + (i > 50) * 5000 for word, i in tokens["model"]["vocab"].items()}
    file.write_text(json.dumps(tokens))
    with pytest.raises(ForgetlabError, match="they are of two models"):
        load(tmp_path / "bert")
