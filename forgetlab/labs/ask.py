"""Ask the model: a sentence of your own, answered by the model as it was before the fine-tune and as it is after."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from html import escape
from threading import Lock
from typing import Any

from forgetlab.errors import ForgetlabError
from forgetlab.experiments.recipes import Recipe
from forgetlab.labs.kit.base import Lab, Settings
from forgetlab.labs.kit.benches import Benches, RunState, head
from forgetlab.labs.kit.quests import Quest, achieved, last, times
from forgetlab.labs.kit.runner import Driver
from forgetlab.labs.views.ask import Answers, card, page, told
from forgetlab.models import asking
from forgetlab.models.model import Model
from forgetlab.teaching import compat

SENTENCE = "anna flew to [MASK] ."  # its answers are kept with the results
LEARNS = {"tiny-bert": ("sentiment", ("masked-lm", "entities")), "tiny-gpt": ("causal-lm:notices", ("causal-lm",))}
HEADS = {"tiny-bert": ("entities", "sentiment"), "tiny-gpt": ()}
WHEN = ("before", "after")
KEPT = "These are kept answers to a sentence of ours; yours is answered once the model is trained here (Train)"


class Asked(RunState):
    """A run with the answers to SENTENCE."""

    answers: Answers


class Copies:
    """A model as it was before a run and as it is now, apart from the one that trains: to ask disturbs nothing."""

    def __init__(self) -> None:
        self._turn = Lock()  # a page may ask while a run goes on
        self._models: dict[str, Model] = {}
        self._of: tuple[Settings, int] | None = None

    def keep(self, model: Model, settings: Settings, step: int) -> None:
        """Take the model's weights at a step of the run with these settings."""
        with self._turn:
            self._of = None  # until they are whole
            if step == 0:
                self._models = {when: deepcopy(model) for when in WHEN}
            else:
                self._models["after"].load_state_dict(model.state_dict())
            self._of = (dict(settings), step)

    def are_of(self, settings: Settings, step: int) -> bool:
        """Whether the copies are of this run and step."""
        return self._of == (settings, step)

    def answers(self, text: str, settings: Settings, step: int) -> Answers | None:
        """{"before": what `asking.answer` gives, "after": the same, or {"refused": why} where the run diverged}.

        None where the copies are of another run or step.
        """
        asked: dict[str, Any] = {"seed": settings["seed"], "heads": HEADS[settings["model"]]}
        with self._turn:
            if not self.are_of(settings, step):
                return None
            before = asking.answer(self._models["before"], text, **asked)
            try:
                after = asking.answer(self._models["after"], text, **asked)
            except ForgetlabError as error:
                after = {"refused": str(error)}
        return {"before": before, "after": after}


class Ask(Lab[Asked]):
    """A lab that trains where no trained model is there to answer a sentence. answered(text, lab): whether one is."""

    def __init__(self, answered: Callable[[str, Lab[Asked]], bool], *arguments: Any, **options: Any) -> None:
        self._answered = answered
        super().__init__(*arguments, **options)

    def _on_view(self, change: Any) -> None:
        super()._on_view(change)
        try:
            text = asking.checked(change["new"])
        except ForgetlabError as error:
            if self.state is None:  # else the picture says it
                self._notice.say(f"No answer: {error}.")
            return
        if not self._runner.running and not self._answered(text, self):
            self._guarded(self.train)


QUESTS = (
    Quest(
        "Learn sentiment to 0.8 while “anna” is still tagged as a name.",
        "A rate three times slower.",
        lambda runs: (
            "heads" in (after := runs[-1]["answers"]["after"])
            and bool(after["heads"])
            and after["heads"]["entities"][0][0][0] != "O"
            and achieved(runs[-1], 0.8)
        ),
        ({"lr": 10**-3.5},),
    ),
    Quest(
        "tiny-gpt: legal notices below a perplexity of 5, the old language at most three times as high.",
        "Take the other model, and a slower rate.",
        lambda runs: (
            runs[-1]["tasks"][1]["name"] == "causal-lm"
            and last(runs[-1], 0, "perplexity") < 5
            and times(runs[-1], 1) <= 3
        ),
        ({"model": "tiny-gpt", "lr": 10**-3.5},),
    ),
)


def show(driver: Driver | None = None) -> Ask:
    """The lab as a widget: model, learning rate, steps, seed; view: a sentence."""
    benches, copies = Benches(), Copies()

    def work(settings: Settings) -> Iterator[Asked]:
        made = recipe(settings)
        for run in benches.run(made):
            copies.keep(benches.bench(made).model, settings, last_step(run))
            answers = copies.answers(SENTENCE, settings, last_step(run))
            assert answers is not None
            yield {**run, "answers": answers}

    def draw(state: Asked, old: Sequence[Asked], settings: Settings, source: str) -> tuple[str, str]:
        asked = {name: value for name, value in settings.items() if name not in ("text", "place")}
        try:
            text = asking.checked(settings["text"])
            mine = None if text == SENTENCE else copies.answers(text, asked, last_step(state))
            answers = mine or state["answers"]
        except ForgetlabError as error:
            return card(source, f"<b>No answer:</b> {escape(str(error))}."), f"No answer: {error}."
        note = "" if mine or text == SENTENCE else KEPT
        both = (text if mine else SENTENCE, answers["before"], answers["after"], last_step(state))
        return card("live" if mine else source, page(*both, note)), told(*both)  # the model of this session answers

    def answered(text: str, lab: Lab[Asked]) -> bool:
        """Whether the picture can answer a sentence: ours, or any where the trained model is there."""
        return lab.state is not None and (text == SENTENCE or copies.are_of(lab.settings(), last_step(lab.state)))

    return Ask(
        answered,
        "ask",
        work,
        draw,
        training={
            "model": compat.choice("model", "tiny-bert", list(LEARNS)),
            "lr": compat.log_slider("learning rate η", 1e-3, 1e-5, 1e-1),
            "steps": compat.slider("steps", 100, 20, 200, 20),
            "seed": compat.slider("seed", 0, 0, 9, 1),
        },
        head=head,
        view={"text": compat.text("sentence", SENTENCE)},
        intro="tiny-bert learns sentiment, tiny-gpt legal notices. Type a sentence of their small world, press Enter: "
        "what did they answer before, what now? [MASK] is a gap; tiny-gpt writes on from it. Try also: "
        "paris loved the [MASK] . – the play was not bad . – if the lender",
        driver=driver,
        quests=QUESTS,
    )


def recipe(settings: Settings) -> Recipe:
    """The run that the controls describe."""
    new, watch = LEARNS[settings["model"]]
    return Recipe(
        model=settings["model"],
        new=new,
        watch=watch,
        lr=settings["lr"],
        steps=settings["steps"],
        seed=settings["seed"],
        batch_size=32 if settings["model"] == "tiny-bert" else 16,
        every=10,
        limit=128,
    )


def last_step(state: RunState) -> int:
    """How many steps the model of a state has made."""
    return int(state["records"][-1]["step"])
