"""Everything that holds on to the old: pulls, replay, added parts, schedules, stopping, projection, interpolation."""

from forgetlab.remedies.architectures import Adapters, Frozen, LoRA, ProgressiveColumns
from forgetlab.remedies.by_name import METHODS, make_methods
from forgetlab.remedies.interpolation import WeightInterpolation, interpolate
from forgetlab.remedies.projection import AGEM, PCGrad, agem, pcgrad
from forgetlab.remedies.regularizers import EWC, L2SP, MAS, SI, AdamEWC, KLAnchor, LwF, OnlineEWC, adam_importance
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
from forgetlab.remedies.subspace import OrthogonalSubspace

__all__ = [
    "AGEM",
    "EWC",
    "L2SP",
    "MAS",
    "METHODS",
    "SI",
    "AdamEWC",
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
    "OrthogonalSubspace",
    "PCGrad",
    "ProgressiveColumns",
    "SafetyBrake",
    "SlantedTriangular",
    "Warmup",
    "WeightInterpolation",
    "adam_importance",
    "agem",
    "below_heads",
    "class_balanced",
    "interpolate",
    "make_methods",
    "pcgrad",
    "reservoir",
]
