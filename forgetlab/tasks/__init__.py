"""A task is data, a loss and a score.

Four kinds can be trained: a class for each text (or pair of texts), a tag for each word, masked and causal
language modelling. `probes.py` has the ones that are only scored.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

# Imported at first use: what a source is called (`source_names`) is known without torch.
_HOMES = {
    "CausalLM": "tasks.language",
    "Classification": "tasks.labelled",
    "Distilled": "tasks.distilled",
    "LanguageModel": "tasks.language",
    "MaskedLM": "tasks.language",
    "OnPolicy": "tasks.on_policy",
    "Rewarded": "tasks.rewarded",
    "Scores": "tasks.base",
    "Suite": "tasks.base",
    "Tagging": "tasks.labelled",
    "Tally": "metrics.tally",
    "Task": "tasks.base",
    "advantages": "tasks.policy_gradient",
    "filtered": "tasks.rewarded",
    "inner_tokens": "tasks.encoding",
    "sample": "tasks.writing",
    "write": "tasks.writing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'forgetlab.tasks' has no attribute {name!r}")
    return getattr(import_module(f"forgetlab.{_HOMES[name]}"), name)
