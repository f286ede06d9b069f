"""Everything that holds on to the old: pulls, replay, added parts, schedules, stopping, projection, interpolation."""

from forgetlab.remedies.architectures import Adapters, Frozen, LoRA, ProgressiveColumns
from forgetlab.remedies.by_name import METHODS, make_methods
from forgetlab.remedies.interpolation import WeightInterpolation, interpolate
from forgetlab.remedies.projection import AGEM, PCGrad, agem, pcgrad
from forgetlab.remedies.regularizers import EWC, L2SP, MAS, SI, KLAnchor, LwF, OnlineEWC
from forgetlab.remedies.replay import ExperienceReplay, GenerativeReplay, Multitask, class_balanced, reservoir
from forgetlab.remedies.schedules import (
    Cosine,
    GradualUnfreezing,
    LayerwiseRates,
    SlantedTriangular,
    Warmup,
    below_heads,
)
from forgetlab.remedies.stopping import EarlyStopping, SafetyBrake

__all__ = [
    "AGEM",
    "EWC",
    "L2SP",
    "MAS",
    "METHODS",
    "SI",
    "Adapters",
    "Cosine",
    "EarlyStopping",
    "ExperienceReplay",
    "Frozen",
    "GenerativeReplay",
    "GradualUnfreezing",
    "KLAnchor",
    "LayerwiseRates",
    "LoRA",
    "LwF",
    "Multitask",
    "OnlineEWC",
    "PCGrad",
    "ProgressiveColumns",
    "SafetyBrake",
    "SlantedTriangular",
    "Warmup",
    "WeightInterpolation",
    "agem",
    "below_heads",
    "class_balanced",
    "interpolate",
    "make_methods",
    "pcgrad",
    "reservoir",
]
