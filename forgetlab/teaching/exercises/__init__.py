"""Checks for the learner's own code, one module a theme. `check_…(function)` says what is right or what went wrong."""

from forgetlab.teaching.exercises.checking import Verdict

__all__ = ["Verdict"]
