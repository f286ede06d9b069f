"""Two ways to teach: demonstrations and rewards. What each costs, and what becomes of a reward with a hole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache

from forgetlab.experiments.recipes import Recipe
from forgetlab.labs.kit.base import Lab, Settings
from forgetlab.labs.kit.benches import Benches, states
from forgetlab.labs.kit.quests import Quest, times
from forgetlab.labs.kit.runner import Driver
from forgetlab.labs.kit.shown import within
from forgetlab.labs.kit.written import Written
from forgetlab.labs.views.ask import card
from forgetlab.labs.views.reward import ANSWERS, COLUMNS, FAR, NEAR, PROMPTS, Rewards, View, head, sentence, writings
from forgetlab.models.model import Model
from forgetlab.tasks import CausalLM, Task
from forgetlab.tasks.embedded import task
from forgetlab.tasks.policy_gradient import Advantage
from forgetlab.tasks.rewarded import Rewarded, filtered
from forgetlab.teaching import compat

DEMONSTRATIONS = {
    "demos like the language": "praise:like",
    "demos of one phrase": "praise:narrow",
    "demos in strange words": "praise:strange",
}
ADVANTAGES: dict[str, Advantage] = {"reward: GRPO": "group", "reward: RLOO": "leave-one-out"}
OWN_BEST = "reward: own best answers"
TEACHERS = (*DEMONSTRATIONS, *ADVANTAGES, OWN_BEST)
LIKE, GRPO = TEACHERS[0], "reward: GRPO"
SOUND, HOLE = "sound", "with a hole"
REWARDS = {SOUND: "praise", HOLE: "praise:hole"}
DIRECTIONS = {"now ‖ before": "reverse", "before ‖ now": "forward"}
PROMPTS_A_STEP, BEST, OVER = 8, 256, 0.3  # prompts of a step; own answers that are trained on, with more reward

QUESTS = (
    Quest(
        "Reward 0.85 with news at most 1.1 times as hard.",
        "Anchor it a little, or train on the best answers.",
        lambda runs: runs[-1]["records"][-1]["scores"][ANSWERS]["reward"] >= 0.85 and times(runs[-1], 1) <= 1.1,
        ({"beta": 0.3},),
    ),
    Quest(
        "Be hacked: reward above 0.9, true praise below 0.2.",
        "A reward with a hole, and nothing that holds.",
        lambda runs: (
            runs[-1]["records"][-1]["scores"][ANSWERS]["reward"] > 0.9
            and runs[-1]["records"][-1]["scores"][ANSWERS]["meant"] < 0.2
        ),
        ({"reward": HOLE},),
    ),
    Quest(
        "With demonstrations: reward 0.9, negative reviews at most three times as hard.",
        "Demos like the language.",
        lambda runs: (
            runs[-1]["settings"]["teacher"] in DEMONSTRATIONS
            and runs[-1]["records"][-1]["scores"][ANSWERS]["reward"] >= 0.9
            and times(runs[-1], 2) <= 3
        ),
        ({"teacher": LIKE, "steps": 100},),
    ),
)


def show(driver: Driver | None = None) -> Lab[Rewards]:
    """The lab as a widget: teacher, reward, learning rate, steps, β, its direction, answers to a prompt, seed.

    View: the prompt whose answers are listed, and what the curves are drawn over.
    """
    benches, named, view = Benches(), cache(task), cache(View)

    def work(settings: Settings) -> Iterator[Rewards]:
        made = recipe(settings)
        bench = benches.bench(made)  # one for all teachers
        bench.model.restore()
        judge, meant = (named(REWARDS[reward]) for reward in (settings["reward"], SOUND))
        assert isinstance(judge, Rewarded)
        assert isinstance(meant, Rewarded)
        written = Written(ANSWERS, judge, meant, bench.model)
        new = lessons(settings, judge, bench.model, named)
        for run in states(replace(bench, new=new, watch=[*bench.watch, written]), made):
            shown = [{prompt: row[prompt][:COLUMNS] for prompt in PROMPTS} for row in written.texts]
            state: Rewards = {**run, "written": shown, "hole": settings["reward"] == HOLE}
            yield {**state, "message": sentence(state)} if "message" in run else state

    def draw(state: Rewards, old: Sequence[Rewards], settings: Settings, source: str) -> tuple[str, str]:
        figure = view().draw(state, old, settings["over"], source)
        said = sentence(state)
        return card("", within(figure, said, settings, 0.66) + writings(state, settings)), said

    return Lab(
        "reward",
        work,
        draw,
        training={
            "teacher": compat.choice("teacher", GRPO, TEACHERS),
            "reward": compat.choice("reward", SOUND, tuple(REWARDS)),
            "direction": compat.choice("β holds KL", "now ‖ before", tuple(DIRECTIONS)),
            "lr": compat.log_slider("learning rate", 1e-3, 1e-5, 1e-2),
            "steps": compat.slider("steps", 40, 10, 120, 10),
            "samples": compat.slider("answers each", 8, 2, 16, 2),
            "beta": compat.slider("β", 0.0, 0.0, 1.0, 0.05),
            "seed": compat.slider("seed", 0, 0, 9, 1),
        },
        view={
            "over": compat.choice("curves over", "step", ("step", "reward")),
            "prompt": compat.choice("prompt", PROMPTS[0], PROMPTS),
        },
        presets={
            "demonstrations": {"teacher": LIKE, "reward": SOUND, "beta": 0.0, "steps": 100},
            "rewards": {"teacher": GRPO, "reward": SOUND, "beta": 0.0, "steps": 40},
            "anchored": {"teacher": GRPO, "reward": SOUND, "beta": 0.3, "steps": 40},
            "hacked": {"teacher": GRPO, "reward": HOLE, "beta": 0.0, "steps": 40},
            "hole, anchored": {"teacher": GRPO, "reward": HOLE, "beta": 1.0, "steps": 40},
        },
        head=head,
        intro="A tiny GPT is to praise: “the music …” shall become a positive review. It sees demonstrations, or a "
        "program rewards its own answers. What does each way cost it?",
        driver=driver,
        quests=QUESTS,
    )


def recipe(settings: Settings) -> Recipe:
    """The run that the controls describe, but for its new task, which hangs on the teacher."""
    beta = settings["beta"]
    return Recipe(
        model="tiny-gpt",
        new=REWARDS[SOUND],
        watch=(FAR, NEAR),
        methods=f"kl-anchor:beta={beta:g},direction={DIRECTIONS[settings['direction']]}" if beta else "none",
        steps=settings["steps"],
        lr=settings["lr"],
        seed=settings["seed"],
        batch_size=PROMPTS_A_STEP if settings["teacher"] in ADVANTAGES else PROMPTS_A_STEP * settings["samples"],
        every=settings["steps"] // 10,
        limit=64,
    )


def lessons(settings: Settings, judge: Rewarded, model: Model, named: Callable[..., Task]) -> Task:
    """What a teacher gives to learn from: demonstrations, the model's own best answers, or a reward for each.

    named: makes a task by its name.
    """
    teacher = settings["teacher"]
    if teacher in DEMONSTRATIONS:
        return named(DEMONSTRATIONS[teacher])
    if teacher == OWN_BEST:
        own = filtered(judge, model, BEST, settings["seed"], over=OVER)
        return CausalLM("own best answers", own, own)
    return named(judge.name, samples=settings["samples"], advantage=ADVANTAGES[teacher])
