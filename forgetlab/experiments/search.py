"""Strengths searched within a budget of time: which runs come next, and which ones count."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from forgetlab.experiments.recipe import called
from forgetlab.remedies.by_name import METHODS, with_strength

Pair = tuple[str, int]  # (methods, seed)
End = tuple[float, float] | None  # (share kept of the old, share learned of the new); None: diverged
Ask = Callable[[Sequence[Pair], float], Mapping[Pair, End]]

COARSE = (0.1, 10.0)  # strengths beside the usual one
ROUNDS = 3  # of strengths between the best one and its neighbours
FINALISTS = 4  # by merit, and two more by the balance of both shares
PHASES = {  # each with the share of the budget when it ends, and what it means to be left out of it
    "usual": (1.0, "not tried at all"),
    "coarse": (0.5, "not at strengths far from the usual one"),
    "refined": (0.75, "not at every strength near the best one"),
    "seeds": (1.0, "not at every seed"),
}


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

    def first_tries(self) -> dict[str, Pair]:
        """The run that each method begins with: at its usual strength, at the first seed."""
        return {name: (self._spec(name, 1.0), self.seeds[0]) for name in self.methods}

    def run(self) -> list[str]:
        """Searches; returns the methods that count, the best strength of each remedy, best first."""
        self._look("usual", list(self.first_tries().values()))
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
        return [
            f"left out for lack of time: {', '.join(dict.fromkeys(names))} ({PHASES[phase][1]})"
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
        self.found.update(self._ask(wanted, PHASES[phase][0]) if wanted else {})
        if missing := [called(spec.partition(":")[0]) for spec, seed in wanted if (spec, seed) not in self.found]:
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
