"""A stream of tasks: what is left of all of them as it goes on, beside a model that learned them together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, partial
from statistics import fmean

from matplotlib.figure import Figure

from forgetlab import metrics
from forgetlab.experiments.sequences import run_joint, run_sequence
from forgetlab.labs.kit.base import Lab, Settings, State
from forgetlab.labs.kit.curves import Curves, Lines, Panel
from forgetlab.labs.kit.questions import REMEDIES, question
from forgetlab.labs.kit.quests import Quest
from forgetlab.labs.kit.runner import Driver
from forgetlab.labs.kit.shown import Change
from forgetlab.models.loading import load
from forgetlab.plots.style import number
from forgetlab.teaching import compat

TASKS = ("register", "place", "people", "sentences", "pronoun", "acceptability")
STEPS = 24  # of each task
PANELS = (
    Panel("each", "each task", "accuracy (share)", limits=(-0.03, 1.05)),
    Panel("average", "average over seen tasks", "accuracy (share)", limits=(-0.03, 1.05)),
    Panel("forgetting", "forgetting F", "accuracy lost"),
)

QUESTS = (
    Quest(
        "Six tasks in a row, forgetting no more than 0.05.",
        "Several remedies do it.",
        lambda runs: len(runs[-1]["names"]) == 6 and summary(runs[-1])["forgetting"][-1] <= 0.05,
        ({"length": 6, "method": "replay"},),
    ),
    Quest(
        "Four tasks as well as a model that learned all together (within 0.02).",
        "Hold the outputs.",
        lambda runs: (
            len(runs[-1]["names"]) >= 4 and summary(runs[-1])["average"][-1] >= summary(runs[-1])["joint"][-1] - 0.02
        ),
        ({"method": "lwf"},),
    ),
    Quest(
        "A remedy that forgets 0.2 all the same.",
        "The oldest pull knows no task from the other.",
        lambda runs: runs[-1]["method"] != "none" and summary(runs[-1])["forgetting"][-1] >= 0.2,
        ({"method": "l2sp"},),
    ),
)


def show(driver: Driver | None = None) -> Lab:
    """The lab as a widget: length of the stream, the method that protects the earlier tasks, seed."""
    model, task, curves = (
        cache(partial(load, "tiny-bert", device="cpu")),
        cache(question),
        cache(partial(Curves, PANELS)),
    )
    bounds: dict[tuple[int, int], list[float]] = {}  # of a joint model; the method plays no part in it

    def work(settings: Settings) -> Iterator[State]:
        names, seed = TASKS[: settings["length"]], settings["seed"]
        chain, remedy = [task(name) for name in names], REMEDIES[settings["method"]](seed)
        state: State = {"names": list(names), "method": settings["method"], "curve": [], "R": [], "joint": None}
        for record in run_sequence(model(), chain, remedy, steps=STEPS, seed=seed, every=STEPS // 2, limit=64):
            if record.record.status == "diverged":
                yield {**state, "message": f"Diverged: {record.record.message}."}
                return
            which = f"task {record.stage + 1} of {len(names)}, {names[record.stage]}"
            state = {
                **state,
                "curve": [*state["curve"], [record.step, *(round(score, 4) for score in record.scores)]],
                "R": [[round(score, 4) for score in row] for row in record.R],
                "progress": f"{which}: step {record.record.step} of {STEPS}, on {model().device.type}",
            }
            yield state
        if (settings["length"], seed) not in bounds:
            for one in run_joint(model(), chain, steps=STEPS, seed=seed, every=STEPS, limit=64):
                yield {**state, "progress": f"all together: step {one.step} of {STEPS * len(names)}"}
            bounds[settings["length"], seed] = [round(one.scores[name]["accuracy"], 4) for name in names]
        state["joint"] = bounds[settings["length"], seed]
        yield {**state, "message": sentence(state)}

    def draw(state: State, old: Sequence[State], settings: Settings, source: str) -> tuple[Figure, str]:
        earlier = [{k: v for k, v in lines(one).items() if k != "each"} for one in old]
        return curves().draw(lines(state), earlier, source), sentence(state)

    return Lab(
        "stream",
        work,
        draw,
        training={
            "length": compat.slider("tasks in the stream", 4, 2, len(TASKS), 1),
            "method": compat.choice("method", "none", tuple(REMEDIES)),
            "seed": compat.slider("seed", 0, 0, 9, 1),
        },
        head=head,
        intro="Small tasks come one after the other. Does a remedy that helped once help again and again?",
        driver=driver,
        quests=QUESTS,
    )


def summary(state: State) -> dict[str, list[float]]:
    """After each task: the mean accuracy over those seen, F (from the second on), the joint model on the same ones."""
    R = state["R"]
    return {
        "average": [fmean(row[: i + 1]) for i, row in enumerate(R)],
        "forgetting": [metrics.forgetting_measure([row[:k] for row in R[:k]]) for k in range(2, len(R) + 1)],
        "joint": [fmean(state["joint"][: i + 1]) for i in range(len(R))] if state["joint"] else [],
    }


def lines(state: State) -> Lines:
    """The curves of a state, all over the steps."""
    found, steps = summary(state), [row[0] for row in state["curve"]]
    ends = [STEPS * (i + 1) for i in range(len(state["R"]))]
    return {
        "each": {name: (steps, [row[j + 1] for row in state["curve"]]) for j, name in enumerate(state["names"])},
        "average": {"in turn": (ends, found["average"]), "all together": (ends[: len(found["joint"])], found["joint"])},
        "forgetting": {"in turn": (ends[1:], found["forgetting"])},
    }


def head(state: State, settings: Settings) -> list[Change]:
    """What is known after the last task: in turn, and all together."""
    found = summary(state)
    joint = f"all together: {number(found['joint'][-1], 'share')}" if found["joint"] else ""
    changes = [Change("accuracy over seen tasks", number(found["average"][-1], "share"), joint)] if state["R"] else []
    if found["forgetting"]:
        changes.append(Change("forgetting F", number(found["forgetting"][-1], "share")))
    return changes


def sentence(state: State) -> str:
    """The stream so far in words, for the alt text and the message."""
    if "message" in state and state["joint"] is None:
        return str(state["message"])
    found, learned = summary(state), len(state["R"])
    text = f"{learned} of {len(state['names'])} tasks learned (method: {state['method']})."
    if learned:
        text += f" Accuracy over the tasks seen: {', '.join(number(value, 'share') for value in found['average'])}."
    if learned > 1:
        text += f" Forgetting: {number(found['forgetting'][-1], 'share')}."
    if found["joint"]:
        text += f" A model that learned all together: {number(found['joint'][-1], 'share')}."
    return text
