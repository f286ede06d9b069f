"""Remedies that add a term to the loss: a pull on the weights, or on the outputs."""

from forgetlab.remedies.regularizers.ewc import EWC, MAS, OnlineEWC
from forgetlab.remedies.regularizers.outputs import KLAnchor, LwF
from forgetlab.remedies.regularizers.quadratic import L2SP, Quadratic
from forgetlab.remedies.regularizers.si import SI

__all__ = ["EWC", "L2SP", "MAS", "SI", "KLAnchor", "LwF", "OnlineEWC", "Quadratic"]
