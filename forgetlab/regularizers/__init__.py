"""Remedies that add a term to the loss: a pull on the weights, or on the outputs."""

from forgetlab.regularizers.ewc import EWC, MAS, OnlineEWC
from forgetlab.regularizers.outputs import KLAnchor, LwF
from forgetlab.regularizers.quadratic import L2SP, Quadratic
from forgetlab.regularizers.si import SI

__all__ = ["EWC", "L2SP", "MAS", "SI", "KLAnchor", "LwF", "OnlineEWC", "Quadratic"]
