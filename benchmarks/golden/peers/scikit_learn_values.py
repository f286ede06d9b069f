"""scikit-learn."""

from typing import Any

from sklearn.metrics import matthews_corrcoef

PEER = "scikit-learn"


def matthews(labels: Any, predictions: Any) -> float:
    return matthews_corrcoef(labels, predictions)
