"""What is measured: transfer between tasks, language, drift of weights, features and outputs. Pure functions.

Outputs or weights of a diverged model (nan, inf) give nan or inf, not an error: a live run goes on.
"""

from forgetlab.metrics.drift import Drift, layer_of, parameter_drift
from forgetlab.metrics.landscape import Place, Plane, weights_of
from forgetlab.metrics.language import (
    entity_f1,
    expected_calibration_error,
    minimal_pair_accuracy,
    perplexity,
    perplexity_ratio,
)
from forgetlab.metrics.representation import kshot_hits, kshot_probe, linear_cka, output_shift
from forgetlab.metrics.retention import kept, learned, pareto
from forgetlab.metrics.transfer import average_accuracy, backward_transfer, forgetting_measure, forward_transfer

__all__ = [
    "Drift",
    "Place",
    "Plane",
    "average_accuracy",
    "backward_transfer",
    "entity_f1",
    "expected_calibration_error",
    "forgetting_measure",
    "forward_transfer",
    "kept",
    "kshot_hits",
    "kshot_probe",
    "layer_of",
    "learned",
    "linear_cka",
    "minimal_pair_accuracy",
    "output_shift",
    "parameter_drift",
    "pareto",
    "perplexity",
    "perplexity_ratio",
    "weights_of",
]
