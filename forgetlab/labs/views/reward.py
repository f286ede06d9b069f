"""The picture of "Two ways to teach": four panels of curves, and what the model writes along the run."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from textwrap import shorten

from matplotlib.figure import Figure

from forgetlab.labs.kit.benches import RunState, told
from forgetlab.labs.kit.curves import Curves, Lines, Panel
from forgetlab.labs.kit.settings import Settings
from forgetlab.labs.kit.shown import Change
from forgetlab.labs.kit.written import Answer
from forgetlab.labs.views.ask import table
from forgetlab.metrics.schema import PlainRecord
from forgetlab.plots.style import COLORS, FAINT, at_log, number
from forgetlab.teaching.page import BROAD, Place

ANSWERS, FAR, NEAR = "answers", "causal-lm:news", "praise:blame"  # tasks
PROMPTS = ("the music", "the story", "the play", "the poems")  # to choose from
PANELS = (
    Panel("reward", "reward", "mean", limits=(-0.03, 1.05)),
    Panel("perplexity", "perplexity", "× before", log=True),
    Panel("kl", "KL of the answers", "nats"),
    Panel("answers", "answers", "share", limits=(-0.03, 1.05)),
)
ROWS, COLUMNS = 6, 3  # of the table
BESIDE_ROWS, NARROW_COLUMNS = 3, 2  # beside the controls, and where there is less room
LONGEST = 60  # letters of an answer
NATS = (0, 0.5, 1, 3, 10, 30, 100, 300, 1000)  # numbers at the axis


class Rewards(RunState):
    """A run with the answers at each record to each prompt, {prompt: answers}. hole: whether its reward has one."""

    written: list[dict[str, list[Answer]]]
    hole: bool


class View:
    """A figure of its own for each lab."""

    def __init__(self) -> None:
        self._curves = Curves(PANELS, high=2.9, apart=True)
        self._kl = self._curves.axes("kl")  # one that is hacked goes a hundred times as far as others
        self._kl.set_yscale("symlog", linthresh=1)
        self._kl.set_yticks(NATS)
        self._kl.yaxis.set_major_formatter(at_log)

    def draw(self, state: Rewards, old: Sequence[Rewards], over: str, source: str) -> Figure:
        """The curves over the steps or, where runs are to be compared at an equal one, over the reward."""
        for panel in PANELS:
            self._curves.axes(panel.key).set_xlabel("step" if panel.key == "reward" else over)
        figure = self._curves.draw(lines(state, over), [lines(run, over) for run in old], source)
        self._kl.set_ylim(-0.1, max(1.1, 1.3 * self._kl.get_ylim()[1]))
        return figure


def lines(state: Rewards, over: str) -> Lines:
    """The curves of a run. What a diverged model scores means nothing."""
    records = [record for record in state["records"] if record["status"] != "diverged"]
    steps = [record["step"] for record in records]
    own = {name: [record["scores"][ANSWERS][name] for record in records] for name in records[0]["scores"][ANSWERS]}
    across = own["reward"] if over == "reward" else steps
    panels = {
        "reward": {"reward": own["reward"], **({"true praise": own["meant"]} if state["hole"] else {})},
        "perplexity": {label: times(records, name) for label, name in (("news", FAR), ("negative reviews", NEAR))},
        "kl": {"now ‖ before": own["now_before"], "before ‖ now": own["before_now"]},
        "answers": {"different": own["distinct"], "fluent": own["fluency"]},
    }
    return {
        panel: {label: (steps if panel == "reward" else across, y) for label, y in some.items()}
        for panel, some in panels.items()
    }


def times(records: Sequence[PlainRecord], task: str) -> list[float]:
    """A perplexity, each as a multiple of the first."""
    values = [record["scores"][task]["perplexity"] for record in records]
    return [value / values[0] for value in values]


def sentence(state: Rewards) -> str:
    """The run so far in words, for the alt text and the message."""
    first, last = state["records"][0], state["records"][-1]
    if last["status"] == "diverged":
        return told(state)
    old, new = (record["scores"][ANSWERS] for record in (first, last))

    def change(name: str) -> str:
        return f"{number(old[name], 'share')} → {number(new[name], 'share')}"

    true = f" (true praise {change('meant')})" if state["hole"] else ""
    far, near = (number(times([first, last], task)[1]) for task in (FAR, NEAR))
    return (
        f"After {last['step']} steps: reward {change('reward')}{true}. Perplexity of news ×{far}, of negative "
        f"reviews on the same things ×{near}. KL(now ‖ before) {number(new['now_before'])}, KL(before ‖ now) "
        f"{number(new['before_now'])} nats an answer. Different answers {change('distinct')}, fluent "
        f"sentences {change('fluency')}."
    )


def head(state: Rewards, settings: Settings) -> list[Change]:
    """The reward before and after, what it cost far and near, and how far the answers went."""
    first, last = state["records"][0], state["records"][-1]
    if last["status"] == "diverged":
        return []
    old, new = (record["scores"][ANSWERS] for record in (first, last))
    far, near = (number(times([first, last], task)[1]) for task in (FAR, NEAR))
    true = f"true praise {number(new['meant'], 'share')}" if state["hole"] else ""
    return [
        Change("reward", f"{number(old['reward'], 'share')} → {number(new['reward'], 'share')}", true),
        Change("news perplexity", f"×{far}"),
        Change("negative reviews", f"×{near}"),
        Change("KL(now ‖ before)", number(new["now_before"])),
    ]


def writings(state: Rewards, settings: Settings) -> str:
    """What the model writes after a prompt, before, along the run and now, as an HTML table.

    The draws are the same at each step, so that down a column one answer is seen to change.
    """
    place, prompt, last = settings.get("place", Place()), settings["prompt"], len(state["written"]) - 1
    less = 0 < place.across < BROAD
    count = 2 if less else BESIDE_ROWS if place.across else ROWS
    rows = []
    for i in sorted({round(last * share / (count - 1)) for share in range(count)}):
        step = state["records"][i]["step"]
        when = f"{step} (before)" if i == 0 else f"{step} (now)" if i == last else str(step)
        answers = state["written"][i][prompt][: NARROW_COLUMNS if place.narrow or less else COLUMNS]
        rows.append((when, *(_cell(answer, state["hole"]) for answer in answers)))
    heads = [f"answer {i}" for i in range(1, len(rows[0]))]
    return table(f"What it writes after “{prompt} …” (✓: true praise)", heads, rows, first=20 if place.narrow else 13)


def _cell(answer: Answer, hole: bool) -> str:
    text, reward, meant = answer
    mark, color = ("✓", COLORS[1]) if meant else ("✗", COLORS[0])
    paid = f' <span style="color:{FAINT}">({number(reward, "share")})</span>' if hole else ""
    return (
        f'<b style="color:{color}">{mark}</b> {escape(shorten(text, LONGEST, placeholder=" …")) or "(nothing)"}{paid}'
    )
