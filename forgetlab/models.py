"""A model is a transformers backbone with named heads.

`body` is what transformers loads (with its language-model head if the checkpoint has one); `heads` holds a
small head for each labelled task. Weights are safetensors only and hub code is never executed.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from forgetlab import fused, hub
from forgetlab.errors import ForgetlabError, unknown
from forgetlab.paths import check_shipped, data_folder

Batch = Mapping[str, Tensor]
Level = Literal["sequence", "token"]
Weights = dict[str, Tensor]

HEADS_FILE = "heads.json"
HEADS_WEIGHTS = "heads.safetensors"


class Head(nn.Module):
    """A linear head on the backbone's hidden states.

    level "sequence": the mean over a text's tokens (encoder) or its last token (causal) → (B, labels);
    level "token": every token → (B, L, labels).
    """

    def __init__(self, width: int, labels: Sequence[str], level: Level, *, last_token: bool, seed: int) -> None:
        super().__init__()
        self.labels = tuple(labels)
        self.level = level
        self.last_token = last_token
        self.linear = nn.utils.skip_init(nn.Linear, width, len(labels))  # torch's global generator is not ours
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.linear.weight, std=0.02, generator=generator)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        if self.level == "token":
            return self.linear(hidden)
        if self.last_token:
            places = torch.arange(hidden.shape[1], device=hidden.device)
            last = (attention_mask * places).argmax(dim=1)
            return self.linear(hidden[torch.arange(len(hidden), device=hidden.device), last])
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return self.linear((hidden * mask).sum(1) / mask.sum(1))


class Model(nn.Module):
    """A backbone with named heads and its tokenizer.

    body: a transformers model, with or without a language-model head. tokenizer: its tokenizer.
    name: what it was loaded from, for reports.
    """

    def __init__(self, body: nn.Module, tokenizer: Any, name: str) -> None:
        super().__init__()
        self.body = body
        self.heads = nn.ModuleDict()
        self.tokenizer = tokenizer
        self.name = name
        self.lm_kind = lm_kind_of(body)
        self._pretrained: Weights = {}
        self._undo: list[Callable[[], None]] = []
        self._shared: dict[int, Tensor] | None = None
        self._plain = frozenset(self.state_dict())  # names of the body's own weights
        self.remember()

    @property
    def config(self) -> Any:
        return self.body.config

    @property
    def backbone(self) -> nn.Module:
        """The transformers model below every head."""
        return cast(Any, self.body).base_model

    @property
    def causal(self) -> bool:
        """Whether each token sees only the ones before it."""
        return self.lm_kind == "causal" or bool(getattr(self.config, "is_decoder", False))

    @property
    def max_length(self) -> int:
        """The longest sequence, in tokens, that the backbone takes."""
        positions: int = getattr(self.config, "max_position_embeddings", 0) or getattr(self.config, "n_positions", 512)
        if self.config.model_type in ("roberta", "xlm-roberta", "camembert"):
            positions -= self.config.pad_token_id + 1  # RoBERTa counts positions from the padding id
        return min(positions, 512)

    @property
    def known_names(self) -> frozenset[str]:
        """Names of the weights that `restore` brings back: everything but the heads added since."""
        return frozenset(self._pretrained)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def add_head(self, name: str, labels: Sequence[str], level: Level = "sequence", seed: int = 0) -> Head:
        """The head called `name`, made if there is none; its start depends on its name and the seed only."""
        if name in self.heads:
            head = self.heads[name]
            assert isinstance(head, Head)
            if head.labels != tuple(labels) or head.level != level:
                raise ForgetlabError(
                    f"head {name!r} has the labels {', '.join(head.labels)} ({head.level}); the task wants "
                    f"{', '.join(labels)} ({level}): give the task another name"
                )
            return head
        if "." in name or not name:
            raise ForgetlabError(f"a head's name must not be empty or hold a dot, got {name!r}")
        width = self.config.hidden_size
        head_seed = zlib.crc32(f"{name}/{seed}".encode())
        head = Head(width, labels, level, last_token=self.causal, seed=head_seed).to(self.device)
        self.heads[name] = head
        return head

    def hidden(self, batch: Batch) -> Tensor:
        """The backbone's last hidden states, (B, L, width)."""
        if self._shared is not None and id(batch) in self._shared:
            return self._shared[id(batch)]
        inputs = {k: batch[k] for k in ("input_ids", "attention_mask", "token_type_ids") if k in batch}
        if fused.fits(self.backbone, inputs):
            hidden = fused.hidden_states(self.backbone, inputs)
        else:
            hidden = self.backbone(**inputs).last_hidden_state
        if self._shared is not None:
            self._shared[id(batch)] = hidden
        return hidden

    @contextmanager
    def shared_forward(self) -> Iterator[None]:
        """Within it, every loss on the same batch (the same object) shares one pass through the backbone."""
        self._shared = {}
        try:
            yield
        finally:
            self._shared = None

    def logits(self, batch: Batch, head: str) -> Tensor:
        """Logits of a named head: (B, labels), or (B, L, labels) for a token head."""
        if head not in self.heads:
            raise unknown("head", head, self.heads)
        return self.heads[head](self.hidden(batch), batch["attention_mask"])

    def lm_logits(self, hidden: Tensor) -> Tensor:
        """Language-model logits (..., vocabulary) from hidden states (..., width)."""
        if self.lm_kind is None:
            raise ForgetlabError(f"{self.name} has no language-model head: watch or train a labelled task instead")
        return self._lm_head()(hidden)

    def _lm_head(self) -> Callable[[Tensor], Tensor]:
        body: Any = self.body
        for attribute in ("cls", "lm_head", "embed_out"):  # BERT; RoBERTa, GPT-2, Llama, Qwen; GPT-NeoX
            if hasattr(body, attribute):
                return getattr(body, attribute)
        if hasattr(body, "vocab_projector"):  # DistilBERT
            return lambda h: body.vocab_projector(body.vocab_layer_norm(body.activation(body.vocab_transform(h))))
        if hasattr(body, "generator_lm_head"):  # ELECTRA
            return lambda h: body.generator_lm_head(body.generator_predictions(h))
        raise ForgetlabError(
            f"{type(body).__name__}: its language-model head is of a kind that forgetlab does not know"
        )

    def on_restore(self, undo: Callable[[], None]) -> None:
        """Have `undo` called by `restore`, last one first: for changes of the structure, such as adapters."""
        self._undo.append(undo)

    # -- before and after ---------------------------------------------------------------------------

    def snapshot(self) -> Weights:
        """A copy of every weight, heads included."""
        return {name: p.detach().clone() for name, p in self.state_dict().items()}

    def remember(self) -> None:
        """Make the present weights and structure the ones that `restore` brings back."""
        self._pretrained = self.snapshot()
        self._undo.clear()

    @torch.no_grad()
    def restore(self, weights: Weights | None = None) -> None:
        """Bring back the loaded weights (or `weights`, a snapshot) in place; what was added since is dropped."""
        weights = self._pretrained if weights is None else weights
        while self._undo:
            self._undo.pop()()
        for name in [n for n in self.heads if not any(k.startswith(f"heads.{n}.") for k in weights)]:
            del self.heads[name]
        own = self.state_dict()
        if own.keys() != weights.keys():
            odd = sorted(own.keys() ^ weights.keys())[0]
            raise ForgetlabError(f"the snapshot is of another model: {odd!r} is in one of the two only")
        for name, tensor in own.items():
            tensor.copy_(weights[name])

    def save(self, folder: str | Path) -> None:
        """Write an ordinary transformers folder, with the named heads in two files beside it.

        Raises ForgetlabError for a model with adapters and the like, which such a folder cannot hold.
        """
        from safetensors.torch import save_file

        own = {name for name in self.state_dict() if not name.startswith("heads.")}
        if odd := sorted(own ^ self._plain):
            raise ForgetlabError(
                f"{self.name} carries added weights that a transformers folder cannot hold ({odd[0]}): "
                "call LoRA's merge() or model.restore() first"
            )
        folder, body = Path(folder), cast(Any, self.body)
        with _quiet_transformers():
            body.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        if self.heads:
            heads = {name: {"level": h.level, "labels": h.labels} for name, h in self.heads.items()}
            (folder / HEADS_FILE).write_text(json.dumps(heads, indent=1) + "\n", encoding="utf-8")
            weights = {k: v.contiguous().cpu() for k, v in self.heads.state_dict().items()}
            save_file(weights, folder / HEADS_WEIGHTS)


