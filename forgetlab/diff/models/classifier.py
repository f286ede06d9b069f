"""The classifier of a transformers model as a named head: its own layers, above a backbone that somebody else runs."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from forgetlab.diff.models.stored import Stored
from forgetlab.errors import ForgetlabError
from forgetlab.models.heads import Head, Level
from forgetlab.models.model import quiet_transformers

KINDS: dict[str, Level] = {"ForSequenceClassification": "sequence", "ForTokenClassification": "token"}
SEVERAL = ("multi_label_classification", "regression")  # of whose outputs the highest is not the answer
UNNAMED = re.compile(r"LABEL_(\d+)")  # what transformers calls the classes of a model that was given no names


class Classifier(Head):
    """What a transformers model for classification has above its backbone, pooler included.

    config: that of the folder. stored: its weights. The logits are those of transformers' own forward pass.
    labels: as the config names them; a task orders and spells them its own way (`of_task`).
    """

    def __init__(self, config: Any, stored: Stored) -> None:
        nn.Module.__init__(self)
        from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

        self.level = level_of(config)  # type: ignore[assignment]
        self.last_token = False  # its own forward pass knows which
        self.labels = tuple(str(config.id2label[i]) for i in range(config.num_labels))
        config = copy.deepcopy(config)
        config.pad_token_id = 0  # below, the mask stands for the tokens
        made = AutoModelForTokenClassification if self.level == "token" else AutoModelForSequenceClassification
        with quiet_transformers(), torch.device("meta"):
            shell = made.from_config(config)
        prefix = shell.base_model_prefix
        setattr(shell, prefix, _Below(getattr(shell, prefix)))
        shell.to_empty(device="cpu")
        self.order: Tensor
        self.register_buffer("order", torch.arange(len(self.labels)))
        own = shell.state_dict()
        for name, weight in own.items():
            found = stored.find([name], prefix)
            if found is None or stored.shapes[found] != tuple(weight.shape):
                raise ForgetlabError(f"{stored.given}: its file lacks {name}, of the classifier that its config names")
            weight.copy_(stored.tensor(found))
        self.shell = shell.float().eval()

    def of_task(self, labels: Sequence[str], level: Level) -> Classifier | None:
        """The same head with a task's classes in the task's order; None where they are other ones."""
        numbers = [UNNAMED.fullmatch(label) for label in self.labels]
        own = [found[1] if found else label for found, label in zip(numbers, self.labels, strict=True)]
        at = {label.casefold(): i for i, label in enumerate(own)}
        wanted = [label.casefold() for label in labels]
        if level != self.level or len(at) != len(own) or len(set(wanted)) != len(wanted) or at.keys() != {*wanted}:
            return None
        head = copy.copy(self)  # the layers are shared
        head._buffers = {"order": torch.tensor([at[label] for label in wanted])}
        head.labels = tuple(labels)
        return head

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = hidden.float()
        if flat := hidden.dim() == 2:  # the places that a tagging task asks for
            hidden, attention_mask = hidden.unsqueeze(0), attention_mask.new_ones(1, len(hidden))
        shell = cast(Any, self.shell)
        getattr(shell, shell.base_model_prefix).hidden = hidden
        try:
            logits = shell(input_ids=attention_mask, attention_mask=attention_mask).logits
        finally:
            getattr(shell, shell.base_model_prefix).hidden = None
        return (logits.squeeze(0) if flat else logits)[..., self.order]


class _Below(nn.Module):
    """What stands in the place of a backbone: it hands on the hidden states that it was given, pooled where it can."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.hidden: Tensor | None = None
        self.pooler = getattr(backbone, "pooler", None)
        self.bend = getattr(backbone, "pooler_activation", None)  # ALBERT's pooler is a bare matrix

    def forward(self, *_: Any, **__: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions as Output

        assert self.hidden is not None
        pooled = None
        if self.pooler is not None:
            pooled = self.pooler(self.hidden) if self.bend is None else self.bend(self.pooler(self.hidden[:, 0]))
        return Output(last_hidden_state=self.hidden, pooler_output=pooled)


def level_of(config: Any) -> Level | None:
    """What the model of a config classifies, texts or tokens; None where it classifies nothing."""
    kinds = (level for name in config.architectures or [] for kind, level in KINDS.items() if name.endswith(kind))
    return None if config.problem_type in SEVERAL else next(kinds, None)
