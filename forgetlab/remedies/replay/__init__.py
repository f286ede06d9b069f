"""Remedies that mix the past into each batch: stored examples, written ones, or all of the old tasks."""

from forgetlab.remedies.replay.experience import ExperienceReplay, Multitask, class_balanced, reservoir
from forgetlab.remedies.replay.generative import GenerativeReplay

__all__ = ["ExperienceReplay", "GenerativeReplay", "Multitask", "class_balanced", "reservoir"]
