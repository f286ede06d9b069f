"""A model is a transformers backbone with named heads: load it, ask it, save it."""

from forgetlab.models.asking import read
from forgetlab.models.device import pick_device
from forgetlab.models.heads import Head
from forgetlab.models.loading import load, shipped_models
from forgetlab.models.model import Model

__all__ = ["Head", "Model", "load", "pick_device", "read", "shipped_models"]
