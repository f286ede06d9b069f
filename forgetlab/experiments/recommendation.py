"""What to choose among the dots of `frontier.dots`, and what each remedy does against none, with the evidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forgetlab.experiments.frontier import Dot, Share, best_within, mean, spread, values
from forgetlab.experiments.recipe import called
from forgetlab.metrics.retention import pareto
from forgetlab.metrics.schema import Verdict
from forgetlab.metrics.uncertainty import Difference, difference

HARDLY = 0.1  # a share learned below this is next to nothing
LEARNS = 0.5  # of what the best one learns: what learns less is not advised
LITTLE = 0.4  # by the best one: said
NEAR = 0.02  # this far below the line is named too
NAMED = 3  # rivals in one line
SHARES: tuple[Share, ...] = ("balance", "kept", "new")


def recommend(
    dots: Sequence[Dot],
    keep: float,
    *,
    watched: bool = True,
    to_lose: bool = True,
    searched: bool = False,
    untried: Sequence[str] = (),
) -> list[str]:
    """What to choose, each line a sentence or two.

    keep: the share of the old scores that is to stay, 0 to 1. watched: whether any old task was; to_lose: whether one
    of them is known better than by guessing. searched: whether the strengths were chosen on the first seed.
    Two methods differ where the interval of their paired differences (seeds and test items) leaves 0 out.
    """
    if not watched:
        return ["Nothing was watched: there is no telling what is forgotten. Name something with --watch."]
    if not to_lose:
        return [
            "No watched task has anything to lose: each starts within its error of guessing, or below. Watch what the "
            "model knows; one of your own may have been trained for too few steps."
        ]
    sound = [dot for dot in dots if dot["kept"]]
    if not sound:
        return ["Every run diverged: try a lower --lr."]
    if (gain := max(mean(dot, "new") for dot in sound)) < HARDLY:
        return [f"Nothing learns the new task here ({gain:.2f} of it at most): try more --steps or another --lr first."]
    plain = next((dot for dot in sound if dot["spec"] == "none"), None)
    most = max(len(dot["kept"]) for dot in sound)
    if plain and len(sound) == 1:
        what = "keeps enough" if mean(plain, "kept") >= keep else f"keeps less than {_percent(keep)} of the old scores"
        lines = [f"Plain fine-tuning {what} ({evidence(plain)})."]
        lines[0] += " No remedy was tried: compare --methods none,ewc,replay does."
    else:
        best = pick(sound, keep)
        assert best is not None
        lines = [*_first(sound, best, keep), *_others(sound, best, plain), *_against_plain(dots, plain, best, keep)]
        if untried:
            lines.append(f"Not tried: {', '.join(untried)}. --methods all --budget 30m gives each its turn.")
    if gain < LITTLE:
        lines.append(
            f"Little is learned by any ({gain:.2f} of it at most): more --steps or another --lr may tell more."
        )
    if most == 1:
        lines.append("One seed only: a difference may be luck; --seeds 3 tells.")
    elif searched:
        lines.append("The strengths were chosen on seed 0 alone, so that its scores flatter them a little.")
    return lines


def pick(dots: Sequence[Dot], keep: float) -> Dot | None:
    """Of the dots that learn and keep enough, the one that learns most; where none does, the one that keeps most.

    One seed may be lucky: such a dot is picked only where none that ran at all seeds keeps enough.
    """
    able = learners(dots)
    most = max((len(dot["kept"]) for dot in able), default=0)
    enough = best_within([dot for dot in able if len(dot["kept"]) == most], 1 - keep) or best_within(able, 1 - keep)
    return enough or max(able, key=lambda dot: (mean(dot, "kept"), mean(dot, "new")), default=None)


def choice(dots: Sequence[Dot], keep: float, *, watched: bool = True, to_lose: bool = True) -> Dot | None:
    """The dot that `recommend` names first; None where it can say nothing. One that stands alone is the choice."""
    sound = [dot for dot in dots if dot["kept"]]
    if len(dots) == 1:
        return next(iter(sound), None)
    if not (watched and to_lose and sound) or max(mean(dot, "new") for dot in sound) < HARDLY:
        return None
    return pick(sound, keep)


def learners(dots: Sequence[Dot]) -> list[Dot]:
    """The dots that learn at least half of what the best one learns."""
    sound = [dot for dot in dots if dot["kept"]]
    return [dot for dot in sound if mean(dot, "new") >= LEARNS * max(mean(other, "new") for other in sound)]


def evidence(dot: Dot) -> str:
    """A dot in words, such as "keeps 98 ±1/2 %, learns 0.96 ±0.01/0.02 of the new task; 3 seeds".

    After ±: the standard deviation over seeds / the standard error that comes from the choice of the test items.
    """
    kept = f"{100 * mean(dot, 'kept'):.0f}{doubt(spread(dot, 'kept'), _error(dot, 'kept'), '.0f', 100)}"
    new = f"{mean(dot, 'new'):.2f}{doubt(spread(dot, 'new'), _error(dot, 'new'))}"
    seeds = f"{n} seeds" if (n := len(dot["kept"])) > 1 else "one seed"
    lost = f", {dot['diverged']} more diverged" if dot["diverged"] else ""
    return f"keeps {kept} %, learns {new} of the new task; {seeds}{lost}"


def doubt(spread: float | None, error: float | None, form: str = ".2f", times: float = 1) -> str:
    """ " ±spread/error" of seeds and of test items, "–" for one that is not known; "" where neither is.

    >>> doubt(0.02, 0.011), doubt(0.02, None), doubt(None, 0.01)
    (' ±0.02/0.01', ' ±0.02', ' ±–/0.01')
    """
    if error is None:
        return "" if spread is None else f" ±{times * spread:{form}}"
    return f" ±{'–' if spread is None else f'{times * spread:{form}}'}/{times * error:{form}}"


def versus(a: Dot, b: Dot, key: Share) -> Difference | None:
    """How much more a keeps ("kept"), learns ("new") or does of both on the mean ("balance") than b.

    Over the seeds that both have, in pairs, with the error of the test items; None where they have none in common.
    """
    seeds = [seed for seed in _seeds(a) if seed in _seeds(b)]
    if not seeds:
        return None
    apart = [values(a, key)[_seeds(a).index(s)] - values(b, key)[_seeds(b).index(s)] for s in seeds]
    return difference(apart, _item_error([(a, 1.0), (b, -1.0)], seeds, key))


def verdicts(dots: Sequence[Dot]) -> list[Verdict]:
    """Each remedy against plain fine-tuning, over the same seeds, with 95 % intervals; empty without plain fine-tuning.

    The balance decides the verdict: helps, harms or cannot be told.
    """
    plain = next((dot for dot in dots if dot["spec"] == "none" and dot["kept"]), None)
    found = []
    for dot in dots:
        if plain and dot is not plain and (balance := versus(dot, plain, "balance")):
            both, kept, new = (_ends(versus(dot, plain, key)) for key in SHARES)
            found.append(Verdict(methods=dot["spec"], verdict=balance.word, balance=both, kept=kept, new=new))
    return found


def _ends(apart: Difference | None) -> list[float | None]:
    assert apart is not None  # there are seeds in common
    return [round(end, 4) if abs(end) < 2 else None for end in (apart.mean, apart.low, apart.high)]


def _first(sound: Sequence[Dot], best: Dot, keep: float) -> list[str]:
    """The advice, its rivals, what just misses the line, and what keeps enough by not learning."""
    aim, able = f"≥ {_percent(keep)} of the old scores", learners(sound)
    enough = [dot for dot in able if mean(dot, "kept") >= keep]
    if enough:
        lines = [f"To keep {aim}: {called(best['spec'])} ({evidence(best)})."]
        if _about(best, keep):
            lines[0] += f" That it keeps {_percent(keep)} cannot be told from a little less."
        close = [dot for dot in enough if dot is not best and _same(best, dot, "new")]
    else:
        lines = [f"Nothing that learns keeps {aim}: {called(best['spec'])} comes nearest ({evidence(best)})."]
        close = [dot for dot in able if dot is not best and _same(best, dot, "kept")]
    if close:
        lines.append(f"It cannot be told from that: {_list(close)}.")
    below = [dot for dot in able if dot is not best and dot not in close and mean(dot, "kept") < keep]
    if near := [dot for dot in below if mean(dot, "kept") >= keep - NEAR or _about(dot, keep)]:
        lines.append(f"Just below {_percent(keep)}: {_list(near)}.")
    if idle := [dot for dot in sound if dot not in able and mean(dot, "kept") >= keep]:
        lines.append(f"Keeps enough by learning little: {_list(idle)}.")
    return lines


def _others(sound: Sequence[Dot], best: Dot, plain: Dot | None) -> list[str]:
    """The other ends of the front: what learns most, and plain fine-tuning to compare with."""
    front = [sound[i] for i in pareto([(mean(dot, "kept"), mean(dot, "new")) for dot in sound])]
    lines = []
    balanced = max(front, key=lambda dot: mean(dot, "balance"))
    most = max(front, key=lambda dot: mean(dot, "new"))
    if balanced is not best and mean(balanced, "new") > mean(best, "new"):
        lines.append(f"The best balance of both: {called(balanced['spec'])} ({evidence(balanced)}).")
    if most is not best and most is not balanced and most is not plain:
        lines.append(f"To learn the most: {called(most['spec'])} ({evidence(most)}).")
    if plain and plain is not best and plain is not balanced:
        lines.append(f"Plain fine-tuning: {evidence(plain)}.")
    return lines


def _against_plain(dots: Sequence[Dot], plain: Dot | None, best: Dot, keep: float) -> list[str]:
    """The verdicts in a line, and whether a remedy is needed at all."""
    found = verdicts(dots)
    if not plain or not found:
        return []
    told = "; ".join(map(_spoken, sorted(found, key=lambda row: -(row["balance"][0] or 0.0))))
    lines = [f"Against plain fine-tuning on the same seeds (mean of both shares, 95 % interval): {told}."]
    if mean(plain, "kept") >= keep and (best is plain or _same(best, plain, "new")):
        lines.append("No remedy is needed here: plain fine-tuning keeps enough, and none is known to learn more.")
    elif all(row["verdict"] != "helps" for row in found):
        lines.append("No remedy that was tried is known to beat plain fine-tuning here.")
    return lines


def _spoken(row: Verdict) -> str:
    middle, low, high = row["balance"]
    ends = "" if low is None or high is None else f" ({low:+.2f} to {high:+.2f})"
    told = f"{row['methods']} {row['verdict']}, {middle:+.2f}{ends}".replace("-0.00", "0.00")
    return told.replace(" -", " −").replace("(-", "(−")


def _list(dots: Sequence[Dot]) -> str:
    best = sorted(dots, key=lambda dot: -mean(dot, "new"))
    more = f"; and {len(best) - NAMED} more" if len(best) > NAMED else ""
    return "; ".join(f"{called(dot['spec'])} ({evidence(dot)})" for dot in best[:NAMED]) + more


def _about(dot: Dot, keep: float) -> bool:
    """Whether what a dot keeps cannot be told from `keep`."""
    if len(dot["kept"]) == 1 and _error(dot, "kept") is None:
        return False  # nothing is known of its doubt
    return difference([v - keep for v in dot["kept"]], _error(dot, "kept") or 0.0).word == "cannot be told"


def _same(a: Dot, b: Dot, key: Share) -> bool:
    """Whether two dots cannot be told apart."""
    return (apart := versus(a, b, key)) is None or apart.word == "cannot be told"


def _seeds(dot: Dot) -> list[int]:
    return dot.get("seeds") or list(range(len(dot["kept"])))


def _error(dot: Dot, key: Share) -> float | None:
    """The standard error of a dot's mean that comes from the choice of the test items; None where it is not known."""
    return _item_error([(dot, 1.0)], _seeds(dot), key) if dot.get("drawn") else None


def _item_error(dots: Sequence[tuple[Dot, float]], seeds: Sequence[int], key: Share) -> float:
    """The deviation of Σ sign · mean over seeds, on test sets drawn anew, the same ones for all dots."""
    if not all(dot.get("drawn") for dot, _ in dots):
        return 0.0
    total = np.zeros(())
    for dot, sign in dots:
        drawn = np.stack([dot["drawn"][_seeds(dot).index(seed)] for seed in seeds]).mean(axis=0)  # (2, draws)
        total = total + sign * (drawn.mean(axis=0) if key == "balance" else drawn[("kept", "new").index(key)])
    return float(total.std())


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
