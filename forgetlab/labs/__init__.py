"""The labs, each by its name: `labs.watch.show()` or `labs.show("watch")`. A lab is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from forgetlab.errors import one_of, unknown

LABS = {
    "watch": "Watch it forget: fine-tune a tiny BERT and see what its other skills do",
    "ask": "Ask the model: type a sentence, see the answers before and after",
    "inside": "Inside the change: weights, features and outputs, layer by layer",
    "matrix": "The transfer matrix: tasks in a row, and what each costs the ones before",
    "dynamics": "Simulated dynamics: two tasks, one set of weights",
    "cloud": "Importance cloud, simulated: old-critical, new-critical, shared, slack",
    "scatter": "Importance scatter, real: the Fisher information of the old task and of the new",
    "conflict": "Conflict: two gradients and the angle between them",
    "along": "Along the run: the cosine of old and new gradients, layer by layer",
    "valleys": "Two valleys: the loss around the old, the new and the joint solution",
    "pull": "Pull back: L2-SP, EWC and their kin at any λ",
    "mix": "Mix in the past: replay of stored examples",
    "dreams": "Dreams: replay of what the model's past self writes",
    "freeze": "Freeze and add: adapters, LoRA and columns on a frozen model",
    "path": "A gentler path: rates by layer, warm-up, gradual unfreezing",
    "brake": "Safety brake: stop at the allowed drop, put good weights back",
    "frontier": "All remedies on one plot: what each keeps and what it learns",
    "own": "Bring your own: a model and data of yours",
    "stream": "A stream of tasks: many fine-tunes in a row",
    "reward": "Two ways to teach: demonstrations and rewards, and what each costs",
    "anchor": "Alignment-style tuning: hold the outputs near the old ones with a KL term",
}
__all__ = ["LABS", "show"]


def show(name: str, **options: Any) -> Any:
    """The lab of that name as a widget; options go to its `show`. Raises ForgetlabError for an unknown name."""
    one_of("lab", name, LABS)
    return import_module(f"{__name__}.{name}").show(**options)


def __getattr__(name: str) -> Any:
    if name in LABS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"{unknown('lab', name, LABS)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *LABS])
