"""The transfer matrix: three tasks learned in turn, every score after every task, and what is read from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, partial

from matplotlib.figure import Figure

from forgetlab import metrics
from forgetlab.experiments.sequences import SequenceRecord, run_sequence
from forgetlab.labs.kit.base import Lab, Settings, State
from forgetlab.labs.kit.questions import REMEDIES, question
from forgetlab.labs.kit.quests import Quest
from forgetlab.labs.kit.runner import Driver
from forgetlab.labs.kit.shown import Change
from forgetlab.labs.views.matrix import View
from forgetlab.models.loading import load
from forgetlab.plots.style import number
from forgetlab.teaching import compat

ORDERS = {
    "register → place → people": ("register", "place", "people"),
    "people → place → register": ("people", "place", "register"),
    "long → short → people": ("acceptability, long", "acceptability, short", "people"),
}

BEST_LATER = {"order": "long → short → people", "method": "none"}
QUESTS = (
    Quest(
        "Keep the first task at 0.9 or better to the end.",
        "A method, and fewer steps for each task.",
        lambda runs: runs[-1]["R"][-1][0] >= 0.9,
        ({"method": "replay", "steps": 10},),
    ),
    Quest(
        "Make F and −BWT differ by 0.01 or more.",
        "A task must be best after a later one: two alike in a row.",
        lambda runs: (m := runs[-1]["measures"]) and m["F"] + m["BWT"] >= 0.01,
        (BEST_LATER,),
    ),
)


def show(driver: Driver | None = None) -> Lab:
    """The lab as a widget: order of the tasks, steps for each, a method that protects the earlier ones, seed."""
    model, task, view = cache(partial(load, "tiny-bert", device="cpu")), cache(question), cache(View)

    def work(settings: Settings) -> Iterator[State]:
        names, steps, curve = ORDERS[settings["order"]], settings["steps"], list[list[float]]()
        seed = settings["seed"]
        remedy = REMEDIES[settings["method"]](seed)
        chain = [task(name) for name in names]
        for record in run_sequence(model(), chain, remedy, steps=steps, seed=seed, every=max(1, steps // 6), limit=96):
            curve.append([record.step, *(round(score, 4) for score in record.scores)])
            state = told(record, names, steps, list(curve))
            yield {**state, "progress": f"{state['progress']}, on {model().device.type}"}

    def draw(state: State, old: Sequence[State], settings: Settings, source: str) -> tuple[Figure, str]:
        alike = [one for one in old if one["names"] == state["names"]]
        return view().draw(state, alike, source), sentence(state)

    return Lab(
        "matrix",
        work,
        draw,
        training={
            "order": compat.choice("order of tasks", next(iter(ORDERS)), tuple(ORDERS)),
            "steps": compat.slider("steps per task", 30, 10, 60, 10),
            "method": compat.choice("method", "none", ("none", "replay", "ewc")),
            "seed": compat.slider("seed", 0, 0, 9, 1),
        },
        head=lambda state, _: [
            Change(name, number(value, "share")) for name, value in (state["measures"] or {}).items()
        ],
        presets={"BWT and F differ": BEST_LATER},
        intro="One tiny BERT learns three small tasks in turn. What is left of each after the next?",
        driver=driver,
        quests=QUESTS,
    )


def told(record: SequenceRecord, names: Sequence[str], steps: int, curve: list[list[float]]) -> State:
    """A sequence so far as plain values; the four numbers once R is complete."""
    state: State = {
        "names": list(names),
        "steps": steps,
        "start": [round(score, 4) for score in record.baseline],
        "R": [[round(score, 4) for score in row] for row in record.R],
        "curve": curve,
        "measures": None,
        "progress": f"{names[record.stage]}: step {record.record.step} of {steps}",
    }
    if record.record.status == "diverged":
        return {**state, "curve": curve[:-1], "message": f"Diverged: {record.record.message}."}
    if len(record.R) == len(names):
        state["measures"] = {
            "ACC": metrics.average_accuracy(state["R"]),
            "BWT": metrics.backward_transfer(state["R"]),
            "FWT": metrics.forward_transfer(state["R"], state["start"]),
            "F": metrics.forgetting_measure(state["R"]),
        }
        state["message"] = sentence(state)
    return state


def sentence(state: State) -> str:
    """The matrix in words, for the alt text and the message."""
    R, names = state["R"], state["names"]
    if "message" in state and not state["measures"]:
        return str(state["message"])
    if not state["measures"]:
        return f"{len(R)} of {len(names)} tasks learned so far."
    rows = "; ".join(f"{n} {number(R[i][i], 's')} → {number(R[-1][i], 's')}" for i, n in enumerate(names[:-1]))
    four = ", ".join(f"{name} {number(value, 's')}" for name, value in state["measures"].items())
    text = f"From when each was learned to the end: {rows}. {four}."
    best = [max(range(len(R) - 1), key=lambda i, j=j: R[i][j]) for j in range(len(R) - 1)]  # type: ignore[misc]
    later = [f"{names[j]} was best after {names[i]} ({number(R[i][j], 's')})" for j, i in enumerate(best) if i > j]
    return text + (f" F is not −BWT: {' and '.join(later)}." if later else "")
