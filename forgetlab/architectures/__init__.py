"""Remedies that change what is trained instead of how: the model is frozen, and only what is new learns."""

from forgetlab.architectures.adapters import Adapters
from forgetlab.architectures.columns import ProgressiveColumns
from forgetlab.architectures.frozen import Frozen
from forgetlab.architectures.lora import LoRA

__all__ = ["Adapters", "Frozen", "LoRA", "ProgressiveColumns"]
