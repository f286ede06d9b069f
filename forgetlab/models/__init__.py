"""A model is a transformers backbone with named heads: load it, ask it, save it."""

from forgetlab.models.asking import read
from forgetlab.models.loading import load, pick_device, shipped_models
from forgetlab.models.model import Head, Model, evaluating

__all__ = ["Head", "Model", "evaluating", "load", "pick_device", "read", "shipped_models"]
