"""Importance scatter, simulated: how two tasks' importances make four groups of weights."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.figure import Figure

from forgetlab.labs.kit.base import Lab, Settings, State
from forgetlab.labs.kit.figure import blank
from forgetlab.labs.kit.instant import instant
from forgetlab.labs.kit.runner import Driver
from forgetlab.labs.kit.shown import Change
from forgetlab.labs.views.quadrants import LOOKS, Scatter, percent
from forgetlab.simulators import importance_cloud
from forgetlab.teaching import compat

WEIGHTS = 2000
LIMITS = ((1e-4, 1e4), (1e-4, 1e4))


def show(driver: Driver | None = None) -> Lab:
    """The lab as a widget: correlation of the log importances, threshold quantile, seed. It computes at every move."""
    return instant(
        "cloud",
        work,
        View,
        training={
            "correlation": compat.slider("correlation", 0.4, -1.0, 1.0, 0.1, live=True),
            "quantile": compat.slider("threshold quantile", 0.5, 0.05, 0.95, 0.05, live=True),
            "seed": compat.slider("seed", 0, 0, 9, 1, live=True),
        },
        presets={
            "tasks apart": {"correlation": -0.8, "quantile": 0.8},
            "unrelated": {"correlation": 0.0, "quantile": 0.8},
            "same weights": {"correlation": 0.9, "quantile": 0.8},
        },
        intro="Each dot is a weight. A weight is critical to a task if its importance lies above the threshold: "
        "the quantile says what share of the weights lies below it.",
        driver=driver,
        head=lambda state, _: [
            Change(name, percent(share), f"expected {percent(state['expected'][name])}")
            for name, share in state["shares"].items()
        ],
    )


def work(settings: Settings) -> Iterator[State]:
    """One state: the importances, thresholds, and the share of each group with the expected one."""
    cloud = importance_cloud(WEIGHTS, settings["correlation"], settings["seed"], quantile=settings["quantile"])
    shares = {name: cloud.shares[name] for name in LOOKS}
    state: State = {
        "old": [float(f"{value:.4g}") for value in cloud.old],
        "new": [float(f"{value:.4g}") for value in cloud.new],
        "cuts": [cloud.threshold_old, cloud.threshold_new],
        "shares": shares,
        "expected": dict(cloud.expected),
    }
    parts = ", ".join(
        f"{name} {percent(share)} (expected {percent(cloud.expected[name])})" for name, share in shares.items()
    )
    yield state | {"message": f"Of {WEIGHTS:,} simulated weights: {parts}."}


class View:
    """The figure; its artists are kept and moved."""

    def __init__(self) -> None:
        self.figure, _ = blank(4.8, "simulated")
        ax = self.figure.subplots()
        ax.set(xlim=LIMITS[0], ylim=LIMITS[1])
        self.scatter = Scatter(ax, "median = 1", "which weights matter to which task")
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine(None)  # places are settled: the next pictures take less time

    def draw(self, state: State) -> Figure:
        """Show a state."""
        words = {
            name: f"{name}: {percent(share)}\n(expected {percent(state['expected'][name])})"
            for name, share in state["shares"].items()
        }
        self.scatter.draw(state["old"], state["new"], state["cuts"], words, LIMITS)
        return self.figure
