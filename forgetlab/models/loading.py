"""Finding and loading a model: a shipped one, a transformers folder, or the hub's. Safetensors only, no hub code."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch

from forgetlab.errors import ForgetlabError, flag, one_of, unknown, whole
from forgetlab.models.device import pick_device
from forgetlab.models.heads import Level
from forgetlab.models.lm_heads import check_lm_head
from forgetlab.models.model import HEADS_FILE, HEADS_WEIGHTS, Model, lm_kind_of
from forgetlab.models.quiet import quiet_transformers
from forgetlab.models.sharded import in_one_place
from forgetlab.models.soundness import check_config, check_model, check_unused, json_in
from forgetlab.sources import download
from forgetlab.sources.model_names import model_folder, shipped_models

Precision = Literal["float32", "bfloat16", "float16"]


def load(
    name: str | os.PathLike[str],
    *,
    device: str | torch.device = "auto",
    revision: str | None = None,
    dtype: Precision = "float32",
    device_map: str | dict[str, Any] | None = None,
    keep: bool = True,
    max_length: int | None = None,
) -> Model:
    """Load a model: a shipped name ("tiny-bert"), a transformers folder, or a hub id ("owner/name").

    revision: a branch, tag or commit of the hub to pin; "owner/name@REVISION" says the same.
    dtype: of the weights, "bfloat16" for half the memory; the heads, losses, importances and drift stay in float32.
    device_map: where transformers is to put the weights as it reads them, instead of `device`: "auto", "cuda:1" or
    {part of the model: device}, all on one device. It needs the package accelerate.
    keep: whether to keep a copy of the weights, which `restore` brings back; False saves its memory.
    max_length: tokens that a text is cut to, at most what the model takes (None: 512, or fewer where it takes fewer).
    A step's memory grows with it.
    Returns the model in eval mode on `device`: with its language-model head if the checkpoint has one, else as a
    bare encoder (ELECTRA's discriminators are that). Hub models are downloaded once, safetensors only, no code.
    Raises ForgetlabError for an unknown name, a folder that is not a checkpoint, a damaged file, no network, and
    for what the hub refuses, a `max_length` beyond the model's, and weights on several devices or on a disk.

    >>> model = load("tiny-bert")
    >>> sum(weight.numel() for weight in model.parameters()), sorted(model.heads)
    (216182, ['acceptability', 'entities', 'register'])
    """
    chosen = pick_device(device)
    one_of("dtype", dtype, get_args(Precision))
    if device_map is not None and find_spec("accelerate") is None:
        raise ForgetlabError("device_map needs the package accelerate, which is not installed: pip install accelerate")
    options = {"dtype": getattr(torch, dtype)} | ({"device_map": device_map} if device_map is not None else {})
    source, title, fetched = located(str(name), revision)
    shown = title if fetched else str(name)
    body, tokenizer = _from_transformers(source, shown, fetched, options)
    model = Model(body, tokenizer, title, flag("keep", keep))
    if max_length is not None:
        model.longest = whole("max_length", max_length, 2)
        if model.positions < max_length:
            raise ForgetlabError(f"max_length {max_length}: {title} takes {model.positions} tokens at most")
    if own := next((a for a in model.config.architectures or [] if re.search(r"For\w+Classification$", a)), None):
        warnings.warn(
            f"{title}: the classifier of its {own} is left out, as forgetlab puts heads of its own on a model; "
            "huggingface.ForgettingTrainer goes on with it, and `compare` learns its task first",
            stacklevel=2,
        )
    if os.path.lexists(Path(source, HEADS_FILE)):
        load_heads(model, Path(source))
    with in_words(shown):
        check_model(model.eval(), shown)
    if device_map is None:
        model.to(chosen)
    model.remember()
    return model


def located(name: str, revision: str | None = None) -> tuple[str, str, bool]:
    """(folder, title, whether it is a copy from the hub) of what `load` takes for a model; downloads what is missing.

    Raises ForgetlabError where there is none.
    """
    if folder := model_folder(name):
        if revision:
            raise ForgetlabError(f"{name} is on this machine: only a hub model has a revision (got {revision!r})")
        return str(folder), os.path.basename(os.path.abspath(folder)), False  # "." has no name
    repository, revision = download.with_revision(name, revision)
    try:
        source = str(download.model_folder(repository, revision))
    except ForgetlabError as error:
        if "/" in name:
            raise
        raise ForgetlabError(f"{unknown('model', name, shipped_models())}; as a hub id: {error}") from None
    return source, repository + (f"@{revision}" if revision else ""), True


def _from_transformers(source: str, given: str, fetched: bool, how: dict[str, Any]) -> tuple[Any, Any]:
    """The model and tokenizer in a folder. given: its name in messages. fetched: whether it is a copy from the hub."""
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

    # Said in so many words: left out, transformers asks on the terminal whether to run a repository's code.
    options: dict[str, Any] = {"trust_remote_code": False}
    try:
        with quiet_transformers(), in_words(given):
            check_config(Path(source), given)
            config = AutoConfig.from_pretrained(source, **options)
            _check_kind(config, given)
            architecture = (config.architectures or [""])[0]
            if "ForMaskedLM" in architecture or ("ForPreTraining" in architecture and "Electra" not in architecture):
                loader = AutoModelForMaskedLM
            elif "ForCausalLM" in architecture or "LMHeadModel" in architecture:
                loader = AutoModelForCausalLM
            else:
                loader = AutoModel  # ElectraForPreTraining too: a discriminator, which predicts no words
            options |= {"use_safetensors": True, "output_loading_info": True, **how}
            body, info = loader.from_pretrained(source, **options)
            if loader is not AutoModel and info["missing_keys"]:  # the head, as a rule: without it, a bare encoder
                body, info = AutoModel.from_pretrained(source, **options)
            if lacking := sorted(key for key in info["missing_keys"] if "pooler" not in key):  # no score uses it
                raise ForgetlabError(
                    f"{given}: its file lacks {len(lacking)} of the model's weights, such as {lacking[0]}"
                )
            check_unused(body, info["unexpected_keys"], given)
            in_one_place(body, given)
            if lm_kind_of(body):
                check_lm_head(body)
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            if tokenizer.pad_token is None:
                # padding is masked out everywhere, so that any existing token serves
                tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
            if tokenizer.pad_token is None:
                raise ForgetlabError(f"{given}: its tokenizer has neither a pad nor an end token to pad with")
    except SafetensorError as error:
        again = ""
        if fetched:
            download.drop_damaged(Path(source))
            again = "; it was removed from the cache, so that loading it again downloads it anew"
        raise ForgetlabError(f"{given}: its safetensors file is damaged or cut short ({error}){again}") from None
    return body, tokenizer


@contextmanager
def in_words(given: str) -> Iterator[None]:
    """Whatever transformers, tokenizers and torch raise on a damaged folder, as a ForgetlabError."""
    from safetensors import SafetensorError

    try:
        yield
    except (ForgetlabError, SafetensorError):
        raise
    except BaseException as error:
        panic = type(error).__name__ == "PanicException"  # of code in Rust, which is no Exception
        if not (panic or isinstance(error, Exception)):
            raise
        if "trust_remote_code" in str(error):
            raise ForgetlabError(
                f"{given} needs code from its repository, which is never run here: expected an architecture that "
                "transformers itself knows"
            ) from None
        raise ForgetlabError(
            f"{given} cannot be opened as a transformers checkpoint: {download.first_line(cast(Exception, error))}"
        ) from None


def _check_kind(config: Any, given: str) -> None:
    """Raise ForgetlabError for what is neither an encoder nor a decoder of text."""
    expected = "expected an encoder such as BERT, or a decoder such as GPT-2 or Llama"
    if getattr(config, "is_encoder_decoder", False):
        raise ForgetlabError(f"{given} is an encoder with a decoder ({config.model_type}): {expected}")
    if not hasattr(config, "hidden_size"):
        raise ForgetlabError(f"{given} is no model of text alone ({config.model_type}): {expected}")


def load_heads(model: Model, folder: Path) -> None:
    """Give a model the named heads that are saved in a folder. Raises ForgetlabError where they cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    described = json_in(folder / HEADS_FILE, str(folder))
    if not isinstance(described, dict) or not all(_is_head(head) for head in described.values()):
        raise ForgetlabError(
            f"{folder}: the named heads cannot be read; expected {HEADS_FILE} to hold "
            '{NAME: {"level": "sequence" or "token", "labels": [TEXT, …]}}'
        )
    try:
        weights = load_file(folder / HEADS_WEIGHTS)
        for name, head in described.items():
            model.add_head(name, head["labels"], head["level"])
        model.heads.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ForgetlabError(f"{folder}: the named heads cannot be read ({download.first_line(error)})") from None


def _is_head(head: Any) -> bool:
    labels = head.get("labels") if isinstance(head, dict) else None
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        return False
    return len(set(labels)) == len(labels) and head.get("level") in get_args(Level)
