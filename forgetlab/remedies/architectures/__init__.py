"""Remedies that change what is trained instead of how: the model is frozen, and only what is new learns."""

from forgetlab.remedies.architectures.adapters import Adapters
from forgetlab.remedies.architectures.columns import ProgressiveColumns
from forgetlab.remedies.architectures.frozen import Frozen
from forgetlab.remedies.architectures.lora import LoRA

__all__ = ["Adapters", "Frozen", "LoRA", "ProgressiveColumns"]