def shipped_models() -> list[str]:
    """Names of the checkpoints that come with forgetlab."""
    return sorted(path.parent.name for path in (data_folder() / "models").glob("*/config.json"))


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """ "auto" is CUDA, else MPS, else the CPU; anything else is what torch.device takes."""
    if str(device) != "auto":
        try:
            chosen = torch.device(device)
            torch.empty(0, device=chosen)
        except (RuntimeError, AssertionError) as error:
            raise ForgetlabError(
                f"device {device!r} is not at hand here ({str(error).splitlines()[0]}); try auto"
            ) from None
        return chosen
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def load(name: str | os.PathLike[str], *, device: str | torch.device = "auto", revision: str | None = None) -> Model:
    """Load a model: a shipped name ("tiny-bert"), a transformers folder, or a hub id ("owner/name").

    revision: a branch, tag or commit of the hub to pin; "owner/name@REVISION" says the same.
    Returns the model in eval mode on `device`: with its language-model head if the checkpoint has one, else as a
    bare encoder (ELECTRA's discriminators are that). Hub models are downloaded once, safetensors only, no code.
    Raises ForgetlabError for an unknown name, a folder that is not a checkpoint, a damaged file, no network, and
    for what the hub refuses.
    """
    chosen = pick_device(device)
    source = str(name)
    shipped = shipped_models()
    fetched = False
    if source in shipped:
        folder = data_folder() / "models" / source
        check_shipped(folder)
        source = str(folder)
    elif Path(source).expanduser().is_dir():
        source = str(Path(source).expanduser())
        if not Path(source, "config.json").is_file():
            raise ForgetlabError(f"{name} is not a transformers checkpoint: it has no config.json")
    elif source.startswith((".", "/", "~")) or source.partition("@")[0].count("/") > 1:
        raise ForgetlabError(f"there is no folder {name}")
    elif "/" not in source and get_close_matches(source, shipped, n=1, cutoff=0.7):
        raise unknown("model", source, shipped)  # a slip of the pen: do not ask the hub for it
    else:
        repository, revision = hub.with_revision(source, revision)
        try:
            source, fetched = str(hub.model_folder(repository, revision)), True
        except ForgetlabError as error:
            if "/" in source:
                raise
            raise ForgetlabError(f"{unknown('model', source, shipped)}; as a hub id: {error}") from None
    if revision and not fetched:
        raise ForgetlabError(f"{name} is on this machine: only a hub model has a revision (got {revision!r})")
    title = Path(source).name if not fetched else repository + (f"@{revision}" if revision else "")
    body, tokenizer = _from_transformers(source, title if fetched else str(name), fetched)
    model = Model(body, tokenizer, name=title)
    if Path(source, HEADS_FILE).is_file():
        _load_heads(model, Path(source))
    model.to(chosen).eval()
    model.remember()
    return model


