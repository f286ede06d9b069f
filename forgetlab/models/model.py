"""A model is a transformers backbone with named heads.

`body` is what transformers loads (with its language-model head if the checkpoint has one); `heads` holds a
small head for each labelled task.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from forgetlab.errors import ForgetlabError, one_of
from forgetlab.models import fast_bert
from forgetlab.models.heads import Head, Level
from forgetlab.models.lm_heads import lm_logits
from forgetlab.models.open_runs import close_runs, refuse_second
from forgetlab.models.quiet import quiet_transformers
from forgetlab.models.seeds import derived
from forgetlab.models.sharded import in_one_place, is_sharded

Batch = Mapping[str, Tensor]
Weights = dict[str, Tensor]

HEADS_FILE = "heads.json"
HEADS_WEIGHTS = "heads.safetensors"
USUAL_LENGTH = 512  # tokens: longer texts cost memory that nobody has asked for


class Model(nn.Module):
    """A backbone with named heads and its tokenizer.

    body: a transformers model, with or without a language-model head. tokenizer: its tokenizer.
    name: what it was loaded from, for reports. keep: whether a copy of the weights is kept, for `restore`.
    still: weights that nobody trains, of which a run keeps nothing. longest: tokens that texts are cut to, at most.
    Raises ForgetlabError where the weights are not all in memory, on one device.

    >>> batch = model.tokenizer(["a fine film"], return_tensors="pt")
    >>> model.logits(batch, "entities").shape  # texts, tokens, labels
    torch.Size([1, 5, 6])
    """

    still: frozenset[nn.Parameter] = frozenset()
    longest: int = USUAL_LENGTH

    def __init__(self, body: nn.Module, tokenizer: Any, name: str, keep: bool = True) -> None:
        super().__init__()
        in_one_place(body, name)
        self.body = body
        self.heads = nn.ModuleDict()
        self.tokenizer = tokenizer
        self.name, self.keep = name, keep
        self.lm_kind = lm_kind_of(body)
        self._pretrained: Weights = {}
        self._trainable: dict[str, bool] = {}
        self._undo: list[Callable[[Model], None]] = []
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
    def end_mark(self) -> bool:
        """Whether pre-training closed each text with the end token: where the config says so in `end_mark`.

        Then the end of a text is trained and scored like any token. Other models may never have seen it there.
        """
        return bool(getattr(self.config, "end_mark", False))

    @property
    def max_length(self) -> int:
        """The longest sequence, in tokens, that a text is cut to: `longest`, or less where the backbone takes less."""
        return min(self.positions, self.longest)

    @property
    def positions(self) -> int:
        """How many tokens the backbone takes; where its config does not say, as many as it is asked for."""
        sizes = (getattr(self.config, name, 0) for name in ("max_position_embeddings", "n_positions"))
        found: int = next(filter(None, sizes), self.longest)
        if self.config.model_type in ("roberta", "xlm-roberta", "camembert"):
            found -= self.config.pad_token_id + 1  # RoBERTa counts positions from the padding id
        return found

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
        if not free_name(name):
            raise ForgetlabError(
                f"a head cannot be called {name!r}, which torch's modules mean otherwise: try my-{name}"
            )
        width = self.config.hidden_size
        head = Head(width, labels, level, last_token=self.causal, seed=derived(name, seed)).to(self.device)
        self.heads[name] = head
        return head

    def hidden(self, batch: Batch) -> Tensor:
        """The backbone's last hidden states, (B, L, width)."""
        if self._shared is not None and id(batch) in self._shared:
            return self._shared[id(batch)]
        inputs = {k: batch[k] for k in ("input_ids", "attention_mask", "token_type_ids") if k in batch}
        if fast_bert.fits(self.backbone, inputs):
            hidden = fast_bert.hidden_states(self.backbone, inputs)
        else:
            hidden = self.backbone(**inputs).last_hidden_state
        if self._shared is not None:
            self._shared[id(batch)] = hidden
        return hidden

    @contextmanager
    def shared_forward(self, batch: Batch | None = None, hidden: Tensor | None = None) -> Iterator[None]:
        """Within it, every loss on the same batch (the same object) shares one pass through the backbone.

        batch, hidden: one whose last hidden states somebody else has by now.
        """
        self._shared = {} if hidden is None else {id(batch): hidden}
        try:
            yield
        finally:
            self._shared = None

    def logits(self, batch: Batch, head: str) -> Tensor:
        """Logits of a named head: (B, labels), or (B, L, labels) for a token head."""
        one_of("head", head, list(self.heads))
        return self.heads[head](self.hidden(batch), batch["attention_mask"])

    def lm_logits(self, hidden: Tensor) -> Tensor:
        """Language-model logits (..., vocabulary) from hidden states (..., width)."""
        if self.lm_kind is None:
            raise ForgetlabError(f"{self.name} has no language-model head: watch or train a labelled task instead")
        return lm_logits(self.body, hidden)

    def on_restore(self, undo: Callable[[Model], None]) -> None:
        """Have `undo(model)` called by `restore`, last one first: for changes of the structure, such as adapters.

        An `undo` that held the model itself would keep it in memory until Python looks for cycles.
        """
        self._undo.append(undo)

    # -- before and after ---------------------------------------------------------------------------

    def snapshot(self) -> Weights:
        """A copy of every weight, heads included."""
        return {name: p.detach().clone() for name, p in self.state_dict().items()}

    def anchor(self) -> Weights:
        """The weights that `restore` brings back, as they are now: name → tensor, to be read only.

        One that has not moved since is the remembered tensor itself: no second copy. What lies `still` is left out.
        """
        held = {n: p for n, p in self.named_parameters() if n in self._pretrained and p not in self.still}
        return {n: copy_of(p, self._pretrained[n]) for n, p in held.items()}

    def remember(self) -> None:
        """Make the present weights, structure and what may be trained the ones that `restore` brings back.

        Raises ForgetlabError while a run is open: what it has frozen or added is its own.
        """
        refuse_second(self)
        own = self.state_dict(keep_vars=True)
        copies = {p: p.detach().clone() if self.keep else p.detach().to("meta") for p in {*own.values()}}
        self._pretrained = {name: copies[p] for name, p in own.items()}  # tied weights share one
        self._trainable = {name: p.requires_grad for name, p in self.named_parameters()}
        self.size = sum(p.numel() for p in self.parameters())  # weights, heads among them, that it had then
        self._undo.clear()

    @torch.no_grad()
    def restore(self, weights: Weights | None = None) -> None:
        """Bring back the loaded weights (or `weights`, a snapshot) in place; what was added since is dropped.

        An open run on the model is closed first. After it, and after whatever broke a run off, the weights, the
        structure and what may be trained are as at loading (or the latest `remember`), in eval mode, without gradients.
        Raises ForgetlabError, with nothing changed, for the snapshot of another model, and for a run that is at work in
        another thread.
        """
        close_runs(self)
        if weights is None and not self.keep:
            raise ForgetlabError(f"{self.name} keeps no copy to restore: load it with keep=True, or give a snapshot")
        weights = self._pretrained if weights is None else weights
        new = [n for n in self.heads if not any(k.startswith(f"heads.{n}.") for k in weights)]
        kept = {f"heads.{k}": p for k, p in self.heads.state_dict().items() if k.partition(".")[0] not in new}
        own = {k: p for k, p in self._pretrained.items() if not k.startswith("heads.")} | kept
        for odd in sorted(own.keys() ^ weights.keys()):
            raise ForgetlabError(f"the snapshot is of another model: {odd!r} is in one of the two only")
        for name, p in own.items():
            if p.shape != weights[name].shape:
                raise ForgetlabError(
                    f"the snapshot is of another model: {name!r} has the shape {[*weights[name].shape]} there, "
                    f"{[*p.shape]} here"
                )
        while self._undo:
            self._undo[-1](self)
            self._undo.pop()  # after it: an interrupt within it leaves it to the next call
        for name in new:
            del self.heads[name]
        for name, tensor in self.state_dict().items():
            tensor.copy_(weights[name])
        for name, p in self.named_parameters():
            p.requires_grad_(self._trainable.get(name, True))
            p.grad = None
        self._shared = None
        self.eval()

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
        with quiet_transformers():
            body.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        if self.heads:
            weights = {k: v.contiguous().cpu() for k, v in self.heads.state_dict().items()}
            save_file(weights, folder / HEADS_WEIGHTS)  # before the file that announces them
            heads = {name: {"level": h.level, "labels": h.labels} for name, h in self.heads.items()}
            (folder / HEADS_FILE).write_text(json.dumps(heads, indent=1) + "\n", encoding="utf-8")
        else:  # those of an earlier model would be loaded with this one
            (folder / HEADS_FILE).unlink(missing_ok=True)
            (folder / HEADS_WEIGHTS).unlink(missing_ok=True)


def copy_of(weight: Tensor, kept: Tensor) -> Tensor:
    """A copy of a weight: `kept`, an earlier one, where it still has the same values, else a new one."""
    ours, theirs = ((t.device, t.dtype, t.shape, is_sharded(t)) for t in (kept, weight))
    return kept if ours == theirs and torch.equal(kept, weight) else weight.detach().clone()


def free_name(name: str) -> bool:
    """Whether a head may be called so: not where torch's modules have a method of that name, such as "train"."""
    return not hasattr(nn.ModuleDict(), name)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it every part of a model is in eval mode; afterwards each is in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    if training:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def lm_kind_of(body: nn.Module) -> Literal["masked", "causal"] | None:
    """What the language-model head of a transformers model predicts; None where it has none."""
    name = type(body).__name__
    if "ForMaskedLM" in name or "ForPreTraining" in name:
        return "masked"
    return "causal" if "ForCausalLM" in name or "LMHeadModel" in name else None
