"""transformers' Trainer with remedies and watched tasks."""

from forgetlab.training.huggingface.trainer import ForgettingTrainer

__all__ = ["ForgettingTrainer"]
