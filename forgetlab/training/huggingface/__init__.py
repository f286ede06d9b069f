"""transformers' Trainer and trl's trainers with remedies and watched tasks."""

from forgetlab.training.huggingface.trainer import ForgettingMixin, ForgettingTrainer

__all__ = ["ForgettingMixin", "ForgettingTrainer"]
