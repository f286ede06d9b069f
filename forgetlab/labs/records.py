"""The recorded runs that are shipped: what a lab shows at once where its settings are on its grid (labs/grids.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forgetlab.experiments import results
from forgetlab.labs.kit.settings import Settings

__all__ = ["find", "read", "trimmed"]

State = dict[str, Any]
DIGITS = 5
# of a record, or of a task: what no lab draws or says
UNUSED = {"loss", "penalty", "seconds", "setup_seconds", "source", "notes", "peak_memory", "tallies"}


def read(lab: str) -> list[tuple[Settings, State]]:
    """(settings, state) of every recorded run of a lab, in the grid's order; [] where nothing is recorded.

    A state has its "settings", as the lab's own drawing wants it.
    """
    return [(settings, {**state, "settings": settings}) for settings, state in results.recorded(f"lab-{lab}")]


def find(lab: str, settings: Settings) -> State | None:
    """The recorded run of these settings, or None."""
    found = results.shipped(f"lab-{lab}", settings)
    return found and {**found, "settings": settings}


def trimmed(state: Mapping[str, Any]) -> State:
    """What is recorded of a finished state: no field that no lab draws or says, every float cut to DIGITS digits."""
    kept = {name: value for name, value in state.items() if name not in ("settings", "progress")}
    if "records" in kept:
        kept["records"] = [{k: v for k, v in record.items() if k not in UNUSED} for record in kept["records"]]
    return rounded(kept)


def rounded(value: Any) -> Any:
    """The same plain value with every float cut to DIGITS significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(own) for key, own in value.items()}
    return [rounded(own) for own in value] if isinstance(value, list | tuple) else value
