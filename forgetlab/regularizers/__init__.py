"""Remedies that add a term to the loss: on the weights (quadratic) or on the outputs."""

from forgetlab.regularizers.quadratic import L2SP

__all__ = ["L2SP"]
