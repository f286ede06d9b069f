"""A task is data, a loss and a score.

Four kinds can be trained: a class for each text (or pair of texts), a tag for each word, masked and causal
language modelling. `probes.py` has the ones that are only scored.
"""

from forgetlab.metrics.tally import Tally
from forgetlab.tasks.base import Scores, Suite, Task
from forgetlab.tasks.distilled import Distilled
from forgetlab.tasks.encoding import inner_tokens
from forgetlab.tasks.labelled import Classification, Tagging
from forgetlab.tasks.language import CausalLM, LanguageModel, MaskedLM
from forgetlab.tasks.on_policy import OnPolicy
from forgetlab.tasks.policy_gradient import advantages
from forgetlab.tasks.rewarded import Rewarded, filtered
from forgetlab.tasks.writing import sample, write

__all__ = [
    "CausalLM",
    "Classification",
    "Distilled",
    "LanguageModel",
    "MaskedLM",
    "OnPolicy",
    "Rewarded",
    "Scores",
    "Suite",
    "Tagging",
    "Tally",
    "Task",
    "advantages",
    "filtered",
    "inner_tokens",
    "sample",
    "write",
]
