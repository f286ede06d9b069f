"""netcal."""

from typing import Any

import numpy as np
from netcal.metrics import ECE

PEER = "netcal"


def expected_calibration_error(probabilities: Any, labels: Any, bins: int) -> Any:
    return ECE(bins).measure(np.array(probabilities), np.array(labels))
