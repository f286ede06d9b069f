"""Exercises on replay: a memory filled in one pass, the share of a batch that is old, and shares of small batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from numbers import Integral
from random import Random
from typing import Any
from weakref import WeakSet

import numpy as np
from torch import Tensor

from forgetlab.teaching.exercises.checking import Verdict, diagnose

FINE = "fine"
LENGTH, MEMORY, PLAYS, NEAR = 12, 3, 8000, 0.02  # the standard error of a share is 0.005
LONG, HANDS = 60, 4  # a stream to count in; examples in hand besides the memory: the one that comes, the one that goes


def check_reservoir(function: Callable[[Iterator[int], int, Random], Sequence[int]]) -> Verdict:
    """Judge a learner's memory by playing it many times: each example must have the same chance to stay.

    function: (stream, memory, random) → the examples that are kept; the stream can be read once.
    """
    praise = (
        f"In {PLAYS} plays each of the {LENGTH} examples stayed in about {MEMORY / LENGTH:.0%} of them, the first "
        "as the last, and the length of the stream was never needed."
    )
    return _judge(function, _memory_fault, MEMORY_FAULTS, praise)


MEMORY_FAULTS = {
    "The memory has the wrong size: it keeps `memory` examples, or all of them while there are fewer.": "size",
    "The whole stream is stored first, and the memory drawn from it afterwards. A stream may never end: at no time may "
    "more than `memory` examples and the newcomer be held.": "stored",
    "An example sits in the memory twice, or never was in the stream. A newcomer takes the *place* of an old one.": (
        "twice"
    ),
    "The first examples stay for ever, the rest of the stream leaves no trace. A later one must have its chance.": (
        "first"
    ),
    "Only the last examples are there: every newcomer gets in, so the early past is forgotten. That is the very "
    "fault that replay is to mend. A newcomer gets in by chance only.": "last",
    "The chance to get in is the same for every newcomer. It must fall: the longer the stream already is, the smaller "
    "a newcomer's fair share. When n examples have been seen, this one included, its share is memory / n.": "constant",
    "A newcomer gets in with 1 / n. That is right for a memory of one place; with more places the chance is "
    "memory / n.": "one place",
    "The count is one too low: a newcomer's own arrival counts too. With `enumerate` from 0, example i is the "
    "(i + 1)-th.": "low",
    "The count is one too high: newcomers get in a little too rarely. With `enumerate` from 0, example i is the "
    "(i + 1)-th; from 1 it is the i-th.": "high",
    "Newcomers get in with the right chance, but not everyone in the memory is equally likely to make room. The place "
    "that is given up is drawn at random too.": "place",
    "The late examples stay more often than the early ones: newcomers get in too easily.": "late",
    "The early examples stay more often than the late ones: newcomers get in too rarely.": "early",
}


def check_mix(function: Callable[[list[str], list[str], float, int, Random], Sequence[str]]) -> Verdict:
    """Judge a learner's replay batch.

    function: (new, old, ratio, size, random) → `size` examples, the share `ratio` of them old, none twice.
    """
    praise = "The batch keeps its size, the ratio is a share of the whole batch, and no example comes twice in it."
    return _judge(function, _mix_fault, MIX_FAULTS, praise)


MIX_FAULTS = {
    "The old examples come on top of a full batch: each step then costs more, and a comparison with the naive run is "
    "no longer fair. They take the place of new ones.": "on top",
    "The batch has the wrong size: new and old together make `size` examples.": "size",
    "The ratio is taken of the new examples. It is the old share of the *whole* batch: 0.25 of 20 is 5 old, 15 new.": (
        "of the new"
    ),
    "The shares are swapped: the ratio says how much is *old*.": "swapped",
    "The share of old examples is not ratio × size.": "share",
    "There are examples in the batch that are neither in `new` nor in `old`.": "foreign",
    "An example comes twice in a batch: it was drawn *with* replacement. From a small memory that wastes places; draw "
    "without replacement (`random.sample`).": "twice",
    "Every batch holds the same examples. Draw anew for each batch, with the `random` that is given.": "same",
}


def check_turns(function: Callable[[int, float, int], Sequence[int]]) -> Verdict:
    """Judge a learner's old examples a batch, where ratio × size is not whole.

    function: (size, ratio, steps) → one whole number a step; after every step the total is less than one off.
    """
    praise = "After every step the total is within one example of ratio × examples seen, however small the batches."
    if not callable(function):
        return diagnose(function, [], turns, {}, praise)

    def settled(size: int, ratio: float, steps: int) -> Any:
        # which way a half is rounded is the learner's choice
        found = function(size, ratio, steps)
        if isinstance(found, np.ndarray | Tensor) and found.ndim == 1:
            found = found.tolist()
        if isinstance(found, Sequence) and len(found) == steps and all(isinstance(x, Integral) for x in found):
            wanted = (ratio * size * (i + 1) for i in range(steps))
            if all(abs(total - share) < 1 for total, share in zip(accumulate(found), wanted, strict=True)):
                return turns(size, ratio, steps)
        return found

    return diagnose(settled, TURNS, turns, TURN_FAULTS, praise)


def turns(size: int, ratio: float, steps: int) -> list[int]:
    """Old examples in each batch, so that the share holds over the run."""
    totals = [math.floor(ratio * size * (i + 1) + 1e-9) for i in range(steps)]
    return [b - a for a, b in zip([0, *totals], totals, strict=False)]


TURNS: list[tuple[int, float, int]] = [(4, 0.1, 20), (10, 0.25, 8), (8, 0.2, 5), (32, 0.5, 3), (8, 0.0, 4)]
TURN_FAULTS: dict[str, Callable[[int, float, int], Any]] = {
    "Each step is rounded for itself, and what is lost by rounding is lost for good: with batches of 4 and a ratio of "
    "0.1 nothing old is ever seen. Carry the rest over to the next step.": lambda size, ratio, steps: (
        [round(size * ratio)] * steps
    ),
    "Each step is cut down to a whole number, and the rest is thrown away. Carry it over to the next step.": (
        lambda size, ratio, steps: [int(size * ratio)] * steps
    ),
    "Each step is rounded up: the past gets more than its share. Look at the total so far, not at one step.": (
        lambda size, ratio, steps: [math.ceil(size * ratio)] * steps
    ),
    "There is no part of an example: the numbers must be whole. Batches can take turns.": lambda size, ratio, steps: (
        [size * ratio] * steps
    ),
    "Those are the totals up to each step. Asked for is what *each* batch holds: a total less the one before.": (
        lambda size, ratio, steps: list(accumulate(turns(size, ratio, steps)))
    ),
    "Those are the new examples. Asked for are the old ones.": lambda size, ratio, steps: (
        [size - old for old in turns(size, ratio, steps)]
    ),
}


def _judge(
    function: Callable[..., Any], fault: Callable[[Callable[..., Any]], Any], faults: dict[str, str], praise: str
) -> Verdict:
    """Have `fault` try a function: FINE, one of the names in `faults`, or None where the function gives nothing."""
    if not callable(function):
        return diagnose(function, [], fault, {}, praise)
    mistakes = {words: (lambda name=name: name) for words, name in faults.items()}
    return diagnose(lambda: fault(function), [()], lambda: FINE, mistakes, praise)


def _memory_fault(keep: Callable[..., Any]) -> str | None:
    short = keep(iter(range(MEMORY - 1)), MEMORY, Random(0))
    if short is None or short is Ellipsis:
        return None
    if sorted(short) != list(range(MEMORY - 1)):
        return "size"
    random, times = Random(1), np.zeros(LENGTH)
    for _ in range(PLAYS):
        kept = list(keep(iter(range(LENGTH)), MEMORY, random))
        if len(kept) != MEMORY:
            return "size"
        if len(set(kept) & set(range(LENGTH))) != MEMORY:
            return "twice"
        times[kept] += 1
    shares = times / PLAYS
    for name, wanted in _known_shares(shares[-1]).items():
        if np.abs(shares - wanted).max() < NEAR:
            return "stored" if name == FINE and _most_held(keep) > MEMORY + HANDS else name
    if abs(shares[-1] - MEMORY / LENGTH) < NEAR:
        return "place"
    return "late" if shares[-1] > MEMORY / LENGTH else "early"


class _Example:
    """Something whose life can be watched."""


def _most_held(keep: Callable[..., Any]) -> int:
    """How many examples of a long stream are alive at once, seen whenever the next one is asked for."""
    alive: WeakSet[_Example] = WeakSet()
    most = 0

    def stream() -> Iterator[_Example]:
        nonlocal most
        for _ in range(LONG):
            example = _Example()
            alive.add(example)
            yield example
            del example
            most = max(most, len(alive))

    keep(stream(), MEMORY, Random(2))
    return most


def _known_shares(last: float) -> dict[str, Any]:
    """How often each example stays, by what a learner may have written; last: how often the last one does."""
    chances: dict[str, Callable[[int], float]] = {
        FINE: lambda i: MEMORY / (i + 1),
        "low": lambda i: MEMORY / i,
        "high": lambda i: MEMORY / (i + 2),
        "one place": lambda i: 1 / (i + 1),
        "constant": lambda i: last,
    }
    found: dict[str, Any] = {"first": np.arange(LENGTH) < MEMORY, "last": np.arange(LENGTH) >= LENGTH - MEMORY}
    for name, chance in chances.items():
        enters = np.array([1.0 if i < MEMORY else chance(i) for i in range(LENGTH)])
        # it stays if none of the later ones, who take a random place, takes its place
        found[name] = [enters[i] * np.prod(1 - enters[max(i + 1, MEMORY) :] / MEMORY) for i in range(LENGTH)]
    return {name: np.asarray(shares, dtype=float) for name, shares in found.items()}


def _mix_fault(mix: Callable[..., Any]) -> str | None:
    for size, ratio in ((20, 0.25), (30, 0.4)):
        new, old = [f"new {i}" for i in range(200)], [f"old {i}" for i in range(40)]
        batches = []
        for seed in range(20):
            batch = mix(list(new), list(old), ratio, size, Random(seed))
            if batch is None or batch is Ellipsis:
                return None
            batches.append(list(batch))
        wanted = round(ratio * size)
        for batch in batches:
            count = sum(example in old for example in batch)
            if len(batch) != size:
                return "on top" if (len(batch), count) == (size + wanted, wanted) else "size"
            if not set(batch) <= {*new, *old}:
                return "foreign"
            if count != wanted:
                of_new = size * ratio / (1 + ratio)
                return "swapped" if count == size - wanted else "of the new" if abs(count - of_new) <= 0.5 else "share"
        if any(len(set(batch)) < size for batch in batches):
            return "twice"
        for side in (new, old):
            if len({frozenset(batch) & frozenset(side) for batch in batches}) == 1:
                return "same"
    return FINE
