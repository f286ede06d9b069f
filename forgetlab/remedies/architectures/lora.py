"""LoRA, through the optional package peft."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import nn

from forgetlab.errors import ForgetlabError, flag, number, whole
from forgetlab.models.addition import Addition
from forgetlab.models.model import Model
from forgetlab.models.seeds import stream
from forgetlab.remedies.architectures.frozen import Additive, remove
from forgetlab.training.method import Run, Setting

# the query and value projections of families that peft does not know, such as DistilBERT
QUERY_VALUE = (
    ("q_lin", "v_lin"),
    ("query", "value"),
    ("q_proj", "v_proj"),
    ("query_key_value",),
    ("c_attn",),
    ("Wqkv",),
)


class LoRA(Additive):
    """Train a low-rank change of some linear layers, and the new head; the model itself is frozen.

    W x ← W x + (α / r) B A x with A (r, in), B (out, r) and B = 0 at the start, so that training starts from the
    pre-trained function. Adds r · (in + out) weights for each layer that is changed.

    r: the rank (None: a sixteenth of the model's width, 8 at most; a quarter of the width is no low rank). alpha: α.
    dropout: of x in the new term, 0 or more and below 1. targets: "all" for every linear layer, or last parts of their
    names, as text "query/value" (None: attention's query and value projections; where they are fused with the key's, as
    in GPT-2, that whole layer). shared: True sends all tasks through it, as if merged into W, and they may forget;
    False keeps it to the new task, so that every other task's outputs stay bit-identical, and it must be known which
    task a text belongs to. Raises ForgetlabError for other values, without peft, or where a target is not found.
    Source: Hu et al. 2021, section 4.1. A starts as peft does it: uniform with variance 1 / (3 in), not Gaussian.

    >>> first = next(finetune(model, new, methods=[LoRA()]))
    >>> first.costs["added_parameters"]  # 3 · 2 · r · (64 + 64), r = 64 / 16
    3072.0
    """

    name = "lora"
    main = Setting("r", 1, 64, usual=4)

    def __init__(
        self,
        r: int | None = None,
        alpha: float = 16,
        dropout: float = 0.0,
        targets: Sequence[str] | None = None,
        shared: bool = True,
    ) -> None:
        if find_spec("peft") is None:
            raise ForgetlabError("LoRA needs the package peft, which is not installed: pip install peft")
        self.r = None if r is None else whole("r", r)
        self.alpha = number("alpha", alpha, above=True)
        self.dropout = number("dropout", dropout, 0, 1, below=True)
        self.targets = targets.split("/") if isinstance(targets, str) else targets
        named = isinstance(self.targets, list | tuple) and all(isinstance(t, str) and t for t in self.targets)
        if targets is not None and not (named and self.targets):
            raise ForgetlabError(f"targets must be names of linear layers, or None, got {targets!r}")
        self.shared = flag("shared", shared)

    def make(self, run: Run, key: str) -> Addition:
        from peft import LoraConfig
        from transformers.pytorch_utils import Conv1D

        backbone = run.model.backbone
        config = LoraConfig(
            r=self.r or max(1, min(8, run.model.config.hidden_size // 16)),
            lora_alpha=cast(int, self.alpha),  # peft takes any number
            lora_dropout=self.dropout,
            target_modules=self._targets(run.model),
            fan_in_fan_out=any(isinstance(m, Conv1D) for m in backbone.modules()),  # GPT-2 keeps W transposed
        )
        return _Layers(backbone, config, f"lora:{key}", stream(f"lora:{key}", run.seed))

    def merge(self) -> None:
        """Fold what is on now into the weights and take LoRA away: W ← W + (α / r) B A. The model can then be saved.

        Raises ForgetlabError if there was no run. `model.restore()` still brings back the weights from before.
        """
        model = self._trained()
        for module in model.backbone.modules():
            if hasattr(module, "lora_A"):
                module.merge()  # type: ignore[operator]
        for key in self._additions(model):
            remove(self.name, key, model)

    def _targets(self, model: Model) -> list[str]:
        """Full names of the layers to change."""
        from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as known

        names = _linear_names(model.backbone)
        if self.targets == ["all"]:
            return names
        usual = known.get(model.config.model_type)
        choices = [self.targets] if self.targets else [*([usual] if isinstance(usual, list) else []), *QUERY_VALUE]
        for targets in choices:
            found = {t: [n for n in names if f".{n}".endswith(f".{t}")] for t in targets}
            if all(found.values()):
                return [n for n in names if any(n in own for own in found.values())]
        what = "query and value projections" if self.targets is None else repr(next(t for t in found if not found[t]))
        raise ForgetlabError(
            f"{model.name} has no linear layers {what} for LoRA; give targets among "
            f"{', '.join(sorted({n.rpartition('.')[2] for n in names}))}"
        )


class _Layers(Addition):
    """The layers that peft put in place of linear ones; the weights stay where peft keeps them.

    config: peft's. key: the adapter's name there. generator: draws A.
    """

    backbone: nn.Module

    def __init__(self, backbone: nn.Module, config: Any, key: str, generator: torch.Generator) -> None:
        super().__init__()
        self.key, self._config, self._generator = key, config, generator
        self.__dict__["backbone"] = backbone  # not as a child, or each weight would have two names

    def attach(self, model: Model) -> None:
        from peft import inject_adapter_in_model

        with torch.device("meta"):  # without values yet: peft would draw them from torch's global generator
            inject_adapter_in_model(self._config, self.backbone, adapter_name=self.key)
        del self.backbone.peft_config  # a second injection would warn of it
        for layer in self.wrapped:
            base = layer.get_base_layer().weight
            for part in (layer.lora_A, layer.lora_B):
                part[self.key].to_empty(device=base.device).to(base.dtype)
            a = torch.empty(layer.lora_A[self.key].weight.shape)  # on the CPU: the same draws on every device
            nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=self._generator)  # variance 1 / (3 in)
            with torch.no_grad():
                layer.lora_A[self.key].weight.copy_(a)
                layer.lora_B[self.key].weight.zero_()

    @property
    def wrapped(self) -> list[Any]:
        return [m for m in self.backbone.modules() if self.key in getattr(m, "lora_A", ())]

    def weights(self) -> list[nn.Parameter]:
        return [part[self.key].weight for layer in self.wrapped for part in (layer.lora_A, layer.lora_B)]

    def switch(self, on: bool) -> None:
        self.on = on
        for layer in self.wrapped:
            if on == (self.key in layer.active_adapters):
                continue
            flags = [(p, p.requires_grad) for p in layer.parameters()]
            others = [name for name in layer.active_adapters if name != self.key]
            layer.set_adapter([*others, self.key] if on else others)
            for p, required in flags:  # peft freezes what is switched off
                p.requires_grad_(required)

    def remove(self) -> None:
        self.switch(False)  # or peft would switch another one on in its place
        for layer in self.wrapped:
            layer.delete_adapter(self.key)
        if hasattr(self.backbone, "peft_config"):
            del self.backbone.peft_config
        for name, layer in list(self.backbone.named_modules()):
            if hasattr(layer, "lora_A") and not layer.lora_A:
                parent, _, child = name.rpartition(".")
                setattr(self.backbone.get_submodule(parent), child, layer.base_layer)


def _linear_names(backbone: nn.Module) -> list[str]:
    from transformers.pytorch_utils import Conv1D

    named = [n for n, m in backbone.named_modules() if isinstance(m, nn.Linear | Conv1D)]
    # with LoRA of an earlier run: NAME.base_layer is the layer, the others are its additions
    return [n.removesuffix(".base_layer") for n in named if ".lora_" not in n]
