"""Remedies that add a term to the loss: a pull on the weights, or on the outputs.

`quadratic` has the pull that L2-SP, EWC, MAS and SI share, with its gradient λΩ(θ − θ*).
"""

from forgetlab.remedies.regularizers.adam import AdamEWC, adam_importance
from forgetlab.remedies.regularizers.ewc import EWC, MAS, OnlineEWC
from forgetlab.remedies.regularizers.outputs import KLAnchor, LwF
from forgetlab.remedies.regularizers.quadratic import L2SP, Quadratic
from forgetlab.remedies.regularizers.si import SI

__all__ = ["EWC", "L2SP", "MAS", "SI", "AdamEWC", "KLAnchor", "LwF", "OnlineEWC", "Quadratic", "adam_importance"]
