"""Strengths searched within a budget of time, and what to choose of what was found, in words with the evidence."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from forgetlab.frontier import Dot, best_within, pareto
from forgetlab.remedies import METHODS, with_strength

Pair = tuple[str, int]  # (methods, seed)
End = tuple[float, float] | None  # (share kept of the old, share learned of the new); None: diverged
Ask = Callable[[Sequence[Pair], float], Mapping[Pair, End]]

COARSE = (0.1, 10.0)  # strengths beside the usual one
ROUNDS = 3  # of strengths between the best one and its neighbours
FINALISTS = 4  # by merit, and two more by the balance of both shares
SHARES = {"usual": 0.5, "coarse": 0.5, "refined": 0.75, "seeds": 1.0}  # of the budget, when each phase ends
HARDLY = 0.1  # a share learned below this is next to nothing


class Search:
    """Looks for each remedy's best strength, at the first seed; then the best ones run at all seeds.

    methods: a bare name has its strength searched, one with settings is taken as it is. keep: the share of the old
    that is to stay. ask(pairs, share): computes (methods, seed) pairs in this order until that share of the budget
    is spent; what it leaves out is missing. Which pairs come next depends on nothing but what was found.
    """

    def __init__(self, methods: Sequence[str], seeds: Sequence[int], keep: float, ask: Ask) -> None:
        self.methods = ["none", *(m for m in dict.fromkeys(methods) if m != "none")]
        self.seeds, self.keep, self._ask = seeds, keep, ask
        self.found: dict[Pair, End] = {}
        self.left_out: dict[str, list[str]] = {}  # phase → methods
        self._strengths = {name: [1.0] for name in self.methods}

    def run(self) -> list[str]:
        """Searches; returns the methods that count, the best strength of each remedy, best first."""
        first = self.seeds[0]
        self._look("usual", [(self._spec(name, 1.0), first) for name in self.methods])
        self._try("coarse", dict.fromkeys(self.ranked(), COARSE))
        for _ in range(ROUNDS):
            self._try("refined", {name: self._neighbours(name) for name in self.ranked()})
        for spec in self.finalists():
            self._look("seeds", [(spec, seed) for seed in self.seeds[1:]])
        return [spec for spec in map(self.best, self.ranked()) if spec]

    def best(self, name: str) -> str | None:
        """The best strength of a remedy that was found, as methods; None where nothing was."""
        tried = {self._spec(name, x): x for x in self._strengths[name]}
        return max((spec for spec in tried if (spec, self.seeds[0]) in self.found), key=self._merit, default=None)

    def ranked(self) -> list[str]:
        """The remedies of which a run was found, best first."""
        known = [(spec, name) for name in self.methods if (spec := self.best(name))]
        return [name for _, name in sorted(known, key=lambda pair: self._merit(pair[0]), reverse=True)]

    def finalists(self) -> list[str]:
        """Plain fine-tuning, the best few by merit, and the best two by the balance of both shares."""
        order = [spec for spec in map(self.best, self.ranked()) if spec and self.found[spec, self.seeds[0]]]
        balance = {spec: sum(self.found[spec, self.seeds[0]] or ()) for spec in order}
        by_balance = sorted(order, key=balance.__getitem__, reverse=True)
        top = order[:FINALISTS]
        return list(dict.fromkeys([*top[:1], "none", *top[1:], *by_balance[:2]]))

    def told(self) -> list[str]:
        """What was left out for lack of time, in words."""
        what = {
            "usual": "not tried at all",
            "coarse": "not at strengths far from the usual one",
            "refined": "not at every strength near the best one",
            "seeds": "not at every seed",
        }
        return [
            f"left out for lack of time: {', '.join(dict.fromkeys(names))} ({what[phase]})"
            for phase, names in self.left_out.items()
        ]

    def _try(self, phase: str, strengths: Mapping[str, Sequence[float]]) -> None:
        pairs = []
        for name, values in strengths.items():
            for x in values:
                spec = self._spec(name, x)
                if spec not in {self._spec(name, y) for y in self._strengths[name]}:  # no end, met again
                    self._strengths[name].append(x)
                    pairs.append((spec, self.seeds[0]))
        self._look(phase, pairs)

    def _look(self, phase: str, pairs: Sequence[Pair]) -> None:
        wanted = [pair for pair in pairs if pair not in self.found]
        self.found.update(self._ask(wanted, SHARES[phase]) if wanted else {})
        if missing := [spec.partition(":")[0] for spec, seed in wanted if (spec, seed) not in self.found]:
            self.left_out.setdefault(phase, []).extend(missing)

    def _neighbours(self, name: str) -> list[float]:
        """Half-way (in the logarithm) from the best strength to those next to it; beyond an end, ten times on."""
        known = sorted(x for x in self._strengths[name] if (self._spec(name, x), self.seeds[0]) in self.found)
        best = self.best(name)
        at = next(i for i, x in enumerate(known) if self._spec(name, x) == best)
        below = math.sqrt(known[at - 1] * known[at]) if at else known[at] / 10
        above = math.sqrt(known[at] * known[at + 1]) if at + 1 < len(known) else known[at] * 10
        return [below, above]

    def _spec(self, name: str, strength: float) -> str:
        return with_strength(name, strength) if name in METHODS else name

    def _merit(self, spec: str) -> tuple[float, float, float]:
        """Of what keeps enough, what learns most; of the rest, what keeps most; last what diverged."""
        if (end := self.found[spec, self.seeds[0]]) is None:
            return (-1, 0, 0)
        kept, learned = end
        return (1, learned, kept) if kept >= self.keep else (0, kept, learned)


def recommend(dots: Sequence[Dot], keep: float, *, watched: bool = True, searched: bool = False) -> list[str]:
    """What to choose among the dots of `frontier.dots`, each line a sentence or two.

    keep: the share of the old scores that is to stay, 0 to 1. watched: whether any old task was. searched: whether
    the strengths were chosen on the first seed. Two differ where their means are more than the larger of their two
    standard deviations apart.
    """
    if not watched:
        return ["Nothing was watched: there is no telling what is forgotten. Name something with --watch."]
    sound = [dot for dot in dots if dot["kept"]]
    if not sound:
        return ["Every run diverged: try a lower --lr."]
    if (gain := max(_mean(dot, "new") for dot in sound)) < HARDLY:
        return [f"Nothing learns the new task here ({gain:.2f} of it at most): try more --steps or another --lr first."]
    most = max(len(dot["kept"]) for dot in sound)
    repeated = [dot for dot in sound if len(dot["kept"]) == most]
    plain = next((dot for dot in sound if dot["spec"] == "none"), None)
    best = pick(sound, keep)
    assert best is not None
    aim = f"≥ {_percent(keep)} of the old scores"
    if _mean(best, "kept") < keep:
        lines = [f"Nothing that was tried keeps {aim}: {best['spec']} comes nearest ({evidence(best)})."]
        close = [dot for dot in repeated if dot is not best and not _apart(best, dot, "kept")]
    else:
        lines = [f"To keep {aim}: {best['spec']} ({evidence(best)})."]
        rivals = [dot for dot in repeated if dot is not best and _mean(dot, "kept") >= keep]
        close = [dot for dot in rivals if not _apart(best, dot, "new")]
        if _mean(best, "new") < HARDLY:
            lines[0] += " That is next to nothing: whatever learns more keeps less."
        if (spread := _spread(best, "kept")) and _mean(best, "kept") - spread < keep:
            lines[0] += f" Its spread reaches below {_percent(keep)}."
    close = sorted(close, key=lambda dot: -_mean(dot, "new")) if most > 1 else []
    if close:
        names = "; ".join(f"{dot['spec']} ({evidence(dot)})" for dot in close[:3])
        lines.append(f"Within the spread of that, so that the choice between them may be luck: {names}.")
    lines += _others(sound, best, plain)
    if plain and (verdict := _against_plain(best, plain, keep)):
        lines.append(verdict)
    if most == 1:
        lines.append("One seed only: a difference may be luck; --seeds 3 tells.")
    elif searched:
        lines.append("The strengths were chosen on seed 0 alone, so that its scores flatter them a little.")
    return lines


def pick(dots: Sequence[Dot], keep: float) -> Dot | None:
    """Of the dots that keep enough, the one that learns most; where there is none, the one that keeps most.

    One seed may be lucky: such a dot is picked only where none that ran at all seeds keeps enough.
    """
    sound = [dot for dot in dots if dot["kept"]]
    most = max((len(dot["kept"]) for dot in sound), default=0)
    enough = best_within([dot for dot in sound if len(dot["kept"]) == most], 1 - keep) or best_within(sound, 1 - keep)
    return enough or max(sound, key=lambda dot: (_mean(dot, "kept"), _mean(dot, "new")), default=None)


def evidence(dot: Dot) -> str:
    """A dot in words, such as "keeps 98 ±1 %, learns 0.96 ±0.01 of the new task; 3 seeds"."""
    kept, new = f"{100 * _mean(dot, 'kept'):.0f}", f"{_mean(dot, 'new'):.2f}"
    seeds = "one seed"
    if (n := len(dot["kept"])) > 1:
        kept, new = f"{kept} ±{100 * _spread(dot, 'kept'):.0f}", f"{new} ±{_spread(dot, 'new'):.2f}"
        seeds = f"{n} seeds"
    lost = f", {dot['diverged']} more diverged" if dot["diverged"] else ""
    return f"keeps {kept} %, learns {new} of the new task; {seeds}{lost}"


def _others(sound: Sequence[Dot], best: Dot, plain: Dot | None) -> list[str]:
    """The other ends of the front: what learns most, and plain fine-tuning to compare with."""
    front = [sound[i] for i in pareto([(_mean(dot, "kept"), _mean(dot, "new")) for dot in sound])]
    lines = []
    balanced = max(front, key=lambda dot: _mean(dot, "kept") + _mean(dot, "new"))
    most = max(front, key=lambda dot: _mean(dot, "new"))
    if balanced is not best and _mean(balanced, "new") > _mean(best, "new"):
        lines.append(f"The best balance of both: {balanced['spec']} ({evidence(balanced)}).")
    if most is not best and most is not balanced and most is not plain:
        lines.append(f"To learn the most: {most['spec']} ({evidence(most)}).")
    if plain and plain is not best and plain is not balanced:
        lines.append(f"Plain fine-tuning: {evidence(plain)}.")
    return lines


def _against_plain(best: Dot, plain: Dot, keep: float) -> str | None:
    """Said where no remedy beats plain fine-tuning."""
    if _mean(plain, "kept") >= keep:
        if best is plain or not _apart(best, plain, "new"):
            return (
                "No remedy is needed for that: plain fine-tuning keeps as much, and none learns more beyond the spread."
            )
    elif _mean(best, "kept") < keep and (best is plain or not _apart(best, plain, "kept")):
        return "No remedy beats plain fine-tuning here: none keeps more beyond the spread."
    return None


def _apart(a: Dot, b: Dot, key: str) -> bool:
    return abs(_mean(a, key) - _mean(b, key)) > max(_spread(a, key), _spread(b, key))


def _mean(dot: Dot, key: str) -> float:
    return statistics.fmean(dot[key])


def _spread(dot: Dot, key: str) -> float:
    return statistics.stdev(dot[key]) if len(dot[key]) > 1 else 0.0


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
