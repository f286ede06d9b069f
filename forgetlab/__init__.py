"""forgetlab: watch a language model forget while it is fine-tuned, measure it, and keep what it knew."""

__version__ = "0.1.0"
