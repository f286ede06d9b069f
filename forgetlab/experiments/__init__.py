"""Runs as values: recipes, sweeps, the comparison with its frontier, recommendation and report; sequences of tasks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from forgetlab.experiments.recipe import Recipe

if TYPE_CHECKING:
    from forgetlab.experiments.recipes import Bench, compare, prepare, run, summarise, sweep
    from forgetlab.experiments.sequences import consolidated, from_seen, run_joint, run_sequence

__all__ = [
    "Bench",
    "Recipe",
    "compare",
    "consolidated",
    "from_seen",
    "prepare",
    "run",
    "run_joint",
    "run_sequence",
    "summarise",
    "sweep",
]


def __getattr__(name: str) -> Any:  # at first use: the command line's help waits for no torch
    if name not in __all__:
        raise AttributeError(f"module 'forgetlab.experiments' has no attribute {name!r}")
    home = "sequences" if name in ("consolidated", "from_seen", "run_joint", "run_sequence") else "recipes"
    return getattr(import_module(f"forgetlab.experiments.{home}"), name)
