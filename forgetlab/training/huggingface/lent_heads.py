"""A model that somebody else trains, as methods and watched tasks see it: with the heads of another one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from forgetlab.errors import ForgetlabError
from forgetlab.models.lm_heads import lm_logits
from forgetlab.models.model import Batch, Model, lm_kind_of
from forgetlab.sources import Examples
from forgetlab.tasks import Task


class WithLentHeads(Model):
    """The model in training with the heads of another one: what methods and watched tasks see.

    body: the Trainer's model. other: its language-model head and named heads are lent, above the body's backbone.
    """

    def __init__(self, body: nn.Module, tokenizer: Any, other: Model | None) -> None:
        super().__init__(body, tokenizer, type(body).__name__)
        self.other: nn.Module | None = None
        if other is None:
            return
        self.name, self.longest = other.name, other.longest
        if other.body is not body:
            prefix = cast(Any, other.body).base_model_prefix
            ours, theirs = cast(Any, body).base_model, cast(Any, other.body).base_model
            shapes = {n.replace(".base_layer", ""): p.shape for n, p in ours.named_parameters()}  # peft's name for it
            if any(shapes.get(n) != p.shape for n, p in theirs.named_parameters()):  # a pooler more is no matter
                raise ForgetlabError(f"before={other.name!r} and the model have backbones of other shapes")
            if theirs is not other.body:
                setattr(other.body, prefix, ours)
                cast(Any, other.body).tie_weights()
            if self.lm_kind is None and other.lm_kind is not None:
                self.other, self.lm_kind = other.body, other.lm_kind
        self.heads = other.heads
        self.remember(other)

    def remember(self, other: Model | None = None) -> None:
        """The names of what was there before: a head of the Trainer's model that is new is not.

        No copy is made: where the other model remembers a weight, that tensor is meant, else nothing (a number).
        """
        named, new = self.named_parameters(remove_duplicate=False), self.new_head()
        theirs = other._pretrained if other is not None else {}
        kept = {name: theirs.get(name.replace("other.", "body.", 1), torch.zeros(())) for name, _ in named}
        named = self.named_parameters(remove_duplicate=False)
        self._pretrained = {name: kept[name] for name, p in named if p not in new}

    def hold_still(self) -> None:
        """From now on, no copy is made of what is frozen now, such as the model below a LoRA: it is its own anchor."""
        self.still = frozenset(p for p in self.parameters() if not p.requires_grad)

    def new_head(self) -> frozenset[nn.Parameter]:
        """What a body that is no language model has above its backbone, such as a classifier."""
        if lm_kind_of(self.body) is not None:
            return frozenset()
        return frozenset(self.body.parameters()) - set(cast(Any, self.body).base_model.parameters())

    def lm_logits(self, hidden: Tensor) -> Tensor:
        return super().lm_logits(hidden) if self.other is None else lm_logits(self.other, hidden)


class Theirs(Task):
    """The Trainer's own data, as far as methods need to know them."""

    metric: ClassVar[str] = "loss"
    higher_is_better: ClassVar[bool] = False
    kind: ClassVar[str] = "trainer"

    def __init__(self) -> None:
        super().__init__("train", None, Examples(kind="text", texts=()))

    def _refuse(self, *_: Any) -> Any:
        raise ForgetlabError("the Trainer's own data are its own: no method can draw, compute or score them")

    _collate = logits = _scored = cast(Any, _refuse)


def texts_of(inputs: Batch) -> Batch:
    """A Trainer's batch as methods read it: token ids (texts, tokens) and their mask.

    Of trl's forms: GRPO's prompts and answers side by side, the answers "scored"; packed texts, which stand in one row
    with positions that begin anew, below each other.
    """
    if "prompt_ids" in inputs:
        mask, answers = inputs["prompt_mask"], inputs["completion_mask"]
        return {
            "input_ids": torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1),
            "attention_mask": torch.cat([mask, answers], 1),
            "scored": torch.cat([torch.zeros_like(mask), answers], 1),
        }
    if "attention_mask" in inputs or "position_ids" not in inputs:
        return inputs
    starts = (inputs["position_ids"].flatten() == 0).nonzero().flatten().tolist()
    texts = list(inputs["input_ids"].flatten().tensor_split(starts[1:]))
    ids, mask = (pad_sequence(one, batch_first=True) for one in (texts, [torch.ones_like(text) for text in texts]))
    return {"input_ids": ids, "attention_mask": mask}


@contextmanager
def overheard(backbone: nn.Module, batch: Batch) -> Iterator[list[Tensor]]:
    """The last hidden states that a Trainer's loss makes of this batch on its way: none, or one pass less to pay."""
    heard = list[Tensor]()

    def listen(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        ids = named.get("input_ids", args[0] if args else None)
        if ids is batch["input_ids"] and getattr(output, "last_hidden_state", None) is not None:
            heard.append(output.last_hidden_state)

    hook = backbone.register_forward_hook(listen, with_kwargs=True)
    try:
        yield heard
    finally:
        hook.remove()


def plain(model: nn.Module) -> nn.Module:
    """The transformers model inside a peft one."""
    return cast(Any, model).get_base_model() if hasattr(model, "get_base_model") else model
