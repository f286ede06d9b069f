"""forgetlab: watch a language model forget while it is fine-tuned, measure it, and keep what it knew.

The examples in the docstrings may use `torch`, `finetune`, `load`, `suite` and `task`, and have

    model, new, old = load("tiny-bert"), task("sentiment"), task("entities")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forgetlab.errors import ForgetlabError
    from forgetlab.experiments.recipe import Recipe
    from forgetlab.experiments.recipes import sweep
    from forgetlab.models.loading import load
    from forgetlab.tasks.embedded import task
    from forgetlab.tasks.from_data import task_from
    from forgetlab.tasks.suites import suite
    from forgetlab.training.loop import finetune
    from forgetlab.training.record import Record

__version__ = "0.6.0"

# Imported at first use: `import forgetlab` itself costs nothing.
_HOMES = {
    "ForgetlabError": "errors",
    "Recipe": "experiments.recipe",
    "Record": "training.record",
    "finetune": "training.loop",
    "load": "models.loading",
    "regularizers": "remedies",
    "suite": "tasks.suites",
    "sweep": "experiments.recipes",
    "task": "tasks.embedded",
    "task_from": "tasks.from_data",
}
__all__ = ["ForgetlabError", "Recipe", "Record", "finetune", "load", "suite", "sweep", "task", "task_from"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"forgetlab.{_HOMES[name]}"), name)
    if name in _rooms():
        return import_module(f"forgetlab.{name}")
    raise AttributeError(f"module 'forgetlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, *_rooms()])


def _rooms() -> list[str]:
    from pkgutil import iter_modules

    return [found.name for found in iter_modules(__path__)]
