"""Remedies that mix the past into each batch: stored examples, written ones, or all of the old tasks."""

from forgetlab.remedies.replay.experience import ExperienceReplay, Multitask
from forgetlab.remedies.replay.generative import GenerativeReplay
from forgetlab.remedies.replay.memory import class_balanced, reservoir

__all__ = ["ExperienceReplay", "GenerativeReplay", "Multitask", "class_balanced", "reservoir"]
