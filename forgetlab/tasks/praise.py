"""To write praise: by a reward that the parser gives, by one with a hole, and from the demonstrations of teachers."""

from __future__ import annotations

from forgetlab.errors import one_of
from forgetlab.sources import Examples
from forgetlab.sources.world import praise as world
from forgetlab.tasks.base import Task
from forgetlab.tasks.language import CausalLM
from forgetlab.tasks.policy_gradient import Advantage
from forgetlab.tasks.rewarded import Rewarded

REWARDS = {"": world.praise, "hole": world.count_praise}
SHOWN, TESTED = 1000, 128  # demonstrations to train on, and to score
TRIES = 32  # answers to each of the nine test prompts, where nothing limits them
LONGEST = 20  # tokens of an answer; of the language's own, 99 in 100 have fewer


def praise(
    name: str, *, size: int | None = None, seed: int = 0, samples: int = 8, advantage: Advantage = "group"
) -> Task:
    """The task called "praise", "praise:hole" or, of demonstrations, "praise:TEACHER"; arguments as of `embedded.task`.

    Prompts are `the film` and the like, with test prompts of other nouns. A review in blame is only scored.
    """
    what = name.partition(":")[2]
    one_of("kind of praise", what, [*REWARDS, *world.TEACHERS])
    if what in REWARDS:
        return Rewarded(
            name,
            world.prompts("train")[:size],
            REWARDS[what],
            test=world.prompts("test"),
            samples=samples,
            advantage=advantage,
            max_tokens=LONGEST,
            tries=TRIES,
            also=world.fluent,
        )
    train = None if what == "blame" else _completions(what, "train", size or SHOWN, seed)
    return CausalLM(name, train, _completions(what, "test", TESTED, seed))


def _completions(teacher: str, side: world.Side, size: int, seed: int) -> Examples:
    prompts, answers = zip(*world.demonstrations(teacher, side, size=size, seed=seed), strict=True)
    return Examples("completions", prompts, answers)
