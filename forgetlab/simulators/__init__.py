"""Closed-form toys: two-task dynamics, importance clouds, the geometry of interference, a stiff pull.

Nothing here is a language model: each result carries source = "simulated" for the corner of its figure.
The *old* task is the one that can be forgotten, the *new* one the fine-tune.
All raise ForgetlabError for a number that is not finite or out of its range.
"""

from forgetlab.simulators.cloud import KINDS, ImportanceCloud, expected_shares, importance_cloud
from forgetlab.simulators.conflict import OneStep, interference
from forgetlab.simulators.descent import StiffPull, TwoTasks, quadratic, stiff_pull, two_tasks

__all__ = [
    "KINDS",
    "ImportanceCloud",
    "OneStep",
    "StiffPull",
    "TwoTasks",
    "expected_shares",
    "importance_cloud",
    "interference",
    "quadratic",
    "stiff_pull",
    "two_tasks",
]
