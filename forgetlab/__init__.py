"""forgetlab: watch a language model forget while it is fine-tuned, measure it, and keep what it knew."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forgetlab.catalog import suite, task
    from forgetlab.errors import ForgetlabError
    from forgetlab.loading import load
    from forgetlab.own_data import task_from
    from forgetlab.recipes import Recipe, sweep
    from forgetlab.records import Record
    from forgetlab.training import finetune

__version__ = "0.1.0"

# Imported at first use: `import forgetlab` itself costs nothing.
_HOMES = {
    "ForgetlabError": "errors",
    "Recipe": "recipes",
    "Record": "records",
    "finetune": "training",
    "load": "loading",
    "suite": "catalog",
    "sweep": "recipes",
    "task": "catalog",
    "task_from": "own_data",
}
_ROOMS = (
    "architectures",
    "importance",
    "interference",
    "interpolation",
    "metrics",
    "plots",
    "recipes",
    "regularizers",
    "replay",
    "schedules",
    "simulators",
    "sources",
    "stopping",
    "world",
)

__all__ = ["ForgetlabError", "Recipe", "Record", "finetune", "load", "suite", "sweep", "task", "task_from"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"forgetlab.{_HOMES[name]}"), name)
    if name in _ROOMS:
        return import_module(f"forgetlab.{name}")
    raise AttributeError(f"module 'forgetlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, *_ROOMS])