def _from_transformers(source: str, given: str, fetched: bool) -> tuple[Any, Any]:
    """The model and tokenizer in a folder. given: its name in messages. fetched: whether it is a copy from the hub."""
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

    # Said in so many words: left out, transformers asks on the terminal whether to run a repository's code.
    options: dict[str, Any] = {"trust_remote_code": False}
    try:
        with _quiet_transformers():
            config = AutoConfig.from_pretrained(source, **options)
            architecture = (config.architectures or [""])[0]
            if "ForMaskedLM" in architecture or ("ForPreTraining" in architecture and "Electra" not in architecture):
                loader = AutoModelForMaskedLM
            elif "ForCausalLM" in architecture or "LMHeadModel" in architecture:
                loader = AutoModelForCausalLM
            else:
                loader = AutoModel  # ElectraForPreTraining too: a discriminator, which predicts no words
            options |= {"use_safetensors": True, "dtype": torch.float32, "output_loading_info": True}
            body, info = loader.from_pretrained(source, **options)
            if loader is not AutoModel and info["missing_keys"]:  # the head, as a rule: without it, a bare encoder
                body, info = AutoModel.from_pretrained(source, **options)
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        if lacking := sorted(key for key in info["missing_keys"] if "pooler" not in key):  # no score uses the pooler
            raise ForgetlabError(f"{given}: its file lacks {len(lacking)} of the model's weights, such as {lacking[0]}")
    except SafetensorError as error:
        again = ""
        if fetched:
            hub.drop_damaged(Path(source))
            again = "; it was removed from the cache, so that loading it again downloads it anew"
        raise ForgetlabError(f"{given}: its safetensors file is damaged or cut short ({error}){again}") from None
    except ForgetlabError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if "trust_remote_code" in str(error):
            raise ForgetlabError(
                f"{given} needs code from its repository, which is never run here: expected an architecture that "
                "transformers itself knows"
            ) from None
        raise ForgetlabError(
            f"{given} cannot be opened as a transformers checkpoint: {hub.first_line(error)}"
        ) from None
    if tokenizer.pad_token is None:
        # padding is masked out everywhere, so that any existing token serves
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise ForgetlabError(f"{given}: its tokenizer has neither a pad nor an end token to pad with")
    return body, tokenizer


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Only errors, no progress bars."""
    from transformers.utils import logging

    verbosity, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def _load_heads(model: Model, folder: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        described = json.loads((folder / HEADS_FILE).read_text(encoding="utf-8"))
        weights = load_file(folder / HEADS_WEIGHTS)
        for name, head in described.items():
            model.add_head(name, head["labels"], head["level"])
        model.heads.load_state_dict(weights)
    except (OSError, SafetensorError, json.JSONDecodeError, KeyError, TypeError, RuntimeError) as error:
        raise ForgetlabError(f"{folder}: the named heads cannot be read ({hub.first_line(error)})") from None


def lm_kind_of(body: nn.Module) -> Literal["masked", "causal"] | None:
    name = type(body).__name__
    if "ForMaskedLM" in name or "ForPreTraining" in name:
        return "masked"
    return "causal" if "ForCausalLM" in name or "LMHeadModel" in name else None
