"""Runs as values: recipes, sweeps, the comparison with its frontier, recommendation and report; sequences of tasks."""

from forgetlab.experiments.recipes import Bench, Recipe, compare, prepare, run, summarise, sweep
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
