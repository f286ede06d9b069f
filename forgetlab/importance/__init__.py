"""Which weights matter to which task: Fisher information, MAS importance, and what their overlap means.

`fisher` has the estimators, `per_example` the line that squares the gradient of an example.
"""

from forgetlab.importance.files import check_importance, load_importance, save_importance
from forgetlab.importance.fisher import Estimator, Importance, fisher_diagonal, mas_importance
from forgetlab.importance.groups import KINDS, Quadrants, put_back, quadrants

__all__ = [
    "KINDS",
    "Estimator",
    "Importance",
    "Quadrants",
    "check_importance",
    "fisher_diagonal",
    "load_importance",
    "mas_importance",
    "put_back",
    "quadrants",
    "save_importance",
]
