"""Simulated dynamics: one task is learned, another forgotten, by gradient descent on two quadratic valleys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from forgetlab.labs.kit.base import Lab, Settings, State
from forgetlab.labs.kit.figure import blank, dress
from forgetlab.labs.kit.instant import instant
from forgetlab.labs.kit.runner import Driver
from forgetlab.labs.kit.shown import Change
from forgetlab.plots.drawing import moves
from forgetlab.plots.style import COLORS, FAINT, INK, number
from forgetlab.simulators import two_tasks
from forgetlab.teaching import compat

STEPS = 100
FAR = 100.0  # a diverging path is cut here, far outside the picture
SCORES = (0.9, 0.5, 0.1)  # of the ellipses
OLD: Any = {"color": COLORS[0], "ls": "-"}
NEW: Any = {"color": COLORS[1], "ls": "--"}


def show(driver: Driver | None = None) -> Lab:
    """The lab as a widget: learning rate η, its decay, overlap of the tasks, pull λ. It computes at every move."""
    return instant(
        "dynamics",
        work,
        View,
        training={
            "rate": compat.log_slider("learning rate η", 0.1, 0.01, 10**0.5, per_decade=8, live=True),
            "decay": compat.slider("decay per step", 0.0, 0.0, 0.2, 0.01, live=True),
            "overlap": compat.slider("overlap", 0.5, 0.0, 1.0, 0.05, live=True),
            "lam": compat.slider("pull λ", 0.0, 0.0, 10.0, 0.25, live=True),
        },
        presets={
            "no pull": {"rate": 0.1, "decay": 0.0, "lam": 0.0},
            "λ = 1: joint training": {"rate": 0.1, "decay": 0.0, "lam": 1.0},
            "rate decays to nothing": {"rate": 0.1, "decay": 0.1, "lam": 0.0},
            "too fast": {"rate": 10**0.375, "decay": 0.0},
        },
        intro="Two weights, two tasks. A model at the best point of the old task is trained on the new one. "
        "The pull is that of EWC: λ times the old task's own curvature.",
        driver=driver,
        head=head,
    )


def work(settings: Settings) -> Iterator[State]:
    """One state: scores and weights at each step, the equilibrium and its scores, what the ellipses need."""
    run = two_tasks(**settings, steps=STEPS)
    state: State = {
        "steps": run.steps.tolist(),
        "score_old": run.score_old.round(4).tolist(),
        "score_new": run.score_new.round(4).tolist(),
        "path": run.path.clip(-FAR, FAR).round(4).tolist(),
        "optimum_old": run.optimum_old.tolist(),
        "optimum_new": run.optimum_new.tolist(),
        "hessian_old": run.hessian_old.tolist(),
        "hessian_new": run.hessian_new.tolist(),
        "equilibrium": run.equilibrium.round(4).tolist(),
        "equilibrium_old": round(float(np.exp(-run.equilibrium_loss_old)), 4),
        "equilibrium_new": round(float(np.exp(-run.equilibrium_loss_new)), 4),
        "stable_rate": round(run.stable_rate, 4),
        "diverges": run.diverges,
    }
    yield state | {"message": told(state, settings["rate"])}


def told(state: State, rate: float) -> str:
    """The run in words."""
    new, old = ([number(state[f"score_{task}"][step], "score") for step in (0, -1)] for task in ("new", "old"))
    scores = f"new task {new[0]} → {new[1]}, old task {old[0]} → {old[1]} after {STEPS} steps"
    stable = number(state["stable_rate"])
    if state["diverges"]:
        return f"Diverges: above the rate {stable} each step overshoots further, here it is {number(rate)}; {scores}."
    rest_new, rest_old = (number(state[f"equilibrium_{task}"], "score") for task in ("new", "old"))
    early = f" The first steps are above the stable rate {stable}." if rate > state["stable_rate"] else ""
    return f"Simulated: {scores}; equilibrium: new {rest_new}, old {rest_old}.{early}"


def head(state: State, settings: Settings) -> list[Change]:
    """Both scores before and after the run."""
    ends = {task: [number(state[f"score_{task}"][step], "score") for step in (0, -1)] for task in ("new", "old")}
    return [Change(f"score of the {task} task", " → ".join(both)) for task, both in ends.items()]


class View:
    """The figure: scores over the steps, and the weights' path over both valleys. Its artists are kept and moved."""

    def __init__(self) -> None:
        self.figure, _ = blank(4.0, "simulated")
        curves, valleys = self.figure.subplots(1, 2)
        for ax, title, across, up in (
            (curves, "learning and forgetting", "step", "score exp(−loss)"),
            (valleys, "path on the two valleys", "weight 1", "weight 2"),
        ):
            dress(ax, title, across, up)
        curves.set(xlim=(-3, STEPS + 3), ylim=(-0.03, 1.05))
        curves.grid(color="#e4e4e4", lw=0.8)
        valleys.set(xlim=(-0.8, 3), ylim=(-0.8, 3), xticks=range(4), yticks=range(4), aspect="equal")
        mark: Any = {"lw": 2, "ms": 6, "markevery": 20}
        (self.old,) = curves.plot([], [], marker="o", label="old task", **OLD, **mark)
        (self.new,) = curves.plot([], [], marker="s", label="new task", **NEW, **mark)
        (self.rest_old,) = curves.plot([], [], lw=1.2, color=OLD["color"], ls=":")
        (self.rest_new,) = curves.plot([], [], lw=1.2, color=NEW["color"], ls=":")
        self.warning = curves.text(
            0.5, 0.5, "", fontsize=13, weight="bold", color=INK, ha="center", transform=curves.transAxes
        )
        self.rings = [[valleys.plot([], [], lw=1.3, **look)[0] for _ in SCORES] for look in (OLD, NEW)]
        (self.path,) = valleys.plot([], [], "-", marker=".", ms=4, lw=1.5, color=INK, label="path of the weights")
        (self.start,) = valleys.plot([], [], "o", ms=8, color=OLD["color"])
        (self.goal,) = valleys.plot([], [], "s", ms=8, color=NEW["color"])
        (self.rest,) = valleys.plot([], [], "x", ms=11, mew=2.5, color=COLORS[3], label="equilibrium")
        moves(self.old, self.new, self.rest_old, self.rest_new, self.warning, *self.rings[0], *self.rings[1])
        moves(self.path, self.start, self.goal, self.rest)
        style: Any = {"fontsize": 11, "labelcolor": INK, "frameon": False, "ncols": 2, "title_fontsize": 11}
        words = f"dotted: equilibrium scores; rings: scores {', '.join(map(str, SCORES))}"
        self.figure.legend(loc="outside lower center", title=words, **style).get_title().set_color(FAINT)
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine(None)  # places are settled: the next pictures take less time

    def draw(self, state: State) -> Figure:
        """Show a state."""
        self.old.set_data(state["steps"], state["score_old"])
        self.new.set_data(state["steps"], state["score_new"])
        self.rest_old.set_data([0, STEPS], [state["equilibrium_old"]] * 2)
        self.rest_new.set_data([0, STEPS], [state["equilibrium_new"]] * 2)
        self.warning.set_text("diverges" if state["diverges"] else "")
        for task, rings in zip(("old", "new"), self.rings, strict=True):
            for score, ring in zip(SCORES, rings, strict=True):
                ring.set_data(*ellipse(state[f"hessian_{task}"], state[f"optimum_{task}"], -np.log(score)))
        self.path.set_data(*np.asarray(state["path"], float).T)
        for dot, name in ((self.start, "optimum_old"), (self.goal, "optimum_new"), (self.rest, "equilibrium")):
            dot.set_data(*([x] for x in state[name]))
        return self.figure


def ellipse(hessian: Sequence[Sequence[float]], optimum: Sequence[float], loss: float) -> np.ndarray:
    """(2, 100) points where ½(θ − o)ᵀH(θ − o) is `loss`: half axes √(2·loss/m) along the eigenvectors."""
    m, V = np.linalg.eigh(np.asarray(hessian))
    turn = np.linspace(0, 2 * np.pi, 100)
    axes = np.sqrt(2 * loss / m)[:, None] * [np.cos(turn), np.sin(turn)]
    return np.asarray(optimum)[:, None] + V @ axes
