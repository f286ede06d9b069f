"""Closed-form toys: two-task dynamics, importance clouds, the geometry of interference.

Nothing here is a language model: each result carries source = "simulated" for the corner of its figure.
The *old* task is the one that can be forgotten, the *new* one the fine-tune.
All raise ForgetlabError for a number that is not finite or out of its range.
"""

from forgetlab.simulators.cloud import KINDS, ImportanceCloud, expected_shares, importance_cloud
from forgetlab.simulators.conflict import OneStep, interference
from forgetlab.simulators.descent import TwoTasks, quadratic, two_tasks

__all__ = [
    "KINDS",
    "ImportanceCloud",
    "OneStep",
    "TwoTasks",
    "expected_shares",
    "importance_cloud",
    "interference",
    "quadratic",
    "two_tasks",
]
